"""Measure how well a preset separates classes that it never saw, over many choices of them.

    python benchmarks/unseen_splits.py [--preset NAME] [--splits 10]

Each split holds out 4 of the 10 classes, drawn at random; all differ. A network is trained on
the other six and scored on test pairs among the four, beside baselines that need no training.
Writes `benchmarks/unseen-PRESET.json` and prints a table. A split is kept as it ends: run again,
and what is there already is not trained again.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import siamese_keras  # noqa: F401 (turns on oneDNN before TensorFlow is imported)

# isort: split
import keras
import numpy as np

from siamese_keras import PRESETS, Config, Dataset, fit, load_dataset
from siamese_keras.files import write_json

FOLDER = Path(__file__).parent


def draw_splits(number: int) -> list[tuple[int, ...]]:
    """Draw `number` different sets of four classes."""
    rng = np.random.default_rng(0)
    drawn: list[tuple[int, ...]] = []
    while len(drawn) < number:
        split = tuple(sorted(rng.permutation(10)[:4].tolist()))
        if split not in drawn:
            drawn.append(split)
    return drawn


def score(config: Config, dataset: Dataset) -> dict[str, dict[str, float]]:
    """Train, and return accuracy and AUC on the unseen classes, beside those of the baselines."""
    metrics = fit(dataset, config, verbose=0).evaluate(dataset, baselines=True).metrics
    rows = {"network": metrics["unseen"]}
    rows |= {name: found["unseen"] for name, found in metrics["baselines"].items()}
    return {name: {key: row[key] for key in ("accuracy", "roc_auc")} for name, row in rows.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="fast")
    parser.add_argument("--splits", type=int, default=10)
    options = parser.parse_args()
    dataset = load_dataset()
    path = FOLDER / f"unseen-{options.preset}.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for split in draw_splits(options.splits):
        names = ", ".join(dataset.class_names[label] for label in split)
        if names in results:
            continue
        config = dataclasses.replace(PRESETS[options.preset], unseen_classes=tuple(map(str, split)))
        results[names] = score(config, dataset)
        keras.utils.clear_session()
        write_json(path, results)
        print(names, *(f"{k} {v['roc_auc']:.4f}" for k, v in results[names].items()), flush=True)
    print(f"\n{'':22s} mean AUC  worst AUC  mean accuracy")
    for name in next(iter(results.values())):
        aucs = [result[name]["roc_auc"] for result in results.values()]
        accuracies = [result[name]["accuracy"] for result in results.values()]
        row = f"{np.mean(aucs):8.4f} {np.min(aucs):10.4f} {np.mean(accuracies):14.4f}"
        print(f"{name:22s} {row}")


if __name__ == "__main__":
    main()
