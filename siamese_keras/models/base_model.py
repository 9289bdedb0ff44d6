"""Base model (image -> embedding), outer model (left, right -> distance) and the distances.

Importing this module registers the distances with Keras: do so before `keras.models.load_model`
opens a saved outer model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from siamese_keras.models.extensions import extend_base_model


def _safe_sqrt(squared: Any) -> Any:
    """Take the square root of numbers of at least 0, with gradient 0 and not infinity at 0."""
    zero = ops.equal(squared, 0.0)
    # The inner `where` keeps the gradient of the branch not taken finite as well. NaN stays NaN.
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squared)))


@keras.saving.register_keras_serializable(package="siamese_keras")
def euclidean_distance(embeddings: Sequence[Any]) -> Any:
    """Compute the Euclidean distance of each left embedding to the right one beside it.

    Args:
        embeddings: Two tensors of one shape, `[batch, embedding_dim]`.

    Returns:
        float32 `[batch]`. 0 for equal embeddings, where the gradient is 0.

    Raises:
        ValueError: When the shapes differ.
    """
    left, right = (ops.cast(ops.convert_to_tensor(x), "float32") for x in embeddings)
    if tuple(left.shape) != tuple(right.shape):
        raise ValueError(
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


@keras.saving.register_keras_serializable(package="siamese_keras")
def silhouette(image: Any) -> Any:
    """Return about 1 where `image`, in [0, 1], is brighter than 5 %, and 0 elsewhere."""
    return ops.sigmoid(200.0 * (image - 0.05))


@keras.saving.register_keras_serializable(package="siamese_keras")
def edge_strengths(image: Any) -> Any:
    """Return how steep `image` is in four directions.

    Args:
        image: `[batch, height, width, channels]`.

    Returns:
        `[batch, height, width, 4 * channels]`: the sizes of the differences across each pixel from
        left to right, from top to bottom and along the two diagonals. Black lies around the image.
    """
    padded = ops.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    diagonals = [(x + y) * 0.5**0.5, (x - y) * 0.5**0.5]
    return ops.abs(ops.concatenate([x, y, *diagonals], axis=-1))


def _outline_features(x: Any) -> Any:
    """Share of silhouette and strength of edges in blocks of 4 x 4 pixels; edges of length 2."""
    shape = layers.Lambda(silhouette, output_shape=x.shape[1:], name="silhouette")(x)
    shape = layers.AveragePooling2D(4, padding="same", name="silhouette_blocks")(shape)
    edges = layers.Lambda(
        edge_strengths, output_shape=(*x.shape[1:3], 4 * x.shape[3]), name="edges"
    )(x)
    edges = layers.AveragePooling2D(4, padding="same", name="edge_blocks")(edges)
    edges = layers.UnitNormalization(name="unit_edges")(layers.Flatten(name="flat_edges")(edges))
    edges = layers.Rescaling(2.0, name="scaled_edges")(edges)
    return layers.Concatenate(name="outline")(
        [layers.Flatten(name="flat_silhouette")(shape), edges]
    )


def _convolution(x: Any, filters: int, name: str, *, pool: bool = False) -> Any:
    """3 x 3 convolution, 2 x 2 max pooling when `pool`, batch normalisation and ReLU."""
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"conv{name}",
    )(x)
    if pool:  # first: what follows has a quarter of the values then
        x = layers.MaxPooling2D(padding="same", name=f"pool{name}")(x)
    # The statistics follow the weights at once: a short training has some hundred steps.
    x = layers.BatchNormalization(momentum=0.9, name=f"norm{name}")(x)
    return layers.ReLU(name=f"relu{name}")(x)


def _small_normal(embedding_dim: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.2 / embedding_dim**0.5)


_POOLING = {
    "flatten": layers.Flatten,
    "average": layers.GlobalAveragePooling2D,
    "max": layers.GlobalMaxPooling2D,
}


def build_base_model(
    image_shape: tuple[int, int, int],
    *,
    architecture: str = "cnn",
    filters: Sequence[int] = (32, 64, 128),
    pooling: str = "flatten",
    units: Sequence[int] = (),
    dropout: float = 0.0,
    embedding_dim: int = 64,
    embedding_activation: str = "linear",
    unit_length: bool = True,
    features: float = 0.0,
    mirror: bool = False,
) -> keras.Model:
    """Build the network that maps an image to its embedding.

    Args:
        image_shape: Height, width and channels, each at least 1.
        architecture: `"cnn"`: for each of `filters` a 3 x 3 convolution, 2 x 2 max pooling, batch
            normalisation and ReLU; `"residual"`: likewise, with two more convolutions and a
            shortcut around them before each pooling but the first; `"mlp"`: the image as a vector;
            or `"outline"`: silhouette and edges in blocks of 4 x 4 pixels, which stay in the
            embedding beside a learnt part, so that training cannot forget them. For classes that
            were never seen.
        filters: Filters of the convolutions; the MLP has none.
        pooling: What follows the last block of the CNN: `"flatten"` keeps every place apart,
            `"average"` and `"max"` pool over all places, in the stead of the last 2 x 2.
        units: Units of the dense ReLU layers between these and the embedding.
        dropout: Rate of dropout after each of these dense layers, at least 0 and below 1.
        embedding_dim: Length of the embedding, at least 1; of its learnt part for `"outline"`.
        embedding_activation: Activation of the layer that makes the embedding.
        unit_length: Scale every embedding to Euclidean length 1, so that distances lie in [0, 2].
        features: As `extend_base_model`; for CNNs.
        mirror: As `extend_base_model`.

    Returns:
        Model named `base`: uint8 `[batch, height, width, channels]`, 0 to 255, to float32
        `[batch, embedding_dim]`.

    Raises:
        ValueError: When `architecture` or `pooling` is unknown, or one without pooling is to keep
            `features`.
    """
    if features and architecture not in ("cnn", "residual"):
        raise ValueError(
            "`features` are those of the architectures cnn and residual. Received: "
            f"features={features}, architecture={architecture!r}"
        )
    if pooling not in _POOLING:
        raise ValueError(f"`pooling` must be one of {', '.join(_POOLING)}. Received: {pooling!r}")
    image = keras.Input(image_shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(image)
    fixed = None
    if architecture in ("cnn", "residual"):
        for block, width in enumerate(filters, start=1):
            pool = block < len(filters) or pooling == "flatten"
            shortcut = architecture == "residual" and block > 1
            x = _convolution(x, width, str(block), pool=pool and not shortcut)
            if shortcut:
                y = _convolution(x, width, f"{block}a")
                y = _convolution(y, width, f"{block}b")
                x = layers.Add(name=f"add{block}")([x, y])
                if pool:
                    x = layers.MaxPooling2D(padding="same", name=f"pool{block}")(x)
        x = _POOLING[pooling](name="pooling")(x)
    elif architecture == "mlp":
        x = layers.Flatten(name="flatten")(x)
    elif architecture == "outline":
        x = fixed = _outline_features(x)
    else:
        raise ValueError(
            f"`architecture` must be cnn, residual, mlp or outline. Received: {architecture!r}"
        )
    for number, width in enumerate(units, start=1):
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = layers.Dense(
        embedding_dim,
        activation=embedding_activation,
        # Beside fixed features the learnt part starts small, so that they count from the start.
        kernel_initializer="glorot_uniform" if fixed is None else _small_normal(embedding_dim),
        name="embedding",
    )(x)
    if fixed is not None:
        x = layers.Concatenate(name="with_outline")([fixed, x])
    if unit_length:
        x = layers.UnitNormalization(name="unit_length")(x)
    base = keras.Model(image, x, name="base")
    return extend_base_model(base, features=features, mirror=mirror, unit_length=unit_length)


def build_outer_model(base: keras.Model, *, all_pairs: bool = False) -> keras.Model:
    """Build the Siamese network: one base model, applied to the left and to the right image.

    Args:
        base: The base model; its weights are shared, not copied.
        all_pairs: Compare every left image with every right one, as training on all pairs of a
            batch does.

    Returns:
        Model named `outer`: `{"left", "right"}`, each as the base model's input, to float32
        distances `[batch]`, or `[batch, batch]` with `all_pairs`.
    """
    left = keras.Input(base.input_shape[1:], dtype="uint8", name="left")
    right = keras.Input(base.input_shape[1:], dtype="uint8", name="right")
    distance = layers.Lambda(
        pairwise_euclidean_distance if all_pairs else euclidean_distance,
        output_shape=(None,) if all_pairs else (),
        dtype="float32",
        name="distance",
    )([base(left), base(right)])
    return keras.Model({"left": left, "right": right}, distance, name="outer")
