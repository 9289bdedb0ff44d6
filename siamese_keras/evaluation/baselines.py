"""Representations that need no training: what an embedding has to beat.

Each maps uint8 `[n, height, width, channels]` to float32 `[n, length]`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping

import numpy as np


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return the pixels, scaled to [0, 1]."""
    return _flat(images / np.float32(255))


def unit_pixels(images: np.ndarray) -> np.ndarray:
    """Return the pixels, scaled to unit length."""
    return _unit(raw_pixels(images))


def unit_block_means(images: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 4 x 4 pixels, scaled to unit length."""
    return _unit(_block_means(images / np.float32(255)))


def silhouette_block_means(images: np.ndarray) -> np.ndarray:
    """Return the share of pixels brighter than 5 % in each block of 4 x 4 pixels."""
    return _block_means((images > 0.05 * 255).astype(np.float32))


BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = types.MappingProxyType(
    {f.__name__: f for f in (raw_pixels, unit_pixels, unit_block_means, silhouette_block_means)}
)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _block_means(images: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 4 x 4 pixels; the rest at the edges is dropped."""
    n, height, width, channels = images.shape
    rows, columns = max(height // 4, 1), max(width // 4, 1)
    size = (min(height, 4), min(width, 4))
    cropped = images[:, : rows * size[0], : columns * size[1]]
    return _flat(cropped.reshape(n, rows, size[0], columns, size[1], channels).mean(axis=(2, 4)))
