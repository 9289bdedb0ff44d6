"""Where the training starts: an embedding layer that parts the classes already."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import Ridge

_IMAGES = 1024  # with 512 the first step is as good; with 2048 it takes three times as long
_CHUNK = 256  # of them through the network at a time, as in a step of the training
_RATIO = 2.0  # length of the part that tells classes, to that of the random part


def start_from_classes(
    base: keras.Model, images: np.ndarray, labels: np.ndarray, *, seed: int
) -> None:
    """Set the embedding layer to what ridge regression finds, beside its random weights.

    A network with random weights makes features that a linear layer can tell classes by. The layer
    is fitted in closed form, in a fraction of a second: every class has a direction of its own in
    the embedding. The random weights stay, so that no direction is empty, and what comes before is
    left alone but for the statistics of batch normalisation, which become those of the images. A
    short training gets further so; a long one forgets where it began.

    Args:
        base: A new base model that `build_base_model` made, without extensions; changed.
        images: uint8 `[n, height, width, channels]`; up to 1024 of them, drawn at random, are used.
        labels: int `[n]`.
        seed: Seed of the draw and of the directions.

    Reference:
        Krähenbühl, Doersch, Donahue & Darrell, "Data-dependent Initializations of Convolutional
        Neural Networks" (2016), who set every layer, and by other means.
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))[:_IMAGES]
    embedding = base.get_layer("embedding")
    network = keras.Model(base.input, embedding.input)
    features = _features(network, images[drawn])
    classes, members = np.unique(labels[drawn], return_inverse=True)
    directions = keras.initializers.Orthogonal(seed=seed)((len(classes), embedding.units))
    variance = features.var(axis=0).sum()
    ridge = Ridge(alpha=max(float(variance), 1e-6)).fit(features, np.asarray(directions)[members])

    random, bias = embedding.get_weights()
    mean = features.mean(axis=0)
    at_random, learnt = (np.linalg.norm((features - mean) @ x) for x in (random, ridge.coef_.T))
    kernel = random + _RATIO * at_random / np.maximum(learnt, 1e-6) * ridge.coef_.T
    embedding.set_weights([kernel, bias - mean @ kernel])


def _features(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Set batch normalisation to the statistics of the images, and return their features."""
    norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
    momentum = [norm.momentum for norm in norms]
    chunks = np.array_split(images, -(-len(images) // _CHUNK))
    features = []
    for done, chunk in enumerate(chunks):
        for norm in norms:
            norm.momentum = done / (done + 1)  # the mean over the chunks so far
        features.append(keras.ops.convert_to_numpy(network(chunk, training=True)))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    return np.concatenate(features)
