"""The IDX files that MNIST and Fashion-MNIST are published as."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siamese_keras.data.splits import Split
from siamese_keras.errors import DataError

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
    arrays = []
    for name, expected in zip(IDX_FILES, sha256, strict=True):
        path = idx_path(folder, name)
        if path is None:
            raise DataError(f"`{folder / name}` is missing.")
        arrays.append(read_idx(path, sha256=expected))
    splits = []
    for images, labels, name in zip(arrays[::2], arrays[1::2], IDX_FILES[::2], strict=True):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise DataError(
                f"`{folder / name}` must hold [n, height, width] images with as many labels. "
                f"Received: images {list(images.shape)}, labels {list(labels.shape)}"
            )
        splits.append(Split(images[..., np.newaxis], labels))
    train, test = splits
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"`{folder}` must hold train and test images of one size.")
    classes = 1 + max(int(train.labels.max()), int(test.labels.max()))
    return train, test, tuple(map(str, range(classes)))


def read_idx(path: Path, *, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped when its name ends in `.gz`.

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
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
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
