"""Batch normalization in one operation does what Keras's own does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.batch_normalization import BatchNormalization

IMAGES = (6, 5, 4, 3)


def step(layer, inputs, mask=None):
    """One step of training: the output, the gradients, and the averages after it."""
    layer.build(inputs.shape)
    channels = inputs.shape[layer.axis]
    for weight, value in zip(layer.trainable_weights, (1.5, -0.5), strict=False):
        weight.assign(value + np.arange(channels) / 10)
    inputs = tf.Variable(inputs)
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True, mask=mask)
        loss = tf.reduce_sum(tf.sin(outputs))
    variables = [inputs, *(weight.value for weight in layer.trainable_weights)]
    averages = dict(zip(("mean", "variance"), layer.non_trainable_weights, strict=False))
    return outputs.numpy(), [g.numpy() for g in tape.gradient(loss, variables)], averages


def test_a_step_is_that_of_keras(rng):
    inputs = rng.normal(3, 2, IMAGES).astype(np.float32)
    outputs, gradients, averages = step(BatchNormalization(momentum=0.9), inputs)
    expected, of_keras, by_keras = step(keras.layers.BatchNormalization(momentum=0.9), inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    for found, wanted in zip(gradients, of_keras, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(averages["mean"], by_keras["mean"], rtol=1e-5)
    values = inputs.reshape(-1, 3)
    np.testing.assert_allclose(averages["variance"], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(by_keras["variance"], 0.9 + 0.1 * values.var(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((6, 3), {}),
        ((6, 5, 3), {}),
        (IMAGES, {"axis": 1}),
        (IMAGES, {"scale": False}),
        (IMAGES, {"center": False}),
        (IMAGES, {"renorm": True}),
        (IMAGES, {"dtype": "float64"}),
        (IMAGES, {"trainable": False}),
    ],
    ids=str,
)
def test_what_the_operation_does_not_know_is_left_to_keras(rng, shape, options):
    inputs = rng.normal(3, 2, shape).astype(options.get("dtype", "float32"))
    outputs, gradients, averages = step(BatchNormalization(**options), inputs)
    expected, of_keras, by_keras = step(keras.layers.BatchNormalization(**options), inputs)
    np.testing.assert_array_equal(outputs, expected)
    for found, wanted in zip(gradients, of_keras, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name in averages:
        np.testing.assert_array_equal(averages[name], by_keras[name])


def test_a_mask_is_left_to_keras(rng):
    inputs = rng.normal(3, 2, IMAGES).astype(np.float32)
    mask = rng.integers(0, 2, IMAGES[:-1]).astype(bool)
    outputs, _, _ = step(BatchNormalization(), inputs, mask)
    expected, _, _ = step(keras.layers.BatchNormalization(), inputs, mask)
    np.testing.assert_array_equal(outputs, expected)


def test_a_single_value_has_a_finite_variance():
    _, _, averages = step(BatchNormalization(), np.ones((1, 1, 1, 3), np.float32))
    assert np.isfinite(averages["variance"]).all()


def test_half_precision_keeps_float32_averages(rng):
    inputs = rng.normal(3, 2, IMAGES).astype(np.float16)
    outputs, _, averages = step(BatchNormalization(dtype="mixed_float16"), inputs)
    assert outputs.dtype == np.float16
    assert {average.dtype for average in averages.values()} == {"float32"}


def test_the_base_model_answers_as_one_with_the_layers_of_keras(rng):
    """Models that were saved with the layer of Keras answer as before, and the other way round."""
    base = build_base_model((8, 8, 1), filters=(4, 6), embedding_dim=3)
    config = base.get_config()
    replaced = [layer for layer in config["layers"] if layer["class_name"] == "BatchNormalization"]
    assert len(replaced) == 2
    for layer in replaced:
        layer.update(module="keras.layers", registered_name=None)
    of_keras = keras.Model.from_config(config)
    assert not any(isinstance(layer, BatchNormalization) for layer in of_keras.layers)
    of_keras.set_weights(base.get_weights())
    images = rng.integers(0, 256, (5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(of_keras(images), base(images))
