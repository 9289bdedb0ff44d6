"""A small network to use as a backbone."""

from pathlib import Path

import keras


def write_backbone(path: Path) -> Path:
    """Write a network of three stages, with random weights that are the same every time."""
    keras.utils.set_random_seed(5)
    image = keras.Input((28, 28, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    for channels in (8, 12, 16):
        x = keras.layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
    keras.Model(image, x).save(path)
    return path
