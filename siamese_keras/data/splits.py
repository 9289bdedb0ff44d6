"""A dataset's splits, and how images are cut into them: by content, the same everywhere.

Images are ordered by the SHA-256 of their pixels, and the first of each class in that order are
held out. A cut therefore depends neither on a seed nor on the source of the images or their order,
and adding an image leaves most of the others where they were.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from siamese_keras.errors import ArgumentError, DataError

# Images of a class that every split needs: one same pair.
MIN_IMAGES = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: uint8 `[n, height, width, channels]`, 0 to 255.
        labels: int32 `[n]`, indices into the dataset's `class_names`. Other integers are converted.

    Raises:
        DataError: When an array has another type or shape.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        check_images(images)
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise DataError(
                f"`labels` must be {len(images)} integers, one for each image. Received: "
                f"{labels.dtype} of shape {labels.shape}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"<Split: {len(self)} images of {shape}, {len(np.unique(self.labels))} classes>"

    def take(self, indices: np.ndarray) -> Split:
        """Return the images and labels at `indices`, a list of indices or a boolean mask."""
        return Split(self.images[indices], self.labels[indices])


def check_images(images: Any) -> None:
    """Raise unless `images` is a batch of images as this package has them.

    Raises:
        DataError: When it is not uint8 `[n, height, width, channels]`.
    """
    found = f"{getattr(images, 'dtype', type(images).__name__)} of shape {np.shape(images)}"
    if getattr(images, "dtype", None) != np.uint8:
        raise DataError(
            f"Images must be uint8, 0 to 255: do not divide by 255, the model does. Received: "
            f"{found}"
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(
            f"Images must have the shape [n, height, width, channels]. Received: {found}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images cut into disjoint splits.

    Attributes:
        train: Training images.
        validation: Images for choices, threshold and calibration.
        test: Images for the report.
        class_names: `class_names[label]` is a label's name.
        name: Short name; a model trained on the dataset is exported under it.

    Raises:
        DataError: When the splits have images of different shapes or a label has no name.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    name: str = "dataset"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        for part, split in self.splits.items():
            if split.images.shape[1:] != self.image_shape:
                raise DataError(
                    f"All images must have one shape. Received: {part} images "
                    f"{split.images.shape[1:]}, train images {self.image_shape}"
                )
            if len(split) and not 0 <= split.labels.min() <= split.labels.max() < self.num_classes:
                raise DataError(
                    f"Labels must be 0 to {self.num_classes - 1}, indices into `class_names`. "
                    f"Received: {split.labels.min()} to {split.labels.max()} in {part}"
                )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(split)} {part}" for part, split in self.splits.items())
        shape = "x".join(map(str, self.image_shape))
        return f"<Dataset {self.name}: {sizes} images of {shape}, {self.num_classes} classes>"

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """Number of class names."""
        return len(self.class_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, labels, splits and class names, in hexadecimal.

        The order of the images within a split does not count.
        """
        total = hashlib.sha256(repr((self.class_names, self.image_shape)).encode())
        for part, split in self.splits.items():
            total.update(part.encode())
            digests = image_digests(split.images)
            for digest, label in sorted(zip(digests, split.labels.tolist(), strict=True)):
                total.update(digest + label.to_bytes(4, "little"))
        return total.hexdigest()


def image_digests(images: np.ndarray) -> list[bytes]:
    """Return the SHA-256 of the pixels of each image."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def cut_dataset(
    train: Split,
    test: Split | None,
    class_names: Sequence[str],
    *,
    name: str,
    validation_size: int,
    test_share: float,
) -> Dataset:
    """Cut validation images, and test images where there are none, off the training images.

    Each class gives a share in proportion to its size, at least two images. Identical images stay
    on one side of the cut, whatever their labels.

    Args:
        train: Training images, in any order.
        test: Test images that the dataset brings along, or None.
        class_names: Names by label.
        name: Name of the dataset.
        validation_size: Number of images to hold out for validation.
        test_share: Share of each class to hold out for the test when `test` is None.

    Returns:
        The dataset; every split is in the order of its images' content.

    Raises:
        DataError: When a class has too few images.
        ArgumentError: When `validation_size` does not fit.
    """
    own_test = test is not None
    train, digests = _in_order(train)
    counts = np.bincount(train.labels, minlength=len(class_names))
    _check_counts(counts, class_names, splits=2 if test is not None else 3)
    if test is None:
        share = np.maximum(np.round(counts * test_share).astype(int), MIN_IMAGES)
        held_out = _first_of_each_class(digests, train.labels, np.where(counts > 0, share, 0))
        test, train = train.take(held_out), train.take(~held_out)
        digests = list(itertools.compress(digests, ~held_out))
        counts = np.bincount(train.labels, minlength=len(class_names))
    else:
        test, _ = _in_order(test)
    quota = _quota(counts, validation_size)
    held_out = _first_of_each_class(digests, train.labels, quota)
    dataset = Dataset(
        train.take(~held_out), train.take(held_out), test, tuple(class_names), name=name
    )
    for part, split in dataset.splits.items():
        found = np.bincount(split.labels, minlength=len(counts))
        few = (counts > 0) & (found < MIN_IMAGES)
        if own_test and part == "test":  # which may lack classes altogether
            few &= found > 0
        for label in np.flatnonzero(few).tolist():
            raise DataError(
                f"Class {class_names[label]!r} has {('no', 'one')[found[label]]} image in the "
                f"{part} split; a same pair needs two. Too many of its images are identical, or "
                "it has too few."
            )
    return dataset


def _in_order(split: Split) -> tuple[Split, list[bytes]]:
    """Return the split in the order of its images' digests, and the digests in that order."""
    digests, labels = image_digests(split.images), split.labels.tolist()
    order = sorted(range(len(split)), key=lambda i: (digests[i], labels[i]))
    return split.take(np.array(order, np.int64)), [digests[i] for i in order]


def _check_counts(counts: np.ndarray, class_names: Sequence[str], *, splits: int) -> None:
    if (present := np.count_nonzero(counts)) < 2:
        raise DataError(f"A dataset must have images of at least two classes. Received: {present}")
    needed = MIN_IMAGES * splits
    few = [class_names[i] for i in np.flatnonzero((counts > 0) & (counts < needed)).tolist()]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"Every class needs {needed} training images, {MIN_IMAGES} for each of {splits} "
            f"splits. Too few: {', '.join(few[:5])}{more}"
        )


def _quota(counts: np.ndarray, size: int) -> np.ndarray:
    """Return how many images of each class to hold out: `size` in all, in proportion."""
    present = counts > 0
    least, most = MIN_IMAGES * present.sum(), (counts[present] - MIN_IMAGES).sum()
    if not least <= size <= most:
        raise ArgumentError(
            f"`validation_size` must be between {least} and {most} for {counts.sum()} images of "
            f"{present.sum()} classes. Received: validation_size={size}"
        )
    room = np.maximum(counts - MIN_IMAGES, 0)
    wanted = counts * (size / counts.sum())
    quota = np.clip(np.floor(wanted).astype(int), np.minimum(MIN_IMAGES, room), room)
    while quota.sum() != size:  # hand out, or take back, where it is missed the most
        step = 1 if quota.sum() < size else -1
        possible = quota < room if step == 1 else quota > MIN_IMAGES
        quota[np.argmax(np.where(possible, step * (wanted - quota), -np.inf))] += step
    return quota


def _first_of_each_class(
    digests: Sequence[bytes], labels: np.ndarray, quota: np.ndarray
) -> np.ndarray:
    """Return a bool mask of the first `quota[label]` images of each label.

    Identical images, which stand side by side, are taken together or not at all.
    """
    left, mask = quota.copy(), np.zeros(len(labels), bool)
    for group in _identical(digests):
        needed = Counter(labels[group].tolist())
        if all(left[label] >= count for label, count in needed.items()):
            mask[group] = True
            for label, count in needed.items():
                left[label] -= count
    return mask


def _identical(digests: Sequence[bytes]) -> Iterator[list[int]]:
    """Yield the indices of each run of equal digests."""
    for _, run in itertools.groupby(range(len(digests)), key=digests.__getitem__):
        yield list(run)


def hold_out_classes(
    dataset: Dataset, unseen_classes: Sequence[str]
) -> tuple[Dataset, Split | None]:
    """Separate the classes to train on from those that the model is not to see.

    Args:
        dataset: All classes.
        unseen_classes: Names or numbers of the classes to hold out; none is allowed.

    Returns:
        The dataset without these classes, and the test images of these classes, or None when none
        are held out. Labels and `class_names` stay as they were.

    Raises:
        ArgumentError: When a class is unknown, or fewer than two classes are on either side.
    """
    if not unseen_classes:
        return dataset, None
    names = [name.casefold() for name in dataset.class_names]
    unseen = set()
    for item in unseen_classes:
        if item.strip().casefold() in names:  # first, since a name may be a number
            unseen.add(names.index(item.strip().casefold()))
        elif item.strip().isdecimal() and int(item) < len(names):
            unseen.add(int(item))
        else:
            raise ArgumentError(
                f"`unseen_classes` must be among {', '.join(dataset.class_names)} or their numbers "
                f"from 0. Received: {item!r}"
            )
    held_out = sorted(unseen)
    if len(unseen) < 2 or len(set(np.unique(dataset.train.labels)) - unseen) < 2:
        raise ArgumentError(
            "`unseen_classes` must hold out at least two classes and leave at least two. "
            f"Received: {', '.join(unseen_classes)}"
        )
    seen: dict[str, Any] = {
        part: split.take(~np.isin(split.labels, held_out)) for part, split in dataset.splits.items()
    }
    test = dataset.test.take(np.isin(dataset.test.labels, held_out))
    return dataclasses.replace(dataset, **seen), test
