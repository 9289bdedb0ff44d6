"""Is a training that was killed the same as one that was not?

    python benchmarks/soak.py [--runs 50] [--jobs 2]

Trains a small network on 2,000 images of Fashion-MNIST once without an interruption, and then
again and again; each time the program is killed one to three times (SIGKILL) at random moments and
resumed. Counts the runs whose weights, history and report are those of the first one, to the last
bit. Then fits preset `fast` and measures what its checkpoints take. Prints the result and writes
benchmarks/soak.json. Takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras import PRESETS, fit, load_dataset
from siamese_keras.files import write_json
from siamese_keras.training import state

OPTIONS = ["--dataset", "npz", "--epochs", "5", "--dropout", "0.2", "--units", "32"]
OPTIONS += ["--augment", "flip-shift", "--batch-size", "64", "--checkpoint-minutes", "0.005"]


def make_data(path: Path) -> None:
    """Write the first 2,000 training and 1,000 test images of Fashion-MNIST as one file."""
    dataset = load_dataset()
    train, test = dataset.train.take(np.arange(2000)), dataset.test.take(np.arange(1000))
    np.savez(
        path, x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels
    )


def start(folder: Path, run: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """Start a training, or go on with one."""
    new = [*OPTIONS, "--data-dir", folder / "data.npz", "--run-dir", run]
    new += ["--export-dir", run / "models"]
    arguments = ["--resume", run] if resume else new
    command = [sys.executable, "-m", "siamese_keras", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def outcome(run: Path) -> dict[str, str]:
    """Return a digest of all that a training ends with, by file; what took how long is left out."""
    found = {name: (run / name).read_bytes() for name in ("history.csv", "classes.csv")}
    metrics = json.loads((run / "metrics.json").read_text())
    for seconds in ("fit_seconds", "seconds"):
        metrics["training"].pop(seconds, None)
        metrics.pop(seconds, None)
    found["metrics.json"] = json.dumps(metrics, sort_keys=True).encode()
    with zipfile.ZipFile(run / "base.keras") as archive:
        found["weights"] = archive.read("model.weights.h5")
    with np.load(run / "embeddings.npz") as embeddings:
        found["embeddings"] = b"".join(embeddings[name].tobytes() for name in embeddings)
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def phase_of(run: Path) -> str:
    """Say how far a training had come when it was killed, by what it left behind."""
    if (run / "models").is_dir():
        return "export"
    if (run / "model.json").is_file():
        return "evaluation"
    if any(run.glob("checkpoints/.writing-*")):
        return "checkpoint"
    checkpoints = sorted((run / "checkpoints").glob("*.npz"))
    return f"epoch {int(checkpoints[-1].name[6:12]) + 1}" if checkpoints else "start"


def killed_and_resumed(folder: Path, number: int, seconds: float) -> tuple[list[str], dict]:
    """Train with one to three kills; return the phases of the kills and the outcome."""
    chance, run = random.Random(number), folder / f"run-{number}"
    phases: list[str] = []
    for _ in range(chance.randint(1, 3)):
        resume = (run / "command.json").is_file()
        process = start(folder, run, resume=resume)
        try:
            process.wait(timeout=chance.uniform(0.1, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            phases.append(phase_of(run))
    process = start(folder, run, resume=(run / "command.json").is_file())
    _, err = process.communicate()
    if process.returncode:
        return phases, {"error": err.decode()[-500:]}
    return phases, outcome(run)


def checkpoint_cost() -> dict[str, Any]:
    """Fit preset `fast` and return the seconds that its checkpoints take."""
    seconds: list[float] = []
    write = state.write_checkpoint

    def timed(*arguments: Any) -> None:
        started = time.perf_counter()
        write(*arguments)
        seconds.append(time.perf_counter() - started)

    state.write_checkpoint = timed
    with tempfile.TemporaryDirectory() as name:
        verifier = fit(load_dataset(), PRESETS["fast"], run_dir=Path(name, "run"), verbose=0)
    state.write_checkpoint = write
    fit_seconds = verifier.training["fit_seconds"]
    return {
        "checkpoints": len(seconds),
        "checkpoint_seconds": round(sum(seconds), 3),
        "fit_seconds": fit_seconds,
        "share": round(sum(seconds) / fit_seconds, 5),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default: 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data.npz")
        started = time.perf_counter()
        if start(folder, folder / "whole", resume=False).wait():
            sys.exit("the whole training failed")
        seconds, expected = time.perf_counter() - started, outcome(folder / "whole")
        phases: collections.Counter[str] = collections.Counter()
        equal = 0
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(killed_and_resumed, folder, number, seconds)
                for number in range(options.runs)
            ]
            for number, job in enumerate(jobs):
                found_phases, found = job.result()
                phases.update(found_phases)
                equal += found == expected
                if found != expected:
                    differing = [k for k in expected if found.get(k) != expected[k]]
                    print(number, found_phases, found.get("error") or differing, flush=True)
                print(f"{equal} of {number + 1} runs equal", flush=True)
    result = {
        "cpus": os.cpu_count(),
        "runs": options.runs,
        "equal": equal,
        "kills": sum(phases.values()),
        "kills_by_phase": dict(sorted(phases.items())),
        "fast": checkpoint_cost(),
    }
    print(json.dumps(result, indent=2))
    write_json(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
