"""Lists of pairs: for every pair the indices of two images, and whether their classes differ.

The one home of the label: `different` is 1.0 when the two images are of different classes and
0.0 when they are of the same class, as in Hadsell, Chopra & LeCun, "Dimensionality Reduction by
Learning an Invariant Mapping" (2006).

Pairs are indices into the images, never copies of them, so memory grows with the images alone.
Whatever is drawn is a function of (seed, epoch): two processes given both draw the same pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from siamese_keras.errors import DataError

_CALIBRATION_DRAWS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """A list of pairs of images.

    Attributes:
        left: int64 `[n]`, indices of the left images.
        right: int64 `[n]`, indices of the right images.
        different: float32 `[n]`, 1.0 = different classes, 0.0 = same class.
    """

    left: np.ndarray
    right: np.ndarray
    different: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def __repr__(self) -> str:
        return f"<Pairs: {len(self)}, {int(self.different.sum())} of them different>"

    def take(self, indices: np.ndarray) -> Pairs:
        """Return the pairs at `indices`, a list of indices or a boolean mask."""
        return Pairs(self.left[indices], self.right[indices], self.different[indices])


def _pairs(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> Pairs:
    return Pairs(left, right, (labels[left] != labels[right]).astype(np.float32))


class _Classes:
    """The images of each class, for drawing partners of many images at once.

    With labels [7, 4, 7]: `order` = [1, 0, 2] lists the images class by class; class 0 (label 4)
    starts at `start[0]` = 0 and has `count[0]` = 1 image, class 1 (label 7) starts at 1 and has 2;
    image 2 is of class `of[2]` = 1 and has the place `rank[2]` = 1 in it.
    """

    def __init__(self, labels: np.ndarray, class_names: Sequence[str] | None):
        present, self.of, self.count = np.unique(labels, return_inverse=True, return_counts=True)
        if len(present) < 2:
            raise DataError(f"`labels` must hold at least two classes. Received: {len(present)}")
        if self.count.min() < 2:
            label = int(present[self.count.argmin()])
            name = class_names[label] if class_names else label
            raise DataError(f"Class {name!r} has one image; a same pair needs two.")
        self.order = np.argsort(self.of, kind="stable")
        self.start = np.cumsum(self.count) - self.count
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(labels)) - np.repeat(self.start, self.count)

    def same(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each image another one of its class, all equally likely."""
        own = self.of[images]
        step = rng.integers(1, self.count[own])
        return self.order[self.start[own] + (self.rank[images] + step) % self.count[own]]

    def other(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each image one of another class: first the class, then the image."""
        classes = len(self.count)
        other = (self.of[images] + rng.integers(1, classes, len(images))) % classes
        return self.order[self.start[other] + rng.integers(0, self.count[other])]


def check_labels(labels: np.ndarray, class_names: Sequence[str] | None = None) -> None:
    """Raise the errors of `random_pairs` without drawing pairs."""
    _Classes(labels, class_names)


def random_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair every image with any other one: with ten even classes 1 in 10 pairs is the same.

    Args:
        labels: int `[n]`, the images' classes.
        rng: Source of randomness.
        class_names: Names for error messages.

    Returns:
        `n` pairs; no image is paired with itself.

    Raises:
        DataError: When there are fewer than two classes or a class has one image.
    """
    check_labels(labels, class_names)
    left = rng.permutation(len(labels))
    right = (left + rng.integers(1, len(labels), len(labels))) % len(labels)
    return _pairs(labels, left, right)


def balanced_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair every image once, half of them with one of their class, half with one of another.

    Args:
        labels: As in `random_pairs`.
        rng: As in `random_pairs`.
        class_names: As in `random_pairs`.

    Returns:
        `n` pairs; no image is paired with itself.

    Raises:
        DataError: As `random_pairs`.
    """
    classes = _Classes(labels, class_names)
    left = rng.permutation(len(labels))
    same, different = np.array_split(left, 2)
    right = np.concatenate([classes.same(same, rng), classes.other(different, rng)])
    shuffle = rng.permutation(len(labels))
    return _pairs(labels, left[shuffle], right[shuffle])


def classic_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair images as the classic exercise does.

    With n the size of the smallest class less one, the first n images i of each class are paired
    with image i + 1 of their class, and with image i of another class: 19,980 pairs for the
    10 x 1000 test images of Fashion-MNIST.

    Args:
        labels: As in `random_pairs`.
        rng: As in `random_pairs`.
        class_names: As in `random_pairs`.

    Returns:
        `2 * n * classes` pairs, same and different in turn.

    Raises:
        DataError: As `random_pairs`.
    """
    classes = _Classes(labels, class_names)
    count = len(classes.count)
    rank, own = (a.ravel() for a in np.indices((classes.count.min() - 1, count)))
    other = (own + rng.integers(1, count, len(own))) % count
    left = classes.order[classes.start[own] + rank]
    same = classes.order[classes.start[own] + rank + 1]
    different = classes.order[classes.start[other] + rank]
    return _pairs(labels, np.repeat(left, 2), np.stack([same, different], axis=1).ravel())


def hard_pairs(labels: np.ndarray, confusable: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Like `balanced_pairs`, but different pairs come from the classes most easily confused.

    Args:
        labels: int `[n]`, the images' classes.
        confusable: int `[k]`, for class c the class that it is most easily confused with.
        rng: Source of randomness.

    Returns:
        `n` pairs, half same and half different.
    """
    classes = _Classes(labels, None)
    left = rng.permutation(len(labels))
    same, different = np.array_split(left, 2)
    rival = np.searchsorted(np.unique(labels), confusable[labels[different]])
    drawn = classes.order[classes.start[rival] + rng.integers(0, classes.count[rival])]
    return _pairs(labels, left, np.concatenate([classes.same(same, rng), drawn]))


def evaluation_pairs(labels: np.ndarray, class_names: Sequence[str] | None = None) -> Pairs:
    """Draw the pairs of a report: `classic_pairs`, the same ones at every call.

    Args:
        labels: As in `random_pairs`.
        class_names: As in `random_pairs`.

    Raises:
        DataError: As `random_pairs`.
    """
    return classic_pairs(labels, epoch_rng(0, 0), class_names)


def calibration_pairs(labels: np.ndarray) -> Pairs:
    """Draw many pairs, so that every two classes occur; the same ones at every call.

    Threshold and slope are fitted on such pairs of validation images.

    Returns:
        Half same and half different, ten times as many pairs as images.

    Raises:
        DataError: As `random_pairs`.
    """
    draws = [balanced_pairs(labels, epoch_rng(0, draw)) for draw in range(_CALIBRATION_DRAWS)]
    fields = [field.name for field in dataclasses.fields(Pairs)]
    return Pairs(*(np.concatenate([getattr(draw, name) for draw in draws]) for name in fields))


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the source of randomness of an epoch."""
    return np.random.default_rng((seed, epoch))
