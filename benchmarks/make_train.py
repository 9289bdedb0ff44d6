"""What does `make train` spend its time on?

    python benchmarks/make_train.py

Clones the repository as it is committed, and times what `make train` does there, phase by phase,
with an empty cache for the data: install the package and what it needs, fetch Fashion-MNIST, and
then, in one program, import TensorFlow, read the data, fit, score and draw the report, and export;
last, draw the diagrams. Prints a table and writes `benchmarks/make_train.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siamese_keras.files import write_json

ROOT = Path(__file__).parent.parent
# What `python -m siamese_keras.train --export-dir saved_models` does, with a clock.
_TRAIN = """
import json, time
started = time.perf_counter()
from siamese_keras import fit, load_dataset
import siamese_keras.training.trainer
laps = {}
def lap(name):
    global started
    laps[name], started = time.perf_counter() - started, time.perf_counter()
lap("import")
dataset = load_dataset()
lap("data")
verifier = fit(dataset, "fast", run_dir="runs/timed", verbose=0)
lap("fit")
report = verifier.evaluate(dataset)
report.save("runs/timed")
lap("report")
verifier.export("saved_models/" + verifier.name)
lap("export")
print(json.dumps(laps))
"""


def _timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - started, done.stdout


def measure(folder: Path, say: Callable[[str, float], None]) -> dict[str, float]:
    """Return the seconds of each phase, in a clone in `folder`."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    clone = folder / "siamese_keras"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    python = str(clone / ".venv" / "bin" / "python")
    seconds: dict[str, Any] = {}
    for name, command in {
        "install": ["make", ".venv/installed-diagrams", f"PYTHON={sys.executable}"],
        "fetch Fashion-MNIST": ["make", "data"],
        "train": [python, "-c", _TRAIN],
        "diagrams": [python, "-m", "siamese_keras.diagrams"],
    }.items():
        taken, output = _timed(command, clone, environment)
        found = {name: taken}
        if name == "train":
            found = json.loads(output.splitlines()[-1])
            found["start and end of the program"] = taken - sum(found.values())
        for phase, value in found.items():
            say(phase, value)
        seconds |= {phase: round(value, 1) for phase, value in found.items()}
    return seconds


def main() -> None:
    """Run the command line."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), lambda name, value: print(f"| {name} | {value:.1f} |"))
    print(f"| **in all** | **{sum(seconds.values()):.1f}** |")
    write_json(Path(__file__).with_suffix(".json"), seconds)


if __name__ == "__main__":
    main()
