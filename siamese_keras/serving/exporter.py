"""The export of a model with its calibration as a SavedModel that TensorFlow Serving loads."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras._version import __version__
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.files import write_json
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.false_accepts import FalseAccepts, write_false_accepts
from siamese_keras.models.outer_model import base_model_of
from siamese_keras.serving.client import read_model_json, versions
from siamese_keras.serving.signatures import build_signatures, example_requests
from siamese_keras.serving.warmup import WARMUP_FILE, write_warmup_requests

TOLERANCE = 1e-5
_STALE_SECONDS = 3600


def export(
    outer: keras.Model,
    calibration: Calibration,
    folder: str | os.PathLike[str],
    *,
    class_names: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
    false_accepts: FalseAccepts | None = None,
) -> Path:
    """Write a model as the next version below `folder`, whole or not at all.

    Before the version appears there, it is loaded again and must answer as the Keras model does.

    Args:
        outer: The outer model.
        calibration: Threshold and slope.
        folder: `saved_models/<name>`; created when it is missing.
        class_names: Names of the classes, for `model.json`.
        facts: What else `model.json` is to hold.
        false_accepts: Table of false accepts by threshold, to write beside it.

    Returns:
        The version's folder, `<folder>/<n>`.

    Raises:
        ArgumentError: When `folder` holds versions of a model of other classes or images.
        OSError: When it cannot be written; nothing is left behind.
        ModelError: When the export does not answer as `outer` does.
    """
    if "://" in os.fspath(folder):
        raise ArgumentError(f"`folder` must be a folder on this machine. Received: {folder}")
    folder = Path(folder)
    information = {
        "name": folder.resolve().name,
        "siamese_keras": __version__,
        "class_names": class_names,
        "image_shape": base_model_of(outer).input_shape[1:],
        "threshold": calibration.threshold,
        "slope": calibration.slope,
        "midpoint": calibration.midpoint,
        **(facts or {}),
    }
    if false_accepts is not None:
        information["false_accepts"] = false_accepts.summary()
    folder.mkdir(parents=True, exist_ok=True)
    _check_same_kind(folder, information)
    _remove_stale(folder)
    # A server that polls the folder takes whole numbers for versions and ignores other names.
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        _write(outer, calibration, temporary / "model", information)
        write_false_accepts(temporary / "model" / "assets.extra", false_accepts)
        verify(outer, calibration, temporary / "model")
        while True:
            version = folder / str(_next_number(folder))
            try:
                return (temporary / "model").rename(version)
            except OSError:
                if not version.exists():  # otherwise another export was faster: take the next
                    raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)


def _next_number(folder: Path) -> int:
    numbers = [int(p.name) for p in folder.iterdir() if p.name.isascii() and p.name.isdecimal()]
    return 1 + max(numbers, default=0)


def _check_same_kind(folder: Path, information: Mapping[str, Any]) -> None:
    """Refuse to make another model the next version of the one that clients ask."""
    found = versions(folder)
    if not found:
        return
    newest = found[max(found)]
    try:
        before = read_model_json(newest)
    except ModelError:
        return  # not an export of this package
    for key, name in (("class_names", "classes"), ("image_shape", "image shape")):
        old, new = (list(facts.get(key, ())) for facts in (before, information))
        if old != new:
            raise ArgumentError(
                f"`{newest}` is a model of other images, so this one cannot become its next "
                f"version. Its {name}: {_brief(old)}. Received: {_brief(new)}. Export under "
                "another name."
            )


def _brief(values: list[Any]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def _remove_stale(folder: Path) -> None:
    """Remove what killed exports left behind; no export takes an hour."""
    for path in folder.glob(".writing-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path)


def _write(
    outer: keras.Model, calibration: Calibration, path: Path, information: dict[str, Any]
) -> None:
    archive = keras.export.ExportArchive()  # no `track`: it would store every variable twice
    for signature, (function, inputs) in build_signatures(outer, calibration).items():
        archive.add_endpoint(signature, function, inputs)
    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:  # TensorFlow's file system reports a full disk like this
        raise OSError(f"`{path}` cannot be written. {error.message}") from None
    shape = information["image_shape"]
    (path / WARMUP_FILE).parent.mkdir()
    requests = example_requests(shape, batch_size=1)
    write_warmup_requests(path / WARMUP_FILE, information["name"], requests)
    write_json(path / "assets.extra" / "model.json", information)


def verify(outer: keras.Model, calibration: Calibration, path: Path) -> None:
    """Load an exported version and compare its answers with those of the Keras model.

    Args:
        outer: The outer model.
        calibration: Threshold and slope.
        path: Folder of the version.

    Raises:
        ModelError: When a distance, embedding or similarity differs by more than `TOLERANCE`
            (relative beyond 1), or a decision differs.
    """
    exported = tf.saved_model.load(str(path))
    base = base_model_of(outer)
    requests = example_requests(base.input_shape[1:], batch_size=3)
    pair = requests["serving_default"]
    distance = outer(pair, training=False).numpy()
    comparison = {
        "distance": distance,
        "similarity": calibration.similarity(distance),
        "same": calibration.same(distance),
    }
    embedding = {"embedding": base(pair["left"], training=False).numpy()}
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
            found = answer[name].numpy().astype(np.float64)
            difference = np.max(np.abs(found - values) / np.maximum(1, np.abs(values)))
            # A pair at the very threshold may be decided either way.
            clear = np.abs(distance - calibration.threshold) > TOLERANCE
            if name == "same":
                difference = np.max(np.abs(found - values) * clear)
            if not difference <= TOLERANCE:  # so that NaN is refused as well
                raise ModelError(
                    f"The exported model does not answer as the Keras model does: {name} of "
                    f"{signature} differs by {difference:g}, where {TOLERANCE:g} is allowed. "
                    "Nothing was exported."
                )
