import numpy as np
import pytest

from siamese_keras.evaluation.baselines import (
    BASELINES,
    raw_pixels,
    silhouette_block_means,
    unit_block_means,
    unit_pixels,
)


@pytest.fixture
def image():
    """Two blocks high and three wide: the first is white, two others have one faint pixel."""
    images = np.zeros((1, 8, 12, 1), np.uint8)
    images[0, :4, :4] = 255
    images[0, 4, 0] = 12  # below 0.05 * 255 = 12.75
    images[0, 7, 11] = 13  # above
    return images


def test_baselines_by_hand(image):
    np.testing.assert_allclose(silhouette_block_means(image), [[1, 0, 0, 0, 0, 1 / 16]])
    pixels = raw_pixels(image)
    assert pixels.shape == (1, 96)
    np.testing.assert_allclose(pixels[0, [0, 4, 48, 95]], [1, 0, 12 / 255, 13 / 255])
    np.testing.assert_allclose(unit_pixels(image)[0, 0], 1 / np.linalg.norm(pixels), rtol=1e-6)
    blocks = np.array([1, 0, 0, 12 / 255 / 16, 0, 13 / 255 / 16])
    np.testing.assert_allclose(
        unit_block_means(image)[0], blocks / np.linalg.norm(blocks), rtol=1e-5
    )


def test_baselines_are_named_by_their_functions():
    assert dict(BASELINES) == {
        "raw_pixels": raw_pixels,
        "unit_pixels": unit_pixels,
        "unit_block_means": unit_block_means,
        "silhouette_block_means": silhouette_block_means,
    }
    with pytest.raises(TypeError):
        BASELINES["other"] = raw_pixels


@pytest.mark.parametrize("embed", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize("shape", [(28, 28, 1), (2, 3, 1), (5, 30, 3), (1, 1, 4)])
def test_baselines_take_images_of_any_shape(embed, shape, rng):
    images = rng.integers(0, 256, (3, *shape), np.uint8)
    images[0] = 0
    vectors = embed(images)
    assert (len(vectors), vectors.ndim, vectors.dtype) == (3, 2, np.float32)
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], 0)  # a black image, which has no direction
    if embed in (unit_pixels, unit_block_means):
        np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, rtol=1e-5)


def test_blocks_at_the_edges_are_dropped_and_small_images_are_one_block():
    # 2 x 30 pixels: one row of blocks of 2 x 4, seven of them, of three channels.
    assert silhouette_block_means(np.ones((2, 3, 30, 3), np.uint8)).shape == (2, 21)
    image = np.zeros((1, 9, 4, 1), np.uint8)
    image[0, 8] = 255  # the ninth row fills no block
    np.testing.assert_array_equal(silhouette_block_means(image), [[0, 0]])
