"""Lists of pairs: for every pair the indices of two images, and whether their classes differ.

The one home of the label: `different` is 1.0 when the two images are of different classes and
0.0 when they are of the same class, as in Hadsell, Chopra & LeCun, "Dimensionality Reduction by
Learning an Invariant Mapping" (2006).

Pairs are indices into the images, never copies of them, so memory grows with the images alone.
An image that is the only one of its class has no same partner: it takes part in different pairs.
Whatever is drawn is a function of (seed, epoch): two processes given both draw the same pairs.
"""

from __future__ import annotations

import dataclasses

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

    def __init__(self, labels: np.ndarray):
        present, self.of, self.count = np.unique(labels, return_inverse=True, return_counts=True)
        if len(present) < 2:
            raise DataError(f"`labels` must hold at least two classes. Received: {len(present)}")
        if self.count.max() < 2:
            raise DataError("Every class has only one image; a same pair needs two.")
        self.order = np.argsort(self.of, kind="stable")
        self.start = np.cumsum(self.count) - self.count
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(labels)) - np.repeat(self.start, self.count)

    def halves(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split images into those that get a same partner and those that get a different one.

        Images without another one of their class go to the second half. Where there are more of
        them, images of the first half come several times, so that the halves are equal.
        """
        has_partner = self.count[self.of[images]] > 1
        first, second = np.array_split(images[np.argsort(~has_partner, kind="stable")], 2)
        return np.resize(first[self.count[self.of[first]] > 1], len(first)), second

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


def check_labels(labels: np.ndarray) -> None:
    """Raise the errors of `random_pairs` without drawing pairs."""
    _Classes(labels)


def random_pairs(labels: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Pair every image with any other one: with ten equal classes 1 in 10 is a same pair.

    Args:
        labels: int `[n]`, the images' classes.
        rng: Source of randomness.

    Returns:
        `n` pairs; no image is paired with itself.

    Raises:
        DataError: When there are fewer than two classes or none has two images.
    """
    check_labels(labels)
    left = rng.permutation(len(labels))
    right = (left + rng.integers(1, len(labels), len(labels))) % len(labels)
    return _pairs(labels, left, right)


def balanced_pairs(labels: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Pair every image once, half of them with one of their class, half with one of another.

    Where more than half of the images are the only ones of their class, others come several times
    and some of these not at all.

    Args:
        labels: As in `random_pairs`.
        rng: As in `random_pairs`.

    Returns:
        `n` pairs; no image is paired with itself.

    Raises:
        DataError: As `random_pairs`.
    """
    classes = _Classes(labels)
    same, different = classes.halves(rng.permutation(len(labels)))
    left = np.concatenate([same, different])
    right = np.concatenate([classes.same(same, rng), classes.other(different, rng)])
    shuffle = rng.permutation(len(labels))
    return _pairs(labels, left[shuffle], right[shuffle])


def classic_pairs(labels: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Pair images as the classic exercise does.

    Each image i of a class but the last is paired with image i + 1 of its class, and with image i
    of another class, counted around where that has fewer: 19,980 pairs for the 10 x 1000 test
    images of Fashion-MNIST.

    Args:
        labels: As in `random_pairs`.
        rng: As in `random_pairs`.

    Returns:
        `2 * (n - classes)` pairs, same and different in turn.

    Raises:
        DataError: As `random_pairs`.
    """
    classes = _Classes(labels)
    count = len(classes.count)
    left = classes.order[classes.rank[classes.order] < classes.count[classes.of[classes.order]] - 1]
    left = left[np.lexsort([classes.of[left], classes.rank[left]])]
    own, rank = classes.of[left], classes.rank[left]
    other = (own + rng.integers(1, count, len(own))) % count
    same = classes.order[classes.start[own] + rank + 1]
    different = classes.order[classes.start[other] + rank % classes.count[other]]
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
    classes = _Classes(labels)
    same, different = classes.halves(rng.permutation(len(labels)))
    rival = np.searchsorted(np.unique(labels), confusable[labels[different]])
    drawn = classes.order[classes.start[rival] + rng.integers(0, classes.count[rival])]
    left = np.concatenate([same, different])
    return _pairs(labels, left, np.concatenate([classes.same(same, rng), drawn]))


def evaluation_pairs(labels: np.ndarray) -> Pairs:
    """Draw the pairs of a report: `classic_pairs`, the same ones at every call.

    Args:
        labels: As in `random_pairs`.

    Raises:
        DataError: As `random_pairs`.
    """
    return classic_pairs(labels, epoch_rng(0, 0))


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


def grouped_order(
    labels: np.ndarray, rng: np.random.Generator, images_per_class: int
) -> np.ndarray:
    """Shuffle the images so that images of one class stand in groups.

    A batch, cut from this order, has several images of each of its classes, as P x K batches do
    (Hermans, Beyer & Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017),
    and yet every image comes once. A class is split into as few groups as possible, of nearly
    equal sizes; a batch may hold two groups of a class.

    Args:
        labels: int `[n]`, the images' classes.
        rng: Source of randomness.
        images_per_class: Size of the groups K; classes with fewer images are a smaller group.

    Returns:
        int64 `[n]`, indices.
    """
    shuffled = rng.permutation(len(labels))
    _, of, count = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(of, kind="stable")
    groups = -(-count // images_per_class)
    own = of[by_class]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
    group = (np.cumsum(groups) - groups)[own] + rank * groups[own] // count[own]
    place = rng.permutation(groups.sum())[group]
    return shuffled[by_class[np.argsort(place, kind="stable")]]


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the source of randomness of an epoch."""
    return np.random.default_rng((seed, epoch))
