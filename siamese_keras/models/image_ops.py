"""Image operations inside base models, as functions that a saved model can be loaded with.

Importing this module registers them with Keras.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="siamese_keras")
def silhouette(image: Any) -> Any:
    """Return about 1 where `image`, in [0, 1], is brighter than 5 %, and 0 elsewhere."""
    return ops.sigmoid(200.0 * (image - 0.05))


@keras.saving.register_keras_serializable(package="siamese_keras")
def edge_strengths(image: Any) -> Any:
    """Return the strength of the edges of `image` in four directions.

    Args:
        image: `[batch, height, width, channels]`.

    Returns:
        `[batch, height, width, 4 * channels]`: the absolute differences across each pixel from
        left to right, from top to bottom and along the two diagonals. The border is black.
    """
    padded = ops.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    diagonals = [(x + y) * 0.5**0.5, (x - y) * 0.5**0.5]
    return ops.abs(ops.concatenate([x, y, *diagonals], axis=-1))


@keras.saving.register_keras_serializable(package="siamese_keras")
def flip_images(images: Any) -> Any:
    """Swap left and right of images `[batch, height, width, channels]`."""
    return ops.flip(images, axis=2)


@keras.saving.register_keras_serializable(package="siamese_keras")
def shift_images(images: Any, down: int, right: int) -> Any:
    """Shift images `[batch, height, width, channels]` by whole pixels; black fills the border."""
    height, width = images.shape[1:3]
    sides = [(max(shift, 0), max(-shift, 0)) for shift in (down, right)]
    # LiteRT cannot pad uint8.
    padded = ops.pad(ops.cast(images, "float32"), ((0, 0), *sides, (0, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return ops.cast(padded[:, top : top + height, left : left + width], images.dtype)
