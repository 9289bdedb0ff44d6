"""Arrays of images that lie on disk stay there when they are cut and joined.

A memory-mapped array takes no memory of its own: the system keeps what is being read and drops it
when memory gets short.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_ROWS = 1024  # copied at a time


def taken(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return `array[indices]`: of an array on disk as an array on disk, in a file of its own.

    The file lies beside the one of `array`, has no name and is gone when nothing uses it.

    Args:
        array: `[n, ...]`.
        indices: int `[k]`, or bool `[n]`.

    Raises:
        OSError: When the disk is full.
    """
    indices = np.asarray(indices)
    if not isinstance(array, np.memmap):
        return array[indices]
    if indices.dtype == bool:
        indices = np.flatnonzero(indices)
    if not len(indices) or np.array_equal(indices, np.arange(len(array))):
        return array[: len(indices)]
    result = _on_disk((len(indices), *array.shape[1:]), array)
    for start in range(0, len(indices), _ROWS):
        result[start : start + _ROWS] = array[indices[start : start + _ROWS]]
    return result


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return `np.concatenate(arrays)`: on disk where the first one is; see `taken`."""
    if len(arrays) == 1:
        return arrays[0]
    if not isinstance(arrays[0], np.memmap):
        return np.concatenate(arrays)
    result = _on_disk((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0])
    at = 0
    for array in arrays:
        for start in range(0, len(array), _ROWS):
            rows = array[start : start + _ROWS]
            result[at : at + len(rows)] = rows
            at += len(rows)
    return result


def reserve(file: int, size: int) -> None:
    """Reserve `size` bytes for an open file, or raise `OSError`.

    Without it, a disk that fills up while a mapped array is written ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, max(size, 1))


def _on_disk(shape: tuple[int, ...], like: np.memmap) -> np.memmap:
    with tempfile.NamedTemporaryFile(dir=Path(str(like.filename)).parent) as file:
        reserve(file.fileno(), int(np.prod(shape)) * like.dtype.itemsize)
        return np.memmap(file, like.dtype, "r+", shape=shape)
