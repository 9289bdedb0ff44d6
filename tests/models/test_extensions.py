import numpy as np
import pytest

from siamese_keras.config import Config
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.extensions import average_mirrored, extend_base_model, keep_features


@pytest.fixture(scope="module")
def base():
    return build_base_model((28, 28, 1), filters=(4, 8), embedding_dim=6)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


def test_mirrored_embeddings_are_the_mean_of_both_views(base, x):
    mirrored = average_mirrored(base, unit_length=True)
    assert mirrored.name == "base"
    mean = base.predict_on_batch(x) + base.predict_on_batch(x[:, :, ::-1].copy())
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(mirrored.predict_on_batch(x), mean, atol=1e-6)
    np.testing.assert_allclose(mirrored(x), mirrored(x[:, :, ::-1].copy()), atol=1e-6)
    assert mirrored.count_params() == base.count_params()


def test_kept_features_stand_beside_the_embedding_with_their_length(base, x):
    embedding = base.predict_on_batch(x)
    kept = keep_features(base, 0.5, unit_length=False)
    assert kept.name == "base"
    assert kept.output_shape == (None, 12)
    whole = kept.predict_on_batch(x)
    np.testing.assert_allclose(whole[:, :6], embedding, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole[:, 6:], axis=1), 0.5, atol=1e-6)
    assert np.ptp(whole[:, 6:], axis=0).max() > 1e-3  # they tell images apart
    unit = keep_features(base, 0.5, unit_length=True).predict_on_batch(x)
    np.testing.assert_allclose(unit[:, :6], embedding / 1.25**0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


def test_the_projection_is_saved_but_not_trained(base):
    kept = keep_features(base, 0.5, unit_length=True)
    assert len(kept.trainable_weights) == len(base.trainable_weights)
    assert len(kept.weights) == len(base.weights) + 1


def test_a_base_model_is_extended_only_when_asked_to(base, x):
    options = {"features": 0.0, "mirror": False, "unit_length": True}
    assert extend_base_model(base, **options) is base
    both = extend_base_model(base, **{**options, "features": 0.5, "mirror": True})
    embedded = both.predict_on_batch(x)
    assert embedded.shape == (3, 12)
    np.testing.assert_allclose(embedded, both(x[:, :, ::-1].copy()), atol=1e-6)
    mirrored = average_mirrored(base, unit_length=True).predict_on_batch(x)
    kept = embedded[:, :6] / np.linalg.norm(embedded[:, :6], axis=1, keepdims=True)
    np.testing.assert_allclose(kept, mirrored, atol=1e-5)


def test_features_without_a_cnn_are_refused():
    with pytest.raises(ValueError, match=r"`features`.*cnn and residual.*mlp"):
        build_base_model((28, 28, 1), architecture="mlp", features=0.5)
    with pytest.raises(ValueError, match=r"`features`.*cnn and residual.*mlp"):
        Config(architecture="mlp", features=0.5)
