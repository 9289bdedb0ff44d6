"""The binary classifier on top of the distance: from distance to similarity and decision."""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.linear_model import LogisticRegression


@dataclasses.dataclass(frozen=True)
class Classifier:
    """`similarity = sigmoid(scale * (threshold - distance))`, same when that is at least 0.5.

    Attributes:
        threshold: Distance at which the decision flips.
        scale: Steepness there, per unit of distance; positive.
    """

    threshold: float
    scale: float

    def similarity(self, distance: np.ndarray) -> np.ndarray:
        """Return the estimated probability that each pair is of the same class.

        Args:
            distance: float `[...]`, at least 0.

        Returns:
            float64 of the same shape, in [0, 1]; 0.5 at the threshold; high = alike.
        """
        logit = self.scale * (self.threshold - np.asarray(distance, np.float64))
        return np.where(logit >= 0, 1.0, np.exp(-np.abs(logit))) / (1.0 + np.exp(-np.abs(logit)))

    def same(self, distance: np.ndarray) -> np.ndarray:
        """Return the decision for each pair: bool of the shape of `distance`."""
        return np.asarray(distance) <= self.threshold


def fit_classifier(different: np.ndarray, distance: np.ndarray) -> Classifier:
    """Fit threshold and scale to validation pairs by logistic regression on the distance.

    Args:
        different: `[n]`, 1 = different classes, 0 = same class; both must occur.
        distance: float `[n]`.

    Returns:
        The classifier of greatest likelihood (Platt, "Probabilistic Outputs for Support Vector
        Machines", 1999).

    Raises:
        ValueError: When larger distances do not go with different classes, or are not finite.
    """
    if not np.isfinite(distance).all():
        raise ValueError("The distances are not finite: the training diverged.")
    # To the very end: the default solver stops with a threshold that is right to four digits.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
        np.asarray(distance, np.float64)[:, np.newaxis], np.asarray(different) > 0.5
    )
    scale, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    if not scale > 0:
        raise ValueError(
            "Different pairs are no further apart than same pairs on the validation images: "
            "there is no threshold to fit. Has the model been trained, and are the labels right?"
        )
    return Classifier(threshold=-intercept / scale, scale=scale)
