import keras
import numpy as np
import pytest

from siamese_keras.errors import ModelError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.embedder import KerasEmbedder, batch_size_of


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


def test_without_a_calibration_nothing_is_compared(embedder, sample):
    with pytest.raises(ModelError, match="no calibration"):
        embedder.compare(sample.test.images[:1], sample.test.images[:1])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), 500),
        ((32, 32, 3), 500),
        ((64, 64, 3), 125),
        ((224, 224, 3), 10),
        ((2048,), 500),
    ],
)
def test_fewer_large_images_are_embedded_at_a_time(shape, expected):
    assert batch_size_of(shape) == expected


@pytest.mark.parametrize("number", [3, 500])
def test_embeddings_of_a_model_in_half_precision_are_float32(number):
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, dtype="mixed_float16"),
        ]
    )
    embeddings = KerasEmbedder(base).embed(np.ones((number, 8, 8, 1), np.uint8))
    assert embeddings.dtype == np.float32
