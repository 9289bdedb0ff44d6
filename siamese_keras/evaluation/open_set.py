"""Metrics of unseen classes: few-shot, ranking, clustering, per class.

All take embeddings and labels, of any model. Where there are very many images, a sample that does
not change from call to call keeps the time in bounds; each function says of what.

The module is long since every metric is documented with its definition and source.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from siamese_keras.errors import ArgumentError
from siamese_keras.models.calibration import Calibration

_SEED = 0
_QUERIES = 10_000  # of a few-shot figure, at least
_EPISODES = 20_000  # at most: where most classes have one image, few episodes have a query
_CLASSES, _OTHERS = 1_000, 2_000  # of the figures per class
_MEMBERS, _DISTANCES = 100, 40_000_000  # of a class, and from all of them to the others
_FAR = (1e-3, 1e-1)  # the false accept rates that a threshold is usually chosen for


def open_set_metrics(
    embeddings: np.ndarray,
    labels: np.ndarray,
    calibration: Calibration,
    superclasses: np.ndarray | None = None,
) -> dict[str, Any]:
    """Evaluate embeddings of unseen classes.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`; at least two classes, one of them with two images.
        calibration: Threshold, fitted on other classes.
        superclasses: As in `few_shot`.

    Returns:
        `num_classes`, `num_images` and `single_images`, those that are the only ones of their
        class; `one_shot` and `five_shot`, each with `<N>_way` and `<N>_way_ci95` for N = 5, 20 and
        all classes, as far as there are as many; with superclasses, `one_shot_within_superclass`,
        the same for classes of one superclass; `opis`; and `sensitivity` and `specificity`, the
        means over classes, each with the `_std` over classes.
    """
    _, count = np.unique(labels, return_counts=True)
    found: dict[str, Any] = {
        "num_classes": len(count),
        "num_images": len(labels),
        "single_images": int((count == 1).sum()),
    }
    for name, shots in (("one_shot", 1), ("five_shot", 5)):
        found[name] = _shares(embeddings, labels, {5, 20, int((count >= shots).sum())}, shots)
    if superclasses is not None:
        found["one_shot_within_superclass"] = _shares(embeddings, labels, {5, 20}, 1, superclasses)
    if not (count > 1).any():
        return found
    classes = class_figures(embeddings, labels, calibration)
    for name in ("sensitivity", "specificity"):
        values = np.array(classes[name])
        values = values[~np.isnan(values)]
        found |= {name: float(values.mean()), f"{name}_std": float(values.std())}
    found["opis"] = operating_point_inconsistency(embeddings, labels)
    return found


def _shares(
    embeddings: np.ndarray,
    labels: np.ndarray,
    numbers: set[int],
    shots: int,
    superclasses: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return few-shot shares and intervals for those numbers of classes that there are."""
    found: dict[str, Any] = {}
    for ways in sorted(numbers - {0, 1}):
        with contextlib.suppress(ArgumentError):
            share, interval = few_shot(
                embeddings, labels, ways=ways, shots=shots, seed=_SEED, superclasses=superclasses
            )
            found |= {f"{ways}_way": share, f"{ways}_way_ci95": interval}
    return found


def few_shot(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    ways: int,
    shots: int,
    seed: int,
    superclasses: np.ndarray | None = None,
) -> tuple[float, list[float]]:
    """Evaluate N-way few-shot classification by the nearest class mean.

    In each episode `ways` classes are drawn, and `shots` support images of each, whose mean stands
    for the class. The other images of these classes are queries; a query is right when its class's
    mean is nearer than all others. Classes without another image only distract. Episodes are
    drawn until there have been 10,000 queries, but no more than 20,000 episodes.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`.
        ways: Number of classes N.
        shots: Support images of each class; 1 is one-shot classification.
        seed: Seed of the episodes.
        superclasses: int, of each label its superclass. The classes of an episode are then drawn
            from one superclass, each superclass with at least `ways` classes being as likely. None
            draws from all classes.

    Returns:
        The share of queries that are right, and its 95 % interval by bootstrap over classes.

    Raises:
        ArgumentError: When there are too few classes, or none has an image to ask about.

    Reference:
        Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning" (2017). Trials within
        a superclass are those of Koch, Zemel & Salakhutdinov, "Siamese Neural Networks for One-shot
        Image Recognition" (2015), whose superclasses are alphabets.
    """
    rng = np.random.default_rng((seed, ways, shots))
    present, of, count = np.unique(labels, return_inverse=True, return_counts=True)
    usable = np.flatnonzero(count >= shots)
    groups = [usable]
    if superclasses is not None:
        of_usable = superclasses[present[usable]]
        groups = [usable[of_usable == superclass] for superclass in np.unique(of_usable)]
    groups = [group for group in groups if len(group) >= ways and (count[group] > shots).any()]
    if not groups:
        of_one = "" if superclasses is None else " of one superclass"
        raise ArgumentError(
            f"{ways}-way {shots}-shot classification needs {ways} classes{of_one} of {shots} images"
            f" and one more image. Received: {len(usable)} such classes, the largest of "
            f"{count.max()}"
        )
    asked, right = np.zeros((2, len(present)), np.int64)
    for _ in range(_EPISODES):
        if asked.sum() >= _QUERIES:
            break
        group = groups[0] if superclasses is None else groups[rng.integers(len(groups))]
        chosen = rng.permutation(group)[:ways]
        place = np.full(len(present), -1)
        place[chosen] = np.arange(ways)
        images = rng.permutation(np.flatnonzero(place[of] >= 0))
        images = images[np.argsort(of[images], kind="stable")]
        own = place[of[images]]
        rank = np.arange(len(images)) - np.searchsorted(of[images], of[images])
        support, queries = images[rank < shots], images[rank >= shots]
        if not len(queries):
            continue
        means = np.zeros((ways, embeddings.shape[1]))
        np.add.at(means, own[rank < shots], embeddings[support] / shots)
        queries = rng.permutation(queries)[:_QUERIES]
        for block in np.array_split(queries, -(-len(queries) * ways // 5_000_000)):
            distance = _squared_distances(embeddings[block], means)
            rows, target = np.arange(len(block)), place[of[block]]
            to_own = distance[rows, target].copy()
            distance[rows, target] = np.inf
            won = to_own < distance.min(axis=1)
            np.add.at(asked, of[block], 1)
            np.add.at(right, of[block], won)
    if not asked.any():
        raise ArgumentError(f"No class of {_EPISODES:,} episodes has more than {shots} images.")
    return float(right.sum() / asked.sum()), _interval(right, asked, rng)


def _interval(right: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Return the 95 % interval of a share by bootstrap over classes."""
    right, asked = right[asked > 0], asked[asked > 0]
    draws = (rng.integers(0, len(asked), len(asked)) for _ in range(500))
    shares = [right[drawn].sum() / asked[drawn].sum() for drawn in draws]
    return [float(q) for q in np.quantile(shares, [0.025, 0.975])]


def _squared_distances(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return float64 `[queries, others]`; exactly 0 for equal vectors is not guaranteed."""
    queries, others = queries.astype(np.float64), others.astype(np.float64)
    squares = np.square(queries).sum(axis=1)[:, np.newaxis] + np.square(others).sum(axis=1)
    return np.maximum(squares - 2 * queries @ others.T, 0)


def class_figures(
    embeddings: np.ndarray, labels: np.ndarray, calibration: Calibration
) -> dict[str, list[Any]]:
    """Return figures of each class: how well one threshold fits it.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`.
        calibration: The threshold.

    Returns:
        Columns of equal length: `label`; `images`; `sensitivity`, the share of its same pairs that
        are accepted, NaN for a class of one image; `specificity`, the share of its different pairs
        that are rejected; NaN for a class without such pairs. Samples are taken of more than 1,000
        classes, of more than 2,000 other images, and of more than 100 images of a class, or 20 of
        each of 1,000 classes.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("label", "images", "sensitivity", "specificity")
    }
    for label, images, same, different in _class_distances(embeddings, labels):
        accepted = calibration.same(same)
        columns["label"].append(label)
        columns["images"].append(images)
        columns["sensitivity"].append(float(accepted.mean()) if len(same) else float("nan"))
        rejected = 1 - calibration.same(different).mean() if len(different) else np.nan
        columns["specificity"].append(float(rejected))
    return columns


def _class_distances(
    embeddings: np.ndarray, labels: np.ndarray
) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Return label, images, same distances and different distances of each class."""
    rng = np.random.default_rng(_SEED)
    present, of, count = np.unique(labels, return_inverse=True, return_counts=True)
    others = np.sort(rng.permutation(len(labels))[:_OTHERS])
    embeddings = embeddings.astype(np.float64)
    other_embeddings, other_classes = embeddings[others], of[others]
    squares = np.square(other_embeddings).sum(axis=1)
    found = []
    drawn = rng.permutation(len(present))
    drawn = drawn[np.argsort(count[drawn] == 1, kind="stable")]  # those with same pairs first
    drawn = np.sort(drawn[:_CLASSES])
    most = min(_MEMBERS, _DISTANCES // (len(drawn) * len(others)))
    for index in drawn.tolist():
        members = rng.permutation(np.flatnonzero(of == index))[:most]
        own = embeddings[members]
        within = np.sqrt(_squared_distances(own, own))
        outside = np.square(own).sum(axis=1)[:, np.newaxis] + squares - 2 * own @ other_embeddings.T
        outside = np.sqrt(np.maximum(outside[:, other_classes != index], 0))
        same = within[np.triu_indices(len(members), 1)]
        outside = outside.ravel().astype(np.float32)
        found.append((int(present[index]), int(count[index]), same, outside))
    return found


def operating_point_inconsistency(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Return how differently one threshold serves the classes: 0 when it serves all alike.

    The operating-point-inconsistency score (OPIS): the utility of a class at a threshold is the
    harmonic mean of its sensitivity and its specificity; the score is the variance of the utility
    over classes, averaged over the thresholds whose false accept rate over all classes is between
    0.001 and 0.1. Samples are taken as in `class_figures`.

    Args:
        embeddings: float `[n, embedding_dim]`.
        labels: int `[n]`; classes of one image do not count.

    Returns:
        The score, in [0, 1/4].

    Reference:
        Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning" (2023),
        arXiv 2307.04047.
    """
    classes = [c for c in _class_distances(embeddings, labels) if len(c[2]) and len(c[3])]
    lowest, highest = np.quantile(np.concatenate([c[3] for c in classes]), _FAR)
    thresholds = np.linspace(lowest, highest, 101)
    utility = []
    for _, _, same, different in classes:
        sensitivity = np.searchsorted(np.sort(same), thresholds, side="right") / len(same)
        rejected = np.searchsorted(np.sort(different), thresholds, side="right") / len(different)
        specificity = 1 - rejected
        total = sensitivity + specificity
        utility.append(2 * sensitivity * specificity / np.where(total > 0, total, 1))
    return float(np.var(utility, axis=0).mean())
