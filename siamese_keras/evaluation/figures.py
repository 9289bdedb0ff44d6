"""The figures of a verification report."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from siamese_keras.data.datasets import Dataset, Split
from siamese_keras.data.pairs import Pairs, threshold_pairs
from siamese_keras.evaluation import metrics, plots
from siamese_keras.verifier import Run

_MAP_IMAGES = 1000


def report_figures(
    run: Run, dataset: Dataset, pairs: Pairs, distance: np.ndarray, embedded: np.ndarray
) -> dict[str, Figure]:
    """Draw what a report shows, from the test images of the classes that were trained on.

    Args:
        run: The run.
        dataset: The dataset without unseen classes.
        pairs: Test pairs.
        distance: float `[n]`, their distances.
        embedded: float `[images, embedding_dim]`, the test images' embeddings.

    Returns:
        Figures by name.
    """
    same = pairs.different < 0.5
    similarity = run.classifier.similarity(distance)
    ece = metrics.expected_calibration_error(same, similarity)
    seed = run.config.seed
    return {
        "roc-and-det": plots.plot_roc_and_det(same, distance),
        "distances": plots.plot_distances(pairs.different, distance, run.classifier),
        "reliability": plots.plot_reliability(same, similarity, ece),
        "class-errors": _class_errors_figure(run, dataset, embedded),
        "embedding": _embedding_figure(embedded, dataset.test, dataset.class_names, seed=seed),
        **_pair_figures(run, dataset, pairs, distance),
    }


def _class_errors_figure(run: Run, dataset: Dataset, embedded: np.ndarray) -> Figure:
    labels = dataset.test.labels
    pairs = threshold_pairs(
        dataset.test.labels, seed=run.config.seed
    )  # many, for every two classes
    same = run.classifier.same(metrics.pair_distances(embedded, pairs))
    wrong = same != (pairs.different < 0.5)
    rates = metrics.class_error_rates(pairs, labels, wrong, len(dataset.class_names))
    present = np.unique(labels)
    names = [dataset.class_names[label] for label in present]
    return plots.plot_class_errors(rates[np.ix_(present, present)], names)


def _embedding_figure(
    embedded: np.ndarray, test: Split, class_names: tuple[str, ...], *, seed: int
) -> Figure:
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(embedded))[:_MAP_IMAGES]
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    start = "pca" if embedded.shape[1] > 1 else "random"
    mapping = TSNE(perplexity=perplexity, init=start, random_state=seed)
    points = mapping.fit_transform(embedded[chosen])
    return plots.plot_embedding(points, test.labels[chosen], class_names)


def _pair_figures(
    run: Run, dataset: Dataset, pairs: Pairs, distance: np.ndarray
) -> dict[str, Figure]:
    """Draw pairs at random, and those whose wrong decision was the surest."""
    same = pairs.different < 0.5
    wrong = run.classifier.same(distance) != same
    sureness = np.where(wrong, np.abs(distance - run.classifier.threshold), -1)
    worst = np.argsort(-sureness)[: min(16, wrong.sum())]
    sample = np.random.default_rng(run.config.seed).permutation(len(pairs))[:16]
    figures = {}
    for name, chosen, title in (
        (
            "test-pairs",
            sample,
            "Test pairs drawn at random: green is a right decision, red a wrong one",
        ),
        ("worst-mistakes", worst, "The surest wrong decisions on test pairs"),
    ):
        if len(chosen):
            left, right = pairs.left[chosen], pairs.right[chosen]
            labels = dataset.test.labels
            figures[name] = plots.plot_pairs(
                dataset.test.images[left],
                dataset.test.images[right],
                [
                    (dataset.class_names[labels[a]], dataset.class_names[labels[b]])
                    for a, b in zip(left, right, strict=True)
                ],
                distance[chosen],
                run.classifier,
                title=title,
            )
    return figures
