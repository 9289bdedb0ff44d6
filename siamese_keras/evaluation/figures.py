"""The figures of a verification report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from siamese_keras.data.pairs import Pairs, calibration_pairs
from siamese_keras.data.splits import Split
from siamese_keras.evaluation import metrics, plots
from siamese_keras.models.calibration import Calibration

_MAP_IMAGES, _MAP_ITERATIONS = 1000, 500
_COMPARED_CLASSES = 100  # every two of them: of more, most have no pair
_SEED = 0


def report_figures(
    test: Split,
    class_names: Sequence[str],
    embeddings: np.ndarray,
    pairs: Pairs,
    distance: np.ndarray,
    calibration: Calibration,
    history: Mapping[str, Sequence[float]],
) -> dict[str, Figure]:
    """Draw the figures of a report, from the test images of the classes that were trained on.

    Args:
        test: The test images.
        class_names: Names by label.
        embeddings: float `[n, embedding_dim]`, their embeddings.
        pairs: Test pairs.
        distance: float, their distances.
        calibration: Threshold and slope.
        history: Figures of every epoch; without them there is no figure of the training.

    Returns:
        Figures by name.
    """
    class_names = plots.drawable_names(class_names)
    same = pairs.different < 0.5
    similarity = calibration.similarity(distance)
    ece = metrics.expected_calibration_error(same, similarity)
    figures: dict[str, Figure] = {
        "roc-and-det": plots.plot_roc_and_det(same, distance),
        "distances": plots.plot_distances(pairs.different, distance, calibration),
        "reliability": plots.plot_reliability(same, similarity, ece),
        "embedding": _embedding_map(test.labels, class_names, embeddings),
        **_pair_figures(test, class_names, pairs, distance, calibration),
    }
    if len(np.unique(test.labels)) <= _COMPARED_CLASSES:
        figures["class-errors"] = _class_errors(test.labels, class_names, embeddings, calibration)
    if "val_contrastive_loss" in history:
        figures["history"] = plots.plot_history(history)
    return figures


def _class_errors(
    labels: np.ndarray, class_names: Sequence[str], embeddings: np.ndarray, calibration: Calibration
) -> Figure:
    pairs = calibration_pairs(labels)  # many, so that every two classes occur
    same = calibration.same(metrics.pair_distances(embeddings, pairs))
    wrong = same != (pairs.different < 0.5)
    present, of = np.unique(labels, return_inverse=True)
    rates = metrics.class_error_rates(pairs, of, wrong, len(present))
    return plots.plot_class_errors(rates, [class_names[label] for label in present])


def _embedding_map(
    labels: np.ndarray, class_names: Sequence[str], embeddings: np.ndarray
) -> Figure:
    chosen = np.random.default_rng(_SEED).permutation(len(embeddings))[:_MAP_IMAGES]
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    start = "pca" if embeddings.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, random_state=_SEED, max_iter=_MAP_ITERATIONS)
    # Its threads wait for each other thousands of times: beside other programs a second one makes
    # it ten times slower, and alone not much faster.
    with threadpool_limits(1):
        points = tsne.fit_transform(embeddings[chosen])
    return plots.plot_embedding(points, labels[chosen], class_names)


def _pair_figures(
    test: Split,
    class_names: Sequence[str],
    pairs: Pairs,
    distance: np.ndarray,
    calibration: Calibration,
) -> dict[str, Figure]:
    """Draw pairs at random, and the wrong decisions farthest from the threshold."""
    wrong = calibration.same(distance) != (pairs.different < 0.5)
    sureness = np.where(wrong, np.abs(distance - calibration.threshold), -1)
    worst = np.argsort(-sureness)[: min(16, wrong.sum())]
    sample = np.random.default_rng(_SEED).permutation(len(pairs))[:16]
    titles = {
        "test-pairs": "Test pairs drawn at random: correct decisions in green, wrong ones in red",
        "worst-mistakes": "The wrong decisions on test pairs that are farthest from the threshold",
    }
    figures = {}
    for (name, title), chosen in zip(titles.items(), (sample, worst), strict=True):
        if len(chosen):
            left, right = pairs.left[chosen], pairs.right[chosen]
            names = [
                (class_names[test.labels[a]], class_names[test.labels[b]])
                for a, b in zip(left, right, strict=True)
            ]
            figures[name] = plots.plot_pairs(
                test.images[left], test.images[right], names, distance[chosen], calibration,
                title=title,
            )  # fmt: skip
    return figures
