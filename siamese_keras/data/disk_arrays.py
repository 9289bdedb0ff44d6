"""Arrays of images that lie on disk stay there when they are cut and joined.

A memory-mapped array takes no memory of its own: the system keeps what is being read and drops it
when memory gets short.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from siamese_keras.files import writing_folder

STALE_SECONDS = 7 * 24 * 3600  # no reading takes a week
_ROWS = 1024  # copied at a time


def taken(array: np.ndarray, indices: np.ndarray, keep: Path | None = None) -> np.ndarray:
    """Return `array[indices]`: of an array on disk as an array on disk.

    Rows that follow one another are a part of `array`; others are copied into a file.

    Args:
        array: `[n, ...]`.
        indices: int `[k]`, or bool `[n]`.
        keep: The file, which is not written again when it is there: its name must say what it
            holds. None, or a folder that cannot be written to, makes a file that has no name and is
            gone when nothing uses it: beside the one of `array`, or among temporary files.

    Raises:
        OSError: When the disk is full.
    """
    indices = np.asarray(indices)
    if not isinstance(array, np.memmap):
        return array[indices]
    if indices.dtype == bool:
        indices = np.flatnonzero(indices)
    first = indices[0] if len(indices) else 0
    if np.array_equal(indices, np.arange(first, first + len(indices))):
        return array[first : first + len(indices)]
    chunks = (array[indices[i : i + _ROWS]] for i in range(0, len(indices), _ROWS))
    return _on_disk(chunks, len(indices), array, keep)


def joined(arrays: Sequence[np.ndarray], keep: Path | None = None) -> np.ndarray:
    """Return `np.concatenate(arrays)`: on disk where the first one is; see `taken`."""
    if len(arrays) == 1:
        return arrays[0]
    if not isinstance(arrays[0], np.memmap):
        return np.concatenate(arrays)
    chunks = (array[i : i + _ROWS] for array in arrays for i in range(0, len(array), _ROWS))
    return _on_disk(chunks, sum(map(len, arrays)), arrays[0], keep)


def mapped(path: Path) -> np.memmap | None:
    """Return the array in an .npy file, or None when there is none or it is damaged."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return array if isinstance(array, np.memmap) else None


def _on_disk(
    chunks: Iterator[np.ndarray], length: int, like: np.memmap, keep: Path | None
) -> np.ndarray:
    """Return chunks of rows as one array in a file; see `taken`."""
    shape = (length, *like.shape[1:])
    found = None if keep is None else mapped(keep)
    if found is not None and (found.shape, found.dtype) == (shape, like.dtype):
        return found
    folder = Path(str(like.filename)).parent if keep is None else keep.parent
    is_writable = os.access(folder, os.W_OK)  # a cache may be another user's
    if keep is None or not is_writable:
        with tempfile.NamedTemporaryFile(dir=folder if is_writable else None) as file:
            reserve(file.fileno(), int(np.prod(shape)) * like.dtype.itemsize)
            result = np.memmap(file, like.dtype, "r+", shape=shape)
        _fill(result, chunks)
        return result
    with writing_folder(keep.parent, stale_seconds=STALE_SECONDS) as temporary:
        result = new_array(temporary / keep.name, shape, like.dtype)
        _fill(result, chunks)
        result.flush()
        # Windows: another program has it open; or somebody has deleted the cache.
        with contextlib.suppress(PermissionError, FileNotFoundError):
            (temporary / keep.name).replace(keep)
    return result


def _fill(array: np.ndarray, chunks: Iterator[np.ndarray]) -> None:
    at = 0
    for chunk in chunks:
        array[at : at + len(chunk)] = chunk
        at += len(chunk)


def new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> np.memmap:
    """Make an .npy file for an array that is yet to be filled.

    Raises:
        OSError: When the disk is full.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        reserve(file.fileno(), path.stat().st_size)
    return array


def reserve(file: int, size: int) -> None:
    """Reserve `size` bytes for an open file, or raise `OSError`.

    Without it, a disk that fills up while a mapped array is written ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, max(size, 1))
