"""Distances of embeddings, as functions that a saved model can be loaded with.

Importing this module registers them with Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from siamese_keras.errors import ArgumentError


def _safe_sqrt(squared: Any) -> Any:
    """Take the square root of numbers of at least 0, with gradient 0 and not infinity at 0."""
    zero = ops.equal(squared, 0.0)
    # The inner `where` keeps the gradient of the branch not taken finite as well. NaN stays NaN.
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squared)))


@keras.saving.register_keras_serializable(package="siamese_keras")
def euclidean_distance(embeddings: Sequence[Any]) -> Any:
    """Compute the Euclidean distance of each left embedding to the right one of the same row.

    Args:
        embeddings: Two tensors of one shape, `[batch, embedding_dim]`.

    Returns:
        float32 `[batch]`. 0 for equal embeddings, where the gradient is 0.

    Raises:
        ArgumentError: When the shapes differ.
    """
    left, right = (ops.cast(ops.convert_to_tensor(x), "float32") for x in embeddings)
    if tuple(left.shape) != tuple(right.shape):
        raise ArgumentError(
            "The two embeddings must have the same shape. Received: "
            f"{tuple(left.shape)} and {tuple(right.shape)}"
        )
    return _safe_sqrt(ops.sum(ops.square(left - right), axis=-1))


@keras.saving.register_keras_serializable(package="siamese_keras")
def pairwise_euclidean_distance(embeddings: Sequence[Any]) -> Any:
    """Compute the Euclidean distance of every left embedding to every right one.

    Args:
        embeddings: Two tensors, `[n, embedding_dim]` and `[m, embedding_dim]`.

    Returns:
        float32 `[n, m]`, entry (i, j) the distance of left i to right j. 0 for equal embeddings,
        where the gradient is 0.
    """
    left, right = (ops.cast(ops.convert_to_tensor(x), "float32") for x in embeddings)
    # Differences, not |l|^2 + |r|^2 - 2 l.r: that cancels to noise where distances are small.
    differences = ops.expand_dims(left, 1) - ops.expand_dims(right, 0)
    return _safe_sqrt(ops.sum(ops.square(differences), axis=-1))
