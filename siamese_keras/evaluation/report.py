"""The verification report of a model: metrics, embeddings and figures."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from siamese_keras.data.open_set import hold_out_classes
from siamese_keras.data.pair_file import ImagePairs
from siamese_keras.data.pairs import Pairs, calibration_pairs, hard_pairs
from siamese_keras.data.splits import Dataset, Split, image_digests
from siamese_keras.errors import TrainingError
from siamese_keras.evaluation import metrics
from siamese_keras.evaluation.baselines import BASELINES, raw_pixels
from siamese_keras.evaluation.figures import report_figures
from siamese_keras.evaluation.open_set import class_figures
from siamese_keras.evaluation.protocol import Embedder, Scores, score
from siamese_keras.evaluation.table import report_table
from siamese_keras.files import atomic_path, expanded, write_columns, write_json
from siamese_keras.models.calibration import Calibration

_log = logging.getLogger(__name__)

_SEED = 0
_BASELINE_VALUES = 200_000_000  # of pixels as float32, of which there are several copies


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What `Verifier.evaluate` found out. `print(report)` shows the main figures as a table.

    Attributes:
        metrics: What `metrics.json` holds: `"test"`, `"test_hard"` (different pairs of the classes
            most easily confused; not for the open-set protocol), `"test_deduplicated"` (without
            test images that are also in train or validation, with their number `removed_images`)
            and, with unseen classes beside the test images', `"unseen"`, each as
            `metrics.verification` gives it, and for unseen classes as `metrics.retrieval`;
            `"retrieval"`, with `nmi` of `metrics.clustering_nmi`; `"one_shot"`; with unseen classes
            `"open_set"`, as `open_set_metrics` gives it; `"given_pairs"`, with the number
            `trained_images` of their images that are also in train or validation;
            `"baselines"`, the same figures for representations that need no training;
            `"training"`; `"seconds"`, what it took to embed and score, and to do both for the
            baselines.
        embeddings: Of the validation, test and unseen images, by name, with their labels under
            `test_labels` and so on.
        classes: Figures of each test class, as `class_figures` gives them, with its name.
    """

    metrics: dict[str, Any]
    embeddings: dict[str, np.ndarray]
    classes: dict[str, list[Any]]
    _draw: Any

    def __repr__(self) -> str:
        test = self.metrics["test"]
        return f"<Report: accuracy {test['accuracy']:.4f} on {test['num_pairs']} test pairs>"

    def __str__(self) -> str:
        return report_table(self.metrics)

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures by name, drawn when they are first asked for."""
        return self._draw()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `metrics.json`, `classes.csv`, `embeddings.npz` and `figures/` into `folder`.

        Args:
            folder: A folder; it is created when it is missing.

        Raises:
            OSError: When they cannot be written; files that were there stay whole.
        """
        folder = expanded(folder)
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", self.metrics)
        write_columns(folder / "classes.csv", self.classes)
        with atomic_path(folder / "embeddings.npz") as temporary:
            np.savez(temporary, **self.embeddings)  # type: ignore[arg-type]
        for name, figure in self.figures.items():
            with atomic_path(folder / "figures" / f"{name}.png") as temporary:
                figure.savefig(temporary)


def evaluate(
    embed: Embedder,
    calibration: Calibration,
    dataset: Dataset,
    *,
    unseen_classes: Sequence[str] = (),
    baselines: Mapping[str, Embedder] | None = None,
    training: Mapping[str, Any] | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
    given: ImagePairs | None = None,
) -> Report:
    """Score a representation and compare it with representations that need no training.

    Each image is embedded once; pairs are scored by gathering embeddings. Test images are read here
    and nowhere else.

    Args:
        embed: Function image -> embedding.
        calibration: Threshold and slope, fitted on validation pairs.
        dataset: All classes, unseen ones too.
        unseen_classes: The classes that were held out of training.
        baselines: Score all of `BASELINES` and these, and `knn_accuracy`, for which all train
            images have to be embedded; None scores raw pixels alone.
        training: Facts of the training, for the report.
        history: Figures of every epoch, for the figure of the training.
        given: Further test pairs, not of the dataset.

    Returns:
        The report; nothing is written or printed.
    """
    seen, unseen = hold_out_classes(dataset, unseen_classes)
    started = time.perf_counter()
    scores = score(
        embed, seen, unseen, calibration=calibration, knn=baselines is not None, given=given
    )
    test, labels = scores.embeddings["test"], seen.test.labels

    def scored(pairs: Pairs) -> dict[str, Any]:
        return metrics.verification(pairs, metrics.pair_distances(test, pairs), calibration)

    content = dict(scores.metrics)
    groups = {"retrieval": (test, labels)}
    if unseen is not None:
        groups["unseen"] = (scores.embeddings["unseen"], unseen.labels)
    for name, group in groups.items():
        if (nmi := metrics.clustering_nmi(*group)) is not None:
            content[name]["nmi"] = nmi
    if not seen.is_open_set:
        rivals = _rivals(scores, seen.validation, labels, seen.num_classes)
        content["test_hard"] = scored(hard_pairs(labels, rivals, np.random.default_rng(_SEED)))
    content |= {
        "test_deduplicated": _deduplicated(scores, seen),
        "one_shot": _one_shot(test, labels),
    }
    if given is not None:
        given_digests = image_digests(given.images)
        content["given_pairs"]["trained_images"] = int((~_fresh(given_digests, seen)).sum())
    scored_at = time.perf_counter()
    content["baselines"] = _score_baselines(baselines, seen, unseen, given)
    content["training"] = dict(training or {})
    content["seconds"] = {
        "model": round(scored_at - started, 2),
        "baselines": round(time.perf_counter() - scored_at, 2),
    }
    splits = {"validation": seen.validation, "test": seen.test}
    if unseen is not None:
        splits["unseen"] = unseen
    embeddings = {name: scores.embeddings[name] for name in splits}
    embeddings |= {f"{name}_labels": split.labels for name, split in splits.items()}

    def draw() -> dict[str, Figure]:
        return report_figures(
            seen.test, seen.class_names, test, scores.pairs, scores.distance, calibration,
            history or {},
        )  # fmt: skip

    classes = class_figures(test, labels, calibration)
    classes = {"class": [seen.class_names[label] for label in classes["label"]], **classes}
    return Report(content, embeddings, classes, draw)


def _score_baselines(
    baselines: Mapping[str, Embedder] | None,
    dataset: Dataset,
    unseen: Split | None,
    given: ImagePairs | None,
) -> dict[str, Any]:
    """Score baselines by the protocol, except those that do not separate pairs at all."""
    splits = (dataset.validation, dataset.test, unseen)
    values = sum(split.images.size for split in splits if split is not None)
    if values > _BASELINE_VALUES:
        _log.info("Skipping the baselines: %s pixel values are too many.", f"{values:,}")
        return {}
    trained = dataset.train.images.size
    knn = baselines is not None and trained <= _BASELINE_VALUES
    if baselines is not None and not knn:
        _log.info(
            "Skipping the nearest neighbors of the baselines: %s pixel values of training images "
            "are too many.", f"{trained:,}",
        )  # fmt: skip
    wanted: dict[str, Embedder] = {"raw_pixels": raw_pixels}
    if baselines is not None:
        wanted = {**BASELINES, **baselines}
    found = {}
    for name, embed in wanted.items():
        try:
            scores = score(embed, dataset, unseen, knn=knn, given=given)
            found[name] = scores.metrics
        except TrainingError:  # such as silhouettes of photos, which are white all over
            continue
    return found


def _one_shot(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ways in (5, 10):
        if ways <= (np.unique(labels, return_counts=True)[1] > 1).sum():
            share, interval = metrics.one_shot(embeddings, labels, ways=ways, seed=_SEED)
            found |= {f"{ways}_way": share, f"{ways}_way_ci95": interval}
    return found


def _rivals(
    scores: Scores, validation: Split, test_labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return for each class the tested one that validation pairs are most often mistaken with."""
    pairs = calibration_pairs(validation.labels)
    distance = metrics.pair_distances(scores.embeddings["validation"], pairs)
    accepted = scores.calibration.same(distance)
    tested = np.unique(test_labels)
    return metrics.most_confused(pairs, validation.labels, accepted, tested, num_classes)


def _deduplicated(scores: Scores, dataset: Dataset) -> dict[str, Any]:
    """Score the pairs without test images that are also in train or validation."""
    fresh = _fresh(dataset.test.digests, dataset)
    kept = fresh[scores.pairs.left] & fresh[scores.pairs.right]
    found: dict[str, Any] = {"removed_images": int((~fresh).sum())}
    if len(set(scores.pairs.different[kept])) == 2:
        found |= metrics.verification(
            scores.pairs.take(kept), scores.distance[kept], scores.calibration,
            classes=dataset.test.labels if dataset.is_open_set else None,
        )  # fmt: skip
    return found


def _fresh(digests: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return which images are neither train nor validation images: bool `[n]`."""
    known = np.concatenate([dataset.train.digests, dataset.validation.digests])
    return ~np.isin(digests, known)


def summarize(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and sample standard deviation of every number that all reports have.

    Args:
        reports: `Report.metrics` of several seeds.

    Returns:
        Dictionaries nested as in the reports, with `{"mean": ..., "std": ...}` for each number.
    """
    summary: dict[str, Any] = {}
    for key, value in reports[0].items():
        values = [report[key] for report in reports if key in report]
        if len(values) < len(reports):
            continue
        if isinstance(value, dict):
            summary[key] = summarize(values)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            summary[key] = {"mean": float(np.mean(values)), "std": deviation}
    return summary
