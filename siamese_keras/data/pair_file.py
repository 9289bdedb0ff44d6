"""Test pairs that a dataset brings along, as a CSV file: `left,right,same`."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from siamese_keras.data.decode import photo_fitter
from siamese_keras.data.pairs import Pairs
from siamese_keras.data.photo import read_photo
from siamese_keras.errors import DataError
from siamese_keras.files import check_columns, delimiter_of

_COLUMNS = ("left", "right", "same")
_SAME = {"1": True, "true": True, "0": False, "false": False}


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePairs:
    """Pairs of images that are no part of a dataset.

    Attributes:
        images: uint8 `[n, height, width, channels]`, each image once.
        pairs: The pairs, as indices into the images.
    """

    images: np.ndarray
    pairs: Pairs


def read_pair_file(path: Path, image_shape: tuple[int, int, int]) -> ImagePairs:
    """Read pairs of image files.

    Args:
        path: CSV file with the columns `left`, `right` and `same`, in any order: the paths of two
            image files, relative to the folder of the CSV file, and 1 or true when they show
            the same class, 0 or false when they do not.
        image_shape: Height, width and channels to make of every image, as in `predict`.

    Raises:
        DataError: When the file or an image cannot be read, or there are no same or no different
            pairs; the message names the line or the file.
    """
    index: dict[str, int] = {}
    left: list[int] = []
    right: list[int] = []
    different: list[bool] = []
    for line, row in _rows(path):
        for side, found in (("left", left), ("right", right)):
            found.append(index.setdefault(row[side], len(index)))
        if (same := _SAME.get(row["same"].strip().casefold())) is None:
            raise DataError(
                f"`{path}` line {line}: `same` must be 1 or 0. Received: {row['same']!r}"
            )
        different.append(not same)
    if len(set(different)) < 2:
        raise DataError(f"`{path}` must have same and different pairs. Received: {len(left)} pairs")
    read = image_reader(image_shape)
    images = [read(path.parent / name) for name in index]
    pairs = Pairs(np.array(left), np.array(right), np.array(different, np.float32))
    return ImagePairs(np.stack(images), pairs)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of the file with their numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            # A pipe cannot go back to its first line.
            lines = itertools.chain([header], file)
            reader = csv.DictReader(lines, delimiter=delimiter_of(header))
            names = reader.fieldnames = [name.casefold() for name in reader.fieldnames or ()]
            if missing := [name for name in _COLUMNS if name not in names]:
                raise DataError(
                    f"`{path}` must have the columns {', '.join(_COLUMNS)}. Missing: "
                    f"{', '.join(missing)}"
                )
            check_columns(path, names, _COLUMNS)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"`{path}` cannot be read. {error}") from None
    for line, row in rows:
        if "\0" in f"{row.get('left')}{row.get('right')}":
            raise DataError(f"`{path}` line {line}: paths must not hold the character NUL.")
        if None in row.values() or None in row:
            raise DataError(f"`{path}` line {line}: expected {len(names)} values.")
    return rows


def image_reader(shape: tuple[int, int, int]) -> Callable[[Path], np.ndarray]:
    """Return a function that reads an image file and brings it to one shape.

    Args:
        shape: Height, width and channels, as for `fit_image`.

    Returns:
        Function of a path that gives uint8 `[height, width, channels]`, and raises `DataError` with
        the path when the file cannot be read.
    """
    fit = photo_fitter(shape)

    def read(path: Path) -> np.ndarray:
        try:
            return fit(read_photo(path.read_bytes()))
        except (DataError, OSError) as error:
            raise DataError(f"`{path}` cannot be read. {error}") from None

    return read
