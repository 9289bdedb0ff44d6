"""Figures of verification, retrieval and one-shot classification, from distances and embeddings.

Standard figures come from scikit-learn; what it lacks is written here once. A same pair is the
positive case, as is the custom in verification: the true accept rate (TAR) is the share of same
pairs accepted, the false accept rate (FAR) the share of different pairs accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq
from sklearn import metrics

from siamese_keras.data.pairs import Pairs
from siamese_keras.models.calibration import Classifier

_ECE_BINS = 15


def pair_distances(embeddings: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the Euclidean distance of each pair, float64 `[n]`, by gathering embeddings.

    Args:
        embeddings: float `[images, embedding_dim]`.
        pairs: Indices into them.
    """
    parts = np.array_split(np.arange(len(pairs)), max(len(pairs) // 4096, 1))
    return np.concatenate(
        [
            np.linalg.norm(
                embeddings[pairs.left[part]].astype(np.float64) - embeddings[pairs.right[part]],
                axis=1,
            )
            for part in parts
        ]
    )


def verification(
    pairs: Pairs, distance: np.ndarray, classifier: Classifier, *, seed: int = 0
) -> dict[str, Any]:
    """Judge same/different decisions on pairs.

    Args:
        pairs: The pairs, of both kinds.
        distance: float `[n]`, their distances.
        classifier: Threshold and scale, fitted on other pairs.
        seed: Seed of the bootstrap.

    Returns:
        `accuracy`; `accuracy_ci95`, its 95 % interval by bootstrap over images;
        `accuracy_at_0.5_distance`; `roc_auc`; `average_precision`; `eer`, the equal error rate;
        `tar_at_far_1e-2` and `tar_at_far_1e-3`; `d_prime`, the distance between the means of the
        two kinds in units of their pooled standard deviation; `brier`; `ece`, the expected
        calibration error; `threshold`; `scale`; `num_pairs`.
    """
    same = pairs.different < 0.5
    similarity = classifier.similarity(distance)
    right = classifier.same(distance) == same
    far, tar, _ = metrics.roc_curve(same, -distance, drop_intermediate=False)
    return {
        "accuracy": float(right.mean()),
        "accuracy_ci95": accuracy_interval(pairs, right, seed=seed),
        "accuracy_at_0.5_distance": float(((distance <= 0.5) == same).mean()),
        "roc_auc": float(metrics.roc_auc_score(same, -distance)),
        "average_precision": float(metrics.average_precision_score(same, -distance)),
        "eer": equal_error_rate(far, tar),
        "tar_at_far_1e-2": float(tar[far <= 1e-2].max()),
        "tar_at_far_1e-3": float(tar[far <= 1e-3].max()),
        "d_prime": d_prime(distance[same], distance[~same]),
        "brier": float(metrics.brier_score_loss(same, similarity)),
        "ece": expected_calibration_error(same, similarity),
        "threshold": classifier.threshold,
        "scale": classifier.scale,
        "num_pairs": len(pairs),
    }


def equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """Return the error rate where as many same pairs are rejected as different ones accepted.

    Args:
        far: False accept rates, rising from 0 to 1.
        tar: True accept rates beside them.

    Returns:
        The rate, in [0, 1], interpolated between the two points of the curve around it.
    """
    return float(brentq(lambda rate: 1.0 - rate - np.interp(rate, far, tar), 0.0, 1.0))


def d_prime(same_distance: np.ndarray, different_distance: np.ndarray) -> float:
    """Return the separation of the two distributions (Green & Swets, "Signal Detection", 1966)."""
    pooled = np.sqrt((same_distance.var() + different_distance.var()) / 2)
    return float((different_distance.mean() - same_distance.mean()) / max(pooled, 1e-12))


def expected_calibration_error(same: np.ndarray, similarity: np.ndarray) -> float:
    """Return the mean gap between similarity and share of same pairs, over 15 equal-width bins.

    After Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning" (2015): each bin weighs as much as it has pairs.
    """
    bins = np.minimum((similarity * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = np.bincount(bins, weights=similarity - same, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(same))


def accuracy_interval(
    pairs: Pairs, right: np.ndarray, *, seed: int, resamples: int = 500
) -> list[float]:
    """Return the 95 % interval of the accuracy, by bootstrap over images.

    Pairs share images, so they are not independent, and resampling pairs would give too narrow an
    interval. Images are drawn with replacement; a pair counts as often as the product of the
    counts of its two images.

    Args:
        pairs: The pairs.
        right: bool `[n]`, whether the decision on each was right.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Returns:
        The 2.5 % and 97.5 % quantiles, each in [0, 1].
    """
    rng = np.random.default_rng(seed)
    images, index = np.unique(np.stack([pairs.left, pairs.right]), return_inverse=True)
    left, right_image = index.reshape(2, -1)
    accuracies = []
    for _ in range(resamples):
        count = np.bincount(rng.integers(0, len(images), len(images)), minlength=len(images))
        weight = count[left] * count[right_image]
        accuracies.append((weight * right).sum() / max(weight.sum(), 1))
    return [float(q) for q in np.quantile(accuracies, [0.025, 0.975])]


def class_error_rates(
    pairs: Pairs, labels: np.ndarray, wrong: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return the share of pairs decided wrongly for every two classes.

    Args:
        pairs: The pairs.
        labels: int, the images' classes.
        wrong: bool `[n]`, one for each pair.
        num_classes: Number of classes k.

    Returns:
        float `[k, k]`, symmetric; NaN where there are no pairs.
    """
    counts, errors = np.zeros((2, num_classes, num_classes))
    for a, b in ((pairs.left, pairs.right), (pairs.right, pairs.left)):
        np.add.at(counts, (labels[a], labels[b]), 1)
        np.add.at(errors, (labels[a], labels[b]), wrong)
    return np.divide(errors, counts, out=np.full_like(counts, np.nan), where=counts > 0)


def retrieval(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Judge the ranking of all other images by their distance to each image; ties go by index.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`; images without another one of their class are no queries.

    Returns:
        `recall_at_1` and `recall_at_5`, the share of queries with an image of their class among
        the nearest 1 or 5; `map_at_r`, the mean over queries of (1/R) times the sum over ranks
        i <= R of precision at i where rank i is of the query's class, R being the number of other
        images of that class (Musgrave, Belongie & Lim, "A Metric Learning Reality Check", 2020).
    """
    class_size = np.bincount(labels)[labels] - 1
    first_hits, average_precisions = [], []
    for block, closeness in _closeness(embeddings, embeddings):
        ranking = 0.0 - closeness.numpy()  # 0 and not -0, whose bits differ
        ranking[np.arange(len(block)), block] = np.inf  # the query itself comes last
        queries = class_size[block] > 0
        rows, ranking = block[queries], ranking[queries]
        if not len(rows):
            continue
        depth = max(int(class_size[rows].max()), min(5, len(labels) - 1))
        # Each distance as an integer of the same order, with the index below it: ties go by index.
        bits = ranking.view(np.int32)
        keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(len(labels))
        nearest = np.sort(np.partition(keys, depth - 1, axis=1)[:, :depth], axis=1) & 0xFFFFFFFF
        hits = labels[nearest] == labels[rows, np.newaxis]
        relevant = hits & (np.arange(depth) < class_size[rows, np.newaxis])
        precision = np.cumsum(relevant, axis=1) / np.arange(1, depth + 1)
        average_precisions.append((precision * relevant).sum(axis=1) / class_size[rows])
        first_hits.append(hits[:, :5])
    if not first_hits:
        raise ValueError("`labels` must hold a class with at least two images.")
    top = np.concatenate([h[:, : min(5, h.shape[1])] for h in first_hits])
    return {
        "recall_at_1": float(top[:, 0].mean()),
        "recall_at_5": float(top.any(axis=1).mean()),
        "map_at_r": float(np.concatenate(average_precisions).mean()),
    }


def _closeness(queries: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """Yield, for blocks of queries, which ones and float32 `[block, gallery]`: larger is closer.

    q.g - |g|^2 / 2 orders the gallery as the distance does, and is one matrix product.
    """
    halves = np.square(gallery, dtype=np.float32).sum(axis=1, keepdims=True) / 2
    x = tf.transpose(tf.constant(np.concatenate([gallery, -halves], axis=1), tf.float32))
    for start in range(0, len(queries), 500):
        block = tf.constant(queries[start : start + 500], tf.float32)
        rows = np.arange(start, start + len(block))
        yield rows, tf.matmul(tf.concat([block, tf.ones([len(block), 1])], axis=1), x)


def knn_accuracy(
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    *,
    neighbors: int = 5,
) -> float:
    """Return the accuracy of classifying queries by their nearest gallery images, in [0, 1].

    What scikit-learn's `KNeighborsClassifier` gives by brute force, in a fifth of its time on
    vectors as long as images: among labels with equally many votes the smallest wins.
    """
    votes_of = np.eye(int(gallery_labels.max()) + 1, dtype=np.int32)[gallery_labels]
    right = 0
    for rows, closeness in _closeness(queries, gallery):
        nearest = tf.math.top_k(closeness, min(neighbors, len(gallery))).indices.numpy()
        voted = votes_of[nearest].sum(axis=1).argmax(axis=1)
        right += int((voted == labels[rows]).sum())
    return right / len(queries)


def one_shot(
    embeddings: np.ndarray, labels: np.ndarray, *, ways: int, seed: int, trials: int = 10_000
) -> tuple[float, list[float]]:
    """Judge N-way one-shot classification (Koch, Zemel & Salakhutdinov 2015).

    In each trial `ways` classes are drawn, one support image of each, and one query image, another
    one of the first class. The trial is won when that class's support image is the nearest.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`, with at least `ways` classes of two images or more.
        ways: Number of classes N.
        seed: Seed of the trials.
        trials: Number of trials.

    Returns:
        The share of trials won, and its 95 % interval by the normal approximation.
    """
    rng = np.random.default_rng((seed, ways))
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [m for m in members if len(m) > 1]
    if len(members) < ways:
        raise ValueError(f"{ways}-way trials need {ways} classes. Received: {len(members)}")
    sizes = np.array([len(m) for m in members])
    start = np.cumsum(sizes) - sizes
    images = np.concatenate(members)
    classes = rng.permuted(np.tile(np.arange(len(members)), (trials, 1)), axis=1)[:, :ways]
    drawn = rng.integers(0, sizes[classes])
    support = images[start[classes] + drawn]
    own = classes[:, 0]
    query = images[start[own] + (drawn[:, 0] + rng.integers(1, sizes[own])) % sizes[own]]
    won = 0
    for block in np.array_split(np.arange(trials), max(trials // 500, 1)):
        difference = embeddings[support[block]] - embeddings[query[block]][:, np.newaxis]
        won += int((np.square(difference).sum(axis=-1).argmin(axis=1) == 0).sum())
    share = won / trials
    half_width = 1.96 * np.sqrt(share * (1 - share) / trials)
    return share, [max(share - half_width, 0.0), min(share + half_width, 1.0)]


def summarise(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and sample standard deviation of every number that all reports have."""
    summary: dict[str, Any] = {}
    for key, value in reports[0].items():
        values = [report[key] for report in reports if key in report]
        if len(values) < len(reports):
            continue
        if isinstance(value, dict):
            summary[key] = summarise(values)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            summary[key] = {"mean": float(np.mean(values)), "std": deviation}
    return summary
