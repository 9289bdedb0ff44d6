"""Metrics of verification, retrieval and one-shot classification.

Standard metrics come from scikit-learn; the rest is written here. A same pair is the positive case,
as usual in verification: the true accept rate (TAR) is the share of same pairs accepted, the false
accept rate (FAR) the share of different pairs accepted.

The module is long since every metric is documented with its definition and source.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq
from sklearn import metrics
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from siamese_keras.data.pairs import Pairs
from siamese_keras.errors import ArgumentError
from siamese_keras.models.calibration import Calibration

ECE_BINS = 15
_BLOCK = 5_000_000  # distances that are held at once, 20 MB
_GATHERED = 4_000_000  # numbers of each side of pairs that are held at once
_CLUSTERED = 500_000_000  # numbers that a step of k-means compares, at most


def pair_distances(embeddings: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the Euclidean distance of each pair, float64 `[n]`, by gathering embeddings.

    Args:
        embeddings: float `[images, embedding_dim]`.
        pairs: Indices into them.
    """
    numbers = len(pairs) * embeddings.shape[1]
    parts = np.array_split(np.arange(len(pairs)), max(-(-numbers // _GATHERED), 1))
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
    pairs: Pairs,
    distance: np.ndarray,
    calibration: Calibration,
    *,
    seed: int = 0,
    classes: np.ndarray | None = None,
) -> dict[str, Any]:
    """Evaluate same/different decisions on pairs.

    Args:
        pairs: The pairs, same and different ones.
        distance: float `[n]`, their distances.
        calibration: Threshold and slope, fitted on other pairs.
        seed: Seed of the bootstrap.
        classes: int `[images]`, the images' classes, to resample classes, for an interval that
            covers other classes; None resamples images.

    Returns:
        `accuracy`; `accuracy_ci95`, its 95 % interval by bootstrap;
        `accuracy_at_0.5_distance`; `roc_auc`; `average_precision`; `eer`, the equal error rate;
        `tar_at_far_1e-2` and `tar_at_far_1e-3`; `d_prime`, the distance between the means of the
        two kinds in units of their pooled standard deviation; `brier`; `ece`, the expected
        calibration error; `threshold`; `slope`; `midpoint`, which differs from a threshold that was
        chosen after the fit; `num_pairs`.
    """
    same = pairs.different < 0.5
    similarity = calibration.similarity(distance)
    correct = calibration.same(distance) == same
    far, tar, _ = metrics.roc_curve(same, -distance, drop_intermediate=False)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_ci95": accuracy_interval(pairs, correct, seed=seed, classes=classes),
        "accuracy_at_0.5_distance": float(((distance <= 0.5) == same).mean()),
        "roc_auc": float(metrics.roc_auc_score(same, -distance)),
        "average_precision": float(metrics.average_precision_score(same, -distance)),
        "eer": equal_error_rate(far, tar),
        "tar_at_far_1e-2": float(tar[far <= 1e-2].max()),
        "tar_at_far_1e-3": float(tar[far <= 1e-3].max()),
        "d_prime": d_prime(distance[same], distance[~same]),
        "brier": float(metrics.brier_score_loss(same, similarity)),
        "ece": expected_calibration_error(same, similarity),
        "threshold": calibration.threshold,
        "slope": calibration.slope,
        "midpoint": calibration.midpoint,
        "num_pairs": len(pairs),
    }


def equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """Return the error rate where the false reject rate equals the false accept rate.

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
    bins = np.minimum((similarity * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=similarity - same, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(same))


def accuracy_interval(
    pairs: Pairs,
    correct: np.ndarray,
    *,
    seed: int,
    resamples: int = 500,
    classes: np.ndarray | None = None,
) -> list[float]:
    """Return the 95 % interval of the accuracy, by bootstrap over images or over classes.

    Pairs share images, so they are not independent: resampling pairs would give too narrow an
    interval. Images, or classes, are drawn with replacement; a pair counts as often as the product
    of the counts of its two, and a pair of one class as often as that class.

    Args:
        pairs: The pairs.
        correct: bool `[n]`, whether the decision on each was correct.
        seed: Seed of the resampling.
        resamples: Number of resamples.
        classes: int `[images]`, the images' classes, to draw classes; None draws images.

    Returns:
        The 2.5 % and 97.5 % quantiles, each in [0, 1].
    """
    rng = np.random.default_rng(seed)
    drawn = np.stack([pairs.left, pairs.right])
    units, index = np.unique(drawn if classes is None else classes[drawn], return_inverse=True)
    left, right = index.reshape(2, -1)
    accuracies = []
    for _ in range(resamples):
        count = np.bincount(rng.integers(0, len(units), len(units)), minlength=len(units))
        weight = np.where(left == right, count[left], count[left] * count[right])
        if weight.any():  # few images may be drawn without a pair
            accuracies.append((weight * correct).sum() / weight.sum())
    return [float(q) for q in np.quantile(accuracies, [0.025, 0.975])]


def class_error_rates(
    pairs: Pairs, labels: np.ndarray, wrong: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return the error rate of the pairs of every two classes.

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


def most_confused(
    pairs: Pairs, labels: np.ndarray, wrong: np.ndarray, candidates: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return for each class the other one with which it has the highest error rate of pairs.

    Its memory grows with the pairs, that of `class_error_rates` with the square of the classes.

    Args:
        pairs: The pairs.
        labels: int, the images' classes.
        wrong: bool `[n]`, one for each pair.
        candidates: int, sorted, the classes that may be returned, at least two.
        num_classes: Number of classes k.

    Returns:
        int `[k]`; of equal error rates the smallest class, and the smallest candidate for a class
        that has no pair with one.
    """
    sides = labels[np.stack([pairs.left, pairs.right])].astype(np.int64)
    own, other = sides, sides[::-1]
    used = (own != other) & np.isin(other, candidates)
    codes = own[used] * num_classes + other[used]
    codes, index, count = np.unique(codes, return_inverse=True, return_counts=True)
    rate = np.bincount(index, np.stack([wrong, wrong])[used]) / count
    least_first = np.argsort(-rate, kind="stable")[::-1]
    own, other = np.divmod(codes[least_first], num_classes)
    found = np.where(np.arange(num_classes) == candidates[0], candidates[1], candidates[0])
    found[own] = other  # of several, numpy keeps the last one
    return found


def retrieval(
    embeddings: np.ndarray, labels: np.ndarray, queries: np.ndarray | None = None
) -> dict[str, float]:
    """Evaluate the ranking of all other images by their distance to each image.

    Ties are ranked by index; for `map`, other classes are ranked before the query's.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`; images without another one of their class are not queries.
        queries: bool `[n]`, the images to rank the others for, which alone are ranked then. None
            ranks all other images for each image.

    Returns:
        `recall_at_1`, `recall_at_2` and `recall_at_5`, the share of queries with an image of their
        class among the nearest 1, 2 or 5. Means over queries of the sum of precision at i over
        the ranks i that are of the query's class, R being the number of other images of that
        class: `map_at_r`, over ranks i <= R and divided by R (Musgrave, Belongie & Lim, "A Metric
        Learning Reality Check", 2020); `ap_at_10`, over ranks i <= 10 and divided by 10, as in
        tables of the library robrank; and `map`, over all ranks and divided by R.

    Raises:
        ArgumentError: When no class has two images.
    """
    gallery = np.arange(len(labels)) if queries is None else np.flatnonzero(~queries)
    class_size = np.bincount(labels[gallery], minlength=labels.max() + 1)[labels]
    class_size = class_size - 1 if queries is None else np.where(queries, class_size, 0)
    if not class_size.any():
        raise ArgumentError("`labels` must hold a class with at least two images.")
    closeness = _closeness(embeddings[gallery])

    def ranked(block: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the figures of each query, in the order of `names`."""
        others = closeness(embeddings[block]).numpy()
        if queries is None:
            others[np.arange(len(block)), block] = -np.inf  # a query is not its own neighbor
        of_class = labels[gallery] == labels[block, np.newaxis]
        relevant_images = class_size[block, np.newaxis]
        depth = max(relevant_images.max(), min(10, len(gallery) - (queries is None)))
        hits = np.take_along_axis(of_class, _largest(others, depth), axis=1)
        precision = np.cumsum(hits, axis=1) / np.arange(1, depth + 1) * hits
        within = np.arange(depth) < relevant_images
        return (
            *(hits[:, :rank].any(axis=1) for rank in (1, 2, 5)),
            (precision * within).sum(axis=1) / relevant_images[:, 0],
            precision[:, :10].sum(axis=1) / 10,
            _average_precision(others, of_class & np.isfinite(others)),
        )

    names = ("recall_at_1", "recall_at_2", "recall_at_5", "map_at_r", "ap_at_10", "map")
    blocks = _blocks(np.flatnonzero(class_size), len(gallery))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        columns = zip(*pool.map(ranked, blocks), strict=True)
        return {
            name: float(np.concatenate(column).mean())
            for name, column in zip(names, columns, strict=True)
        }


def _average_precision(closeness: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the average precision of each row over all ranks; each has a relevant value.

    Before a relevant value come those that are larger, and others that are as large. Sorting values
    takes a tenth of sorting indices.
    """
    found = np.empty(len(closeness))
    for row, (values, mask) in enumerate(zip(closeness, relevant, strict=True)):
        largest_first, others = -np.sort(-values[mask]), np.sort(values[~mask])
        number = np.arange(1, len(largest_first) + 1)
        before = len(others) - np.searchsorted(others, largest_first, side="left")
        found[row] = np.mean(number / (number + before))
    return found


def clustering_nmi(embeddings: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the normalized mutual information of classes and k-means clusters, in [0, 1].

    As many clusters as classes, from one start. Both steps are scikit-learn's. None when they would
    take minutes.
    """
    number = len(np.unique(labels))
    if embeddings.size * number > _CLUSTERED:
        return None
    with threadpool_limits(1):  # its threads wait for each other
        clusters = KMeans(number, n_init=1, random_state=0).fit_predict(embeddings)
    return float(metrics.normalized_mutual_info_score(labels, clusters))


def _blocks(queries: np.ndarray, gallery_size: int) -> list[np.ndarray]:
    """Split queries so that the distances from a block to the gallery take little memory."""
    return np.array_split(queries, -(-len(queries) * gallery_size // _BLOCK))


def _closeness(gallery: np.ndarray) -> Callable[[np.ndarray], tf.Tensor]:
    """Return a function of queries that gives float32 `[queries, gallery]`: larger is closer.

    q.g - |g|^2 / 2 orders the gallery as the distance does, and is one matrix product. Far from the
    origin its digits would not tell images apart: the whole numbers of the mean are subtracted
    first, which leaves embeddings around the origin as they are.
    """
    origin = np.round(gallery.mean(axis=0, dtype=np.float64)).astype(np.float32)
    gallery = gallery - origin
    halves = np.square(gallery, dtype=np.float32).sum(axis=1, keepdims=True) / 2
    x = tf.transpose(tf.constant(np.concatenate([gallery, -halves], axis=1), tf.float32))

    def closeness(queries: np.ndarray) -> tf.Tensor:
        rows = tf.constant(queries - origin, tf.float32)
        return tf.matmul(tf.concat([rows, tf.ones([len(queries), 1])], axis=1), x)

    return closeness


def _largest(values: np.ndarray, number: int) -> np.ndarray:
    """Return the indices of the `number` largest values of each row, as `tf.math.top_k` does.

    For hundreds of values of thousands this is twice as fast.
    """
    limit = np.partition(values, -number, axis=1)[:, -number, np.newaxis]
    chosen = values >= limit
    surplus = chosen.sum(axis=1) - number
    for row in np.flatnonzero(surplus):  # of values equal to the limit the first are kept
        chosen[row, np.flatnonzero(values[row] == limit[row])[-surplus[row] :]] = False
    columns = np.nonzero(chosen)[1].reshape(-1, number)
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def knn_accuracy(
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    *,
    neighbors: int = 5,
) -> float:
    """Return the accuracy of classifying queries by their nearest gallery images, in [0, 1].

    The result is that of scikit-learn's `KNeighborsClassifier` by brute force, in a fifth of its
    time on vectors as long as images. Among labels with equally many votes the smallest wins.
    """
    closeness, correct = _closeness(gallery), 0
    for block in _blocks(np.arange(len(queries)), len(gallery)):
        top = tf.math.top_k(closeness(queries[block]), min(neighbors, len(gallery)))
        near = gallery_labels[top.indices.numpy()]
        votes = (near[:, :, np.newaxis] == near[:, np.newaxis]).sum(axis=2)
        most = votes == votes.max(axis=1, keepdims=True)
        voted = np.where(most, near, np.iinfo(near.dtype).max).min(axis=1)
        correct += int((voted == labels[block]).sum())
    return correct / len(queries)


def one_shot(
    embeddings: np.ndarray, labels: np.ndarray, *, ways: int, seed: int, trials: int = 10_000
) -> tuple[float, list[float]]:
    """Evaluate N-way one-shot classification (Koch, Zemel & Salakhutdinov 2015).

    In each trial `ways` classes are drawn, one support image of each, and one query image, another
    one of the first class. The trial is won when that class's support image is nearer than all
    others.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`, with at least `ways` classes of two images or more.
        ways: Number of classes N.
        seed: Seed of the trials.
        trials: Number of trials.

    Returns:
        The share of trials won, and its 95 % interval by bootstrap over the query images and the
        support images of their classes: trials share images, so their number does not count.

    Raises:
        ArgumentError: When there are too few classes.
    """
    rng = np.random.default_rng((seed, ways))
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [m for m in members if len(m) > 1]
    if len(members) < ways:
        raise ArgumentError(f"{ways}-way trials need {ways} classes. Received: {len(members)}")
    sizes = np.array([len(m) for m in members])
    start = np.cumsum(sizes) - sizes
    images = np.concatenate(members)
    blocks = np.array_split(np.arange(trials), -(-trials * len(members) // _BLOCK))
    orders = (np.tile(np.arange(len(members)), (len(block), 1)) for block in blocks)
    classes = np.concatenate([rng.permuted(order, axis=1)[:, :ways].copy() for order in orders])
    drawn = rng.integers(0, sizes[classes])
    support = images[start[classes] + drawn]
    own = classes[:, 0]
    query = images[start[own] + (drawn[:, 0] + rng.integers(1, sizes[own])) % sizes[own]]
    won = np.zeros(trials, bool)
    for block in np.array_split(np.arange(trials), max(trials // 500, 1)):
        difference = embeddings[support[block]] - embeddings[query[block]][:, np.newaxis]
        distance = np.square(difference).sum(axis=-1)
        won[block] = distance[:, 0] < distance[:, 1:].min(axis=1)
    pairs = Pairs(query, support[:, 0], np.zeros(trials, np.float32))
    return float(won.mean()), accuracy_interval(pairs, won, seed=seed)
