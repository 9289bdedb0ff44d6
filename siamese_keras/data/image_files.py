"""From a list of image files with their classes to the images of a dataset."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamese_keras.config import ColorMode
from siamese_keras.data.image_cache import Pixels, load_pixels
from siamese_keras.data.inputs import warn_of_flat
from siamese_keras.data.splits import Source, Split, identical
from siamese_keras.errors import DataError

_log = logging.getLogger(__name__)

_PART = re.compile(
    r"(?:seg[ _-])?(?P<word>train|training|test|testing|val|valid|validation|query|gallery)"
    r"(?:[ _-]?(?:set|data|images))?"
)
_PART_OF_WORD = {"training": "train", "testing": "test", "val": "validation", "valid": "validation"}


class ImageFile(NamedTuple):
    """An image file of a class.

    Attributes:
        path: The file, as text: of a hundred thousand files, objects of `Path` take seconds.
        class_name: Its class.
        part: `train`, `validation`, `test`, `query` or `gallery`.
    """

    path: str
    class_name: str
    part: str = "train"


def part_of(name: str) -> str | None:
    """Return the part of a dataset that a folder or a CSV file calls `name`, or None."""
    match = _PART.fullmatch(name.strip().casefold())
    return _PART_OF_WORD.get(match["word"], match["word"]) if match else None


def load_image_files(
    files: Sequence[ImageFile],
    where: Path,
    *,
    image_size: int = 0,
    color_mode: ColorMode = "auto",
    strict: bool = False,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Read image files and bring them to one size.

    Files that cannot be read are skipped with a warning. Others name images of nearly one color,
    classes that have an image in common, and test or validation images that are also in training.

    Args:
        files: The files.
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
    pixels = load_pixels(
        [file.path for file in files],
        where,
        image_size,
        color_mode,
        cache_dir=cache_dir,
        progress=progress,
    )
    if pixels.unread:
        named = [f"`{files[i].path}`: {reason}" for i, reason in pixels.unread.items()]
        _refuse_or_warn(named, len(files), strict=strict)
    read = [file for i, file in enumerate(files) if i not in pixels.unread]
    wanted, left = ({(file.part, file.class_name) for file in some} for some in (files, read))
    for part, name in sorted(wanted - left):
        raise DataError(
            f"Class {name!r} in the {part} images of `{where}` has no image that can be read."
        )
    warn_of_flat([f"`{read[i].path}`" for i in pixels.flat])
    names_of = {
        part: tuple(sorted({f.class_name for f in read if f.part == part}))
        for part in dict.fromkeys(f.part for f in read)
    }
    _check_classes(names_of, where)
    _warn_of_copies(read, pixels.digests)
    return _source(read, pixels, tuple(sorted({f.class_name for f in read})))


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


def _check_classes(names_of: dict[str, tuple[str, ...]], where: Path) -> None:
    """Raise unless every part has the training classes, or none of them and none of the others'."""
    train = set(names_of.get("train", ()))
    if len(train) < 2:
        raise DataError(
            f"`{where}` must have training images of at least two classes. Received: "
            f"{shortened(train)}"
        )
    if unknown := set(names_of.get("query", ())) - set(names_of.get("gallery", ())):
        raise DataError(
            f"The query images of `{where}` must have classes of its gallery images. Received: "
            f"{shortened(unknown)}"
        )
    parts = {part: set(names) for part, names in names_of.items() if part != "query"}
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


def _warn_of_copies(files: Sequence[ImageFile], digests: np.ndarray) -> None:
    """Warn of images that stand in two classes, and of test images that stand in training too."""
    order = np.argsort(digests, kind="stable")
    clashes: list[str] = []
    copied: dict[str, int] = {}
    for run in identical(digests[order]):
        same = [files[i] for i in order[run]]
        other = next((f for f in same if f.class_name != same[0].class_name), None)
        if other is not None:
            clashes.append(f"`{same[0].path}` and `{other.path}`")
        if any(file.part == "train" for file in same):
            for file in same:
                if file.part != "train":
                    copied[file.part] = copied.get(file.part, 0) + 1
    if clashes:
        more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        _log.warning("The same image in two classes: %s%s", "; ".join(clashes[:3]), more)
    for part, count in copied.items():
        whole = sum(file.part == part for file in files)
        _log.warning("%d of %d %s images are also training images.", count, whole, part)


def _source(files: Sequence[ImageFile], pixels: Pixels, names: tuple[str, ...]) -> Source:
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[file.class_name] for file in files], np.int32)
    parts = np.array([file.part for file in files])
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
