"""Export a run as a SavedModel that TensorFlow Serving loads.

    python -m siamese_keras.export RUN [--output saved_models/NAME]

Writes the folder `<output>/<n>/`, n one higher than the highest there, whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from siamese_keras.command_line import run_program
from siamese_keras.runs import Run


def export(run: Run, folder: Path) -> Path:
    """Write `run` as the next version below `folder`.

    Args:
        run: The run.
        folder: `saved_models/<name>`; made when it is missing.

    Returns:
        The version's folder, `<folder>/<n>`.

    Raises:
        OSError: When it cannot be written; nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        _write(run, temporary / "model")
        while True:
            version = folder / str(1 + max(versions(folder), default=0))
            try:
                os.rename(temporary / "model", version)
                return version
            except OSError:
                if not version.exists():  # otherwise another export was faster: take the next
                    raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)


def versions(folder: Path) -> list[int]:
    """Return the numbers of the versions below `folder`, in no order."""
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _write(run: Run, path: Path) -> None:
    image = tf.TensorSpec([None, *run.base.input_shape[1:]], tf.uint8)
    archive = keras.export.ExportArchive()
    archive.track(run.outer)

    def serving_default(left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        distance = run.outer({"left": left, "right": right}, training=False)
        scale, threshold = run.classifier.scale, run.classifier.threshold
        similarity = tf.sigmoid(scale * (threshold - distance))
        return {"distance": distance, "similarity": similarity, "same": distance <= threshold}

    archive.add_endpoint(
        "serving_default",
        serving_default,
        [
            tf.TensorSpec(image.shape, image.dtype, "left"),
            tf.TensorSpec(image.shape, image.dtype, "right"),
        ],
    )
    archive.write_out(str(path), verbose=False)


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
