import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from siamese_keras import metrics
from siamese_keras.initialisation import start_from_classes
from siamese_keras.model import build_base_model
from siamese_keras.pairs import evaluation_pairs
from siamese_keras.runs import embed


def new_base(**options):
    keras.utils.set_random_seed(0)
    return build_base_model((28, 28, 1), **{"filters": (8, 16), "embedding_dim": 16, **options})


def roc_auc(base, split):
    pairs = evaluation_pairs("balanced", split.labels, seed=0)
    distance = metrics.pair_distances(embed(base, split.images), pairs)
    return roc_auc_score(pairs.different, distance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embedding_dim": 4},  # fewer directions than classes
        {"architecture": "residual"},
        {"architecture": "mlp", "units": (64,), "dropout": 0.1},
    ],
    ids=["cnn", "narrow", "residual", "mlp"],
)
def test_classes_are_told_apart_before_training(options, sample):
    base = new_base(**options)
    before = roc_auc(base, sample.test)
    start_from_classes(base, sample.train.images, sample.train.labels, seed=0)
    assert roc_auc(base, sample.test) > before + 0.04


def test_batch_normalisation_has_the_statistics_of_the_images(sample):
    base = new_base()
    start_from_classes(base, sample.train.images, sample.train.labels, seed=0)
    norm = base.get_layer("norm1")
    assert norm.momentum == 0.9
    pooled = keras.Model(base.input, norm.input).predict(sample.train.images, verbose=0)
    mean = pooled.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, pooled.var(axis=(0, 1, 2)), rtol=0.02)


def test_random_weights_stay_beside_the_directions_of_the_classes(sample):
    base = new_base()
    random = base.get_layer("embedding").get_weights()[0]
    start_from_classes(base, sample.train.images, sample.train.labels, seed=0)
    added = base.get_layer("embedding").get_weights()[0] - random
    strengths = np.linalg.svd(added, compute_uv=False)
    assert (strengths > 1e-3 * strengths[0]).sum() == 9  # ten classes around their mean
    convolution = new_base().get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(base.get_layer("conv1").get_weights()[0], convolution)


def test_the_seed_decides(sample):
    def kernel(seed):
        base = new_base()
        start_from_classes(base, sample.train.images, sample.train.labels, seed=seed)
        return base.get_layer("embedding").get_weights()[0]

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert np.abs(kernel(1) - kernel(2)).max() > 1e-3


def test_images_without_a_difference_leave_the_weights_finite():
    base = new_base()
    start_from_classes(base, np.zeros((8, 28, 28, 1), np.uint8), np.arange(8) % 2, seed=0)
    assert all(np.isfinite(weight).all() for weight in base.get_weights())
    assert np.isfinite(base.predict_on_batch(np.zeros((1, 28, 28, 1), np.uint8))).all()
