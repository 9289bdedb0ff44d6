"""Are several processes together as good as one, and what does their communication take?

    python benchmarks/workers.py [--numbers 1,2,4] [--seeds 0,1,2] [--epochs 1]

Trains preset `fast`, without bfloat16, with so many processes on this machine, which share each
batch through `MultiWorkerMirroredStrategy`; the first one scores the model by Fashion-MNIST's test
images. Then as many processes train at the same time, each on its own, with its share of the batch:
what the former take longer is communication, and waiting for each other. Prints a table and writes
benchmarks/workers.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras import PRESETS, connect_workers, fit, load_dataset
from siamese_keras.data.pipeline import steps_per_epoch
from siamese_keras.evaluation.protocol import score
from siamese_keras.files import write_json


def work(path: Path, *, seed: int, epochs: int, share: int) -> None:
    """Train in this process, with a share of the usual batch, and write what came of it."""
    connect_workers()
    dataset = load_dataset()
    config = dataclasses.replace(
        PRESETS["fast"], seed=seed, epochs=epochs, bfloat16=False, batch_size=128 // share
    )
    verifier = fit(dataset, config, verbose=0)
    steps = epochs * steps_per_epoch(config.pairs, dataset.train.labels, 128)
    own_steps = epochs * steps_per_epoch(config.pairs, dataset.train.labels, config.batch_size)
    found: dict[str, Any] = {
        "ms_per_step": round(1000 * verifier.training["fit_seconds"] / own_steps, 2),
        "steps": steps,
        "weights": [float(np.sum(np.abs(w))) for w in verifier.base_model.get_weights()],
    }
    if share == 1:
        metrics = score(verifier.embed, dataset, calibration=verifier.calibration).metrics
        found |= {
            "accuracy": round(metrics["test"]["accuracy"], 4),
            "roc_auc": round(metrics["test"]["roc_auc"], 4),
            "recall_at_1": round(metrics["retrieval"]["recall_at_1"], 4),
        }
    write_json(path, found)


def together(number: int, *options: str, connected: bool) -> list[dict[str, Any]]:
    """Start so many processes of this program, and return what each of them writes."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for index in range(number):
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            if connected and number > 1:
                task = {"type": "worker", "index": index}
                cluster = {"worker": addresses}
                environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
            output = str(Path(folder, f"{index}.json"))
            command = [sys.executable, __file__, "--output", output, *options]
            started.append(subprocess.Popen(command, env=environment))
        if any(process.wait() for process in started):
            sys.exit(f"one of {number} processes failed")
        return [json.loads(Path(folder, f"{i}.json").read_text()) for i in range(number)]


def measure(number: int, seeds: list[int], epochs: int) -> dict[str, Any]:
    """Return the row of a number of processes."""
    rows = []
    for seed in seeds:
        options = ["--seeds", str(seed), "--epochs", str(epochs)]
        found = together(number, *options, connected=True)
        if any(other["weights"] != found[0]["weights"] for other in found):
            sys.exit(f"the weights of {number} processes differ")
        if number > 1:
            alone = together(number, *options, "--share", str(number), connected=False)
            found[0]["ms_per_step_alone"] = max(row["ms_per_step"] for row in alone)
        del found[0]["weights"]
        rows.append(found[0])
        print(number, seed, rows[-1], flush=True)
    median = {name: round(float(np.median([row[name] for row in rows])), 4) for name in rows[0]}
    if number > 1:
        share = 1 - median["ms_per_step_alone"] / median["ms_per_step"]
        median["communication"] = round(max(share, 0.0), 3)
    return {**median, "seeds": rows}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    numbers = {"type": lambda text: list(map(int, text.split(",")))}
    parser.add_argument("--numbers", default=[1, 2, 4], help="of processes (1,2,4)", **numbers)
    parser.add_argument("--seeds", default=[0, 1, 2], help="(0,1,2)", **numbers)
    parser.add_argument("--epochs", type=int, default=1, help="of each training (1)")
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output is not None:
        work(options.output, seed=options.seeds[0], epochs=options.epochs, share=options.share)
        return
    results = {str(n): measure(n, options.seeds, options.epochs) for n in options.numbers}
    print("| processes | ms per step | communication | accuracy | ROC-AUC | Recall@1 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number, row in results.items():
        share = f"{row['communication']:.0%}" if "communication" in row else ""
        figures = " | ".join(f"{row[name]:.4f}" for name in ("accuracy", "roc_auc", "recall_at_1"))
        print(f"| {number} | {row['ms_per_step']:.1f} | {share} | {figures} |")
    write_json(Path(__file__).with_suffix(".json"), {"cpus": os.cpu_count(), **results})


if __name__ == "__main__":
    main()
