"""Export a run as a SavedModel that TensorFlow Serving loads.

    python -m siamese_keras.export RUN [--output saved_models/NAME]

Writes the folder `<output>/<n>/`, n one higher than the highest there, whole or not at all. Before
it appears there, it is loaded again and must answer as the Keras model does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from siamese_keras import __version__
from siamese_keras.command_line import run_program
from siamese_keras.serving.client import versions
from siamese_keras.serving.signatures import build_signatures, example_requests
from siamese_keras.serving.warmup import WARMUP_FILE, write_warmup_requests
from siamese_keras.verifier import Run, write_json

TOLERANCE = 1e-5
_STALE_SECONDS = 3600


def export(run: Run, folder: Path) -> Path:
    """Write `run` as the next version below `folder`.

    Args:
        run: The run. Its `metrics.json`, if it has been scored, goes along.
        folder: `saved_models/<name>`; made when it is missing.

    Returns:
        The version's folder, `<folder>/<n>`.

    Raises:
        OSError: When it cannot be written; nothing is left behind.
        ValueError: When what was written does not answer as the run's model does, by `verify`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    # A server that polls the folder takes whole numbers for versions and passes by other names.
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        _write(run, temporary / "model", folder.resolve().name)
        verify(run, temporary / "model")
        while True:
            version = folder / str(1 + max(versions(folder), default=0))
            try:
                return (temporary / "model").rename(version)
            except OSError:
                if not version.exists():  # otherwise another export was faster: take the next
                    raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)


def _remove_stale(folder: Path) -> None:
    """Remove what exports left that were killed; nobody writes for an hour."""
    for path in folder.glob(".writing-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path)


def _write(run: Run, path: Path, name: str) -> None:
    archive = keras.export.ExportArchive()  # no `track`: it would store every variable twice
    for signature, (function, inputs) in build_signatures(run.outer, run.classifier).items():
        archive.add_endpoint(signature, function, inputs)
    archive.write_out(str(path), verbose=False)
    shape = run.base.input_shape[1:]
    (path / WARMUP_FILE).parent.mkdir()
    write_warmup_requests(path / WARMUP_FILE, name, example_requests(shape, batch_size=1))
    scored = run.path / "metrics.json"
    information = {
        "name": name,
        "siamese_keras": __version__,
        "class_names": run.class_names,
        "image_shape": shape,
        "threshold": run.classifier.threshold,
        "scale": run.classifier.scale,
        "config": dataclasses.asdict(run.config),
        "metrics": json.loads(scored.read_text()) if scored.is_file() else None,
    }
    write_json(path / "assets.extra" / "model.json", information)


def verify(run: Run, path: Path) -> None:
    """Load an exported version and compare its answers with those of the run's model.

    Args:
        run: The run.
        path: Folder of the version.

    Raises:
        ValueError: When a distance, embedding or similarity differs by more than `TOLERANCE`, for
            numbers beyond 1 in relation to them.
    """
    exported = tf.saved_model.load(str(path))
    requests = example_requests(run.base.input_shape[1:], batch_size=3)
    pair = requests["serving_default"]
    distance = run.outer(pair, training=False).numpy()
    comparison = {"distance": distance, "similarity": run.classifier.similarity(distance)}
    embedding = {"embedding": run.base(pair["left"], training=False).numpy()}
    expected = {
        "serving_default": comparison,
        "compare_bytes": comparison,
        "embed": embedding,
        "embed_bytes": embedding,
    }
    for signature, inputs in requests.items():
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        answer = exported.signatures[signature](**tensors)
        for name, values in expected[signature].items():
            difference = np.max(
                np.abs(answer[name].numpy() - values) / np.maximum(1, np.abs(values))
            )
            if not difference <= TOLERANCE:  # so that NaN is refused as well
                raise ValueError(
                    f"The exported model does not answer as the run's: {name} of {signature} "
                    f"differs by {difference:g}, where {TOLERANCE:g} is allowed. Not exported."
                )


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m siamese_keras.export",
        description="Export a run as a SavedModel for TensorFlow Serving.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--output", type=Path, help="folder (default: saved_models/DATASET)")
    options = parser.parse_args(argv)

    def program() -> None:
        run = Run.load(options.run)
        print(f"export: {export(run, options.output or Path('saved_models') / run.config.dataset)}")

    return run_program(program)


if __name__ == "__main__":
    sys.exit(main())
