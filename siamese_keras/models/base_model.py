"""The base model: image -> embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from siamese_keras.config import Activation, Architecture, Pooling, ShiftAveraging
from siamese_keras.errors import ArgumentError, check_choice
from siamese_keras.models.batch_normalization import BatchNormalization
from siamese_keras.models.image_ops import flip_images, shift_images
from siamese_keras.models.unit_length import UnitNormalization


def _convolution(x: Any, filters: int, name: str, *, pool: bool = False) -> Any:
    """3 x 3 convolution, 2 x 2 max pooling when `pool`, batch normalization and ReLU."""
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"conv{name}",
    )(x)
    if pool:  # first: batch normalization then has a quarter of the values
        x = layers.MaxPooling2D(padding="same", name=f"pool{name}")(x)
    # The statistics follow the weights at once: a short training has some hundred steps.
    x = BatchNormalization(momentum=0.9, name=f"norm{name}")(x)
    return layers.ReLU(name=f"relu{name}")(x)


_POOLING: dict[str, Any] = {
    "flatten": layers.Flatten,
    "average": layers.GlobalAveragePooling2D,
    "max": layers.GlobalMaxPooling2D,
}


# Pixels down and to the right.
_SHIFTS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def build_base_model(
    image_shape: tuple[int, int, int],
    *,
    architecture: Architecture = "cnn",
    filters: Sequence[int] = (32, 64, 96, 128),
    pooling: Pooling = "flatten",
    units: Sequence[int] = (),
    dropout: float = 0.0,
    embedding_dim: int = 64,
    embedding_activation: Activation = "linear",
    unit_length: bool = True,
    kept_features: float = 0.0,
    flip_averaging: bool = False,
    shift_averaging: ShiftAveraging = "no",
) -> keras.Model:
    """Build the network that maps an image to its embedding.

    Args:
        image_shape: Height, width and channels, each at least 1.
        architecture: `"cnn"`: for each of `filters` a 3 x 3 convolution, 2 x 2 max pooling, batch
            normalization and ReLU; `"resnet"`: the same, with two more convolutions and a shortcut
            around them before each pooling but the first; or `"mlp"`: the image as a vector.
        filters: Filters of each block of convolutions.
        pooling: What follows the last block: `"flatten"` keeps every position apart, `"average"`
            and `"max"` pool over all positions, instead of the last 2 x 2 pooling.
        units: Units of the dense ReLU layers between these and the embedding.
        dropout: Dropout rate after each of these dense layers, at least 0 and below 1.
        embedding_dim: Number of dimensions of the embedding, at least 1.
        embedding_activation: Activation of the layer that makes the embedding.
        unit_length: Scale every embedding to Euclidean length 1, so that distances lie in [0, 2].
        kept_features: Norm of the features that `keep_features` keeps, at least 0; 0 keeps none.
        flip_averaging: Embed an image as `average_flipped` does.
        shift_averaging: Embed an image as `average_shifted` does; `"no"` embeds the image alone.

    Returns:
        Model named `base`: uint8 `[batch, height, width, channels]`, 0 to 255, to float32
        `[batch, embedding_dim]`, twice as long with `kept_features`.

    Raises:
        ArgumentError: When a choice is unknown, or `kept_features` is asked of an architecture
            without convolutions.
    """
    check_choice("architecture", architecture, Architecture)
    check_choice("pooling", pooling, Pooling)
    check_choice("embedding_activation", embedding_activation, Activation)
    check_choice("shift_averaging", shift_averaging, ShiftAveraging)
    image = keras.Input(image_shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(image)
    if architecture in ("cnn", "resnet"):
        for block, width in enumerate(filters, start=1):
            pool = block < len(filters) or pooling == "flatten"
            shortcut = architecture == "resnet" and block > 1
            x = _convolution(x, width, str(block), pool=pool and not shortcut)
            if shortcut:
                y = _convolution(x, width, f"{block}a")
                y = _convolution(y, width, f"{block}b")
                x = layers.Add(name=f"add{block}")([x, y])
                if pool:
                    x = layers.MaxPooling2D(padding="same", name=f"pool{block}")(x)
        x = _POOLING[pooling](name="pooling")(x)
    else:
        x = layers.Flatten(name="flatten")(x)
    for number, width in enumerate(units, start=1):
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = layers.Dense(embedding_dim, activation=embedding_activation, name="embedding")(x)
    if unit_length:
        x = UnitNormalization(name="unit_length")(x)
    base = keras.Model(image, x, name="base")
    return extend_base_model(
        base,
        kept_features=kept_features,
        flip_averaging=flip_averaging,
        shift_averaging=shift_averaging,
        unit_length=unit_length,
    )


def extend_base_model(
    base: keras.Model,
    *,
    unit_length: bool,
    kept_features: float = 0.0,
    flip_averaging: bool = False,
    shift_averaging: ShiftAveraging = "no",
) -> keras.Model:
    """Extend a trained base model by what needs no training.

    Args:
        base: A base model without extensions; its weights are shared, not copied.
        unit_length: Scale the embedding to Euclidean length 1.
        kept_features: As in `build_base_model`.
        flip_averaging: As in `build_base_model`.
        shift_averaging: As in `build_base_model`.

    Returns:
        The extended base model; `base` itself when there is nothing to extend.

    Raises:
        ArgumentError: When `base` has no features to keep.
    """
    if kept_features:
        base = keep_features(base, kept_features, unit_length=unit_length)
    if flip_averaging:
        base = average_flipped(base, unit_length=unit_length)
    if shift_averaging == "no":
        return base
    return average_shifted(base, shift_averaging, unit_length=unit_length)


def keep_features(base: keras.Model, norm: float, *, unit_length: bool) -> keras.Model:
    """Keep the features of the last block of convolutions beside the embedding.

    The embedding alone puts images that might be of either of two classes side by side, whatever
    their class. Features vary in more directions, along which such images differ as well: the
    nearest neighbor is more often a clear example. A random projection reduces them to as many
    numbers as the embedding has, and nearly keeps their distances.

    Args:
        base: A CNN that `build_base_model` made; its weights are shared, not copied.
        norm: Euclidean norm of the features of every image; a unit-length embedding has 1.
        unit_length: Scale embedding and features together to Euclidean length 1.

    Returns:
        A base model whose embedding is twice as long.

    Raises:
        ArgumentError: When `base` has no layer `pooling`.

    Reference:
        Dasgupta & Gupta, "An Elementary Proof of a Theorem of Johnson and Lindenstrauss" (2003),
        for the projection.
    """
    if "pooling" not in (layer.name for layer in base.layers):
        raise ArgumentError(
            "`kept_features` needs a base model of the architecture cnn or resnet. Received: "
            f"kept_features={norm}"
        )
    projected = layers.Dense(
        base.output_shape[-1],
        use_bias=False,
        trainable=False,
        kernel_initializer="random_normal",
        name="projection",
    )(base.get_layer("pooling").output)
    features = UnitNormalization(name="unit_features")(projected)
    features = layers.Rescaling(norm, name="scaled_features")(features)
    x = layers.Concatenate(name="with_features")([base.outputs[0], features])
    if unit_length:
        x = UnitNormalization(name="whole_unit_length")(x)
    return keras.Model(base.inputs[0], x, name="base")


def average_flipped(base: keras.Model, *, unit_length: bool) -> keras.Model:
    """Average the embeddings of an image and of its mirror image.

    Args:
        base: A base model; its weights are shared, not copied.
        unit_length: Scale the mean to Euclidean length 1.

    Returns:
        A base model that takes twice the time.
    """
    dtype = base.inputs[0].dtype
    return _average(base, [layers.Lambda(flip_images, dtype=dtype, name="flip")], unit_length)


def average_shifted(
    base: keras.Model, ways: ShiftAveraging = "all", *, unit_length: bool
) -> keras.Model:
    """Average the embeddings of an image and of the same image shifted by a pixel.

    Pooling by 2 x 2 gives other numbers for a shifted image, though it shows the same; the mean
    depends less on where the image happens to lie.

    Args:
        base: A base model; its weights are shared, not copied.
        ways: `"left"`: the image counts twice, the one shifted to the left once, which is most of
            the gain; `"all"`: shifted up, down, left and right, all alike.
        unit_length: Scale the mean to Euclidean length 1.

    Returns:
        A base model that takes two or five times the time.
    """
    dtype = base.inputs[0].dtype
    shifts = [
        layers.Lambda(
            shift_images, dtype=dtype, name=name, arguments={"down": down, "right": right}
        )
        for name, (down, right) in _SHIFTS.items()
        if ways in ("all", name)
    ]
    return _average(base, shifts, unit_length, weight=2 if ways == "left" else 1)


def _average(
    base: keras.Model, views: Sequence[keras.Layer], unit_length: bool, weight: int = 1
) -> keras.Model:
    """Average the embeddings of an image, which counts `weight` times, and of other views of it."""
    # A Sequential model has no `input` before it is called.
    network = keras.Model(base.inputs[0], base.outputs[0], name="network")
    image = keras.Input(base.input_shape[1:], dtype=base.inputs[0].dtype, name="image")
    embeddings = [network(image)] * weight + [network(view(image)) for view in views]
    x = layers.Average(name="average")(embeddings)
    if unit_length:
        x = UnitNormalization(name="mean_unit_length")(x)
    return keras.Model(image, x, name="base")
