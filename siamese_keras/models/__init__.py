"""Base model, outer model, distances and the calibration of a distance."""
