"""What can be put around a base model without further training."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


def extend_base_model(
    base: keras.Model, *, features: float, mirror: bool, unit_length: bool
) -> keras.Model:
    """Build the base model that embeds as `base` does, and more.

    Args:
        base: A base model without extensions; its weights are shared, not copied.
        features: Length of the features that `keep_features` keeps; 0 without them.
        mirror: Embed an image as `average_mirrored` does.
        unit_length: Scale the embedding to Euclidean length 1.

    Returns:
        The base model; `base` itself when there is nothing to extend.
    """
    if features:
        base = keep_features(base, features, unit_length=unit_length)
    return average_mirrored(base, unit_length=unit_length) if mirror else base


def keep_features(base: keras.Model, length: float, *, unit_length: bool) -> keras.Model:
    """Build the model that keeps the features of the last block beside the embedding.

    The embedding alone puts images that might be of either of two classes side by side, whatever
    their class. Features vary in more directions, along which such images differ as well: the
    nearest neighbour is more often a clear example. A random projection makes them as many numbers
    as the embedding has, and nearly keeps their distances.

    Args:
        base: A CNN that `build_base_model` made; its weights are shared, not copied.
        length: Length of the features, of every image; a unit-length embedding has 1.
        unit_length: Scale embedding and features together to Euclidean length 1.

    Returns:
        A base model as `build_base_model` makes it; its embedding is twice as long.

    Reference:
        Dasgupta & Gupta, "An Elementary Proof of a Theorem of Johnson and Lindenstrauss" (2003),
        for the projection.
    """
    projected = layers.Dense(
        base.output_shape[-1],
        use_bias=False,
        trainable=False,
        kernel_initializer="random_normal",
        name="projection",
    )(base.get_layer("pooling").output)
    features = layers.UnitNormalization(name="unit_features")(projected)
    features = layers.Rescaling(length, name="scaled_features")(features)
    x = layers.Concatenate(name="with_features")([base.output, features])
    if unit_length:
        x = layers.UnitNormalization(name="whole_unit_length")(x)
    return keras.Model(base.input, x, name="base")


@keras.saving.register_keras_serializable(package="siamese_keras")
def mirror_images(images: Any) -> Any:
    """Swap left and right of images `[batch, height, width, channels]`."""
    return ops.flip(images, axis=2)


def average_mirrored(base: keras.Model, *, unit_length: bool) -> keras.Model:
    """Build the model whose embedding is the mean of those of an image and of its mirror image.

    Args:
        base: A base model; its weights are shared, not copied.
        unit_length: Scale the mean to Euclidean length 1.

    Returns:
        A base model as `build_base_model` makes it, which takes twice the time.
    """
    network = keras.Model(base.input, base.output, name="network")
    image = keras.Input(base.input_shape[1:], dtype="uint8", name="image")
    mirrored = layers.Lambda(mirror_images, dtype="uint8", name="mirror")(image)
    x = layers.Average(name="average")([network(image), network(mirrored)])
    if unit_length:
        x = layers.UnitNormalization(name="mean_unit_length")(x)
    return keras.Model(image, x, name="base")
