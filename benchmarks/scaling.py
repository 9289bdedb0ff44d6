"""How do time and memory of an epoch grow with the images, and with the pairs?

    python benchmarks/scaling.py

Trains preset `fast`'s network for one epoch on 10,000, 60,000 and 240,000 images, noise in the size
of Fashion-MNIST's, once on one pair for each image and once on all pairs of each batch; then preset
`many-classes` for 40 steps on 300,000 images of 100 and of 100,000 classes. Each time in a process
of its own. Prints tables and writes `benchmarks/scaling.json`.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from compare import in_own_process

from siamese_keras import (
    PRESETS,
    ContrastiveLoss,
    MultiSimilarityLoss,
    build_base_model,
    build_outer_model,
    pair_pipeline,
)
from siamese_keras.data.pipeline import steps_per_epoch
from siamese_keras.files import write_json

IMAGES = (10_000, 60_000, 240_000)
CLASSES = (100, 100_000)
STEPS = 40
KINDS = ("balanced", "all")


def measure(kind: str, count: int) -> dict[str, Any]:
    """Train for one epoch and return what it took."""
    config = PRESETS["fast"]
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    labels = np.arange(count) % 10
    outer = build_outer_model(
        build_base_model((28, 28, 1), **config.base_model_options()), all_pairs=kind == "all"
    )
    outer.compile("adam", ContrastiveLoss(config.margin, config.positive_margin))

    def fit(images: np.ndarray, labels: np.ndarray) -> float:
        pipeline = pair_pipeline(images, labels, kind=kind, batch_size=config.batch_size)
        started = time.perf_counter()
        outer.fit(pipeline, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - started

    fit(images[:1000], labels[:1000])  # compiles
    seconds = fit(images, labels)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    steps = steps_per_epoch(kind, labels, config.batch_size)
    return {
        "pairs_by": kind,
        "images": count,
        "pairs": steps * config.batch_size ** (2 if kind == "all" else 1),
        "seconds_per_epoch": round(seconds, 1),
        "memory_mb": round(used * 1024 / 1e6),
    }


def measure_classes(classes: int) -> dict[str, Any]:
    """Train for some steps on 300,000 images of so many classes, and return what it took."""
    config = PRESETS["many-classes"]
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = rng.integers(0, 256, (300_000, 28, 28, 1), np.uint8)
    labels = np.arange(300_000) % classes
    outer = build_outer_model(
        build_base_model((28, 28, 1), **config.base_model_options()), all_pairs=True
    )
    outer.compile("adam", MultiSimilarityLoss())

    def fit(steps: int) -> float:
        pipeline = pair_pipeline(
            images, labels, kind="all", batch_size=config.batch_size, images_per_class=4
        )
        started = time.perf_counter()
        outer.fit(pipeline, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.perf_counter() - started

    fit(5)  # compiles
    seconds = fit(STEPS)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "classes": classes,
        "images": len(images),
        "seconds_per_step": round(seconds / STEPS, 4),
        "memory_mb": round(used * 1024 / 1e6),
    }


def main() -> None:
    """Measure, print and write."""
    by_class = [in_own_process(measure_classes, count) for count in CLASSES]
    for row in by_class:
        print(
            f"{row['classes']:>8,} classes  {1000 * row['seconds_per_step']:.0f} ms per step  "
            f"{row['memory_mb']:,} MB"
        )
    rows = [in_own_process(measure, kind, count) for kind in KINDS for count in IMAGES]
    print(f"{'pairs by':>9} {'images':>8} {'pairs':>11} {'s/epoch':>8} {'MB':>6}")
    for row in rows:
        print(
            f"{row['pairs_by']:>9} {row['images']:>8,} {row['pairs']:>11,} "
            f"{row['seconds_per_epoch']:>8.1f} {row['memory_mb']:>6,}"
        )
    write_json(Path(__file__).with_suffix(".json"), [*rows, *by_class])


if __name__ == "__main__":
    main()
