"""From a list of image files with their classes to the images of a dataset."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamese_keras.config import ColorMode
from siamese_keras.data.image_cache import Pixels, load_pixels
from siamese_keras.data.inputs import warn_of_flat
from siamese_keras.data.splits import Source, Split, identical
from siamese_keras.errors import DataError
from siamese_keras.progress import Progress

_log = logging.getLogger(__name__)

_PART = re.compile(
    r"(?:seg[ _-])?(?P<word>train|training|test|testing|val|valid|validation|query|gallery)"
    r"(?:[ _-]?(?:set|data|images))?"
)
_PART_OF_WORD = {"training": "train", "testing": "test", "val": "validation", "valid": "validation"}


class ClassFiles(NamedTuple):
    """Image files of a class.

    Attributes:
        paths: The files, as text: of a hundred thousand files, objects of `Path` take seconds.
        class_name: Their class.
        part: `train`, `validation`, `test`, `query` or `gallery`.
    """

    paths: Sequence[str]
    class_name: str
    part: str = "train"


def part_of(name: str) -> str | None:
    """Return the part of a dataset that a folder or a CSV file calls `name`, or None."""
    match = _PART.fullmatch(name.strip().casefold())
    return _PART_OF_WORD.get(match["word"], match["word"]) if match else None


def load_image_files(
    groups: Sequence[ClassFiles],
    where: Path,
    *,
    image_size: int = 0,
    color_mode: ColorMode = "auto",
    strict: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Read image files and bring them to one size.

    Files that cannot be read are skipped with a warning. Other warnings name images of nearly one
    color, classes that have an image in common, and test images that are also in training.

    Args:
        groups: The files; there may be several groups of a class.
        where: Where they were found, for messages.
        image_size: Height and width to resize them to; 0 takes `default_image_size`.
        color_mode: `rgb`, `grayscale`, or `auto`: grayscale if all images are gray.
        strict: Refuse files that cannot be read.
        cache_dir: Folder to keep the pixels in; None keeps them in memory.
        progress: Called with how many files are read and how many there are.

    Returns:
        Images, uint8 `[n, image_size, image_size, channels]`, and the names of the classes in
        alphabetical order.

    Raises:
        DataError: When a class has no image that can be read, there are fewer than two classes, the
            parts' classes do not fit, or `strict` and a file cannot be read.
    """
    groups = _without_unread_parts(groups, where)
    paths = list(itertools.chain.from_iterable(group.paths for group in groups))
    group_of = np.repeat(np.arange(len(groups)), [len(group.paths) for group in groups])
    # In an order that does not depend on the classes, which may change where the files do not.
    if paths != sorted(paths):
        order = sorted(range(len(paths)), key=paths.__getitem__)
        paths, group_of = [paths[i] for i in order], group_of[order]
    pixels = load_pixels(
        paths,
        where,
        image_size,
        color_mode,
        cache_dir=cache_dir,
        progress=progress,
    )
    if pixels.unread:
        named = [f"`{paths[i]}`: {reason}" for i, reason in pixels.unread.items()]
        _refuse_or_warn(named, len(paths), strict=strict)
        group_of = np.delete(group_of, list(pixels.unread))
        paths = [path for i, path in enumerate(paths) if i not in pixels.unread]
    left = {(groups[i].part, groups[i].class_name) for i in np.unique(group_of)}
    for part, name in sorted({(group.part, group.class_name) for group in groups} - left):
        raise DataError(
            f"Class {name!r} in the {part} images of `{where}` has no image that can be read."
        )
    warn_of_flat([f"`{paths[i]}`" for i in pixels.flat])
    names_of = {
        part: {name for its_part, name in left if its_part == part}
        for part in dict.fromkeys(group.part for group in groups)
    }
    _check_classes(names_of, where)
    _warn_of_copies(groups, group_of, paths, pixels.digests)
    return _source(groups, group_of, pixels)


def _without_unread_parts(groups: Sequence[ClassFiles], where: Path) -> Sequence[ClassFiles]:
    """Return the groups without the test images where there are queries and a gallery."""
    if not {"query", "gallery"} <= {group.part for group in groups}:
        return groups
    if left := sum(len(group.paths) for group in groups if group.part == "test"):
        _log.warning("Skipping %d test images: `%s` has query and gallery images", left, where)
    return [group for group in groups if group.part != "test"]


def printable(name: str) -> str:
    """Return a file's name as text that can be written: bytes that are not UTF-8 in hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def shortened(names: Collection[str], most: int = 10) -> str:
    """Return names as a list in alphabetical order, the first ones of many."""
    return ", ".join([*sorted(names)[:most], "..."][: len(names)]) or "none"


def _refuse_or_warn(named: Sequence[str], count: int, *, strict: bool) -> None:
    most = 50 if strict else 3
    more = f"; and {len(named) - most} more" if len(named) > most else ""
    listed = "; ".join(named[:most]) + more
    if strict:
        raise DataError(f"{len(named)} of {count} images cannot be read. {listed}")
    _log.warning("Skipping %d of %d images: %s", len(named), count, listed)


def _check_classes(names_of: dict[str, set[str]], where: Path) -> None:
    """Raise unless every part has the training classes, or none of them and none of the others'."""
    train = names_of.get("train", set())
    if len(train) < 2:
        raise DataError(
            f"`{where}` must have training images of at least two classes. Received: "
            f"{shortened(train)}"
        )
    if unknown := names_of.get("query", set()) - names_of.get("gallery", set()):
        raise DataError(
            f"The query images of `{where}` must have classes of its gallery images. Received: "
            f"{shortened(unknown)}"
        )
    parts = {part: names for part, names in names_of.items() if part != "query"}
    tested = parts.get("test", parts.get("gallery"))
    open_set = tested is not None and not train & tested
    for part, names in parts.items():
        others = set().union(*(parts[other] for other in parts if other != part))
        if names != train if not open_set else names & others:
            raise DataError(
                f"The train and {part} images of `{where}` must have the same classes, or all "
                f"parts different ones. Only in train: {shortened(train - names)}. Only in "
                f"{part}: {shortened(names - train)}"
            )


def _warn_of_copies(
    groups: Sequence[ClassFiles], group_of: np.ndarray, paths: Sequence[str], digests: np.ndarray
) -> None:
    """Warn of images that stand in two classes, and of test images that stand in training too."""
    order = np.argsort(digests, kind="stable")
    clashes: list[str] = []
    copied: dict[str, int] = {}
    for run in identical(digests[order]):
        same = order[run]
        owners = [groups[i] for i in group_of[same]]
        others = [owner.class_name != owners[0].class_name for owner in owners]
        if any(others):
            clashes.append(f"`{paths[same[0]]}` and `{paths[same[others.index(True)]]}`")
        if any(owner.part == "train" for owner in owners):
            for owner in owners:
                if owner.part not in ("train", "validation"):  # `fit` warns of the latter
                    copied[owner.part] = copied.get(owner.part, 0) + 1
    if clashes:
        more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        _log.warning("The same image in two classes: %s%s", "; ".join(clashes[:3]), more)
    for part, count in copied.items():
        whole = sum(groups[i].part == part for i in group_of)
        _log.warning("%d of %d %s images are also training images.", count, whole, part)


def _source(groups: Sequence[ClassFiles], group_of: np.ndarray, pixels: Pixels) -> Source:
    names = tuple(sorted({group.class_name for group in groups}))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[group.class_name] for group in groups], np.int32)[group_of]
    parts = np.array([group.part for group in groups])[group_of]
    everything = Split(pixels.images, labels, cache=pixels.cache).with_digests(pixels.digests)

    def split(*chosen: str) -> Split | None:
        mask = np.isin(parts, chosen)
        return everything.take(mask) if mask.any() else None

    train = split("train")
    if train is None:  # `_check_classes` has seen some
        raise AssertionError
    queries = None
    if (parts == "query").any():
        queries = parts[np.isin(parts, ["query", "gallery"])] == "query"
    return Source(train, split("test", "query", "gallery"), names, split("validation"), queries)
