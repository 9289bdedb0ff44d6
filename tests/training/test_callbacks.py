import warnings

import numpy as np
import pytest

from siamese_keras.training.callbacks import TrainingWarnings, pair_metrics


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
def test_metrics_by_hand_over_two_batches(shape):
    accuracy, same, different = pair_metrics(margin=1.2, positive_margin=0.4)  # decides at 0.8
    batches = [
        # Same at 0.5 and 0.7: right. Different at 0.6: wrong; at 0.9, 1, 1, 1, 1: right.
        ([0, 0, 1, 1, 1, 1, 1, 1], [0.5, 0.7, 0.6, 0.9, 1, 1, 1, 1]),
        # Same at 0.9 and 1.1: wrong.
        ([0, 0, 1, 1, 1, 1, 1, 1], [0.9, 1.1, 1, 1, 1, 1, 1, 1]),
    ]
    for labels, distances in batches:
        for metric in (accuracy, same, different):
            metric.update_state(
                np.reshape(labels, shape).astype(np.float32),
                np.reshape(distances, shape).astype(np.float32),
            )
    # 2 of 4 same pairs and 11 of 12 different pairs are right.
    assert float(accuracy.result()) == pytest.approx((2 / 4 + 11 / 12) / 2)
    assert float(same.result()) == pytest.approx((0.5 + 0.7 + 0.9 + 1.1) / 4)
    assert float(different.result()) == pytest.approx((0.6 + 0.9 + 10) / 12)
    accuracy.reset_state()
    assert float(accuracy.result()) == 0


def logs(same, different):
    return {"val_same_distance": same, "val_different_distance": different}


@pytest.mark.parametrize(
    ("values", "message"),
    [(logs(1.0, 0.6), "labels look inverted"), (logs(0.001, 0.002), "embedding collapses")],
)
def test_warning_comes_once(values, message):
    callback = TrainingWarnings(margin=1.0)
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(0, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_epoch_end(1, values)


def test_no_warning_when_training_goes_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainingWarnings(margin=1.0).on_epoch_end(0, logs(0.4, 1.1))
        TrainingWarnings(margin=1.0).on_epoch_end(
            0, {"same_distance": 0.4, "different_distance": 1}
        )
