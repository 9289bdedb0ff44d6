import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.data.decode import decode_batch
from siamese_keras.errors import ModelError, RequestError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.embedder import KerasEmbedder


@pytest.fixture(scope="module")
def base():
    keras.utils.set_random_seed(0)
    return build_base_model((28, 28, 1), filters=(4, 8), embedding_dim=6)


@pytest.fixture(scope="module")
def embedder(base):
    return KerasEmbedder(base)


def test_embeddings_are_the_base_models_as_it_predicts(base, embedder, sample):
    # Batch normalization and dropout act otherwise in training.
    found = embedder.embed(sample.test.images[:20])
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    expected = base.predict(sample.test.images[:20], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_full_batch_is_embedded_as_a_part_of_it(embedder, sample):
    images = sample.train.images[: embedder.batch_size]
    assert len(images) == embedder.batch_size
    whole = embedder.embed(images)
    assert isinstance(whole, np.ndarray)
    np.testing.assert_allclose(whole[:3], embedder.embed(images[:3]), atol=1e-6)


def test_files_are_embedded_as_their_pixels(embedder, sample):
    images = sample.test.images[:3]
    files = [tf.io.encode_png(image).numpy() for image in images]
    np.testing.assert_allclose(embedder.embed(files), embedder.embed(images), atol=1e-6)


def test_files_of_other_sizes_and_colors_are_decoded_first(embedder, rng):
    files = [
        tf.io.encode_png(rng.integers(0, 256, (40, 30, 3), np.uint8)).numpy(),
        tf.io.encode_jpeg(rng.integers(0, 256, (9, 50, 1), np.uint8)).numpy(),
        tf.io.encode_png(rng.integers(0, 256, (5, 5, 4), np.uint8)).numpy(),
    ]
    pixels = decode_batch(tf.constant(files), (28, 28, 1)).numpy()
    np.testing.assert_allclose(embedder.embed(files), embedder.embed(pixels), atol=1e-6)


def test_a_file_that_is_not_an_image_is_refused_in_one_line(embedder):
    with pytest.raises(RequestError) as refused:
        embedder.embed([b"not an image"])
    assert str(refused.value) == "An image must be a PNG or JPEG file."


def test_without_a_calibration_nothing_is_compared(embedder, sample):
    with pytest.raises(ModelError, match="no calibration"):
        embedder.compare(sample.test.images[:1], sample.test.images[:1])
