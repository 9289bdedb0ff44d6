"""Compare our presets with other implementations: accuracy, time and memory, side by side.

    pip install -e '.[bench]'
    python benchmarks/compare.py [--rows fast,best] [--seeds 0,1,2]

Each row fits with each seed in a process of its own, on the same images, and is scored on the same
test pairs; the threshold comes from validation pairs. Each result is written to
`benchmarks/results.json` as soon as it is there, and is not measured again, so that the comparison
may take several sessions. The time of a fit depends on the day: every session begins with the
reference, the first row, and each time is reported relative to the reference of its session.
`python benchmarks/results.py` makes the tables of `docs/results.md` and the figure from it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import multiprocessing
import platform
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fits
import numpy as np
from results import seconds_to

from siamese_keras import PRESETS, load_dataset
from siamese_keras.data.pairs import evaluation_pairs
from siamese_keras.errors import TrainingError
from siamese_keras.evaluation.metrics import clustering_nmi, pair_distances
from siamese_keras.evaluation.protocol import calibrate, score
from siamese_keras.files import write_json

RESULTS = Path(__file__).parent / "results.json"
ROWS: dict[str, Callable[..., fits.Fit]] = {
    "classic-mlp": partial(fits.fit_preset, "classic-mlp"),
    "classic-cnn": partial(fits.fit_preset, "classic-cnn"),
    "keras-example": fits.fit_keras_example,
    "metric-learning": partial(fits.fit_metric_learning, like_fast=False),
    "metric-learning-tuned": partial(fits.fit_metric_learning, like_fast=True),
    "metric-learning-multi-similarity": partial(
        fits.fit_metric_learning_per_class, PRESETS["fast"], images_per_class=32, rate=1.5e-2
    ),
    "metric-learning-semi-hard": partial(
        fits.fit_metric_learning_per_class,
        PRESETS["fast"],
        kind="semi-hard-triplet",
        images_per_class=32,
        rate=1.5e-2,
    ),
    "fast": partial(fits.fit_preset, "fast"),
    "best": partial(fits.fit_preset, "best", snapshots=8),  # they take long to score
}
REFERENCE = "classic-mlp"
TARGET = 0.9146  # the accuracy of public notebooks of the classic exercise


def measure(row: str, seed: int) -> dict[str, Any]:
    """Fit a row once and score it.

    Returns:
        What `results.json` holds of it, without the session: times in seconds, memory in MB;
        `curve` has the accuracy on test pairs after so many seconds of the fit.
    """
    dataset = load_dataset()
    fit = ROWS[row](dataset, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if platform.system() != "Darwin":
        peak *= 1024  # there it counts kilobytes
    pairs = evaluation_pairs(dataset.test.labels)
    curve = []
    for seconds, weights in fit.snapshots[:-1]:
        embed = partial(fit.embed, weights)
        try:
            calibration = calibrate(embed, dataset.validation)
        except TrainingError:  # at the very start, when the distances do not separate pairs yet
            continue
        distance = pair_distances(embed(dataset.test.images), pairs)
        accuracy = float((calibration.same(distance) == (pairs.different < 0.5)).mean())
        curve.append([round(seconds, 2), round(accuracy, 4)])
    seconds, weights = fit.snapshots[-1]
    scores = score(partial(fit.embed, weights), dataset, knn=False)
    scored = scores.metrics
    scored["retrieval"]["nmi"] = clustering_nmi(scores.embeddings["test"], dataset.test.labels)
    curve.append([round(seconds, 2), round(scored["test"]["accuracy"], 4)])
    reached = seconds_to(TARGET, curve)
    return {
        "row": row,
        "seed": seed,
        "fit_seconds": round(fit.seconds, 1),
        "images_per_second": round(fit.images / fit.seconds),
        "pairs_per_second": round(fit.pairs / fit.seconds),
        "seconds_to_target": None if reached is None else round(reached, 2),
        "peak_memory_mb": round(peak / 1e6),
        **scored,
        "curve": curve,
    }


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` in a new process, so that neither memory nor compiled code is shared."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS))
    parser.add_argument(
        "--seeds", type=lambda text: list(map(int, text.split(","))), default=[0, 1, 2]
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"argument --rows: expected some of {', '.join(ROWS)}, not {unknown.pop()!r}")
    stored: dict[str, Any] = {"target": TARGET, "reference": REFERENCE}
    stored |= {"sessions": {}, "results": []}
    if RESULTS.exists():
        stored = json.loads(RESULTS.read_text())
    done = {(result["row"], result["seed"]) for result in stored["results"]}
    todo = [
        (row, seed) for seed in options.seeds for row in options.rows if (row, seed) not in done
    ]
    session = datetime.datetime.now().isoformat(timespec="seconds")
    reference_seconds: list[float] = []
    if todo and todo[0][0] != REFERENCE:
        todo.insert(0, (REFERENCE, todo[0][1]))
    for row, seed in todo:
        result = {"session": session, **in_own_process(measure, row, seed)}
        if row == REFERENCE:
            reference_seconds.append(result["fit_seconds"])
            stored["sessions"][session] = {
                "machine": platform.machine(),
                "python": platform.python_version(),
                "reference_fit_seconds": float(np.median(reference_seconds)),
            }
        if (row, seed) not in done:
            stored["results"].append(result)
        write_json(RESULTS, stored)
        print(
            f"{row:32s} seed {seed}  fit {result['fit_seconds']:6.1f} s  to {TARGET}: "
            f"{result['seconds_to_target']} s  accuracy {result['test']['accuracy']:.4f}  AUC "
            f"{result['test']['roc_auc']:.4f}  Recall@1 {result['retrieval']['recall_at_1']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
