import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ArgumentError
from siamese_keras.models.distances import pairwise_euclidean_distance
from siamese_keras.training.batch_losses import (
    MultiSimilarityLoss,
    SupervisedContrastiveLoss,
    TripletSemiHardLoss,
    multi_similarity_loss,
    semi_hard_triplet_loss,
    supervised_contrastive_loss,
)

FUNCTIONS = [multi_similarity_loss, semi_hard_triplet_loss, supervised_contrastive_loss]
CLASSES = [MultiSimilarityLoss, TripletSemiHardLoss, SupervisedContrastiveLoss]


# The loops below follow the papers, anchor by anchor, in float64, and share no code with ours.


def multi_similarity_loop(different, distance, valid, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1):
    losses = []
    for label, row, use in zip(different, distance, valid, strict=True):
        same = [1 - d * d / 2 for d, y, u in zip(row, label, use, strict=True) if u and not y]
        other = [1 - d * d / 2 for d, y, u in zip(row, label, use, strict=True) if u and y]
        if epsilon is None:
            kept_same, kept_other = same, other
        else:
            kept_same = [s for s in same if other and s < max(other) + epsilon]
            kept_other = [s for s in other if same and s > min(same) - epsilon]
        pull = math.log(1 + sum(math.exp(-alpha * (s - base)) for s in kept_same)) / alpha
        push = math.log(1 + sum(math.exp(beta * (s - base)) for s in kept_other)) / beta
        losses.append(pull + push)
    return np.array(losses)


def semi_hard_triplet_loop(different, distance, valid, margin=1.0):
    losses = np.zeros(np.shape(distance))
    for i, j in np.ndindex(losses.shape):
        if not valid[i][j] or different[i][j]:
            continue
        others = [d for d, y, u in zip(distance[i], different[i], valid[i], strict=True) if u and y]
        if others:
            beyond = [d for d in others if d > distance[i][j]]
            chosen = min(beyond) if beyond else max(others)
            losses[i, j] = max(distance[i][j] - chosen + margin, 0)
    return losses


def supervised_contrastive_loop(different, distance, valid, temperature=0.1):
    losses = []
    for label, row, use in zip(different, distance, valid, strict=True):
        scores = [(1 - d * d / 2) / temperature for d in row]
        total = sum(math.exp(s) for s, u in zip(scores, use, strict=True) if u)
        same = [s for s, y, u in zip(scores, label, use, strict=True) if u and not y]
        logs = [-math.log(math.exp(s) / total) for s in same]
        losses.append(sum(logs) / len(logs) if logs else 0.0)
    return np.array(losses)


LOOPS = [multi_similarity_loop, semi_hard_triplet_loop, supervised_contrastive_loop]
PAIRED = pytest.mark.parametrize("function, loop", list(zip(FUNCTIONS, LOOPS, strict=True)))


def batch(rng, anchors=9, others=7, share=0.7):
    """Distances as of unit-length embeddings, labels, and which pairs count."""
    distance = rng.uniform(0.2, 1.8, (anchors, others)).astype(np.float32)
    different = (rng.random((anchors, others)) < share).astype(np.float32)
    different[0], different[1] = 1, 0  # an anchor without same pairs, one without different ones
    return different, distance, rng.random((anchors, others)) < 0.9


@PAIRED
@pytest.mark.parametrize("masked", [False, True])
def test_the_function_equals_a_plain_loop(rng, function, loop, masked):
    different, distance, valid = batch(rng)
    found = function(different, distance, valid=valid if masked else None)
    valid = valid if masked else np.ones_like(valid)
    np.testing.assert_allclose(
        found, loop(different, distance.astype(np.float64), valid), rtol=1e-6, atol=1e-6
    )


@PAIRED
def test_the_gradient_equals_that_of_the_loop(rng, function, loop):
    different, distance, valid = batch(rng)
    tensor = tf.constant(distance)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(function(different, tensor, valid=valid))
    expected, step = np.zeros(distance.shape), 1e-6
    for index in np.ndindex(distance.shape):
        shifted = [distance.astype(np.float64) for _ in range(2)]
        shifted[0][index] += step
        shifted[1][index] -= step
        up, down = (loop(different, s, valid).sum() for s in shifted)
        expected[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(tape.gradient(total, tensor), expected, rtol=1e-4, atol=1e-6)


def test_without_mining_all_pairs_count(rng):
    different, distance, valid = batch(rng)
    found = multi_similarity_loss(different, distance, valid=valid, epsilon=None)
    expected = multi_similarity_loop(different, distance.astype(np.float64), valid, epsilon=None)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_semi_hard_triplet_by_hand():
    # Same images at 0.5 and 0.9, different ones at 0.4, 0.7 and 0.8. For 0.5 the nearest farther
    # one is at 0.7; for 0.9 none is farther, so the farthest counts: 0.8.
    loss = semi_hard_triplet_loss([[0, 0, 1, 1, 1]], [[0.5, 0.9, 0.4, 0.7, 0.8]], margin=0.5)
    np.testing.assert_allclose(loss, [[0.3, 0.6, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "case", ["no same pair", "no different pair", "all distances 0", "no pair"]
)
def test_degenerate_batches_have_finite_losses_and_gradients(function, case):
    distance = np.full((4, 4), 0.0 if case == "all distances 0" else 0.7, np.float32)
    different = 1 - np.eye(4, dtype=np.float32)
    if case in ("no same pair", "no different pair"):
        different[:] = case == "no same pair"
    valid = np.full((4, 4), case != "no pair")
    tensor = tf.constant(distance)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = function(different, tensor, valid=valid)
    assert np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, tensor)).all()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
def test_equal_embeddings_have_a_finite_loss_and_gradient(cls, labels):
    embeddings = tf.ones([4, 3])
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        loss = cls()(np.array(labels), embeddings)
    assert math.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, embeddings)).all()


def numpy_distances(embeddings):
    return np.linalg.norm(embeddings[:, np.newaxis] - embeddings[np.newaxis], axis=2)


@pytest.mark.parametrize("column", [False, True])
def test_labels_and_embeddings(rng, column):
    labels = np.array([3, 3, 1, 1, 1, 8])
    embeddings = rng.normal(size=(6, 4)).astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    different, valid = labels[:, np.newaxis] != labels, ~np.eye(6, dtype=bool)
    given = labels[:, np.newaxis] if column else labels
    multi = multi_similarity_loop(different, numpy_distances(unit), valid).mean()
    triplet = semi_hard_triplet_loop(different, numpy_distances(embeddings), valid)
    supervised = supervised_contrastive_loop(different, numpy_distances(unit), valid)
    expected = [multi, triplet.sum() / 8, supervised[:5].mean()]  # 8 same pairs; 5 anchors have one
    for cls, value in zip(CLASSES, expected, strict=True):
        assert float(cls()(given, embeddings)) == pytest.approx(value, rel=1e-5), cls


def test_left_and_right_images_of_a_distance_matrix_are_anchors(rng):
    different, distance, _ = batch(rng, 6, 6)
    every = np.ones((6, 6), bool)
    exact = distance.astype(np.float64)
    rows, columns = (different, exact), (different.T, exact.T)
    multi = np.mean([multi_similarity_loop(*side, every).mean() for side in (rows, columns)])
    assert float(MultiSimilarityLoss()(different, distance)) == pytest.approx(multi, rel=1e-5)
    num_same = (different == 0).sum()
    triplet = sum(semi_hard_triplet_loop(*side, every).sum() for side in (rows, columns))
    assert float(TripletSemiHardLoss()(different, distance)) == pytest.approx(
        triplet / (2 * num_same), rel=1e-5
    )
    per_side = [
        supervised_contrastive_loop(*side, every)[(side[0] == 0).any(axis=1)].mean()
        for side in (rows, columns)
    ]
    assert float(SupervisedContrastiveLoss()(different, distance)) == pytest.approx(
        np.mean(per_side), rel=1e-5
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_a_plain_keras_model_trains_on_labels(rng, cls):
    keras.utils.set_random_seed(0)
    labels = np.repeat(np.arange(8), 8)
    images = rng.normal(size=(8, 12))[labels] + 0.5 * rng.normal(size=(64, 12))
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(6)])
    model.compile(keras.optimizers.Adam(0.01), cls())
    losses = model.fit(images, labels, batch_size=64, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    distance = np.array(pairwise_euclidean_distance([model.predict(images, verbose=0)] * 2))
    same = labels[:, np.newaxis] == labels
    assert distance[same].mean() < 0.7 * distance[~same].mean()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loss_survives_saving(cls):
    options = {
        MultiSimilarityLoss: {"alpha": 3.0, "beta": 40.0, "base": 0.4, "epsilon": None},
        TripletSemiHardLoss: {"margin": 0.3},
        SupervisedContrastiveLoss: {"temperature": 0.2},
    }[cls]
    loss = cls(**options, name="mine", reduction="sum", dtype="float32")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is cls
    assert restored.get_config() == loss.get_config()
    for name, value in options.items():
        assert getattr(restored, name) == value


@pytest.mark.parametrize(
    "cls, option",
    [
        (MultiSimilarityLoss, "alpha"),
        (MultiSimilarityLoss, "beta"),
        (TripletSemiHardLoss, "margin"),
        (SupervisedContrastiveLoss, "temperature"),
    ],
)
def test_values_out_of_range_are_refused(cls, option):
    with pytest.raises(ArgumentError, match=f"`{option}` must be positive. Received: {option}=0"):
        cls(**{option: 0})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_that_do_not_fit_are_refused(function):
    with pytest.raises(ArgumentError, match="the same shape"):
        function(np.zeros((3, 4)), np.zeros((3, 3)))
    with pytest.raises(ArgumentError, match=r"the shape \[anchors, others\]"):
        function(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_order_of_a_batch_does_not_count(rng, cls):
    labels, embeddings = np.array([0, 0, 1, 1, 2]), rng.normal(size=(5, 3)).astype(np.float32)
    order = rng.permutation(5)
    assert float(cls()(labels, embeddings)) == pytest.approx(
        float(cls()(labels[order], embeddings[order])), rel=1e-5
    )


def test_the_loops_differ():  # or they would not tell the losses apart
    different, distance, valid = batch(np.random.default_rng(1))
    totals = [loop(different, distance, valid).sum() for loop in LOOPS]
    for a, b in itertools.combinations(totals, 2):
        assert abs(a - b) > 0.1


def test_the_classes_compute_their_losses_with_their_settings(rng):
    different, distance, _ = batch(rng, 6, 6)
    every, exact = np.ones((6, 6), bool), distance.astype(np.float64)
    sides = [(different, exact, every), (different.T, exact.T, every)]
    options = {"alpha": 3.0, "beta": 40.0, "base": 0.4, "epsilon": None}
    expected = np.mean([multi_similarity_loop(*side, **options) for side in sides])
    found = MultiSimilarityLoss(**options)(different, distance)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    total = sum(semi_hard_triplet_loop(*side, margin=0.3).sum() for side in sides)
    found = TripletSemiHardLoss(margin=0.3)(different, distance)
    assert float(found) == pytest.approx(total / (2 * (different == 0).sum()), rel=1e-5)
    expected = np.mean(
        [
            supervised_contrastive_loop(*side, temperature=0.2)[(side[0] == 0).any(axis=1)].mean()
            for side in sides
        ]
    )
    found = SupervisedContrastiveLoss(temperature=0.2)(different, distance)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loss_has_the_reduction_name_and_type_that_it_is_given(cls):
    loss = cls(reduction="sum", name="mine", dtype="float64")
    assert (loss.reduction, loss.name, loss.dtype) == ("sum", "mine", "float64")


def test_a_different_image_exactly_as_far_as_the_same_one_is_not_farther():
    loss = semi_hard_triplet_loss([[0, 1, 1]], [[0.5, 0.5, 0.75]], margin=1.0)
    np.testing.assert_allclose(loss, [[0.75, 0, 0]])
