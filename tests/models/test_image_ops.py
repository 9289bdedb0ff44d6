import numpy as np

from siamese_keras.models.image_ops import flip_images


def test_flip_swaps_left_and_right_of_each_image(rng):
    images = rng.integers(0, 256, (2, 3, 4, 3), np.uint8)
    np.testing.assert_array_equal(flip_images(images), images[:, :, ::-1])
