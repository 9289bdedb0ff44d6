"""The formats of an exported model. Importing it does not load TensorFlow."""

from __future__ import annotations

from pathlib import Path

# The file of a version by which its format is known.
MODEL_FILES = {"saved_model": "saved_model.pb", "litert": "model.tflite", "onnx": "model.onnx"}


def format_of(version: Path) -> str | None:
    """Return the format of a version, a key of `MODEL_FILES`, or None when it has none of them."""
    found = (format for format, name in MODEL_FILES.items() if (version / name).is_file())
    return next(found, None)
