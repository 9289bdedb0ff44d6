"""Exact search among embeddings: matrix products of blocks, then the distances of what is near.

A product in float32 ranks distant embeddings correctly. Those that it cannot distinguish from the
last one wanted are kept and compared by exact distance, so the answers equal those of a plain loop.
"""

from __future__ import annotations

import numpy as np

from siamese_keras.errors import DataError

_GALLERY_BLOCK = 16_384
_PAIR_BLOCK = 2_048
_CELLS = 4_194_304  # distances that are held at once, 16 MB
_MOST_PAIRS = 1_000_000


def nearest(queries: np.ndarray, gallery: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the embeddings of a gallery that are nearest to each query.

    Args:
        queries: float32 `[q, embedding_dim]`.
        gallery: float32 `[n, embedding_dim]`.
        top: How many to find, at least 1; `k` of the result is at most `n`.

    Returns:
        Indices into the gallery, int64 `[q, k]`, the nearest first, and their Euclidean distances,
        float32 `[q, k]`. At equal distances the lower index comes first.
    """
    top = min(top, len(gallery))
    indices = np.empty((len(queries), top), np.int64)
    distances = np.empty((len(queries), top), np.float32)
    squares = np.square(gallery).sum(axis=1)
    rows = max(1, _CELLS // (_GALLERY_BLOCK + top))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        for i, near in enumerate(_candidates(block, gallery, squares, top), start):
            exact = np.linalg.norm(gallery[near] - queries[i], axis=1)
            order = np.argsort(exact, kind="stable")[:top]
            indices[i], distances[i] = near[order], exact[order]
    return indices, distances


def _candidates(
    queries: np.ndarray, gallery: np.ndarray, squares: np.ndarray, top: int
) -> list[np.ndarray]:
    """Return for each query indices, in order, among which its `top` nearest are."""
    slack = _slack(queries, squares)
    best = np.full((len(queries), top), np.inf, np.float32)
    found: list[tuple[np.ndarray, ...]] = []
    number = 0
    for start in range(0, len(gallery), _GALLERY_BLOCK):
        block = slice(start, start + _GALLERY_BLOCK)
        squared = squares[block] - 2 * queries @ gallery[block].T  # less the query's own square
        best = np.partition(np.concatenate([best, squared], axis=1), top - 1, axis=1)[:, :top]
        limit = best.max(axis=1) + slack
        row, column = np.nonzero(squared <= limit[:, np.newaxis])
        found.append((row, column + start, squared[row, column]))
        number += len(row)
        if number > _CELLS and len(queries) > 1:  # many are equally near
            half = len(queries) // 2
            parts = (queries[:half], queries[half:])
            return [near for part in parts for near in _candidates(part, gallery, squares, top)]
    row, column, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = value <= limit[row]
    row, column = row[kept], column[kept]
    order = np.lexsort((column, row))
    ends = np.cumsum(np.bincount(row, minlength=len(queries)))[:-1]
    return np.split(column[order], ends)


def _slack(queries: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return by how much two squared distances in float32 may be off, twice: float32 `[q]`."""
    size = np.square(queries).sum(axis=1) + squares.max(initial=0)
    return 4 * np.finfo(np.float32).eps * queries.shape[1] * size


def rounding(embeddings: np.ndarray) -> float:
    """Return how far apart embeddings of one image may be.

    A batch of one image is multiplied by other code than a larger one: up to 2e-6 was seen.
    """
    return 4e-6 * float(np.sqrt(np.square(embeddings).sum(axis=1).max(initial=0)))


def near_pairs(
    embeddings: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of embeddings within a distance.

    Args:
        embeddings: float32 `[n, embedding_dim]`.
        threshold: Largest distance, at least 0, which finds copies.

    Returns:
        Indices of the left and right ones, int64 `[pairs]`, left < right, and their Euclidean
        distances, float32 `[pairs]`, the smallest first.

    Raises:
        DataError: When there are more than a million pairs.
    """
    squares = np.square(embeddings).sum(axis=1)
    most = threshold + rounding(embeddings)
    limit = most**2 + float(_slack(embeddings, squares).max(initial=0))
    limit = min(limit, float(np.finfo(np.float32).max))
    found: list[tuple[np.ndarray, ...]] = [(np.empty(0, int), np.empty(0, int), np.empty(0, "f4"))]
    number = 0
    for start in range(0, len(embeddings), _PAIR_BLOCK):
        rows = slice(start, start + _PAIR_BLOCK)
        for other in range(start, len(embeddings), _PAIR_BLOCK):
            columns = slice(other, other + _PAIR_BLOCK)
            product = embeddings[rows] @ embeddings[columns].T
            squared = squares[rows, np.newaxis] + squares[columns] - 2 * product
            left, right = np.nonzero(squared <= limit)
            left, right = left + start, right + other
            left, right = left[left < right], right[left < right]
            distance = _distances(embeddings, left, right)
            within = distance <= most
            found.append((left[within], right[within], distance[within]))
            number += int(within.sum())
            if number > _MOST_PAIRS:
                raise DataError(
                    f"More than {_MOST_PAIRS:,} pairs are within a distance of {threshold:g}: "
                    "set a smaller threshold."
                )
    left, right, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((right, left, distance))
    return left[order], right[order], distance[order]


def _distances(embeddings: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the distances of pairs, float32 `[pairs]`, a part at a time."""
    parts = np.array_split(np.arange(len(left)), max(1, len(left) // 65_536))
    return np.concatenate(
        [np.linalg.norm(embeddings[left[p]] - embeddings[right[p]], axis=1) for p in parts]
    )
