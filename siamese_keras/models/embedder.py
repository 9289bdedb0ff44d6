"""The base model as a function of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from siamese_keras.data.inputs import Batch
from siamese_keras.errors import ModelError

_PIXELS = 500 * 32 * 32


def batch_size_of(shape: Sequence[int]) -> int:
    """Return how many images, or features of them, to embed at a time.

    Args:
        shape: Of one image, `(height, width, channels)`, or of its features.

    Returns:
        500; fewer of images of more than 32 x 32 pixels, whose activations would take gigabytes.
    """
    pixels = math.prod(shape[:2]) if len(shape) == 3 else 1
    return min(500, max(_PIXELS // pixels, 8))


class KerasEmbedder:
    """Embeds images with a Keras base model.

    Args:
        base: The base model.

    Attributes:
        image_shape: Height, width and channels of its images.
        batch_size: Images that it embeds at a time.
    """

    def __init__(self, base: keras.Model) -> None:
        self._base = base
        self.image_shape: tuple[int, int, int] | None = tuple(base.input_shape[1:])
        self.batch_size = batch_size_of(base.input_shape[1:])

    def embed(self, images: Batch) -> np.ndarray:
        """Return the embeddings of uint8 images `image_shape`, float32 `[n, embedding_dim]`."""
        if len(images) == self.batch_size:
            embeddings = self._base.predict_on_batch(images)
        else:  # compiling for another batch size takes longer than it saves
            embeddings = self._base(images, training=False)
        return np.asarray(embeddings).astype(np.float32, copy=False)  # of float16 as well

    def compare(self, left: Batch, right: Batch) -> dict[str, np.ndarray]:
        """Refuse: only an exported model holds a calibration of its own."""
        raise ModelError("The model has no calibration: its training has not ended.")
