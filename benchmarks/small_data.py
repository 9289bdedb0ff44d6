"""Does the default preset train well on few images?

    python benchmarks/small_data.py [--sizes 10,30,100,1000] [--seeds 0]

Takes 10, 30, 100 and 1,000 Fashion-MNIST training images of each class, holds out validation images
as `load_dataset` does, and trains preset `fast` on the rest: as it is, and for fixed numbers of
epochs without `min_steps`, of about 25 to 400 steps. Beside them stand the baselines
without training. Scores by Fashion-MNIST's test images; prints each result and writes
`benchmarks/small_data.json`, in which only what is missing is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras import PRESETS, Dataset, fit, load_dataset
from siamese_keras.data.cut import cut_dataset
from siamese_keras.data.pipeline import steps_per_epoch
from siamese_keras.data.splits import Source
from siamese_keras.evaluation.baselines import BASELINES
from siamese_keras.evaluation.protocol import Scores, score
from siamese_keras.files import write_json

RESULTS = Path(__file__).with_suffix(".json")
STEPS = (25, 50, 100, 200, 400)


def subset(whole: Dataset, size: int, seed: int) -> Dataset:
    """Return a dataset of `size` training images of each class, cut as a user's would be."""
    rng = np.random.default_rng(seed)
    labels = whole.train.labels
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:size] for c in np.unique(labels)]
    source = Source(whole.train.take(np.concatenate(chosen)), whole.test, whole.class_names)
    return cut_dataset(source, name="small", validation_size=0, test_share=0)


def figures(scores: Scores, **others: Any) -> dict[str, Any]:
    """Return the figures of a row."""
    test = scores.metrics["test"]
    return {
        "accuracy": round(test["accuracy"], 4),
        "roc_auc": round(test["roc_auc"], 4),
        "recall_at_1": round(scores.metrics["retrieval"]["recall_at_1"], 4),
        **others,
    }


def measure(dataset: Dataset, seed: int, steps: int | None) -> dict[str, Any]:
    """Train as the preset says, or for about `steps` steps in whole epochs, and score it."""
    config = dataclasses.replace(PRESETS["fast"], seed=seed)
    if steps is not None:
        one = steps_per_epoch(config.pairs, dataset.train.labels, config.batch_size)
        config = dataclasses.replace(config, min_steps=0, epochs=max(round(steps / one), 1))
    verifier = fit(dataset, config, verbose=0)
    scores = score(verifier.embed, dataset, calibration=verifier.calibration, knn=False)
    fit_seconds = round(verifier.training["fit_seconds"], 1)
    return figures(scores, epochs=config.epochs, fit_seconds=fit_seconds)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    numbers = {"type": lambda text: list(map(int, text.split(",")))}
    parser.add_argument("--sizes", default=[10, 30, 100, 1000], **numbers)
    parser.add_argument("--seeds", default=[0], **numbers)
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    whole = load_dataset()
    for seed in options.seeds:
        for size in options.sizes:
            dataset = subset(whole, size, seed)
            rows = results.setdefault(str(size), {})
            ways = {f"{steps} steps": steps for steps in STEPS}
            for name, steps in {"default": None, **ways}.items():
                seeds = rows.setdefault(name, {})
                if str(seed) not in seeds:
                    seeds[str(seed)] = measure(dataset, seed, steps)
                    print(size, name, seed, seeds[str(seed)], flush=True)
                    write_json(RESULTS, results)
            for name, embed in BASELINES.items():
                seeds = rows.setdefault(name, {})
                if str(seed) not in seeds:
                    seeds[str(seed)] = figures(score(embed, dataset, knn=False))
                    print(size, name, seed, seeds[str(seed)], flush=True)
                    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
