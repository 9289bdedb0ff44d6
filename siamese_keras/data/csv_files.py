"""Your own images in a CSV file: a list of image files with labels, or pixels."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from siamese_keras.config import ColorMode
from siamese_keras.data.image_files import ClassFiles, load_image_files, part_of, printable
from siamese_keras.data.splits import Source, Split, numbered_names
from siamese_keras.errors import ArgumentError, DataError
from siamese_keras.files import check_columns, delimiter_of
from siamese_keras.progress import Progress

_PATH, _LABEL, _SPLIT = ("path", "filename"), ("label", "class"), ("split",)
_EXPECTED = "a header with the columns path and label (and perhaps split), or label and pixels"


def load_csv(
    path: Path,
    image_size: int = 0,
    *,
    color_mode: ColorMode = "auto",
    strict: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Read a CSV file of either kind, or a folder that holds one, or one of `train` and of `test`.

    A list has the columns `path` (or `filename`), `label` (or `class`) and perhaps `split`: train,
    validation or test. Paths are relative to the folder of the CSV file. Pixels are those of square
    gray images, as Kaggle has them: a label from 0 and the pixels in each line, with or without a
    header.

    Args:
        path: The file or the folder.
        image_size: Height and width to resize the images to, as `load_image_folder`; lists only.
        color_mode: As `load_image_folder`; lists only.
        strict: Of a list, as `load_image_folder`.
        cache_dir: Of a list, as `load_image_folder`.
        progress: Of a list, as `load_image_folder`.

    Raises:
        DataError: When a file cannot be read, or a line of it, which the message names.
        ArgumentError: When files of pixels are to be color, strict or cached.
    """
    files = _files(path)
    headers = {part: _fields(file) for part, file in files.items()}
    pixels = {part: _is_pixels(fields) for part, fields in headers.items()}
    if all(pixels.values()):
        if unknown := set(files) - {"train", "validation", "test"}:
            raise DataError(
                f"CSV files of pixels must be of train, validation or test. Received: "
                f"`{files[unknown.pop()]}`"
            )
        if color_mode == "rgb" or strict or cache_dir is not None:
            setting = "color_mode" if color_mode == "rgb" else "strict" if strict else "cache_dir"
            raise ArgumentError(
                f"`{setting}` is for image files, and the CSV files of `{path}` hold gray pixels."
            )
        splits = {part: _read_pixels(file, headers[part]) for part, file in files.items()}
        test = splits.get("test")
        names = numbered_names(splits.values())
        return Source(splits["train"], test, names, splits.get("validation"))
    if any(pixels.values()):
        raise DataError(f"The CSV files of `{path}` must be all lists or all pixels.")
    listed = [row for part, file in files.items() for row in _read_list(file, part)]
    return load_image_files(
        listed, path, image_size=image_size, color_mode=color_mode, strict=strict,
        cache_dir=cache_dir, progress=progress,
    )  # fmt: skip


def _files(path: Path) -> dict[str, Path]:
    """Return the CSV files by the part of the dataset that they hold."""
    if path.is_file():
        return {"train": path}
    found = sorted(p for p in path.glob("*.[cC][sS][vV]") if not p.name.startswith("."))
    if len(found) == 1:
        return {"train": found[0]}
    parts: dict[str, Path] = {}
    for file in found:  # fashion-mnist_train.csv
        words = file.stem.replace("-", "_").split("_")
        part = next((part for part in map(part_of, words) if part), None)
        if part is None or part in parts:
            break
        parts[part] = file
    if len(parts) != len(found) or "train" not in parts:
        names = ", ".join([p.name for p in found][:10]) or "no CSV file"
        raise DataError(
            f"`{path}` must hold one CSV file, or one whose name says `train` and perhaps others "
            f"with `validation` and `test`. Received: {names}"
        )
    return parts


def _fields(path: Path) -> list[str]:
    """Return the fields of the first line, in lower case."""
    with _opened(path) as file:
        first = file.readline(1_000_000)
    delimiter = delimiter_of(first)
    fields = [field.strip().strip('"').casefold() for field in first.strip().split(delimiter)]
    if not _is_pixels(fields):
        for names in (_PATH, _LABEL):
            if not set(names) & set(fields):
                raise DataError(
                    f"`{path}` must have {_EXPECTED}. Missing: {names[0]}. It begins: "
                    f"{', '.join(fields[:5])[:80] or 'nothing'}"
                )
    return fields


def _opened(path: Path) -> TextIO:
    try:
        return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"`{path}` cannot be read. {error.strerror}") from None


def _is_pixels(fields: Sequence[str]) -> bool:
    """Say whether a line is a label with the pixels of a square image, or names of these."""
    side = math.isqrt(len(fields) - 1) if fields else 0
    is_header = fields[0] in _LABEL and not set(fields) & set(_PATH)
    is_data = all(field.isdecimal() for field in fields)
    return side > 1 and side**2 == len(fields) - 1 and (is_header or is_data)


def _read_pixels(path: Path, fields: Sequence[str]) -> Split:
    has_header = not fields[0].isdecimal()
    with _opened(path) as file:
        delimiter = delimiter_of(file.readline(1_000_000))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without data, which is reported below
            table = np.loadtxt(
                path, np.float32, delimiter=delimiter, skiprows=int(has_header), ndmin=2,
                encoding="utf-8-sig",
            )  # fmt: skip
    except ValueError as error:  # names the row
        raise DataError(f"`{path}` must hold numbers. {error}") from None
    side = math.isqrt(len(fields) - 1)
    if table.shape[1:] != (len(fields),) or not table.size:
        received = f"{table.shape[1]} values" if table.size else "only a header"
        raise DataError(
            f"`{path}` must hold images, {len(fields)} values in each line. Received: {received}"
        )
    whole = table == np.floor(table)
    if not whole.all() or table.min() < 0 or table[:, 1:].max() > 255:
        bad = int(np.argmin(whole.all(1) & (table.min(1) >= 0) & (table[:, 1:].max(1) <= 255)))
        raise DataError(
            f"`{path}` must hold labels from 0 and pixels of whole numbers from 0 to 255. Line "
            f"{bad + 1 + has_header} holds {table[bad].min():g} to {table[bad].max():g}"
        )
    images = table[:, 1:].astype(np.uint8).reshape(-1, side, side, 1)
    return Split(images, table[:, 0].astype(np.int32))


def _read_list(path: Path, part: str) -> list[ClassFiles]:
    with _opened(path) as file:
        delimiter = delimiter_of(file.readline(1_000_000))
        file.seek(0)
        try:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip().casefold() for name in next(reader)]
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise DataError(f"`{path}` cannot be read. {error}") from None
    check_columns(path, header, [*_PATH, *_LABEL, *_SPLIT])
    places = [
        next((header.index(name) for name in names if name in header), None)
        for names in (_PATH, _LABEL, _SPLIT)
    ]
    files: dict[tuple[str, str], list[str]] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"`{path}` line {line}: expected {len(header)} values. Received: {len(row)}"
            )
        name, label, split = ("" if at is None else row[at].strip() for at in places)
        if not name or not label:
            raise DataError(f"`{path}` line {line}: path and label must not be empty.")
        if "\0" in name:
            raise DataError(f"`{path}` line {line}: path must not hold the character NUL.")
        named = part_of(split) if split else part
        if named is None:
            raise DataError(
                f"`{path}` line {line}: split must be train, validation or test. Received: "
                f"{split!r}"
            )
        group = files.setdefault((printable(label), named), [])
        group.append(os.path.join(path.parent, name))  # noqa: PTH118 - a `Path` takes as long again
    if not files:
        raise DataError(f"`{path}` must list image files. Received: only a header")
    listed = [file for group in files.values() for file in group]
    if not any(map(os.path.isfile, listed)):  # which raises nothing
        raise DataError(
            f"None of the {len(listed)} files that `{path}` lists exists. Paths must be relative "
            f"to its folder. The first one: `{listed[0]}`"
        )
    return [ClassFiles(group, *key) for key, group in files.items()]
