"""Folders of images as embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.image_folder import find_image_files
from siamese_keras.errors import DataError, RequestError
from siamese_keras.progress import Progress

_log = logging.getLogger(__name__)

_THREADS = 2
_REFUSED = (DataError, RequestError, OSError)

Embed = Callable[[Any], np.ndarray]


def _log_skipped(path: Path, error: Exception) -> None:
    _log.warning("Skipping %s", error)


def embed_files(
    embed: Embed,
    files: Sequence[Path],
    batch_size: int,
    progress: Progress | None = None,
    on_error: Callable[[Path, Exception], None] = _log_skipped,
) -> tuple[list[int], np.ndarray]:
    """Embed image files, except those that cannot be read or decoded.

    Args:
        embed: Function of many images, `Verifier.embed`.
        files: The files.
        batch_size: Files to read at once.
        progress: Called with how many are done and how many there are.
        on_error: Called with each file that cannot be read or decoded, and why; logs it by default.

    Returns:
        The places of the embedded files in `files`, and their embeddings, float32
        `[n, embedding_dim]`; `[0, 0]` when there are none.
    """
    read: list[int] = []
    parts: list[np.ndarray] = []
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    # Decoding takes most of the time, on one core; more threads would need memory for more photos.
    pool = ThreadPoolExecutor(_THREADS)
    try:
        start = 0
        for batch, embedded in zip(batches, pool.map(_attempt(embed), batches), strict=True):
            if embedded is not None:
                parts.append(embedded)
                read += range(start, start + len(batch))
            else:
                for i, path in enumerate(batch, start):  # one by one, to find out which
                    try:
                        parts.append(embed([path]))
                        read.append(i)
                    except _REFUSED as error:
                        on_error(path, error)
            start += len(batch)
            if progress is not None:
                progress(start, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    return read, np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _attempt(embed: Embed) -> Callable[[Sequence[Path]], np.ndarray | None]:
    """Return a function that embeds a batch of files, or gives None when one is refused."""

    def attempt(batch: Sequence[Path]) -> np.ndarray | None:
        try:
            return embed(list(batch))
        except _REFUSED:
            return None

    return attempt


def embed_folder(
    embed: Embed, folder: Path, batch_size: int, progress: Progress | None = None
) -> tuple[list[Path], np.ndarray]:
    """Embed the image files of a folder, as `embed_files`.

    Returns:
        The files and their embeddings.

    Raises:
        DataError: When it is not a folder or has no image that can be read.
    """
    files = gallery_files(folder)
    read, embeddings = embed_files(embed, files, batch_size, progress)
    check_not_empty(folder, read)
    return [files[i] for i in read], embeddings


def gallery_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, in order.

    Raises:
        DataError: When it is not a folder.
    """
    if not folder.is_dir():
        raise DataError(f"The gallery `{folder}` is not a folder.")
    return find_image_files(folder, lambda error: _log.warning("Skipping %s", error))


def check_not_empty(folder: Path, found: Sequence[Any]) -> None:
    """Raise `DataError` when no image of a folder could be read."""
    if not len(found):
        raise DataError(f"The gallery `{folder}` has no image that can be read.")
