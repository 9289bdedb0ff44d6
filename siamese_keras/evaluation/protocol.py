"""The protocol: calibrate on validation pairs, verify test pairs, retrieve among test images.

It takes any function image -> embedding, so that our model, the baselines and other people's models
are scored by the same code, on the same pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from siamese_keras.data.pair_file import ImagePairs
from siamese_keras.data.pairs import Pairs, calibration_pairs, evaluation_pairs
from siamese_keras.data.splits import Dataset, Split
from siamese_keras.evaluation import metrics
from siamese_keras.evaluation.open_set import open_set_metrics
from siamese_keras.models.calibration import Calibration, fit_calibration

# uint8 [n, height, width, channels] -> float [n, embedding_dim]
Embedder = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What the protocol found out about one representation.

    Attributes:
        metrics: `"test"`, as `metrics.verification` gives it; `"retrieval"`, as
            `metrics.retrieval`, with `knn_accuracy` if asked for; with unseen classes beside the
            test images' `"unseen"`, both of these in one; and `"open_set"`, as `open_set_metrics`
            gives it for the unseen classes, beside or in the test images; `"given_pairs"`, as
            `metrics.verification`.
        calibration: Threshold and slope.
        embeddings: float `[n, embedding_dim]` of the splits that were embedded, by name.
        pairs: The test pairs.
        distance: float64, their distances.
    """

    metrics: dict[str, Any]
    calibration: Calibration
    embeddings: dict[str, np.ndarray]
    pairs: Pairs
    distance: np.ndarray


def calibrate(embed: Embedder, validation: Split) -> Calibration:
    """Fit threshold and slope to pairs of validation images, half of them same.

    Args:
        embed: Function image -> embedding.
        validation: Images that were not trained on.

    Raises:
        TrainingError: When the distances do not separate same from different pairs.
    """
    return calibrate_embeddings(embed(validation.images), validation.labels)


def calibrate_embeddings(embeddings: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit threshold and slope as `calibrate`, to embeddings `[n, embedding_dim]` of the images."""
    pairs = calibration_pairs(labels)
    return fit_calibration(pairs.different, metrics.pair_distances(embeddings, pairs))


def validation_auc(embed: Embedder, validation: Split) -> float:
    """Return the ROC-AUC of the pairs that `calibrate` takes."""
    return embeddings_auc(embed(validation.images), validation.labels)


def embeddings_auc(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Return the same ROC-AUC of embeddings `[n, embedding_dim]` of the images.

    It is NaN when an embedding is.
    """
    pairs = calibration_pairs(labels)
    distance = metrics.pair_distances(embeddings, pairs)
    if not np.isfinite(distance).all():
        return float("nan")
    return float(roc_auc_score(pairs.different, distance))


def score(
    embed: Embedder,
    dataset: Dataset,
    unseen: Split | None = None,
    *,
    calibration: Calibration | None = None,
    knn: bool = True,
    given: ImagePairs | None = None,
) -> Scores:
    """Score a representation by the protocol.

    Args:
        embed: Function image -> embedding.
        dataset: The images; for the open-set protocol with test images of unseen classes alone.
        unseen: Test images of classes that were held out of training, where the test images are of
            others.
        calibration: Threshold and slope; fitted on the validation images when None.
        knn: Also classify test images of seen classes by their nearest train images, which have to
            be embedded.
        given: Further test pairs, not of the dataset.

    Returns:
        The scores.

    Raises:
        TrainingError: As `calibrate`.
    """
    embedded = {"validation": embed(dataset.validation.images)}
    if calibration is None:
        calibration = calibrate_embeddings(embedded["validation"], dataset.validation.labels)
    test = dataset.test
    embedded["test"] = embed(test.images)
    pairs = evaluation_pairs(test.labels)
    distance = metrics.pair_distances(embedded["test"], pairs)
    found: dict[str, Any] = {
        "test": metrics.verification(
            pairs, distance, calibration, classes=test.labels if dataset.is_open_set else None
        ),
        "retrieval": metrics.retrieval(embedded["test"], test.labels, dataset.queries),
    }
    if knn and not dataset.is_open_set:
        found["retrieval"]["knn_accuracy"] = metrics.knn_accuracy(
            embed(dataset.train.images), dataset.train.labels, embedded["test"], test.labels
        )
    if unseen is not None:
        embedded["unseen"] = embed(unseen.images)
        others = evaluation_pairs(unseen.labels)
        found["unseen"] = {
            **metrics.verification(
                others,
                metrics.pair_distances(embedded["unseen"], others),
                calibration,
                classes=unseen.labels,
            ),
            **metrics.retrieval(embedded["unseen"], unseen.labels),
        }
        found["open_set"] = open_set_metrics(
            embedded["unseen"], unseen.labels, calibration, dataset.superclasses
        )
    elif dataset.is_open_set:
        found["open_set"] = open_set_metrics(
            embedded["test"], test.labels, calibration, dataset.superclasses
        )
    if given is not None:
        distances = metrics.pair_distances(embed(given.images), given.pairs)
        found["given_pairs"] = metrics.verification(given.pairs, distances, calibration)
    return Scores(found, calibration, embedded, pairs, distance)
