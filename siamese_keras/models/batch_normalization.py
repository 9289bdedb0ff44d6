"""Batch normalization of images in one operation.

Importing this module registers its layer with Keras.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="siamese_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster in training.

    Keras computes the statistics and the output by some ten operations, each of which reads and
    writes all values, and as many for the gradient. TensorFlow has one operation for each, which on
    a CPU computes the ReLU that follows as well. The output is the same but for rounding. The
    variance that is averaged for inference is the unbiased one, n / (n - 1) times that of Keras
    for n values of a channel.

    Whatever that operation does not know is left to Keras: a mask, other inputs than
    `[batch, height, width, channels]`, float64, renormalization and synchronized replicas.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize `inputs` by their own statistics in training, else by their averages."""
        by_keras = (
            not (training and self.trainable)
            or mask is not None
            or not (self.center and self.scale)
            or self.synchronized
            or self.renorm
            or len(inputs.shape) != 4
            or self.axis not in (-1, 3)
            or inputs.dtype == tf.float64
        )
        if by_keras:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs
