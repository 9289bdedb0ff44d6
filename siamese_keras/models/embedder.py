"""The base model as a function of images."""

from __future__ import annotations

import keras
import numpy as np

from siamese_keras.data.inputs import Batch
from siamese_keras.errors import ModelError


class KerasEmbedder:
    """Embeds images with a Keras base model.

    Args:
        base: The base model.

    Attributes:
        image_shape: Height, width and channels of its images.
    """

    batch_size = 500

    def __init__(self, base: keras.Model) -> None:
        self._base = base
        self.image_shape: tuple[int, int, int] | None = tuple(base.input_shape[1:])

    def embed(self, images: Batch) -> np.ndarray:
        """Return the embeddings of uint8 images `image_shape`, float32 `[n, embedding_dim]`."""
        if len(images) == self.batch_size:
            return self._base.predict_on_batch(images)
        # Compiling for another batch size takes longer than it saves.
        return np.asarray(self._base(images, training=False))

    def compare(self, left: Batch, right: Batch) -> dict[str, np.ndarray]:
        """Refuse: only an exported model holds a calibration of its own."""
        raise ModelError("The model has no calibration: its training has not ended.")
