"""Measure what a request costs: the exported model against `model.predict`.

    python benchmarks/serving.py RUN

Times pixels to distances for 1, 32 and 256 pairs of noise, three ways in turn, so that all meet the
same conditions: the Keras model's `predict`; the exported model by `tf.saved_model.load`; the same
by the C++ loader in a process of its own, with the way there and back. Prints a table and writes
benchmarks/serving.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from c_api import CApiModel  # the tests' client of the C++ loader

from siamese_keras.export import export
from siamese_keras.runs import Run

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


def benchmark(run: Run, *, rounds: int) -> list[dict[str, object]]:
    """Return one row for each number of pairs and way."""
    rows = []
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        version = export(run, Path(folder))
        loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
        c_api = CApiModel(version)
        try:
            for n in PAIRS:
                shape = (n, *run.base.input_shape[1:])
                pair = {side: rng.integers(0, 256, shape, np.uint8) for side in ("left", "right")}

                def by_saved_model(pair: dict[str, np.ndarray] = pair) -> object:
                    tensors = {side: tf.constant(images) for side, images in pair.items()}
                    return loaded(**tensors)["distance"].numpy()

                def by_c_api(pair: dict[str, np.ndarray] = pair) -> object:
                    return c_api.ask("serving_default", pair)

                def by_predict(pair: dict[str, np.ndarray] = pair) -> object:
                    return run.outer.predict(pair, batch_size=len(pair["left"]), verbose=0)

                ways = {
                    "model.predict": by_predict,
                    "tf.saved_model.load": by_saved_model,
                    "C++ loader, other process": by_c_api,
                }
                for way, seconds in measure(ways, rounds=rounds).items():
                    p50, p99 = np.percentile(seconds, [50, 99])
                    rows.append(
                        {
                            "pairs": n,
                            "way": way,
                            "pairs_per_second": round(n / p50, 1),
                            "p50_ms": round(1e3 * p50, 3),
                            "p99_ms": round(1e3 * p99, 3),
                        }
                    )
        finally:
            c_api.close()
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--rounds", type=int, default=200, help="calls to time (default: 200)")
    options = parser.parse_args()
    rows = benchmark(Run.load(options.run), rounds=options.rounds)
    print(f"{'pairs':>5}  {'way':<25}  {'pairs/s':>9}  {'p50 ms':>8}  {'p99 ms':>8}")
    for row in rows:
        print(
            f"{row['pairs']:>5}  {row['way']:<25}  {row['pairs_per_second']:>9,.0f}  "
            f"{row['p50_ms']:>8.2f}  {row['p99_ms']:>8.2f}"
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
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
