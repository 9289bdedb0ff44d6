"""Measure many questions at once: pairs of a CSV file, and an index that is built twice.

    python benchmarks/bulk.py [--model saved_models/fashion_mnist] [--pairs 10000]

Makes PNG files of 28 x 28 pixels, two for each pair, and a CSV file of the pairs; then times
`predict --pairs`, `index` of their folder, and `index` once more, when nothing has changed. Each is
a process of its own, from its start to its end. Prints a table and writes benchmarks/bulk.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import siamese_keras  # noqa: F401 (turns on oneDNN before TensorFlow is imported)

# isort: split
import numpy as np
import tensorflow as tf

from siamese_keras.files import write_json

PER_FOLDER = 1000


def make_files(folder: Path, pairs: int) -> Path:
    """Write `2 * pairs` different images below `folder`, and return the CSV file of the pairs."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(2 * pairs):
        path = Path("images", str(i // PER_FOLDER), f"{i}.png")
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (7, 7, 1), np.uint8)
        image = blocks.repeat(4, axis=0).repeat(4, axis=1)
        (folder / path).write_bytes(tf.io.encode_png(image).numpy())
        names.append(str(path))
    table = folder / "pairs.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["left", "right"])
        writer.writerows(zip(names[::2], names[1::2], strict=True))
    return table


def seconds_of(*arguments: str | Path) -> float:
    """Run `siamese-keras` with these arguments, and return how long it takes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "siamese_keras", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("saved_models/fashion_mnist"),
        help="run or exported model (default: saved_models/fashion_mnist)",
    )
    parser.add_argument("--pairs", type=int, default=10_000, help="how many (default: 10000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = make_files(folder, options.pairs)
        model = ["--model", options.model]
        index = ["index", folder / "images", "--output", folder / "gallery.npz", *model]
        rows = {
            f"predict --pairs, {options.pairs:,} pairs": seconds_of(
                "predict", "--pairs", table, "--output", folder / "out.csv", *model
            ),
            f"index, {2 * options.pairs:,} images": seconds_of(*index),
            "index again, nothing changed": seconds_of(*index),
            "predict --index, one query": seconds_of(
                "predict", folder / "images" / "0" / "0.png", "--index", index[3], *model
            ),
        }
    print("| task | seconds |\n| --- | --- |")
    for task, seconds in rows.items():
        print(f"| {task} | {seconds:.1f} |")
    report = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "tensorflow": tf.__version__,
        "model": str(options.model),
        "seconds": {task: round(seconds, 2) for task, seconds in rows.items()},
    }
    write_json(Path(__file__).with_suffix(".json"), report)


if __name__ == "__main__":
    main()
