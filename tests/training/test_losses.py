import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.training.losses import ContrastiveLoss, contrastive_loss


def test_loss_by_hand():
    # same, d = 0.5:           0.5**2        = 0.25
    # different, d = 0.5:      (2 - 0.5)**2  = 2.25
    # different, d = margin:   0
    # different, d > margin:   0
    # same, d = 0:             0
    loss = contrastive_loss([0.0, 1.0, 1.0, 1.0, 0.0], [0.5, 0.5, 2.0, 3.0, 0.0], margin=2.0)
    np.testing.assert_allclose(loss, [0.25, 2.25, 0, 0, 0])


def test_positive_margin_by_hand():
    # same, d = 0.2 < 0.3: 0;  same, d = 0.5: (0.5 - 0.3)**2 = 0.04;  different, d = 0.5: 0.5**2
    loss = contrastive_loss([0.0, 0.0, 1.0], [0.2, 0.5, 0.5], margin=1.0, positive_margin=0.3)
    np.testing.assert_allclose(loss, [0, 0.04, 0.25], rtol=1e-5)


@pytest.mark.parametrize("shape", [(40,), (6, 7)])
def test_loss_equals_a_plain_loop(rng, shape):
    different = rng.integers(0, 2, shape).astype(np.float32)
    distance = rng.uniform(0, 2, shape).astype(np.float32)
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        if different[index]:
            expected[index] = max(1.2 - distance[index], 0) ** 2
        else:
            expected[index] = max(distance[index] - 0.4, 0) ** 2
    np.testing.assert_allclose(contrastive_loss(different, distance, 1.2, 0.4), expected, atol=1e-6)
    np.testing.assert_allclose(
        ContrastiveLoss(1.2, 0.4)(different, distance), expected.mean(), rtol=1e-5
    )


def test_balanced_loss_gives_each_kind_half_the_weight():
    # One same pair with loss 1, three different pairs with losses 0.25, 0.25 and 1: (1 + 0.5) / 2.
    different = np.array([0, 1, 1, 1], np.float32)
    distance = np.array([1, 0.5, 0.5, 0], np.float32)
    assert float(ContrastiveLoss(1.0, weighting="balanced")(different, distance)) == pytest.approx(
        0.75
    )


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_balanced_loss_of_a_batch_with_one_kind_is_finite(kind):
    loss = ContrastiveLoss(1.0, weighting="balanced")(np.full(3, kind), np.full(3, 0.5, np.float32))
    assert float(loss) == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("different", "distance"), [((4,), (4, 1)), ((4, 1), (4,)), ((4,), (5,)), ((2, 3), (3, 2))]
)
def test_unequal_shapes_are_refused(different, distance):
    with pytest.raises(ValueError, match=r"same shape. Received: different.shape="):
        contrastive_loss(np.zeros(different), np.zeros(distance, np.float32))


@pytest.mark.parametrize(
    ("margin", "positive_margin", "message"),
    [
        (-1, 0, "`margin` must be positive. Received: margin=-1"),
        (0, 0, "`margin` must be positive"),
        (float("nan"), 0, "`margin` must be positive"),
        (1, 1, "less than `margin`"),
        (1, -0.1, "at least 0"),
    ],
)
@pytest.mark.parametrize("make", [ContrastiveLoss, lambda *m: contrastive_loss([0.0], [0.0], *m)])
def test_margins_out_of_range_are_refused(make, margin, positive_margin, message):
    with pytest.raises(ValueError, match=message):
        make(margin, positive_margin)


def test_active_loss_averages_the_pairs_that_cost_something():
    different = np.array([1, 1, 1, 0, 0, 0], np.float32)
    distance = np.array([0.2, 0.7, 1.3, 0.1, 0.6, 0.3], np.float32)
    loss = ContrastiveLoss(1.2, 0.4, weighting="active")
    # 1.0 and 0.5 short of the margin, 0.2 beyond the positive margin; the rest costs nothing.
    expected = (1.0**2 + 0.5**2) / 2 / 2 + 0.2**2 / 2
    assert float(loss(different, distance)) == pytest.approx(expected)
    assert float(loss(different[:3], np.float32([2, 2, 2]))) == 0


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match=r"`weighting` must be one of .* Received: 'hard'"):
        ContrastiveLoss(weighting="hard")


def test_gradients_are_finite_at_the_edges():
    distance = tf.constant([0.0, 0.0, 0.4, 1.2])
    with tf.GradientTape() as tape:
        tape.watch(distance)
        loss = contrastive_loss([0.0, 1.0, 0.0, 1.0], distance, 1.2, 0.4)
    # d/dd of (1.2 - d)**2 at 0 is -2.4; every other pair is at a point of no slope.
    np.testing.assert_allclose(tape.gradient(loss, distance), [0, -2.4, 0, 0], atol=1e-6)


def test_loss_is_saved_with_a_model_and_loaded_in_a_fresh_process(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss=ContrastiveLoss(1.5, 0.25, weighting="balanced"))
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, siamese_keras.training.losses\n"
        "loss = keras.models.load_model(sys.argv[1], safe_mode=True).loss\n"
        "print(type(loss).__name__, loss.margin, loss.positive_margin, loss.weighting)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.keras"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["ContrastiveLoss", "1.5", "0.25", "balanced"]
