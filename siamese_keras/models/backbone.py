"""Base models on a backbone that was trained before, on other images.

The backbone stays as it is while a small head learns what is alike: its features are computed once
for every image. Afterwards both can be trained together (fine-tuning), with the backbone's batch
normalization kept in inference mode: with the statistics of a few small batches in place of those
of its own training, a Siamese network does not get beyond chance.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from siamese_keras.config import Activation
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.models.unit_length import UnitNormalization

# Models of `keras.applications`, and the scale and offset of the pixels that each expects. Those
# without take 0 to 255: their first layers scale it.
_AS_IT_IS, _AROUND_0 = None, (1 / 127.5, -1.0)
BACKBONES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "convnext_tiny": ("ConvNeXtTiny", _AS_IT_IS),
    "convnext_small": ("ConvNeXtSmall", _AS_IT_IS),
    "efficientnet_b0": ("EfficientNetB0", _AS_IT_IS),
    "efficientnet_v2_b0": ("EfficientNetV2B0", _AS_IT_IS),
    "efficientnet_v2_b1": ("EfficientNetV2B1", _AS_IT_IS),
    "efficientnet_v2_s": ("EfficientNetV2S", _AS_IT_IS),
    "mobilenet_v2": ("MobileNetV2", _AROUND_0),
    "mobilenet_v3_large": ("MobileNetV3Large", _AS_IT_IS),
    "mobilenet_v3_small": ("MobileNetV3Small", _AS_IT_IS),
    "resnet50_v2": ("ResNet50V2", _AROUND_0),
}


def build_backbone(
    name: str, image_shape: tuple[int, int, int], *, weights: str = "imagenet", stages: int = 1
) -> keras.Model:
    """Build a model that maps an image to the features of a backbone.

    Args:
        name: One of `BACKBONES`, or a `.keras` file of a functional model that takes images of this
            height and width, 0 to 255, and whose preprocessing is inside it.
        image_shape: Height, width and channels; gray images get three equal channels.
        weights: `"imagenet"`, which Keras downloads; a file of weights; or `"none"` for random
            ones. A `.keras` file has its own.
        stages: How many stages give features. A stage is all layers of one resolution; its features
            are the output of its last layer, averaged over positions. 1 takes the last stage.

    Returns:
        Model named `backbone`: uint8 `[batch, height, width, channels]` to float32
        `[batch, features]`. It does not learn: set `trainable` to change that.

    Raises:
        ArgumentError: When the name is unknown or the images do not fit.
        ModelError: When a file cannot be loaded or weights cannot be downloaded.
    """
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise ArgumentError(f"`backbone` needs gray or color images. Received: {channels} channels")
    scaling = None
    if name.endswith(".keras"):
        network = _from_file(name, (height, width, 3))
    elif name in BACKBONES:
        network = _from_applications(name, (height, width, 3), weights)
        scaling = BACKBONES[name][1]
    else:
        known = ", ".join(BACKBONES)
        raise ArgumentError(
            f"`backbone` must be one of {known}, or a .keras file. Received: {name!r}"
        )
    network = keras.Model(network.inputs[0], _stage_outputs(network, stages), name="network")
    network.trainable = False
    image = keras.Input(image_shape, dtype="uint8", name="image")
    x: Any = image
    if channels == 1:
        x = layers.Concatenate(name="three_channels")([x, x, x])
    if network.inputs[0].dtype != "uint8":
        scale, offset = scaling or (1.0, 0.0)
        x = layers.Rescaling(scale, offset, name="preprocessing")(x)
    outputs = network(x, training=False)
    pooled = [
        layers.GlobalAveragePooling2D(name=f"stage{number}")(output) if output.ndim == 4 else output
        for number, output in enumerate(outputs, start=1)
    ]
    features = pooled[0] if len(pooled) == 1 else layers.Concatenate(name="features")(pooled)
    return keras.Model(image, features, name="backbone")


def _from_file(path: str, image_shape: tuple[int, int, int]) -> keras.Model:
    if not Path(path).is_file():
        raise ModelError(f"`backbone` must be a file. `{path}` is missing.")
    try:
        network = keras.models.load_model(path, compile=False)
        shape, _ = tuple(network.input_shape[1:]), network.outputs[0]
    except Exception as error:  # Keras raises many kinds for a damaged archive
        first_line = str(error).partition("\n")[0]
        raise ModelError(f"`{path}` cannot be loaded as a backbone. {first_line}") from None
    if len(shape) != 3 or any(a not in (b, None) for a, b in zip(shape, image_shape, strict=True)):
        raise ArgumentError(
            f"`backbone` `{path}` must take images of {image_shape}, in three channels even where "
            f"they are gray. Received: a network for images of {shape}"
        )
    return network


def _from_applications(name: str, image_shape: tuple[int, int, int], weights: str) -> keras.Model:
    build = getattr(keras.applications, BACKBONES[name][0])
    published = weights == "imagenet"
    try:
        network = build(
            include_top=False, input_shape=image_shape, weights="imagenet" if published else None
        )
        if not published and weights != "none":
            network.load_weights(os.fspath(weights))
    except Exception as error:  # of the network, of the file, and of the sizes that it allows
        first_line = str(error).partition("\n")[0]
        if (published and isinstance(error, OSError | RuntimeError)) or "URL fetch" in str(error):
            raise ModelError(
                f"The weights of {name} cannot be downloaded: {first_line} Name a file with "
                "--weights, or take random ones: --weights none."
            ) from None
        raise ModelError(
            f"`backbone` {name} cannot be built for images of {image_shape} with weights "
            f"{weights!r}. {first_line}"
        ) from None
    return network


def _stage_outputs(network: keras.Model, stages: int) -> list[Any]:
    """Return the outputs of the last layers of the last stages, from the first to the last."""
    output: Any = network.outputs[0]
    maps: list[Any] = [x for layer in network.layers if (x := _map_of(layer)) is not None]
    if stages == 1:
        return [output]
    if not network.input_shape[1] or not maps:
        raise ArgumentError(
            "`backbone_stages` must be 1 for a backbone without maps of a fixed size: save it with "
            f"an input shape and without pooling. Received: backbone_stages={stages}"
        )
    lowest = output.shape[1] if output.ndim == 4 else maps[-1].shape[1]
    last_of: dict[int, Any] = {}
    for x in maps:
        # The input's resolution has the preprocessing alone; smaller than the output's are the
        # weights of channels.
        if lowest <= x.shape[1] < network.input_shape[1]:
            last_of[x.shape[1]] = x
    last_of[lowest] = output  # which may be averaged over positions already
    sizes = sorted(last_of, reverse=True)
    if stages > len(sizes):
        raise ArgumentError(
            f"`backbone_stages` must be at most {len(sizes)}, the stages of the backbone. "
            f"Received: backbone_stages={stages}"
        )
    return [last_of[size] for size in sizes[-stages:]]


def _map_of(layer: keras.layers.Layer) -> Any:
    """Return the output of a layer that makes one map of features, or None."""
    output: Any = getattr(layer, "output", None)
    return output if getattr(output, "ndim", 0) == 4 and output.shape[1] else None


def build_head(
    features: np.ndarray,
    *,
    units: Sequence[int] = (),
    dropout: float = 0.0,
    embedding_dim: int = 64,
    embedding_activation: Activation = "linear",
    unit_length: bool = True,
) -> keras.Model:
    """Build the head: from the features of a backbone to the embedding.

    Args:
        features: float `[n, features]`, of the training images: each is scaled to mean 0 and
            variance 1 over them.
        units: As in `build_base_model`.
        dropout: Dropout rate of the features, and after each dense layer.
        embedding_dim: As in `build_base_model`.
        embedding_activation: As in `build_base_model`.
        unit_length: As in `build_base_model`.

    Returns:
        Model named `head`: float32 `[batch, features]` to float32 `[batch, embedding_dim]`.
    """
    entry = keras.Input(features.shape[1:], name="features")
    mean, variance = features.mean(axis=0, dtype=np.float64), features.var(axis=0, dtype=np.float64)
    x = layers.Normalization(mean=mean, variance=variance + 1e-6, name="standardized")(entry)
    for number, width in enumerate([*units, 0], start=1):
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
        if width:
            x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
    x = layers.Dense(embedding_dim, activation=embedding_activation, name="embedding")(x)
    if unit_length:
        x = UnitNormalization(name="unit_length")(x)
    return keras.Model(entry, x, name="head")


def with_head(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Return the base model, image -> embedding, of a backbone and its head."""
    image = keras.Input(backbone.input_shape[1:], dtype="uint8", name="image")
    return keras.Model(image, head(backbone(image)), name="base")


def unfreeze(backbone: keras.Model) -> None:
    """Let a backbone learn, except its batch normalization."""
    network = backbone.get_layer("network")
    network.trainable = True
    for layer in network._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
