"""The outer model: one base model, applied to a left and a right image, and their distance."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from siamese_keras.errors import ModelError
from siamese_keras.models.distances import euclidean_distance, pairwise_euclidean_distance


def build_outer_model(base: keras.Model, *, all_pairs: bool = False) -> keras.Model:
    """Build the Siamese network: one base model, applied to the left and to the right image.

    Args:
        base: The base model, image -> embedding; its weights are shared, not copied.
        all_pairs: Compare every left image with every right one, as training on all pairs of a
            batch does.

    Returns:
        Model named `outer`: `{"left", "right"}`, each as the base model's input, to float32
        distances `[batch]`, or `[batch, batch]` with `all_pairs`.

    Raises:
        ModelError: When `base` does not map one image to one embedding.
    """
    # A model without these has no fixed inputs: a subclassed or an unbuilt one.
    shapes: list[Any] = [getattr(base, name, None) for name in ("input_shape", "output_shape")]
    if not all(isinstance(shape, tuple) for shape in shapes) or list(map(len, shapes)) != [4, 2]:
        raise ModelError(
            "A base model must map [batch, height, width, channels] to [batch, embedding_dim]. "
            f"Received: {shapes[0]} to {shapes[1]}"
        )
    return pair_model(base, all_pairs=all_pairs, dtype="uint8")


def pair_model(base: keras.Model, *, all_pairs: bool, dtype: str) -> keras.Model:
    """Build the outer model of a model whose inputs need not be images.

    Args:
        base: Any functional model with one input that ends in an embedding.
        all_pairs: As in `build_outer_model`.
        dtype: Type of the inputs.

    Returns:
        As `build_outer_model`.
    """
    left = keras.Input(base.input_shape[1:], dtype=dtype, name="left")
    right = keras.Input(base.input_shape[1:], dtype=dtype, name="right")
    # A Lambda layer, as in the classic exercise. Its function has a name and is registered with
    # Keras, so that a saved model can be loaded in safe mode.
    distance = layers.Lambda(
        pairwise_euclidean_distance if all_pairs else euclidean_distance,
        output_shape=(None,) if all_pairs else (),
        dtype="float32",
        name="distance",
    )([base(left), base(right)])
    return keras.Model({"left": left, "right": right}, distance, name="outer")


def base_model_of(outer: keras.Model) -> keras.Model:
    """Return the base model that an outer model applies to both images.

    Raises:
        ModelError: When `outer` is not an outer model.
    """
    bases = [layer for layer in outer.layers if isinstance(layer, keras.Model)]
    if len(bases) != 1:
        raise ModelError(f"An outer model must apply one base model. Received: {len(bases)}")
    return bases[0]
