import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ArgumentError
from siamese_keras.models.distances import euclidean_distance, pairwise_euclidean_distance


def test_distance_by_hand():
    # (3, 4) - (0, 0): sqrt(9 + 16) = 5;  (1, 1) - (1, 1): 0
    left, right = np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(euclidean_distance([left, right]), [5, 0])
    np.testing.assert_allclose(
        pairwise_euclidean_distance([left, right]), [[5, 13**0.5], [2**0.5, 0]], rtol=1e-6
    )


def test_distances_equal_a_plain_loop(rng):
    left, right = rng.normal(size=(5, 7)), rng.normal(size=(4, 7))
    expected = [
        [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5 for y in right] for x in left
    ]
    np.testing.assert_allclose(pairwise_euclidean_distance([left, right]), expected, rtol=1e-5)
    np.testing.assert_allclose(
        euclidean_distance([left[:4], right]), np.diag(expected[:4]), rtol=1e-5
    )


def test_small_distances_far_from_the_origin_are_exact():
    # |l|^2 + |r|^2 - 2 l.r in float32 would give 0 or several hundredths here.
    left = np.array([[100.0, 100.0]], np.float32)
    right = left + np.float32(2**-7)
    expected = 2**-7 * 2**0.5
    np.testing.assert_allclose(euclidean_distance([left, right]), [expected], rtol=1e-6)
    np.testing.assert_allclose(pairwise_euclidean_distance([left, right]), [[expected]], rtol=1e-6)


@pytest.mark.parametrize(
    ("distance", "diagonal"), [(euclidean_distance, False), (pairwise_euclidean_distance, True)]
)
def test_gradient_at_distance_0_is_0_and_not_nan(distance, diagonal):
    x = tf.constant([[0.6, 0.8], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        matrix_or_vector = distance([x, x + 0])
        total = tf.reduce_sum(
            tf.linalg.diag_part(matrix_or_vector) if diagonal else matrix_or_vector
        )
    assert float(total) == 0
    np.testing.assert_array_equal(tape.gradient(total, x), np.zeros((2, 2)))


def test_a_broken_embedding_has_no_distance():
    broken = np.array([[np.nan, 1.0]])
    assert np.isnan(euclidean_distance([broken, broken]))
    assert np.isnan(pairwise_euclidean_distance([broken, broken]))


@pytest.mark.parametrize("distance", [euclidean_distance, pairwise_euclidean_distance])
def test_distance_is_computed_in_float32(distance):
    # 300^2 is more than the greatest float16, 65504.
    left, right = tf.constant([[300.0, 0.0]], tf.float16), tf.constant([[0.0, 0.0]], tf.float16)
    found = distance([left, right])
    assert found.dtype == tf.float32
    assert float(tf.reduce_max(found)) == 300


def test_embeddings_of_unequal_shapes_are_refused():
    with pytest.raises(ArgumentError, match=r"same shape\. Received: \(1, 3\) and \(2, 3\)"):
        euclidean_distance([np.zeros((1, 3)), np.zeros((2, 3))])
