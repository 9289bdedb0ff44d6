"""IDX files, the format that MNIST, EMNIST and Fashion-MNIST are published in."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siamese_keras.data.splits import Split, numbered_names
from siamese_keras.errors import DataError

_log = logging.getLogger(__name__)

_IDX_NAME = re.compile(
    r"(?P<dataset>.*?)(?P<part>train|t10k|test)[-_.]?(?P<kind>image|label)s?[-_.](idx\d[-_.]?)?ubyte"
)

# IDX files in the order train images, train labels, test images, test labels, with the SHA-256
# of Fashion-MNIST's decompressed bytes: compressed files differ from one distributor to another.
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_MNIST_SHA256 = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)


def idx_path(folder: Path, name: str) -> Path | None:
    """Return the path of the IDX file `name` in `folder`, gzipped or not, or None."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def has_idx_files(folder: Path) -> bool:
    """Say whether `folder` holds all four files; they are not opened."""
    with contextlib.suppress(OSError):
        return all(idx_path(folder, name) for name in IDX_FILES)
    return False


def find_idx_files(folder: Path) -> tuple[Path, Path, Path, Path] | None:
    """Find train images, train labels, test images and test labels under any customary name.

    `train-images.idx3-ubyte` and `emnist-letters-train-images-idx3-ubyte` are such names, gzipped
    or not, and so is a folder of that name that holds the file.

    Returns:
        The four paths; None when the folder does not hold all four.

    Raises:
        DataError: When it holds those of several datasets.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(path.name.removesuffix(".gz").casefold())
        if match is None:
            continue
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if _IDX_NAME.fullmatch(p.name.casefold())]
            if not inside:
                continue
            path = inside[0]
        part = "train" if match["part"] == "train" else "test"
        found.setdefault(match["dataset"], {}).setdefault(f"{part} {match['kind']}", path)
    whole = {dataset: files for dataset, files in found.items() if len(files) == 4}
    if "" in whole:
        whole = {"": whole[""]}
    if len(whole) > 1:
        raise DataError(
            f"`{folder}` must hold the IDX files of one dataset. Received: "
            f"{', '.join(name.strip('-_.') for name in whole)}"
        )
    for files in whole.values():
        return (
            files["train image"], files["train label"], files["test image"], files["test label"]
        )  # fmt: skip
    return None


def read_idx_folder(
    folder: Path, sha256: Sequence[str | None] = (None,) * 4
) -> tuple[Split, Split, tuple[str, ...]]:
    """Read the four IDX files of `folder`.

    Args:
        folder: The folder.
        sha256: For each file the expected SHA-256 of its decompressed bytes, or None.

    Returns:
        Train and test images, `[n, height, width, 1]`, and the labels as names.

    Raises:
        DataError: When a file is missing, damaged or of a shape that does not fit.
    """
    paths = [idx_path(folder, name) for name in IDX_FILES]
    if None in paths and (other := find_idx_files(folder)) is not None:
        paths = list(other)
    for name, path in zip(IDX_FILES, paths, strict=True):
        if path is None:
            raise DataError(f"`{folder / name}` is missing.")
    files = [path for path in paths if path is not None]
    arrays = [read_idx(path, sha256=expected) for path, expected in zip(files, sha256, strict=True)]
    splits = []
    for images, labels, path in zip(arrays[::2], arrays[1::2], files[::2], strict=True):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise DataError(
                f"`{path}` must hold [n, height, width] images with as many labels. "
                f"Received: images {list(images.shape)}, labels {list(labels.shape)}"
            )
        splits.append(Split(images[..., np.newaxis], labels))
    train, test = splits
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"`{folder}` must hold train and test images of one size.")
    if "emnist" in files[0].name.casefold():
        _log.warning("EMNIST stores its images transposed; they are left that way.")
    return train, test, numbered_names(splits)


def read_idx(path: Path, *, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The format is that of LeCun, Cortes & Burges, "The MNIST database of handwritten digits": two
    zero bytes, the type (8), the number of dimensions, each dimension as big-endian uint32, data.

    Args:
        path: The file.
        sha256: Expected SHA-256 of the decompressed bytes, in hexadecimal.

    Returns:
        uint8 array of the dimensions that the file states.

    Raises:
        DataError: When the file cannot be read, is not IDX, is cut short or is not the expected
            one; the message names it.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"`{path}` cannot be read. {error}") from None
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise DataError(f"`{path}` must be an IDX file of bytes. It begins: {content[:4].hex()}")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"`{path}` is cut short: it ends within its header.")
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if len(content) != header + math.prod(shape):
        raise DataError(
            f"`{path}` must hold {math.prod(shape)} bytes for the dimensions {list(shape)} that "
            f"it states. Received: {len(content) - header} bytes"
        )
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"`{path}` is not the published file. SHA-256: {found}, not {sha256}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
