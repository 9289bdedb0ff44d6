"""Scaling to Euclidean length 1, with a finite gradient at 0.

Importing this module registers its layer with Keras.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def unit_length(x: Any) -> Any:
    """Scale the rows of `x` to Euclidean length 1; a row of zeros stays as it is.

    `keras.ops.normalize` gives the same values, but at 0, where there is no direction, a gradient
    of 1e12, after which nothing else in a batch counts. Here it is 0.

    Args:
        x: float `[batch, n]`.

    Returns:
        float `[batch, n]`.
    """
    squared = ops.sum(ops.square(x), axis=-1, keepdims=True)
    zero = ops.equal(squared, 0.0)
    return x * ops.where(zero, 0.0, ops.rsqrt(ops.where(zero, 1.0, squared)))


@keras.saving.register_keras_serializable(package="siamese_keras")
class UnitNormalization(keras.layers.UnitNormalization):
    """`keras.layers.UnitNormalization` over the last axis, as `unit_length` does it."""

    def call(self, inputs: Any) -> Any:
        """Scale the rows of `inputs` to length 1."""
        return unit_length(inputs)
