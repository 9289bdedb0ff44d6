import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras import MultiSimilarityLoss, SupervisedContrastiveLoss
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.unit_length import UnitNormalization, unit_length


def test_rows_have_length_1_as_those_of_keras(rng):
    rows = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(unit_length(rows), keras.ops.normalize(rows, epsilon=1e-12))
    np.testing.assert_array_equal(UnitNormalization()(rows), unit_length(rows))


def test_a_row_of_zeros_stays_and_has_no_gradient():
    rows = tf.Variable([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        scaled = unit_length(rows)
        total = tf.reduce_sum(scaled * [[1.0, 2.0]])
    np.testing.assert_allclose(scaled, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    gradient = tape.gradient(total, rows).numpy()
    np.testing.assert_array_equal(gradient[0], 0)
    assert 0 < np.abs(gradient[1]).max() < 1


@pytest.mark.parametrize("loss", [MultiSimilarityLoss(), SupervisedContrastiveLoss()])
def test_an_embedding_of_zeros_does_not_drown_the_others(rng, loss):
    embeddings = tf.Variable(np.vstack([np.zeros((1, 4)), rng.normal(size=(7, 4))]), tf.float32)
    with tf.GradientTape() as tape:
        value = loss(np.arange(8) // 2, embeddings)
    assert np.abs(tape.gradient(value, embeddings)).max() < 1e3


def test_a_black_image_does_not_drown_the_others():
    """The embedding of an MLP is exactly 0 for it before the first step."""
    base = build_base_model((4, 4, 1), architecture="mlp", embedding_dim=3)
    images = np.zeros((2, 4, 4, 1), np.uint8)
    images[1] = 200
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(base(images))
    gradients = tape.gradient(total, base.trainable_variables)
    assert max(np.abs(gradient).max() for gradient in gradients) < 1e3
