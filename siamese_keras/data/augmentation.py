"""Random changes of training images, for whole batches, decided by a seed."""

from __future__ import annotations

import tensorflow as tf

from siamese_keras.config import Augmentation
from siamese_keras.errors import check_choice

_MAX_SHIFT = 2
_ERASED = (1 / 7, 1 / 2)  # least and greatest share of height and width


def augment_images(images: tf.Tensor, seed: tf.Tensor, kind: Augmentation) -> tf.Tensor:
    """Change each image at random.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seed: int `[2]`: the same seed gives the same images.
        kind: `"none"`; `"shift"` for `shift`; `"flip-shift"` for `flip_and_shift`;
            `"shift-erase"` and `"flip-shift-erase"` for `erase` after them.

    Returns:
        The same shape and type.

    Raises:
        ArgumentError: When `kind` is unknown.
    """
    check_choice("augment", kind, Augmentation)
    if kind == "none":
        return images
    shift_seed, erase_seed = tf.unstack(tf.random.split(seed, 2))
    change = flip_and_shift if kind.startswith("flip") else shift
    images = change(images, shift_seed)
    return erase(images, erase_seed) if kind.endswith("erase") else images


def flip_and_shift(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip each image left to right with probability 1/2 and shift it by up to 2 pixels each way.

    Black fills the border.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seed: int `[2]`: the same seed gives the same images.

    Returns:
        The same shape and type.
    """
    flip_seed, shift_seed = tf.unstack(tf.random.split(seed, 2))
    return shift(tf.image.stateless_random_flip_left_right(images, flip_seed), shift_seed)


def shift(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift each image by up to 2 pixels each way; black fills the border.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seed: int `[2]`: the same seed gives the same images.

    Returns:
        The same shape and type.
    """
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    offset = tf.random.stateless_uniform([2, batch, 1], seed, 0, 2 * _MAX_SHIFT + 1, dtype=tf.int32)
    border = [_MAX_SHIFT, _MAX_SHIFT]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    rows = tf.gather(padded, tf.range(height) + offset[0], axis=1, batch_dims=1)
    return tf.gather(rows, tf.range(width) + offset[1], axis=2, batch_dims=1)


def erase(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Replace a rectangle of each image by noise with probability 1/2.

    After Zhong et al., "Random Erasing Data Augmentation" (2017). The rectangle is between a
    seventh and half as high as the image and, independently, as wide.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seed: int `[2]`: the same seed gives the same images.

    Returns:
        The same shape and type.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch = tf.shape(images)[0]
    erased = tf.random.stateless_uniform([batch], seeds[0]) < 0.5
    inside = []
    for axis, axis_seed in zip((1, 2), seeds[1:3], strict=True):
        length = tf.cast(tf.shape(images)[axis], tf.float32)
        size, place = tf.unstack(tf.random.stateless_uniform([2, batch, 1], axis_seed))
        size = tf.round(length * (_ERASED[0] + size * (_ERASED[1] - _ERASED[0])))
        start = tf.floor(place * (length - size + 1.0))
        index = tf.range(length)
        inside.append((index >= start) & (index < start + size))
    mask = (
        inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis] & erased[:, tf.newaxis, tf.newaxis]
    )
    noise = tf.random.stateless_uniform(tf.shape(images), seeds[3], 0, 256, dtype=tf.int32)
    return tf.where(mask[..., tf.newaxis], tf.cast(noise, tf.uint8), images)
