import keras
import numpy as np
import pytest

from siamese_keras.errors import ArgumentError
from siamese_keras.models.outer_model import build_outer_model
from siamese_keras.training.losses import ContrastiveLoss, contrastive_loss
from siamese_keras.training.metrics import BalancedAccuracy, MeanDistance, pair_metrics

BATCHES = [
    # Same at 0.5 and 0.7: right. Different at 0.6: wrong; at 0.9, 1, 1, 1, 1: right.
    ([0, 0, 1, 1, 1, 1, 1, 1], [0.5, 0.7, 0.6, 0.9, 1, 1, 1, 1]),
    # Same at 0.9 and 1.1: wrong.
    ([0, 0, 1, 1, 1, 1, 1, 1], [0.9, 1.1, 1, 1, 1, 1, 1, 1]),
]


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
def test_metrics_by_hand_over_two_batches(shape):
    metrics = pair_metrics(margin=1.2, positive_margin=0.4)  # decides at 0.8
    loss, accuracy, same, different = metrics
    assert [metric.name for metric in metrics] == [
        "contrastive_loss", "midpoint_accuracy", "same_distance", "different_distance"
    ]  # fmt: skip
    for labels, distances in BATCHES:
        for metric in metrics:
            metric.update_state(
                np.reshape(labels, shape).astype(np.float32),
                np.reshape(distances, shape).astype(np.float32),
            )
    # 2 of 4 same pairs and 11 of 12 different pairs are right.
    assert float(accuracy.result()) == pytest.approx((2 / 4 + 11 / 12) / 2)
    assert float(same.result()) == pytest.approx((0.5 + 0.7 + 0.9 + 1.1) / 4)
    assert float(different.result()) == pytest.approx((0.6 + 0.9 + 10) / 12)
    # The excess over 0.4 of the same pairs, what the different ones lack to 1.2; all 16 count.
    costs = [0.1, 0.3, 0.5, 0.7] + [0.6, 0.3] + 10 * [0.2]
    assert float(loss.result()) == pytest.approx(np.mean(np.square(costs)))
    for metric in metrics:
        metric.reset_state()
        assert float(metric.result()) == 0


def test_a_distance_at_the_threshold_is_same():
    accuracy = BalancedAccuracy(0.75)
    accuracy.update_state(np.float32([0, 1]), np.float32([0.75, 1.0]))
    assert float(accuracy.result()) == 1


@pytest.mark.parametrize("weighting", ["uniform", "balanced", "nonzero"])
def test_contrastive_loss_is_the_plain_mean_whatever_is_minimized(rng, weighting):
    base = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    outer = build_outer_model(base, all_pairs=True)
    outer.compile(
        loss=ContrastiveLoss(200.0, 50.0, weighting=weighting), metrics=pair_metrics(200.0, 50.0)
    )
    x = {side: rng.integers(0, 256, (10, 4, 4, 1), np.uint8) for side in ("left", "right")}
    different = (rng.random((10, 10)) < 0.9).astype(np.float32)
    distance = outer.predict(x, verbose=0)
    plain = float(np.mean(contrastive_loss(different, distance, 200.0, 50.0)))
    found = outer.evaluate(x, different, batch_size=10, verbose=0, return_dict=True)
    assert found["contrastive_loss"] == pytest.approx(plain, rel=1e-5)
    assert (found["loss"] == pytest.approx(plain, rel=1e-3)) == (weighting == "uniform")


@pytest.mark.parametrize("metric", [BalancedAccuracy(0.5), MeanDistance(1.0, "different_distance")])
def test_weights_of_pairs_are_refused(metric):
    pairs = np.float32([0, 1]), np.float32([0.2, 0.9])
    with pytest.raises(ArgumentError, match="`sample_weight` is not supported"):
        metric.update_state(*pairs, sample_weight=np.float32([1, 2]))


def test_metrics_are_made_again_from_their_settings():
    for metric in pair_metrics(1.2, 0.4):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert (type(again), again.name) == (type(metric), metric.name)
        for labels, distances in BATCHES:
            for each in (metric, again):
                each.update_state(np.float32(labels), np.float32(distances))
        assert float(again.result()) == float(metric.result()) > 0
