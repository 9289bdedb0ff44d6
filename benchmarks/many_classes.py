"""Compare recipes on many classes with few images each, by classes that training never showed.

    pip install -e '.[bench]'
    python benchmarks/many_classes_data.py FOLDER
    python benchmarks/efficientnet_lite0.py FOLDER/backbone.keras --image-size 128
    python benchmarks/many_classes.py FOLDER [--data emoji,glyphs] [--rows NAMES] [--seeds 0,1,2]

Two data sets: emoji as four vendors draw them, 32 x 32, and characters in 40 fonts each. A fifth of
the classes is held out for the test, and validation classes for the threshold; what is printed is
of the test classes. `one-shot` is the share of images that are nearest to the one image that stands
for their class, among one image of every test class. For emoji these are all of one vendor and the
images asked about of another, the mean over the twelve ways to choose the two.

Each row fits with each seed in a process of its own. Results are written to
`benchmarks/many_classes.json` as soon as they are there, and are not measured again;
`python benchmarks/results.py` makes the table of `docs/results.md` from them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fits
import numpy as np
from compare import in_own_process
from results import many_classes_table
from sklearn.metrics import roc_auc_score

from siamese_keras import PRESETS, Dataset
from siamese_keras.data.image_folder import load_image_folder
from siamese_keras.data.open_set import cut_classes
from siamese_keras.data.splits import Split, image_digests
from siamese_keras.errors import TrainingError
from siamese_keras.evaluation.baselines import raw_pixels
from siamese_keras.evaluation.open_set import few_shot
from siamese_keras.evaluation.protocol import score
from siamese_keras.files import write_json

RESULTS = Path(__file__).with_suffix(".json")
OURS = PRESETS["many-classes"]
# As this package trained before it knew of many classes.
BEFORE = dataclasses.replace(PRESETS["fast"], hard_epochs=(), images_per_class=1, epochs=40)
Embed = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset that is cut by class.

    Attributes:
        dataset: The images.
        domain: int, of each test image, who drew it; None where that does not count.
    """

    dataset: Dataset
    domain: np.ndarray | None


def load_emoji(folder: Path, image_size: int) -> Data:
    """Load the emoji. Those that some vendor draws exactly as an earlier one are left out."""
    source = load_image_folder(folder / "emoji", image_size)
    images, labels = source.train.images, source.train.labels
    digests = image_digests(images)
    first: dict[bytes, int] = {}
    doubled = {
        label
        for digest, label in zip(digests, labels.tolist(), strict=True)
        if first.setdefault(digest, label) != label
    }
    kept = ~np.isin(labels, sorted(doubled))
    dataset = _cut("emoji", Split(images[kept], labels[kept]), source.class_names)
    vendor = dict(zip(digests, np.arange(len(labels)) % 4, strict=True))  # in the order of names
    return Data(dataset, np.array([vendor[d] for d in image_digests(dataset.test.images)]))


def load_glyphs(folder: Path) -> Data:
    """Load the glyphs."""
    with np.load(folder / "glyphs.npz") as stored:
        images, labels, names = (stored[key] for key in ("images", "labels", "class_names"))
    return Data(_cut("glyphs", Split(images, labels), tuple(map(str, names))), None)


def _cut(name: str, images: Split, class_names: tuple[str, ...]) -> Dataset:
    dataset = cut_classes(images, class_names, ["20%"], name=name, validation_size=0)
    if dataset is None:
        raise ValueError(f"{name} has too few classes.")
    return dataset


def across_domains(embeddings: np.ndarray, labels: np.ndarray, domain: np.ndarray) -> float:
    """Return the mean one-shot accuracy of images of one domain against those of another."""
    shares = []
    for ours in np.unique(domain):
        for theirs in set(np.unique(domain)) - {ours}:
            gallery, queries = np.flatnonzero(domain == ours), np.flatnonzero(domain == theirs)
            g, q = embeddings[gallery].astype(np.float64), embeddings[queries].astype(np.float64)
            distance = np.square(g).sum(axis=1) - 2 * q @ g.T
            shares.append((labels[gallery][distance.argmin(axis=1)] == labels[queries]).mean())
    return float(np.mean(shares))


def one_shot(embed: Embed, data: Data) -> float:
    """Return the one-shot accuracy on the test classes."""
    test = data.dataset.test
    embeddings = embed(test.images)
    if data.domain is not None:
        return across_domains(embeddings, test.labels, data.domain)
    ways = len(np.unique(test.labels))
    return few_shot(embeddings, test.labels, ways=ways, shots=1, seed=0)[0]


def pair_auc(embed: Embed, test: Split) -> float:
    """Return the ROC-AUC of all pairs of test images."""
    embeddings = embed(test.images).astype(np.float64)
    squares = np.square(embeddings).sum(axis=1)
    left, right = np.triu_indices(len(embeddings), 1)
    closeness = (2 * embeddings @ embeddings.T - squares - squares[:, np.newaxis])[left, right]
    return float(roc_auc_score(test.labels[left] == test.labels[right], closeness))


def fit_pretrained(folder: Path, dataset: Dataset, seed: int) -> fits.Fit:
    """Fit the preset `pretrained` on the converted EfficientNet-Lite0, 128 x 128."""
    config = dataclasses.replace(PRESETS["pretrained"], backbone=str(folder / "backbone.keras"))
    return fits.fit_preset(config, dataset, seed, snapshots=2)


def rows(folder: Path) -> dict[str, Callable[[Dataset, int], fits.Fit]]:
    """Return what is compared, by name."""
    return {
        "before": partial(fits.fit_preset, BEFORE),
        "metric-learning": partial(fits.fit_metric_learning_per_class, OURS),
        "many-classes": partial(fits.fit_preset, OURS),
        "pretrained": partial(fit_pretrained, folder),
    }


def load(folder: Path, name: str, image_size: int = 32) -> Data:
    """Load one of the two data sets."""
    return load_emoji(folder, image_size) if name == "emoji" else load_glyphs(folder)


def measure(folder: Path, name: str, row: str, seed: int) -> dict[str, Any]:
    """Fit a row once, or take raw pixels, and score it."""
    data = load(folder, name, 128 if row == "pretrained" else 32)
    result: dict[str, Any] = {"data": name, "row": row, "seed": seed}
    embed: Embed = raw_pixels
    if row != "raw-pixels":
        fit = rows(folder)[row](data.dataset, seed)
        result["fit_seconds"] = round(fit.seconds, 1)
        result["curve"] = [
            [round(seconds, 2), round(one_shot(partial(fit.embed, weights), data), 4)]
            for seconds, weights in fit.snapshots
        ]
        embed = partial(fit.embed, fit.snapshots[-1][1])
    result["one_shot"] = one_shot(embed, data)
    result["roc_auc"] = pair_auc(embed, data.dataset.test)
    with contextlib.suppress(TrainingError):  # distances that do not separate validation pairs
        result["report"] = score(embed, data.dataset, knn=False).metrics
    return result


def main() -> None:
    """Measure what is not there yet, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    names = ["raw-pixels", *rows(Path())]
    parser.add_argument("--data", type=lambda text: text.split(","), default=["emoji", "glyphs"])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=names)
    parser.add_argument(
        "--seeds", type=lambda text: list(map(int, text.split(","))), default=[0, 1, 2]
    )
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    done = {(r["data"], r["row"], r["seed"]) for r in results}
    for seed in options.seeds:
        for name in options.data:
            for row in options.rows:
                if (name, row, seed) in done or (row == "raw-pixels" and seed):
                    continue
                if row == "pretrained" and name != "emoji":
                    continue
                result = in_own_process(measure, options.folder, name, row, seed)
                results.append(result)
                write_json(RESULTS, results)
                print(
                    f"{name:7s} {row:16s} seed {seed}  fit {result.get('fit_seconds', 0):6.1f} s  "
                    f"one-shot {result['one_shot']:.4f}  AUC {result['roc_auc']:.4f}",
                    flush=True,
                )
    print("\n".join(many_classes_table()))


if __name__ == "__main__":
    main()
