"""How well does a preset tell apart classes that it never saw? Over many choices of these classes.

    python benchmarks/unseen_splits.py [--preset NAME] [--splits 10]

Each split holds out 4 of the 10 classes, drawn at random; all differ. A network is trained on
the other six and scored on test pairs among the four, beside the controls that need no training.
Writes `benchmarks/unseen-PRESET.json` and prints a table. A split is kept as it ends: run again,
and what is there already is not trained again.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import keras
import numpy as np

from siamese_keras.config import PRESETS, Config
from siamese_keras.data.datasets import Dataset, load_dataset, split_unseen
from siamese_keras.data.pairs import evaluation_pairs
from siamese_keras.evaluate import Embed, fit_run_classifier
from siamese_keras.evaluation import metrics
from siamese_keras.evaluation.baselines import CONTROLS
from siamese_keras.models.base_model import build_base_model
from siamese_keras.train import train
from siamese_keras.verifier import embed

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


def score(config: Config, whole: Dataset) -> dict[str, dict[str, float]]:
    """Train, and return accuracy and AUC on the unseen classes, beside those of the controls."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", whole, verbose=0)
    dataset, unseen = split_unseen(whole, config.unseen_classes)
    assert unseen is not None
    pairs = evaluation_pairs("lab", unseen.labels, seed=config.seed)
    keras.utils.set_random_seed(config.seed)
    untrained = build_base_model(whole.image_shape, **config.base_model_options())
    embedders: dict[str, Embed] = {
        "network": lambda images: embed(run.base, images),
        "untrained_base": lambda images: embed(untrained, images),
        **CONTROLS,
    }
    report = {}
    for name, embedder in embedders.items():
        classifier = fit_run_classifier(embedder, dataset.validation, seed=config.seed)
        distance = metrics.pair_distances(embedder(unseen.images), pairs)
        scored = metrics.verification(pairs, distance, classifier)
        report[name] = {"accuracy": scored["accuracy"], "roc_auc": scored["roc_auc"]}
    return report


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
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(names, *(f"{k} {v['roc_auc']:.4f}" for k, v in results[names].items()), flush=True)
    print(f"\n{'':18s} mean AUC  worst AUC  mean accuracy")
    for name in next(iter(results.values())):
        aucs = [result[name]["roc_auc"] for result in results.values()]
        accuracies = [result[name]["accuracy"] for result in results.values()]
        row = f"{np.mean(aucs):8.4f} {np.min(aucs):10.4f} {np.mean(accuracies):14.4f}"
        print(f"{name:18s} {row}")


if __name__ == "__main__":
    main()
