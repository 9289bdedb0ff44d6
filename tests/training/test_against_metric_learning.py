"""Our losses against PyTorch Metric Learning's on the same numbers; needs the extra `bench`."""

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.training.batch_losses import (
    MultiSimilarityLoss,
    SupervisedContrastiveLoss,
    TripletSemiHardLoss,
)

torch = pytest.importorskip("torch")
losses = pytest.importorskip("pytorch_metric_learning.losses")
distances = pytest.importorskip("pytorch_metric_learning.distances")
miners = pytest.importorskip("pytorch_metric_learning.miners")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")


def ours(loss, labels, embeddings):
    tensor = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = loss(labels, tensor)
    return float(value), tape.gradient(value, tensor).numpy()


def theirs(loss, labels, embeddings, indices=None):
    tensor = torch.tensor(embeddings, requires_grad=True)
    value = loss(tensor, torch.tensor(labels), indices(tensor) if indices else None)
    value.backward()
    return value.item(), tensor.grad.numpy()


def check(a, b):
    assert a[0] == pytest.approx(b[0], abs=1e-5)
    np.testing.assert_allclose(a[1], b[1], atol=1e-5)


@pytest.fixture
def numbers(rng):
    labels = rng.integers(0, 9, 40)
    labels[-1] = 9  # a class of one image
    centers = rng.normal(size=(10, 8))
    return labels, (centers[labels] + 0.8 * rng.normal(size=(40, 8))).astype(np.float32)


@pytest.mark.parametrize("mining", [False, True])
def test_multi_similarity(numbers, mining):
    labels, embeddings = numbers
    miner = miners.MultiSimilarityMiner(0.1)
    check(
        ours(MultiSimilarityLoss(epsilon=0.1 if mining else None), *numbers),
        theirs(
            losses.MultiSimilarityLoss(),
            labels,
            embeddings,
            (lambda x: miner(x, torch.tensor(labels))) if mining else None,
        ),
    )


def test_supervised_contrastive(numbers):
    check(ours(SupervisedContrastiveLoss(), *numbers), theirs(losses.SupConLoss(), *numbers))


def test_semi_hard_triplets(numbers):
    # Its own miner takes all semi-hard images; Schroff et al. take one, so the triplets are given.
    labels, embeddings = numbers
    distance = np.linalg.norm(embeddings[:, np.newaxis] - embeddings[np.newaxis], axis=2)
    triplets = []
    for i, j in np.ndindex(distance.shape):
        others = np.flatnonzero(labels != labels[i])
        if i != j and labels[i] == labels[j]:
            beyond = [k for k in others if distance[i, k] > distance[i, j]]
            chosen = min(beyond, key=lambda k, i=i: distance[i, k]) if beyond else None
            if chosen is None:
                chosen = max(others, key=lambda k, i=i: distance[i, k])
            triplets.append((i, j, chosen))
    indices = tuple(torch.tensor(column) for column in zip(*triplets, strict=True))
    loss = losses.TripletMarginLoss(
        margin=1.0,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )
    check(
        ours(TripletSemiHardLoss(1.0), *numbers),
        theirs(loss, labels, embeddings, lambda _: indices),
    )
