"""How images are cut into train, validation and test: by content, the same everywhere.

Images are ordered by the SHA-256 of their pixels, and the first of each class in that order are
held out. A cut therefore depends neither on a seed nor on the source of the images or their order,
and adding an image leaves most of the others where they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from siamese_keras.data.splits import Dataset, Source, Split, identical
from siamese_keras.errors import ArgumentError, DataError

# Images of a class that every split needs: one same pair.
MIN_IMAGES = 2


def cut_dataset(
    source: Source,
    *,
    name: str,
    validation_size: int,
    test_share: float,
) -> Dataset:
    """Cut validation images, and test images where there are none, off the training images.

    Each class gives a share in proportion to its size, at least two images. Identical images stay
    on one side of the cut, whatever their labels.

    Args:
        source: The images, in any order; test and validation images that it brings along are
            taken as they are.
        name: Name of the dataset.
        validation_size: Number of images to hold out for validation; 0 takes a default number.
        test_share: Share of each class to hold out for the test where there are no test images.

    Returns:
        The dataset; every split is in the order of its images' content.

    Raises:
        DataError: When a class has too few images.
        ArgumentError: When `validation_size` does not fit.
    """
    class_names, test, validation = source.class_names, source.test, source.validation
    own = [part for part in ("validation", "test") if getattr(source, part) is not None]
    order = content_order(source.train)
    digests, labels = source.train.digests, source.train.labels
    counts = np.bincount(labels, minlength=len(class_names))
    queries = None
    for part in own:
        only = np.setdiff1d(getattr(source, part).labels, labels)[:5].tolist()
        if only:
            raise DataError(
                f"The {part} images must be of classes that have training images. Only in {part}: "
                f"{', '.join(class_names[label] for label in only)}"
            )
    _check_counts(counts, class_names, splits=3 - len(own))
    if test is None:
        share = np.maximum(np.round(counts * test_share).astype(int), MIN_IMAGES)
        held_out = _first_of_each_class(
            digests[order], labels[order], np.where(counts > 0, share, 0)
        )
        test, order = source.train.take(order[held_out]), order[~held_out]
        counts = np.bincount(labels[order], minlength=len(class_names))
    else:
        test, queries = own_test_images(source, test)
    if validation is None:
        quota = _quota(counts, validation_size)
        held_out = _first_of_each_class(digests[order], labels[order], quota)
        validation, order = source.train.take(order[held_out]), order[~held_out]
    else:
        validation = own_validation_images(validation, validation_size)
    train = source.train.take(order)
    dataset = Dataset(train, validation, test, class_names, name=name, queries=queries)
    for part, split in dataset.splits.items():
        found = np.bincount(split.labels, minlength=len(counts))
        few = (counts > 0) & (found < MIN_IMAGES)
        if part in own:  # which may lack classes altogether
            few &= found > 0
        for label in np.flatnonzero(few).tolist():
            raise DataError(
                f"Class {class_names[label]!r} has {('no', 'one')[found[label]]} image in the "
                f"{part} split; a same pair needs two. Too many of its images are identical, or "
                "it has too few."
            )
    return dataset


def default_validation_size(images: int) -> int:
    """Return how many of so many training images to hold out for validation.

    A twelfth, 5,000 of Fashion-MNIST's 60,000; of fewer than 6,000 images up to 500, but no more
    than a fifth.
    """
    return max(images // 12, min(500, images // 5))


def content_order(split: Split) -> np.ndarray:
    """Return the indices that sort images by their digests, and identical ones by their labels."""
    return np.lexsort((split.labels, split.digests))


def own_test_images(source: Source, test: Split) -> tuple[Split, np.ndarray | None]:
    """Return test images in the order of their content, and which of them are queries."""
    order = content_order(test)
    return test.take(order), None if source.queries is None else source.queries[order]


def own_validation_images(validation: Split, validation_size: int) -> Split:
    """Return validation images in the order of their content; a size to cut off is refused."""
    if validation_size:
        raise ArgumentError(
            "`validation_size` must be 0 for data with validation images of its own. Received: "
            f"validation_size={validation_size}"
        )
    return validation.take(content_order(validation))


def _check_counts(counts: np.ndarray, class_names: Sequence[str], *, splits: int) -> None:
    if (present := np.count_nonzero(counts)) < 2:
        raise DataError(f"A dataset must have images of at least two classes. Received: {present}")
    needed = MIN_IMAGES * splits
    small = np.flatnonzero((counts > 0) & (counts < needed)).tolist()
    few = [f"{class_names[i]} ({counts[i]})" for i in small]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"Every class needs {needed} training images, {MIN_IMAGES} for each of {splits} "
            f"splits. Too few: {', '.join(few[:5])}{more}"
        )


def _quota(counts: np.ndarray, size: int) -> np.ndarray:
    """Return how many images of each class to hold out: `size` in all, or a default for 0."""
    present = counts > 0
    least, most = MIN_IMAGES * present.sum(), (counts[present] - MIN_IMAGES).sum()
    size = size or int(np.clip(default_validation_size(counts.sum()), least, most))
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


def _first_of_each_class(digests: np.ndarray, labels: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Return a bool mask of the first `quota[label]` images of each label.

    Identical images, which stand side by side, are taken together or not at all.
    """
    left, classes, mask = quota.tolist(), labels.tolist(), np.zeros(len(labels), bool)
    at = 0
    for group in [*identical(digests), slice(len(classes), len(classes))]:
        for i in range(at, group.start):  # images of which there is one
            if left[classes[i]]:
                left[classes[i]] -= 1
                mask[i] = True
        needed = Counter(classes[group])
        if all(left[label] >= count for label, count in needed.items()):
            mask[group] = True
            for label, count in needed.items():
                left[label] -= count
        at = group.stop
    return mask
