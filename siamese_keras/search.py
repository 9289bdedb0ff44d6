"""Search: the images of a gallery that are nearest to a query."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.inputs import as_images
from siamese_keras.errors import DataError, check_count, check_distance
from siamese_keras.gallery import embed_folder
from siamese_keras.gallery_index import Index, warn_of_changes
from siamese_keras.nearest import nearest, rounding
from siamese_keras.progress import Progress

_SPARE = 8


@dataclasses.dataclass(frozen=True)
class Match:
    """An image that a search found.

    Attributes:
        index: Its place in the gallery.
        distance: Euclidean distance to the query.
        file: Path of its file, relative to the folder when the gallery is an index; None when the
            gallery holds arrays or bytes.
    """

    index: int
    distance: float
    file: str | None = None


def search(
    embed: Callable[[Any], np.ndarray],
    query: Any,
    gallery: Any,
    *,
    top: int,
    batch_size: int,
    within: float | None = None,
    progress: Progress | None = None,
) -> list[Match] | list[list[Match]]:
    """Find the images of a gallery that are nearest to a query, as `Verifier.search`.

    Args:
        embed: Function of one or many images, `Verifier.embed`.
        query: One or many images.
        gallery: Many images, a folder, or an index of this model.
        top: How many to find at most, at least 1.
        batch_size: Files of a folder to read at once.
        within: Find only images up to this distance; None finds the nearest however far.
        progress: For a folder, called with how many images are embedded and how many there are.
    """
    check_count("top", top, least=1)
    if within is not None:
        within = check_distance("within", within)
    queries = as_images(query)
    wanted = np.atleast_2d(embed(query))
    names: Any
    folder: Path | None = None  # whose files may be the query's own
    if isinstance(gallery, Index):
        embeddings, names, folder = gallery.embeddings, gallery.names, Path(gallery.folder)
    elif isinstance(gallery, (str, os.PathLike)):
        names, embeddings = embed_folder(embed, Path(gallery), batch_size, progress)
        folder = Path()
    else:
        embeddings = np.atleast_2d(embed(gallery))
        names = [item if _is_path(item) else None for item in as_images(gallery).items]
    spare = 0 if folder is None else _SPARE
    tolerance = rounding(embeddings)
    order, distances = nearest(wanted, embeddings, top + spare)
    found = []
    for i, item in enumerate(queries.items):
        places, near = order[i], distances[i]
        kept = _others(item, places, names, folder)
        if len(kept) < min(top, len(embeddings)) and len(places) < len(embeddings):
            (places,), (near,) = nearest(wanted[i : i + 1], embeddings, len(embeddings))
            kept = _others(item, places, names, folder)
        if not kept:
            raise DataError(f"The gallery `{gallery}` has no image other than the query.")
        matches = [
            Match(int(places[k]), float(near[k]), _text(names[places[k]])) for k in kept[:top]
        ]
        found.append([m for m in matches if within is None or m.distance <= within + tolerance])
    if isinstance(gallery, Index):
        warn_of_changes(gallery, (match.index for matches in found for match in matches))
    return found[0] if queries.is_single else found


def _others(item: Any, places: np.ndarray, names: Any, folder: Path | None) -> list[int]:
    """Return which of the places are not the query's own file."""
    if folder is None or not _is_path(item):
        return list(range(len(places)))
    return [k for k, place in enumerate(places) if not _is_same_file(item, folder / names[place])]


def _is_same_file(item: Any, path: Path) -> bool:
    try:
        return path.samefile(item)
    except OSError:  # an index may name files that are gone
        return False


def _is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def _text(name: Any) -> str | None:
    return None if name is None else str(name)
