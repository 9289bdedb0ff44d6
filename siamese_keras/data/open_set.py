"""The open-set protocol: classes that are not in the training data.

People ask a Siamese network about classes that it has never seen. To know how well it answers,
whole classes are held out: test classes for the report, and validation classes for threshold,
calibration and every choice. Which ones depends on the names of the classes alone: the SHA-256 of a
name is its place in the drawing, so that a class that is added leaves most others where they were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from siamese_keras.data.cut import (
    content_order,
    default_validation_size,
    own_test_images,
    own_validation_images,
)
from siamese_keras.data.splits import Dataset, Source, Split
from siamese_keras.errors import ArgumentError, DataError

DEFAULT_SHARE = "20%"
MIN_CLASSES = 20  # outside the test classes, of which some may then be validation classes
_MIN_VALIDATION_CLASSES = 5


def choose_classes(
    unseen_classes: Sequence[str], class_names: Sequence[str], labels: np.ndarray
) -> set[int]:
    """Return the classes that a setting `unseen_classes` names.

    Args:
        unseen_classes: Names or numbers of classes, or a share of all classes, such as `"20%"`.
        class_names: Names by label.
        labels: int `[n]`, the classes of all images.

    Returns:
        Labels.

    Raises:
        ArgumentError: When a class is unknown or a share is not between 0 % and 100 %.
    """
    if (
        len(unseen_classes) == 1
        and (share := class_share(unseen_classes[0], class_names)) is not None
    ):
        present = np.unique(labels).tolist()
        return set(_drawing_order(present, class_names)[: round(share * len(present))])
    folded = [name.casefold() for name in class_names]
    chosen = set()
    for item in unseen_classes:
        # Names come first, since one may be a number; and the exact one, since case may matter.
        if item.strip() in class_names:
            chosen.add(class_names.index(item.strip()))
        elif folded.count(item.strip().casefold()) == 1:
            chosen.add(folded.index(item.strip().casefold()))
        elif item.strip().isdecimal() and int(item) < len(class_names):
            chosen.add(int(item))
        else:
            shown = ", ".join([*class_names[:20], "..."][: len(class_names)])
            raise ArgumentError(
                f"`unseen_classes` must be among {shown}, their numbers from 0, or a share of all "
                f"classes such as {DEFAULT_SHARE}. Received: {item!r}"
            )
    return chosen


def class_share(item: str, class_names: Sequence[str]) -> float | None:
    """Return the share of the classes that `item` asks for, such as `20%`; None for a class."""
    if item in class_names or not re.fullmatch(r"\s*\d+(\.\d*)?\s*%\s*", item):
        return None
    percent = float(item.strip().rstrip("%"))
    if not 0 < percent < 100:
        raise ArgumentError(
            f"`unseen_classes` must be more than 0% and less than 100%. Received: {item!r}"
        )
    return percent / 100


def _drawing_order(labels: Collection[int], class_names: Sequence[str]) -> list[int]:
    def place(label: int) -> bytes:
        return hashlib.sha256(class_names[label].encode("utf-8", "surrogateescape")).digest()

    return sorted(labels, key=place)


def hold_out_classes(
    dataset: Dataset, unseen_classes: Sequence[str]
) -> tuple[Dataset, Split | None]:
    """Separate the classes to train on from those that the model is not to see.

    Args:
        dataset: All classes.
        unseen_classes: The classes to hold out, as `choose_classes` has them; none is allowed.

    Returns:
        The dataset without these classes, and the test images of these classes, or None when none
        are held out. Labels and `class_names` stay as they were. A dataset that is split
        by class already is returned as it is.

    Raises:
        ArgumentError: When a class is unknown, fewer than two classes are on either side, or the
            classes are cut already in another way.
    """
    if not unseen_classes:
        return dataset, None
    if dataset.queries is not None and not dataset.is_open_set:
        raise ArgumentError(
            "`unseen_classes` must be empty where query and gallery images are of the classes that "
            f"are trained on. Received: {', '.join(unseen_classes)}"
        )
    unseen = choose_classes(unseen_classes, dataset.class_names, dataset.train.labels)
    if dataset.is_open_set:
        named = class_share(unseen_classes[0], dataset.class_names) is None
        if named and not unseen <= set(dataset.test.labels.tolist()):
            raise ArgumentError(
                "`unseen_classes` must be among the dataset's test classes: it is split by class "
                f"already. Received: {', '.join(unseen_classes)}"
            )
        return dataset, None
    held_out = sorted(unseen)
    if len(unseen) < 2 or len(set(np.unique(dataset.train.labels)) - unseen) < 2:
        raise ArgumentError(
            "`unseen_classes` must hold out at least two classes and leave at least two. "
            f"Received: {', '.join(unseen_classes)}"
        )
    seen: dict[str, Any] = {
        part: split.take(~np.isin(split.labels, held_out)) for part, split in dataset.splits.items()
    }
    is_held_out = np.isin(dataset.test.labels, held_out)
    return dataclasses.replace(dataset, **seen), dataset.test.take(is_held_out)


def cut_classes(
    images: Split,
    class_names: Sequence[str],
    unseen_classes: Sequence[str],
    *,
    name: str,
    validation_size: int,
) -> Dataset | None:
    """Cut images by class: all images of a class are in one split.

    Classes that have an identical image are in one split as well. A class may have one image: it
    then takes part in different pairs, and in searches as an image not to be found.

    Args:
        images: All images.
        class_names: Names by label.
        unseen_classes: The test classes, as `choose_classes` has them.
        name: Name of the dataset.
        validation_size: Images of validation classes to hold out, at least; classes are taken until
            there are as many, and at least five classes. 0 takes a default number.

    Returns:
        The dataset, each split in the order of its images' content; None when fewer than 20 classes
        are left, too few to take validation classes from them.

    Raises:
        ArgumentError: As `choose_classes`, or when `validation_size` does not fit.
        DataError: When a split has no same or no different pair.
    """
    chosen = choose_classes(unseen_classes, class_names, images.labels)
    present = np.unique(images.labels)
    if len(present) - len(chosen) < MIN_CLASSES:
        return None
    groups = _linked_classes(images, class_names)
    if class_share(unseen_classes[0], class_names) is None:
        test = {c for group in groups if chosen.intersection(group) for c in group}
    else:
        test = _take(groups, len(chosen))
    order = content_order(images)
    in_test = np.isin(images.labels[order], sorted(test))
    left = [group for group in groups if not test.intersection(group)]
    train, validation = _cut_validation(images, order[~in_test], left, validation_size)
    held_out = images.take(order[in_test])
    return _checked(Dataset(train, validation, held_out, tuple(class_names), name=name))


def cut_validation_classes(
    source: Source, test: Split, *, name: str, validation_size: int
) -> Dataset:
    """Cut validation classes off the training classes of a source with test classes of its own.

    Args:
        source: The training images; its own validation images are taken where it has any.
        test: Test images of other classes.
        name: Name of the dataset.
        validation_size: As in `cut_classes`.

    Raises:
        ArgumentError: When `validation_size` does not fit.
        DataError: When a split has no same or no different pair.
    """
    train, order = source.train, content_order(source.train)
    test, queries = own_test_images(source, test)
    if source.validation is not None:
        train = train.take(order)
        validation = own_validation_images(source.validation, validation_size)
    else:
        groups = _linked_classes(train, source.class_names)
        train, validation = _cut_validation(train, order, groups, validation_size)
    return _checked(
        Dataset(train, validation, test, source.class_names, name=name, queries=queries)
    )


def _linked_classes(images: Split, class_names: Sequence[str]) -> list[list[int]]:
    """Group classes that have an identical image; groups and classes are in the drawing order."""
    order = content_order(images)
    digests, labels = images.digests[order], images.labels[order]
    same = digests[1:] == digests[:-1]
    rows, columns = labels[:-1][same], labels[1:][same]
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (size, size))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for label in _drawing_order(np.unique(labels).tolist(), class_names):
        groups.setdefault(int(group_of[label]), []).append(label)
    return list(groups.values())


def _take(groups: Collection[list[int]], number: int) -> set[int]:
    """Return the classes of the first groups that fit into `number` classes."""
    taken: set[int] = set()
    for group in groups:
        if len(taken) + len(group) <= number:
            taken.update(group)
    return taken


def _cut_validation(
    images: Split, order: np.ndarray, groups: Collection[list[int]], size: int
) -> tuple[Split, Split]:
    """Cut the images at the indices `order`, all images of some groups of classes.

    Returns:
        Train and validation images: about `size` of whole classes, five classes or more.
    """
    count, number = sum(map(len, groups)), len(order)
    size = size or default_validation_size(number)
    if not 2 <= size <= number // 2:
        raise ArgumentError(
            f"`validation_size` must be between 2 and {number // 2} for {number} images "
            f"of {count} classes. Received: validation_size={size}"
        )
    wanted = max(round(size * count / number), _MIN_VALIDATION_CLASSES)
    chosen = np.isin(images.labels[order], sorted(_take(groups, min(wanted, count // 2))))
    return images.take(order[~chosen]), images.take(order[chosen])


def _checked(dataset: Dataset) -> Dataset:
    """Return the dataset, or raise when a split has no same or no different pair."""
    for part, split in dataset.splits.items():
        _, count = np.unique(split.labels, return_counts=True)
        if len(count) < 2 or count.max() < 2:
            raise DataError(
                f"The {part} split must have at least two classes, one of them with two images. "
                f"Received: {len(count)} classes, the largest with {count.max(initial=0)} images"
            )
    return dataset
