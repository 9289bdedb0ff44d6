"""Random changes of training images, whole batches at once and decided by a seed."""

from __future__ import annotations

import tensorflow as tf

_MAX_SHIFT = 2


def mirror_and_shift(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror each image with probability 1/2 and shift it over black, by up to 2 pixels each way.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seed: int `[2]`: the same seed gives the same images.

    Returns:
        The same shape and type.
    """
    mirror_seed, shift_seed = tf.unstack(tf.random.split(seed, 2))
    images = tf.image.stateless_random_flip_left_right(images, mirror_seed)
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    shift = tf.random.stateless_uniform(
        [2, batch, 1], shift_seed, 0, 2 * _MAX_SHIFT + 1, dtype=tf.int32
    )
    border = [_MAX_SHIFT, _MAX_SHIFT]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    rows = tf.gather(padded, tf.range(height) + shift[0], axis=1, batch_dims=1)
    return tf.gather(rows, tf.range(width) + shift[1], axis=2, batch_dims=1)
