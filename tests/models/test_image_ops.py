import numpy as np

from siamese_keras.models.image_ops import edge_strengths, flip_images, silhouette


def test_silhouette_by_hand():
    # Far below 0.05, at it, far above: 0, 1/2, 1.
    shape = silhouette(np.array([[0.0, 0.05, 0.2]], np.float32))
    np.testing.assert_allclose(shape, [[0, 0.5, 1]], atol=1e-4)


def test_edges_by_hand():
    image = np.zeros((1, 3, 4, 1), np.float32)
    image[0, :, 2:] = 1  # the right half is white
    edges = np.asarray(edge_strengths(image))[0, 1]  # the middle row
    # Left to right: 0, 1 and 1 on both sides of the step, and the white meets black at the border.
    np.testing.assert_allclose(edges[:, 0], [0, 1, 1, 1])
    np.testing.assert_allclose(edges[:, 1], 0)  # top to bottom nothing changes
    np.testing.assert_allclose(edges[:, 2:], np.array([[0, 1, 1, 1]] * 2).T / 2**0.5, rtol=1e-6)


def test_edges_equal_a_plain_loop(rng):
    images = rng.random((2, 4, 5, 3)).astype(np.float32)

    def pixel(image, row, column, channel):
        inside = 0 <= row < 4 and 0 <= column < 5
        return images[image, row, column, channel] if inside else 0.0

    expected = np.zeros((2, 4, 5, 12))
    for i, row, column, c in np.ndindex(images.shape):
        x = pixel(i, row, column + 1, c) - pixel(i, row, column - 1, c)
        y = pixel(i, row + 1, column, c) - pixel(i, row - 1, column, c)
        strengths = abs(x), abs(y), abs(x + y) / 2**0.5, abs(x - y) / 2**0.5
        for direction, strength in enumerate(strengths):
            expected[i, row, column, 3 * direction + c] = strength
    np.testing.assert_allclose(edge_strengths(images), expected, atol=1e-6)


def test_flip_swaps_left_and_right_of_each_image(rng):
    images = rng.integers(0, 256, (2, 3, 4, 3), np.uint8)
    np.testing.assert_array_equal(flip_images(images), images[:, :, ::-1])
