"""Image operations inside base models, as functions that a saved model can be loaded with.

Importing this module registers them with Keras.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


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
