import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ArgumentError
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


@pytest.mark.parametrize("weighting", ["balanced", "nonzero"])
@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_weighted_loss_of_a_batch_with_one_kind_is_finite(kind, weighting):
    loss = ContrastiveLoss(1.0, weighting=weighting)(np.full(3, kind), np.full(3, 0.5, np.float32))
    assert float(loss) == pytest.approx(0.125)


def test_nonzero_loss_averages_the_pairs_that_cost_something():
    different = np.array([1, 1, 1, 0, 0, 0], np.float32)
    distance = np.array([0.2, 0.7, 1.3, 0.1, 0.6, 0.3], np.float32)
    loss = ContrastiveLoss(1.2, 0.4, weighting="nonzero")
    # 1.0 and 0.5 short of the margin, 0.2 beyond the positive margin; the rest costs nothing.
    expected = (1.0**2 + 0.5**2) / 2 / 2 + 0.2**2 / 2
    assert float(loss(different, distance)) == pytest.approx(expected)
    assert float(loss(different[:3], np.float32([2, 2, 2]))) == 0


@pytest.mark.parametrize("weighting", ["uniform", "balanced", "nonzero"])
def test_loss_of_all_pairs_is_the_loss_of_the_same_pairs_in_a_list(rng, weighting):
    different = rng.integers(0, 2, (6, 7)).astype(np.float32)
    distance = rng.uniform(0, 2, (6, 7)).astype(np.float32)
    loss = ContrastiveLoss(1.2, 0.4, weighting=weighting)
    assert float(loss(different, distance)) == pytest.approx(
        float(loss(different.ravel(), distance.ravel())), rel=1e-5
    )


@pytest.mark.parametrize(
    ("different", "distance"), [((4,), (4, 1)), ((4, 1), (4,)), ((4,), (5,)), ((2, 3), (3, 2))]
)
def test_unequal_shapes_are_refused(different, distance):
    with pytest.raises(
        ArgumentError,
        match=re.escape(
            f"same shape. Received: different.shape={different}, distance.shape={distance}"
        ),
    ):
        contrastive_loss(np.zeros(different), np.zeros(distance, np.float32))


@pytest.mark.parametrize(
    ("margin", "positive_margin", "message"),
    [
        (-1, 0, "`margin` must be positive. Received: margin=-1"),
        (0, 0, "`margin` must be positive"),
        (float("nan"), 0, "`margin` must be positive"),
        (1, 1, "less than `margin`"),
        (1, -0.1, "at least 0"),
        (1, float("nan"), "at least 0"),
    ],
)
@pytest.mark.parametrize("make", [ContrastiveLoss, lambda *m: contrastive_loss([0.0], [0.0], *m)])
def test_margins_out_of_range_are_refused(make, margin, positive_margin, message):
    with pytest.raises(ArgumentError, match=message):
        make(margin, positive_margin)


def test_an_unknown_weighting_is_refused_with_the_choices():
    with pytest.raises(ArgumentError) as refused:
        ContrastiveLoss(weighting="hard")
    assert str(refused.value) == (
        "`weighting` must be one of 'uniform', 'balanced', 'nonzero'. Received: weighting='hard'"
    )


@pytest.mark.parametrize("weighting", ["uniform", "balanced", "nonzero"])
def test_gradients_are_finite_at_the_edges(weighting):
    distance = tf.constant([0.0, 0.0, 0.4, 1.2])
    different = [0.0, 1.0, 0.0, 1.0]
    with tf.GradientTape() as tape:
        tape.watch(distance)
        loss = ContrastiveLoss(1.2, 0.4, weighting=weighting, reduction="sum")(different, distance)
    # d/dd of (1.2 - d)**2 at 0 is -2.4; every other pair is at a point of no slope. Among the two
    # different pairs only the first costs anything, so that "nonzero" gives it twice the weight.
    expected = -2.4 * (2 if weighting == "nonzero" else 1)
    np.testing.assert_allclose(tape.gradient(loss, distance), [0, expected, 0, 0], atol=1e-6)


def test_loss_is_made_again_from_its_settings():
    loss = ContrastiveLoss(
        1.5, 0.25, weighting="balanced", reduction="sum", name="mine", dtype="float64"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    for name in ("margin", "positive_margin", "weighting", "reduction", "name", "dtype"):
        assert getattr(again, name) == getattr(loss, name)
    assert (again.margin, again.reduction, again.dtype) == (1.5, "sum", "float64")


@pytest.mark.parametrize("loss", [ContrastiveLoss(1.5, 0.25), contrastive_loss])
def test_a_model_compiled_with_the_loss_is_saved_and_loaded(rng, tmp_path, loss):
    # In a fresh process: tests/models/test_outer_model.py.
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), keras.layers.Reshape(())])
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    x, y = rng.normal(size=(8, 2)).astype(np.float32), np.repeat([0.0, 1.0], 4)
    expected = model.evaluate(x, y, verbose=0)
    assert expected > 0
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(expected)
