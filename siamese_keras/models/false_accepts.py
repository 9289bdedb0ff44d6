"""False accepts by threshold: how many different validation pairs lie within a distance.

A threshold that is fitted on as many same as different pairs accepts too much where nearly all
pairs are different, as in a search. The table gives the threshold for a false accept rate.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv

from siamese_keras.errors import ArgumentError, DataError, ModelError
from siamese_keras.files import read_columns, write_columns

FILE = "false_accepts.csv"
LISTED_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
# A rate must rest on at least this many false accepts.
_LEAST_ACCEPTED = 10
_MOST_IMAGES = 5000  # of which there are 12 million pairs
_BLOCK = 500
# Numbers of accepted pairs that the table holds: all up to 50, then 2 % apart.
_STEP = 1.02


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """A threshold with its false accept rate on validation pairs.

    Attributes:
        threshold: Distance.
        rate: Share of the different pairs that lie within it.
        rate_ci95: Its 95 % interval for new images like these (Clopper & Pearson 1934). Pairs
            share images, so it is computed from the number of independent pairs that would vary
            as much.
        different_pairs: Number of different pairs that it was counted on.
    """

    threshold: float
    rate: float
    rate_ci95: tuple[float, float]
    different_pairs: int


@dataclasses.dataclass(frozen=True)
class FalseAccepts:
    """How many different pairs of validation images lie within a distance.

    Attributes:
        accepted: Numbers of pairs, rising; the last one is that of all different pairs.
        distance: The distance within which so many lie, for each of them.
        effective_pairs: The number of independent pairs whose rate would vary as much, for each of
            them.

    Raises:
        ArgumentError: When there is no pair, lengths differ or an order is wrong.
    """

    accepted: tuple[int, ...]
    distance: tuple[float, ...]
    effective_pairs: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.accepted), len(self.distance), len(self.effective_pairs)}
        if len(lengths) != 1 or lengths == {0}:
            raise ArgumentError("The columns must be equally long, and not empty.")
        if self.accepted[0] < 1 or min(np.diff(self.accepted), default=1) < 1:
            raise ArgumentError("`accepted` must be rising numbers from 1.")
        if not np.isfinite(self.distance).all() or min(np.diff(self.distance), default=1) <= 0:
            raise ArgumentError("`distance` must be finite and rising.")
        if not all(0 < pairs <= self.accepted[-1] for pairs in self.effective_pairs):
            raise ArgumentError("`effective_pairs` must be positive, and at most all pairs.")

    @property
    def different_pairs(self) -> int:
        """The number of different pairs."""
        return self.accepted[-1]

    def at(self, far: float) -> OperatingPoint:
        """Return the largest threshold of the table that accepts a share of at most `far`.

        Args:
            far: False accept rate, in (0, 1).

        Raises:
            ArgumentError: When `far` is out of range.
            ModelError: When there are fewer than 10 / `far` different pairs, or too many of them at
                one distance.
        """
        if not (isinstance(far, numbers.Real) and 0 < far < 1):
            raise ArgumentError(f"`far` must be greater than 0 and less than 1. Received: {far}")
        pairs = self.different_pairs
        needed = int(np.ceil(round(_LEAST_ACCEPTED / far, 6)))
        if pairs < needed:
            raise ModelError(
                f"`far` of {far:g} needs at least {needed:,} different validation pairs. "
                f"Received: {pairs:,} pairs, which allow {_LEAST_ACCEPTED / pairs:.2g} or more"
            )
        place = int(np.searchsorted(self.accepted, far * pairs * (1 + 1e-12), side="right")) - 1
        if place < 0:
            raise ModelError(
                f"`far` of {far:g} cannot be reached: {self.accepted[0]:,} of {pairs:,} different "
                f"validation pairs are within the smallest distance, {self.distance[0]:g}"
            )
        rate, n = self.accepted[place] / pairs, self.effective_pairs[place]
        k = rate * n
        low, high = betaincinv([k, k + 1], [n - k + 1, n - k], [0.025, 0.975])
        return OperatingPoint(self.distance[place], rate, (float(low), float(high)), pairs)

    def summary(self) -> dict[str, Any]:
        """Return the thresholds for rates of 1e-1 to 1e-4, for `model.json`.

        Returns:
            `different_pairs` and `thresholds`: `far` with `threshold`, `rate` and `rate_ci95`, or
            with None where there are too few pairs.
        """
        rows: list[dict[str, Any]] = []
        found: tuple[Any, ...]
        for far in LISTED_RATES:
            try:
                at = self.at(far)
                found = (at.threshold, at.rate, list(at.rate_ci95))
            except ModelError:
                found = (None, None, None)
            names = ("threshold", "rate", "rate_ci95")
            rows.append({"far": far, **dict(zip(names, found, strict=True))})
        return {"different_pairs": self.different_pairs, "thresholds": rows}


def count_false_accepts(embeddings: np.ndarray, labels: np.ndarray) -> FalseAccepts:
    """Count the different pairs within a distance, among all pairs of images.

    Of more than 5,000 images, 5,000 evenly spaced ones are used.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`, of at least two classes.

    Raises:
        ArgumentError: When all images are of one class, or a distance is not finite.
    """
    if len(labels) > _MOST_IMAGES:
        chosen = np.linspace(0, len(labels) - 1, _MOST_IMAGES).astype(int)
        embeddings, labels = embeddings[chosen], labels[chosen]
    blocks = list(_distances_by_image(embeddings.astype(np.float64), labels))
    distances = np.concatenate([row[later] for row, later in blocks]) if blocks else np.empty(0)
    if not len(distances):
        raise ArgumentError("`labels` must hold at least two classes.")
    distances.sort()
    counts = [1.0]
    while counts[-1] < len(distances):
        counts.append(max(counts[-1] + 1, counts[-1] * _STEP))
    wanted = [len(distances) * rate for rate in LISTED_RATES]
    ranks = np.unique(np.clip(np.floor([*counts, *wanted]), 1, len(distances)).astype(int))
    distance = np.unique(distances[ranks - 1])
    accepted = np.searchsorted(distances, distance, side="right")
    effective = _effective_pairs(blocks, distance, accepted)
    return FalseAccepts(*(tuple(column.tolist()) for column in (accepted, distance, effective)))


def _distances_by_image(
    x: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each image the distances of its different pairs, and which are with later ones."""
    squares = np.square(x).sum(axis=1)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = squares[rows, np.newaxis] + squares - 2 * x[rows] @ x.T
        block = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
        for i, row in enumerate(block, start):
            different = np.flatnonzero(labels != labels[i])
            yield row[different], different > i


def _effective_pairs(
    images: Sequence[tuple[np.ndarray, np.ndarray]], distance: np.ndarray, accepted: np.ndarray
) -> np.ndarray:
    """Return how many independent pairs would tell as much about the rate: float64 `[k]`.

    The variance of the number accepted is the sum, over pairs of pairs that share an image, of the
    products of their deviations: of each image, the square of its own sum, less the pairs with
    themselves, which every image of theirs counts.
    """
    pairs = accepted[-1]
    rate = accepted / pairs
    binomial = accepted * (1 - rate)
    sums = np.zeros(len(distance))
    for row, _ in images:
        own = np.searchsorted(np.sort(row), distance, side="right")
        sums += np.square(own - rate * len(row))
    variance = np.maximum(sums - binomial, binomial)
    variance[-1] = binomial[-1] = 1.0  # all are accepted, with any images
    return np.minimum(pairs * binomial / variance, pairs)


def write_false_accepts(folder: Path, table: FalseAccepts | None) -> None:
    """Write `false_accepts.csv` into `folder`; without a table remove the file that was there."""
    if table is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_columns(folder / FILE, dataclasses.asdict(table))


def read_false_accepts(folder: Path) -> FalseAccepts | None:
    """Read what `write_false_accepts` wrote; None when the file is missing.

    Raises:
        DataError: When the file is damaged.
    """
    if not (columns := read_columns(folder / FILE)):
        return None
    try:
        accepted = tuple(map(int, columns["accepted"]))
        others = (tuple(columns[name]) for name in ("distance", "effective_pairs"))
        return FalseAccepts(accepted, *others)
    except (KeyError, ValueError, OverflowError) as error:
        raise DataError(f"`{folder / FILE}` is damaged: {error!r}") from None
