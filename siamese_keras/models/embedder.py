"""The base model as a function of images and of image files."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import decode_batch
from siamese_keras.data.inputs import Batch
from siamese_keras.errors import ModelError, RequestError, plain_reason


class KerasEmbedder:
    """Embeds images and image files with a Keras base model.

    Args:
        base: The base model.
    """

    batch_size = 500

    def __init__(self, base: keras.Model) -> None:
        self._base = base
        shape = base.input_shape[1:]
        files = tf.TensorSpec([None], tf.string)
        self._decode = tf.function(lambda f: decode_batch(f, shape), input_signature=[files])

    def embed(self, images: Batch) -> np.ndarray:
        """Return the embeddings of a batch, float32 `[n, embedding_dim]`.

        Raises:
            RequestError: When a file is not a PNG or JPEG image.
        """
        if isinstance(images, list):
            try:
                images = self._decode(tf.constant(images)).numpy()
            except tf.errors.InvalidArgumentError as error:
                raise RequestError(plain_reason(error.message)) from None
        if len(images) == self.batch_size:
            return self._base.predict_on_batch(images)
        # Compiling for another batch size takes longer than it saves.
        return np.asarray(self._base(images, training=False))

    def compare(self, left: Batch, right: Batch) -> dict[str, np.ndarray]:
        """Refuse: only an exported model holds a calibration of its own."""
        raise ModelError("The model has no calibration: its training has not ended.")
