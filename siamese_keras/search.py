"""Search: the images of a gallery that are nearest to a query."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.image_folder import find_image_files
from siamese_keras.data.inputs import as_images
from siamese_keras.errors import ArgumentError, DataError, RequestError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Match:
    """An image that a search found.

    Attributes:
        index: Its place in the gallery.
        distance: Euclidean distance to the query.
        file: Its file, or None when the gallery is an array.
    """

    index: int
    distance: float
    file: str | None = None


def search(
    embed: Callable[[Any], np.ndarray], query: Any, gallery: Any, *, top: int, batch_size: int
) -> list[Match] | list[list[Match]]:
    """Find the images of a gallery that are nearest to a query, as `Verifier.search`.

    Args:
        embed: Function of one or many images, `Verifier.embed`.
        query: One or many images.
        gallery: Many images, or a folder.
        top: How many to find at most, at least 1.
        batch_size: Files of a folder to read at once.
    """
    if top < 1:
        raise ArgumentError(f"`top` must be at least 1. Received: top={top}")
    queries = as_images(query)
    wanted = np.atleast_2d(embed(query))
    files: list[Any] = []
    is_folder = isinstance(gallery, (str, os.PathLike))
    if is_folder:
        files, embeddings = _embed_folder(embed, Path(gallery), batch_size)
    else:
        images = as_images(gallery)
        embeddings = np.atleast_2d(embed(gallery))
        if not isinstance(images.items, np.ndarray):
            files = list(images.items)
    found = []
    for item, embedding in zip(queries.items, wanted, strict=True):
        distances = np.linalg.norm(embeddings - embedding, axis=1)
        order = np.argsort(distances, kind="stable").tolist()
        if is_folder:
            order = [i for i in order if not _is_same_file(item, files[i])]
            if not order:
                raise DataError(f"The gallery `{gallery}` has no image but the query.")
        found.append([Match(i, float(distances[i]), _file_name(files, i)) for i in order[:top]])
    return found[0] if queries.is_single else found


def _embed_folder(
    embed: Callable[[Any], np.ndarray], folder: Path, batch_size: int
) -> tuple[list[Path], np.ndarray]:
    """Embed the image files of a folder, but for those that cannot be read or decoded."""
    if not folder.is_dir():
        raise DataError(f"The gallery `{folder}` is not a folder.")
    files = find_image_files(folder, lambda error: _log.warning("Skipping %s", error))
    read: list[Path] = []
    parts: list[np.ndarray] = []
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        try:
            parts.append(embed(batch))
            read += batch
        except (RequestError, OSError):  # one by one, to find out which
            for path in batch:
                try:
                    parts.append(embed([path]))
                    read.append(path)
                except (RequestError, OSError) as error:
                    _log.warning("Skipping %s", error)
    if not read:
        raise DataError(f"The gallery `{folder}` has no image that can be read: PNG or JPEG files.")
    return read, np.concatenate(parts)


def _is_same_file(item: Any, path: Path) -> bool:
    return isinstance(item, (str, os.PathLike)) and path.samefile(item)


def _file_name(files: list[Any], index: int) -> str | None:
    is_path = bool(files) and isinstance(files[index], (str, os.PathLike))
    return str(files[index]) if is_path else None
