"""Measure what a request costs: every export format against `model.predict`.

    python benchmarks/serving.py RUN [--data-dir FOLDER]

Times pixels to distances for 1, 32 and 256 test pairs, in turn, so that all meet the same
conditions: the Keras model's `predict`; the SavedModel by `tf.saved_model.load`; the same by the
C++ loader in a process of its own, with the way there and back; LiteRT, with its weights as they
are and rounded to 8 bits; and ONNX Runtime, with the base model on both sides. Beside the times
stand the accuracy that each keeps on all test pairs and the size of its files. Prints a table and
writes benchmarks/serving.json.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import siamese_keras  # noqa: F401 (turns on oneDNN before TensorFlow is imported)

# isort: split
import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers.c_api import CApiModel  # the tests' client of the C++ loader

from siamese_keras import Dataset, Verifier, load_verifier
from siamese_keras.data.datasets import load_config_dataset
from siamese_keras.data.pairs import evaluation_pairs
from siamese_keras.files import write_json
from siamese_keras.serving.portable import load_version

Pair = dict[str, np.ndarray]
Answer = Callable[[Pair], np.ndarray]

PAIRS = (1, 32, 256)
WARM_UP_CALLS = 5


def measure(ways: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Call each way once a round, in turn, and return the seconds of every call."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM_UP_CALLS + rounds):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            if turn >= WARM_UP_CALLS:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def size_of(version: Path) -> int:
    """Return the bytes of the files that a runtime reads: graph and weights."""
    files = (path for path in version.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "assets.extra" not in path.parts)


def benchmark(verifier: Verifier, dataset: Dataset, *, rounds: int) -> list[dict[str, Any]]:
    """Return one row for each number of pairs and way."""
    test = dataset.test
    pairs = evaluation_pairs(test.labels)

    def images(part: slice) -> Pair:
        return {"left": test.images[pairs.left[part]], "right": test.images[pairs.right[part]]}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        saved_model = verifier.export(folder / "saved_model")
        litert = verifier.export(folder / "litert", format="litert")
        int8 = verifier.export(folder / "int8", format="litert", quantize="int8")
        onnx = verifier.export(folder / "onnx", format="onnx")
        loaded = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
        c_api = CApiModel(saved_model)
        ask_litert, ask_int8, ask_onnx = map(load_version, (litert, int8, onnx))

        def with_onnx(pair: Pair) -> np.ndarray:
            left, right = (
                ask_onnx("embed", {"images": pair[side]})["embedding"] for side in ("left", "right")
            )
            return np.linalg.norm(left - right, axis=1)

        ways: dict[str, Answer] = {
            "model.predict": lambda pair: verifier.outer_model.predict(
                pair, batch_size=len(pair["left"]), verbose=0
            ),
            "tf.saved_model.load": lambda pair: loaded(
                **{side: tf.constant(x) for side, x in pair.items()}
            )["distance"].numpy(),
            "C++ loader, other process": lambda pair: c_api.ask("serving_default", pair)[
                "distance"
            ],
            "LiteRT": lambda pair: ask_litert("serving_default", pair)["distance"],
            "LiteRT, 8-bit weights": lambda pair: ask_int8("serving_default", pair)["distance"],
            "ONNX Runtime": with_onnx,
        }
        versions = [None, saved_model, saved_model, litert, int8, onnx]
        bytes_of = {
            way: None if version is None else size_of(version)
            for way, version in zip(ways, versions, strict=True)
        }
        try:
            accuracy = {}
            for way, answer in ways.items():
                starts = range(0, len(pairs), PAIRS[-1])
                parts = [answer(images(slice(start, start + PAIRS[-1]))) for start in starts]
                same = verifier.calibration.same(np.concatenate(parts))
                accuracy[way] = float((same == (pairs.different < 0.5)).mean())
            rows = []
            for n in PAIRS:
                pair = images(slice(n))
                calls = {way: partial(answer, pair) for way, answer in ways.items()}
                for way, seconds in measure(calls, rounds=rounds).items():
                    p50, p99 = np.percentile(seconds, [50, 99])
                    rows.append(
                        {
                            "pairs": n,
                            "way": way,
                            "pairs_per_second": round(n / p50, 1),
                            "p50_ms": round(1e3 * p50, 3),
                            "p99_ms": round(1e3 * p99, 3),
                            "accuracy": round(accuracy[way], 5),
                            "file_bytes": bytes_of[way],
                        }
                    )
        finally:
            c_api.close()
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--data-dir", type=Path, help="folder with the data")
    parser.add_argument("--rounds", type=int, default=200, help="calls to time (default: 200)")
    options = parser.parse_args()
    verifier = load_verifier(options.run)
    dataset = load_config_dataset(verifier.config, options.data_dir)
    rows = benchmark(verifier, dataset, rounds=options.rounds)
    print(f"{'pairs':>5}  {'way':<25}  {'pairs/s':>9}  {'p50 ms':>8}  {'p99 ms':>8}  accuracy  MB")
    for row in rows:
        print(
            f"{row['pairs']:>5}  {row['way']:<25}  {row['pairs_per_second']:>9,.0f}  "
            f"{row['p50_ms']:>8.2f}  {row['p99_ms']:>8.2f}  {row['accuracy']:>8.4f}  "
            f"{(row['file_bytes'] or 0) / 1e6:.2f}"
        )
    one = {row["way"]: row["p50_ms"] for row in rows if row["pairs"] == 1}
    ratio = one["model.predict"] / one["tf.saved_model.load"]
    print(f"\none pair: model.predict takes {ratio:.0f} times as long as the exported model")
    report = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "rounds": options.rounds,
        "predict_to_saved_model_one_pair": round(ratio, 1),
        "rows": rows,
    }
    write_json(Path(__file__).with_suffix(".json"), report)


if __name__ == "__main__":
    main()
