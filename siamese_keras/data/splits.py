"""A dataset and its splits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.disk_arrays import joined, taken
from siamese_keras.errors import DataError

_MAX_LABELS = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: uint8 `[n, height, width, channels]`, 0 to 255, in memory or a `np.memmap`.
        labels: int32 `[n]`, indices into the dataset's `class_names`. Other integers are converted.
        cache: Folder in which the images that are taken of these are kept; None for images that are
            in no cache.

    Raises:
        DataError: When an array has another type or shape.
    """

    images: np.ndarray
    labels: np.ndarray
    cache: Path | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        on_disk = isinstance(self.images, np.memmap)
        images = self.images if on_disk else np.asarray(self.images)
        labels = np.asarray(self.labels)
        check_images(images)
        _check_labels(labels, len(images))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"<Split: {len(self)} images of {shape}, {len(np.unique(self.labels))} classes>"

    @functools.cached_property
    def digests(self) -> np.ndarray:
        """SHA-256 of the pixels of each image, as `image_digests` gives them."""
        return image_digests(self.images)

    def with_digests(self, digests: np.ndarray) -> Split:
        """Return the split with its digests, where they are known."""
        split = dataclasses.replace(self)
        vars(split)["digests"] = digests
        return split

    def take(self, indices: np.ndarray) -> Split:
        """Return the images and labels at `indices`, a list of indices or a boolean mask.

        Images in a cache are copied into a file there, which is found again the next time.
        """
        labels = self.labels[indices]
        if self.cache is None and "digests" not in vars(self):
            return Split(taken(self.images, indices), labels)
        digests = self.digests[indices]
        images = taken(self.images, indices, _kept(self.cache, digests))
        return Split(images, labels, cache=self.cache).with_digests(digests)


def join_splits(splits: Sequence[Split]) -> Split:
    """Return the images of all splits in one, in the cache of the first one if it has one."""
    digests = np.concatenate([split.digests for split in splits])
    cache = splits[0].cache
    images = joined([split.images for split in splits], _kept(cache, digests))
    labels = np.concatenate([split.labels for split in splits])
    return Split(images, labels, cache=cache).with_digests(digests)


def _kept(cache: Path | None, digests: np.ndarray) -> Path | None:
    """Return the file in a cache for the images with these digests, in their order."""
    name = f"rows-{hashlib.sha256(digests.tobytes()).hexdigest()[:32]}.npy"
    return None if cache is None else cache / name


def numbered_names(splits: Iterable[Split]) -> tuple[str, ...]:
    """Return the labels from 0 to the highest one as names of classes.

    Raises:
        DataError: When there is no label, or one is negative or in the millions.
    """
    labels = np.concatenate([split.labels for split in splits])
    if not len(labels) or labels.min() < 0 or labels.max() >= _MAX_LABELS:
        received = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise DataError(f"`labels` must be the numbers of classes, from 0. Received: {received}")
    return tuple(map(str, range(int(labels.max()) + 1)))


def check_images(images: Any) -> None:
    """Raise unless `images` is a batch of images as this package has them.

    Raises:
        DataError: When it is not uint8 `[n, height, width, channels]`.
    """
    shape = np.shape(images)
    found = f"{getattr(images, 'dtype', type(images).__name__)} of shape {shape}"
    if getattr(images, "dtype", None) != np.uint8:
        raise DataError(
            f"Images must be uint8, 0 to 255: do not divide by 255, the model does. Received: "
            f"{found}"
        )
    if len(shape) != 4 or 0 in shape[1:]:
        hint = ": add the axis of channels, images[..., None]" if len(shape) == 3 else ""
        raise DataError(
            f"Images must have the shape [n, height, width, channels]{hint}. Received: {found}"
        )
    if shape[1] in (1, 3) and shape[3] > 4 and shape[2] > 4:
        raise DataError(
            "Images must have the channels last, [n, height, width, channels]: transpose them with "
            f"np.moveaxis(images, 1, -1). Received: {found}"
        )


def _check_labels(labels: np.ndarray, count: int) -> None:
    if labels.dtype.kind in "iu" and labels.shape == (count,):
        if count and int(labels.max()) >= 2**31:
            raise DataError(f"`labels` must be less than 2**31. Received: {labels.max()}")
        return
    hint = ""
    if labels.shape == (count, 1):
        hint = ": take labels[:, 0]"
    elif labels.ndim == 2 and len(labels) == count:
        hint = ": of one-hot labels take labels.argmax(axis=1)"
    elif labels.shape == (count,):
        hint = ": np.unique(labels, return_inverse=True) gives names and integers"
    raise DataError(
        f"`labels` must be {count} integers, one for each image{hint}. Received: {labels.dtype} of "
        f"shape {labels.shape}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What the files of a dataset hold, before it is cut into splits.

    Attributes:
        train: Training images, or all images when there are no others.
        test: Test images that the dataset brings along.
        class_names: Names by label.
        validation: Validation images that the dataset brings along.
        queries: bool, of each test image: whether it is a query, searched for among the others.
        superclasses: int, of each label its superclass, such as the alphabet of a character.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    validation: Split | None = None
    queries: np.ndarray | None = None
    superclasses: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images cut into disjoint splits.

    The splits have the same classes, or, for the open-set protocol, no class in common.

    Attributes:
        train: Training images.
        validation: Images for choices, threshold and calibration.
        test: Images for the report.
        class_names: `class_names[label]` is a label's name.
        name: Short name; a model trained on the dataset is exported under it.
        queries: bool, of each test image: whether it is a query, searched for among the others, the
            gallery. None where each image is searched for among all others.
        superclasses: int, of each label its superclass, such as the alphabet of a character; -1
            for a class without images. None where there are no superclasses.
        settings: The fields of `Config` that `load_dataset` loaded the images by, which a run
            records. None for images that come from elsewhere.

    Raises:
        DataError: When the splits have images of different shapes, a label has no name, or `name`
            cannot be that of a folder.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    name: str = "dataset"
    queries: np.ndarray | None = None
    superclasses: np.ndarray | None = None
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if self.name in ("", ".", "..") or {"/", "\\"} & set(self.name):
            raise DataError(f"`name` must be the name of a folder. Received: {self.name!r}")
        if _is_unit(self.train.images):
            raise DataError(
                "Images must be uint8, 0 to 255: do not divide by 255, the model does. Received: "
                "train images of 0 to 1"
            )
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
        if self.queries is not None and self.queries.shape != self.test.labels.shape:
            raise DataError(
                f"`queries` must be {len(self.test)} truth values, one for each test image. "
                f"Received: shape {self.queries.shape}"
            )
        if self.superclasses is not None and self.superclasses.shape != (self.num_classes,):
            raise DataError(
                f"`superclasses` must be {self.num_classes} integers, one for each class. "
                f"Received: shape {self.superclasses.shape}"
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(split)} {part}" for part, split in self.splits.items())
        shape = "x".join(map(str, self.image_shape))
        classes = f"{self.num_classes} classes" + (", split by class" if self.is_open_set else "")
        return f"<Dataset {self.name}: {sizes} images of {shape}, {classes}>"

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
    def is_open_set(self) -> bool:
        """Whether the test images are all of unseen classes."""
        return not np.isin(self.test.labels, np.unique(self.train.labels)).any()

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, labels, splits and class names, in hexadecimal.

        The order of the images within a split does not count.
        """
        total = hashlib.sha256(repr((self.class_names, self.image_shape)).encode())
        for part, split in self.splits.items():
            total.update(part.encode())
            order = np.lexsort((split.labels, split.digests))
            columns = [split.digests[order], split.labels[order].astype("<i4")]
            rows = [np.ascontiguousarray(c).view(np.uint8).reshape(len(c), -1) for c in columns]
            total.update(np.hstack(rows).tobytes())
        if self.queries is not None:
            total.update(np.sort(self.test.digests[self.queries]).tobytes())
        return total.hexdigest()


def image_digests(images: np.ndarray) -> np.ndarray:
    """Return the SHA-256 of the pixels of each image: bytes `[n]`, 32 of each."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    return np.array(digests, "S32")


def identical(digests: np.ndarray) -> Iterator[slice]:
    """Yield where two or more digests in a row are equal."""
    changes = np.flatnonzero(digests[1:] != digests[:-1]) + 1
    starts, stops = np.append(0, changes), np.append(changes, len(digests))
    several = stops - starts > 1
    yield from map(slice, starts[several].tolist(), stops[several].tolist())


def _is_unit(images: np.ndarray) -> bool:
    """Return whether the largest value is 1; as a rule, the first images show that it is not."""
    largest = 0
    for start in range(0, len(images), 1024):
        largest = max(largest, int(images[start : start + 1024].max()))
        if largest > 1:
            return False
    return largest == 1
