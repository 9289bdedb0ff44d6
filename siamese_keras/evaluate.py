"""Score a run and write its verification report.

    python -m siamese_keras.evaluate RUN [--data-dir FOLDER]

Writes `metrics.json`, `embeddings.npz` and `figures/` into the run and prints a table. Each image
is embedded once; pairs are scored by gathering embeddings. Threshold and scale come from validation
pairs; test pairs are read here and nowhere else.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from siamese_keras.command_line import run_program
from siamese_keras.data.datasets import Dataset, Split, load_dataset, split_unseen
from siamese_keras.data.pairs import Pairs, evaluation_pairs, hard_pairs, threshold_pairs
from siamese_keras.evaluation import metrics
from siamese_keras.evaluation.baselines import CONTROLS
from siamese_keras.evaluation.figures import report_figures
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.calibration import Classifier, fit_classifier
from siamese_keras.verifier import Run, embed, replacing, write_json

Embed = Callable[[np.ndarray], np.ndarray]


def fit_run_classifier(embedder: Embed, validation: Split, *, seed: int) -> Classifier:
    """Fit threshold and scale of the distance of `embedder`'s embeddings on validation pairs."""
    pairs = threshold_pairs(validation.labels, seed=seed)
    distance = metrics.pair_distances(embedder(validation.images), pairs)
    return fit_classifier(pairs.different, distance)


def evaluate(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Score `run` on `dataset` and write `metrics.json`, `embeddings.npz` and `figures/` into it.

    `embeddings.npz` holds the embeddings and labels of the validation and test images and, with
    unseen classes, of theirs: `test` beside `test_labels`, and so on.

    Args:
        run: A run, trained on this dataset.
        dataset: All of its classes, unseen ones too.

    Returns:
        What `metrics.json` holds: `"test"`, `"test_hard"`, `"test_deduplicated"` and, with unseen
        classes, `"unseen"` as `metrics.verification` gives it (without `"test_deduplicated"` when
        too few test images are left); `"retrieval"`; `"one_shot"`;
        `"controls"`, the same figures for representations that were never trained; `"training"`;
        `"seconds"`, what it took to embed, to score, and to do both for the controls.
    """
    _check_dataset(run, dataset)
    seed = run.config.seed
    dataset, unseen = split_unseen(dataset, run.config.unseen_classes)
    test = dataset.test

    def embedder(images: np.ndarray) -> np.ndarray:
        return embed(run.base, images)

    clock = [time.perf_counter()]
    embedded = {
        "train": embedder(dataset.train.images),
        "validation": embedder(dataset.validation.images),
        "test": embedder(test.images),
    }
    if unseen is not None:
        embedded["unseen"] = embedder(unseen.images)
    clock.append(time.perf_counter())
    pairs = evaluation_pairs("lab", test.labels, seed=seed, class_names=dataset.class_names)
    distance = metrics.pair_distances(embedded["test"], pairs)

    def scored(chosen: Pairs) -> dict[str, Any]:
        chosen_distance = metrics.pair_distances(embedded["test"], chosen)
        return metrics.verification(chosen, chosen_distance, run.classifier, seed=seed)

    hard = hard_pairs(
        test.labels, _confusable(run, dataset.validation, embedded["validation"], test.labels),
        np.random.default_rng(seed),
    )  # fmt: skip
    fresh = ~_also_in(test.images, dataset.train.images, dataset.validation.images)
    kept = fresh[pairs.left] & fresh[pairs.right]
    report: dict[str, Any] = {
        "test": metrics.verification(pairs, distance, run.classifier, seed=seed),
        "test_hard": scored(hard),
        "retrieval": _retrieval(embedded["train"], embedded["test"], dataset),
        "one_shot": _one_shot(embedded["test"], test.labels, seed=seed),
    }
    if len(set(pairs.different[kept])) == 2:
        deduplicated = Pairs(pairs.left[kept], pairs.right[kept], pairs.different[kept])
        report["test_deduplicated"] = {
            "removed_images": int((~fresh).sum()),
            **scored(deduplicated),
        }
    if unseen is not None:
        report["unseen"] = _unseen(embedded["unseen"], unseen.labels, run.classifier, seed=seed)
    clock.append(time.perf_counter())
    report["controls"] = score_controls(run, dataset, unseen)
    clock.append(time.perf_counter())
    report["training"] = run.training
    report["seconds"] = dict(
        zip(("embedding", "scoring", "controls"), np.diff(clock).round(2).tolist(), strict=True)
    )
    write_json(run.path / "metrics.json", report)
    splits = {"validation": dataset.validation, "test": test}
    if unseen is not None:
        splits["unseen"] = unseen
    arrays: dict[str, Any] = {name: embedded[name] for name in splits}
    arrays |= {f"{name}_labels": split.labels for name, split in splits.items()}
    with replacing(run.path / "embeddings.npz") as temporary:
        np.savez(temporary, **arrays)

    figures = report_figures(run, dataset, pairs, distance, embedded["test"])
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    return report


def _check_dataset(run: Run, dataset: Dataset) -> None:
    """Refuse other data than the run was trained on: its test images may have been seen."""
    facts = {
        "classes": (run.class_names, dataset.class_names),
        "image shape": (tuple(run.base.input_shape[1:]), dataset.image_shape),
        "number of images": (tuple(run.training["images"]), dataset.sizes),
    }
    for name, (expected, found) in facts.items():
        if expected != found:
            raise ValueError(
                f"The dataset must be the one that `{run.path}` was trained on. Its {name}: "
                f"{expected}. Received: {found}"
            )


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to the PNG file `path`; a file that was there is replaced whole."""
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _retrieval(train: np.ndarray, test: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Rank test images among themselves, and classify them by the train images."""
    labels = dataset.test.labels
    return {
        **metrics.retrieval(test, labels),
        "knn_accuracy": metrics.knn_accuracy(train, dataset.train.labels, test, labels),
    }


def score_controls(run: Run, dataset: Dataset, unseen: Split | None) -> dict[str, Any]:
    """Score representations that were never trained: what a network has to beat.

    Returns:
        For each of `controls.CONTROLS` and `untrained_base`, but for those whose distances do not
        tell same from different pairs at all: `"test"`, `"retrieval"` and, with
        unseen classes, `"unseen"`, as `evaluate` gives them, the threshold fitted on the same
        validation pairs.
    """
    keras.utils.set_random_seed(run.config.seed)  # for the same untrained weights every time
    untrained = build_base_model(dataset.image_shape, **run.config.base_model_options())
    embedders: dict[str, Embed] = {
        **CONTROLS,
        "untrained_base": lambda images: embed(untrained, images),
    }
    seed, test = run.config.seed, dataset.test
    pairs = evaluation_pairs("lab", test.labels, seed=seed)

    def score(embedder: Embed) -> dict[str, Any] | None:
        embedded = embedder(test.images)
        distance = metrics.pair_distances(embedded, pairs)
        try:
            classifier = fit_run_classifier(embedder, dataset.validation, seed=seed)
        except ValueError:  # such as silhouettes of photos, which are white all over
            return None
        report = {
            "test": metrics.verification(pairs, distance, classifier, seed=seed),
            "retrieval": _retrieval(embedder(dataset.train.images), embedded, dataset),
        }
        if unseen is not None:
            others = embedder(unseen.images)
            report["unseen"] = _unseen(others, unseen.labels, classifier, seed=seed)
        return report

    with ThreadPoolExecutor(2) as pool:  # one sorts while the other multiplies
        reports = zip(embedders, pool.map(score, embedders.values()), strict=True)
        return {name: report for name, report in reports if report is not None}


def _unseen(
    embedded: np.ndarray, labels: np.ndarray, classifier: Classifier, *, seed: int
) -> dict[str, Any]:
    pairs = evaluation_pairs("lab", labels, seed=seed)
    distance = metrics.pair_distances(embedded, pairs)
    return {
        **metrics.verification(pairs, distance, classifier, seed=seed),
        **metrics.retrieval(embedded, labels),
    }


def _one_shot(embedded: np.ndarray, labels: np.ndarray, *, seed: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for ways in (5, 10):
        if ways <= len(np.unique(labels)):
            share, interval = metrics.one_shot(embedded, labels, ways=ways, seed=seed)
            report |= {f"{ways}_way": share, f"{ways}_way_ci95": interval}
    return report


def _confusable(
    run: Run, validation: Split, embedded: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """Return for each class the one whose pairs with it are most often taken for same."""
    pairs = threshold_pairs(validation.labels, seed=run.config.seed)
    accepted = run.classifier.same(metrics.pair_distances(embedded, pairs))
    rates = metrics.class_error_rates(pairs, validation.labels, accepted, len(run.class_names))
    np.fill_diagonal(rates, np.nan)
    rates[:, ~np.isin(np.arange(len(rates)), test_labels)] = np.nan  # no test image to draw
    return np.nan_to_num(rates, nan=-1.0).argmax(axis=1)


def _also_in(images: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Say for each image whether the very same one is among `others`: bool `[n]`."""
    known = {image.tobytes() for other in others for image in other}
    return np.array([image.tobytes() in known for image in images])


def table(report: dict[str, Any]) -> str:
    """Return the report's chief figures as lines of text."""
    test, interval = report["test"], report["test"]["accuracy_ci95"]
    lines = [
        f"pair accuracy        {test['accuracy']:.4f}  (95 % interval {interval[0]:.4f} to "
        f"{interval[1]:.4f}; {test['num_pairs']} test pairs)",
        f"ROC-AUC              {test['roc_auc']:.4f}",
        f"equal error rate     {test['eer']:.4f}",
        f"TAR at FAR 1 %       {test['tar_at_far_1e-2']:.4f}",
        f"calibration error    {test['ece']:.4f}",
        f"threshold            {test['threshold']:.4f}  (from validation pairs)",
        f"hard pairs           {report['test_hard']['accuracy']:.4f} accuracy, "
        f"{report['test_hard']['roc_auc']:.4f} AUC",
        f"Recall@1             {report['retrieval']['recall_at_1']:.4f}",
        f"MAP@R                {report['retrieval']['map_at_r']:.4f}",
    ]
    if "unseen" in report:
        unseen = report["unseen"]
        lines.append(
            f"unseen classes       {unseen['accuracy']:.4f} accuracy, {unseen['roc_auc']:.4f} AUC"
        )
    group = "unseen" if "unseen" in report else "test"
    if not report["controls"]:
        return "\n".join(lines)
    name, best = max(report["controls"].items(), key=lambda item: item[1][group]["roc_auc"])
    lines.append(
        f"best control         {best[group]['accuracy']:.4f} accuracy, "
        f"{best[group]['roc_auc']:.4f} AUC ({name.replace('_', ' ')}, {group} pairs)"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m siamese_keras.evaluate",
        description="Score a run: metrics.json and figures are written into it.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--data-dir", type=Path, help="folder with the data")
    options = parser.parse_args(argv)

    def program() -> None:
        run = Run.load(options.run)
        dataset = load_run_dataset(run.config, options.data_dir)
        print(table(evaluate(run, dataset)))
        print(f"written: {run.path / 'metrics.json'}, {run.path / 'figures'}")

    return run_program(program)


def load_run_dataset(config: Any, data_dir: Path | None) -> Dataset:
    """Load the dataset that `config` names, cut as it says."""
    return load_dataset(
        config.dataset,
        data_dir,
        validation_size=config.validation_size,
        image_size=config.image_size,
        seed=config.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
