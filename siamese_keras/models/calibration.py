"""The calibration: from the distance of a pair to its similarity and the decision."""

from __future__ import annotations

import dataclasses
import math
import numbers

import numpy as np
from scipy.special import expit, logit

from siamese_keras.errors import ArgumentError, TrainingError


@dataclasses.dataclass(frozen=True)
class Calibration:
    """`similarity = sigmoid(slope * (midpoint - distance))`; same when `distance <= threshold`.

    Attributes:
        threshold: Distance at which the decision flips.
        slope: Steepness of the similarity at the midpoint, per unit of distance; positive.
        midpoint: Distance at which the similarity is 0.5; None means the threshold; they
            differ only if another threshold was chosen after the fit.

    Raises:
        ArgumentError: When a value is not a finite number or the slope is not positive.
    """

    threshold: float
    slope: float
    midpoint: float = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        if self.midpoint is None:
            object.__setattr__(self, "midpoint", self.threshold)
        for name, value in dataclasses.asdict(self).items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise ArgumentError(f"`{name}` must be a finite number. Received: {value!r}")
        if not self.slope > 0:
            raise ArgumentError(f"`slope` must be positive. Received: slope={self.slope}")

    def similarity(self, distance: np.ndarray, *, prior: float = 0.5) -> np.ndarray:
        """Return the estimated probability that each pair is of the same class.

        Args:
            distance: float `[...]`, at least 0.
            prior: Share of same pairs among the pairs that are asked about, in (0, 1).

        Returns:
            float64 of the same shape, in [0, 1]; high = alike. With a prior of 0.5 it is 0.5 at
            the midpoint.

        Raises:
            ArgumentError: When `prior` is out of range.
        """
        log_odds = self.slope * (self.midpoint - np.asarray(distance, np.float64))
        return expit(log_odds + prior_shift(prior))

    def same(self, distance: np.ndarray) -> np.ndarray:
        """Return the decision for each pair: bool of the shape of `distance`."""
        return np.asarray(distance) <= self.threshold

    def threshold_at(self, prior: float) -> float:
        """Return the distance at which the similarity at a prior is 0.5.

        Among pairs of which that share is same, deciding there makes the fewest errors.

        Args:
            prior: Share of same pairs, in (0, 1).

        Raises:
            ArgumentError: When `prior` is out of range, or so small that no distance would do.
        """
        threshold = self.midpoint + prior_shift(prior) / self.slope
        if threshold < 0:
            least = expit(-self.slope * self.midpoint)
            raise ArgumentError(
                f"`prior` must be at least {least:.2g} for this model: with less, even two images "
                f"at distance 0 are more likely different than same. Received: {prior:g}"
            )
        return threshold


def prior_shift(prior: float) -> float:
    """Return what a prior adds to the log-odds of a similarity at prior 0.5.

    Raises:
        ArgumentError: When `prior` is not in (0, 1).
    """
    if not (isinstance(prior, numbers.Real) and 0 < prior < 1):
        raise ArgumentError(f"`prior` must be greater than 0 and less than 1. Received: {prior}")
    return float(logit(prior))


def fit_calibration(different: np.ndarray, distance: np.ndarray) -> Calibration:
    """Fit threshold and slope to validation pairs by logistic regression on the distance.

    The targets are Platt's: not 0 and 1, but (n + 1) / (n + 2) of the n pairs of a kind, so that
    the slope is finite even when the distance separates the pairs without an error.

    Args:
        different: `[n]`, 1 = different classes, 0 = same class; both must occur. With equal
            numbers of both, the similarity is that at prior 0.5.
        distance: float `[n]`.

    Returns:
        The calibration of greatest likelihood.

    Raises:
        TrainingError: When larger distances do not go with different classes, or are not finite.

    Reference:
        Platt, "Probabilistic Outputs for Support Vector Machines" (1999).
    """
    from sklearn.linear_model import LogisticRegression  # a second that `predict` does not need

    distance = np.asarray(distance, np.float64)
    if not np.isfinite(distance).all():
        raise TrainingError("The distances are not finite: the training diverged.")
    unit = float(distance.std())
    if not unit > 0:
        raise TrainingError("All distances are equal: the embedding has collapsed.")
    is_different = np.asarray(different) > 0.5
    counts = np.array([(~is_different).sum(), is_different.sum()])
    right = ((counts + 1) / (counts + 2))[is_different.astype(int)]
    # A target of 0.9 is a pair of weight 0.9 with its label and one of weight 0.1 with the other.
    # Run to convergence: the default solver stops with a threshold that is right to four digits.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
        np.tile(distance / unit, 2)[:, np.newaxis],
        np.concatenate([is_different, ~is_different]),
        sample_weight=np.concatenate([right, 1 - right]),
    )
    slope, intercept = float(regression.coef_[0, 0]) / unit, float(regression.intercept_[0])
    if not slope > 0:
        raise TrainingError(
            "Different pairs are no further apart than same pairs on the validation images: "
            "there is no threshold to fit. Has the model been trained, and are the labels right?"
        )
    return Calibration(threshold=-intercept / slope, slope=slope)
