"""Measure what a request costs: the exported model against `model.predict` and LiteRT.

    python benchmarks/serving.py RUN [--data-dir FOLDER]

Times pixels to distances for 1, 32 and 256 test pairs, in turn, so that all meet the same
conditions: the Keras model's `predict`; the exported model by `tf.saved_model.load`; the same by
the C++ loader in a process of its own, with the way there and back; and the outer model converted
for LiteRT, with its weights as they are and rounded to 8 bits. Beside the times stands the accuracy
that each keeps on all test pairs. Prints a table and writes benchmarks/serving.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers.c_api import CApiModel  # the tests' client of the C++ loader

from siamese_keras import Dataset, Verifier, load_verifier
from siamese_keras.data.datasets import load_config_dataset
from siamese_keras.data.pairs import evaluation_pairs
from siamese_keras.files import write_json

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


def litert(verifier: Verifier, *, eight_bits: bool) -> Answer:
    """Convert the outer model for LiteRT and return the function that answers pairs with it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(verifier.outer_model)
    if eight_bits:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with contextlib.redirect_stdout(io.StringIO()):  # it lists all variables
        content = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    of = {side: d["index"] for d in interpreter.get_input_details() for side in pair_sides(d)}
    output = interpreter.get_output_details()[0]["index"]

    def answer(pair: Pair) -> np.ndarray:
        if len(pair["left"]) != interpreter.get_input_details()[0]["shape"][0]:
            for side, index in of.items():
                interpreter.resize_tensor_input(index, pair[side].shape)
            interpreter.allocate_tensors()
        for side, index in of.items():
            interpreter.set_tensor(index, pair[side])
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return answer


def pair_sides(details: dict[str, Any]) -> list[str]:
    """Return the side, `left` or `right`, of an input of a converted model."""
    return [side for side in ("left", "right") if side in details["name"]]


def benchmark(verifier: Verifier, dataset: Dataset, *, rounds: int) -> list[dict[str, Any]]:
    """Return one row for each number of pairs and way."""
    test = dataset.test
    pairs = evaluation_pairs(test.labels)

    def images(part: slice) -> Pair:
        return {"left": test.images[pairs.left[part]], "right": test.images[pairs.right[part]]}

    with tempfile.TemporaryDirectory() as folder:
        version = verifier.export(folder)
        loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
        c_api = CApiModel(version)
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
            "LiteRT": litert(verifier, eight_bits=False),
            "LiteRT, 8-bit weights": litert(verifier, eight_bits=True),
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
    print(f"{'pairs':>5}  {'way':<25}  {'pairs/s':>9}  {'p50 ms':>8}  {'p99 ms':>8}  accuracy")
    for row in rows:
        print(
            f"{row['pairs']:>5}  {row['way']:<25}  {row['pairs_per_second']:>9,.0f}  "
            f"{row['p50_ms']:>8.2f}  {row['p99_ms']:>8.2f}  {row['accuracy']:.4f}"
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
