"""The export of a model with its calibration: SavedModel for TensorFlow Serving, LiteRT, ONNX."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras._version import __version__
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.files import expanded, write_json, writing_folder
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.false_accepts import FalseAccepts, write_false_accepts
from siamese_keras.models.outer_model import base_model_of
from siamese_keras.serving.client import read_model_json, versions
from siamese_keras.serving.formats import MODEL_FILES, format_of
from siamese_keras.serving.model_card import MODEL_CARD, model_card
from siamese_keras.serving.portable import check_format, load_version, write_litert, write_onnx
from siamese_keras.serving.signatures import Signature, build_signatures, example_requests
from siamese_keras.serving.warmup import WARMUP_FILE, write_warmup_requests

TOLERANCE = 1e-5
TOLERANCE_INT8 = 0.05
_STALE_SECONDS = 3600  # no export takes an hour


def export(
    outer: keras.Model,
    calibration: Calibration,
    folder: str | os.PathLike[str],
    *,
    class_names: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
    false_accepts: FalseAccepts | None = None,
    format: str = "saved_model",
    quantize: str | None = None,
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
        format: "saved_model", for TensorFlow Serving; "litert", which needs the extra `litert`; or
            "onnx", which needs the extra `onnx` and holds the base model alone.
        quantize: "int8" rounds the weights of a LiteRT export to 8 bits.

    Returns:
        The version's folder, `<folder>/<n>`.

    Raises:
        ArgumentError: When `folder` holds versions of a model of other classes or images, or in
            another format, or what the format needs is not installed.
        OSError: When it cannot be written; nothing is left behind.
        ModelError: When the export does not answer as `outer` does.
    """
    if "://" in os.fspath(folder):
        raise ArgumentError(f"`folder` must be a folder on this machine. Received: {folder}")
    check_format(format, quantize)
    folder = expanded(folder)
    information = {
        "name": folder.resolve().name,
        "siamese_keras": __version__,
        "class_names": class_names,
        "image_shape": base_model_of(outer).input_shape[1:],
        "threshold": calibration.threshold,
        "slope": calibration.slope,
        "midpoint": calibration.midpoint,
        **({} if quantize is None else {"quantize": quantize}),
        **(facts or {}),
    }
    if false_accepts is not None:
        information["false_accepts"] = false_accepts.summary()
    folder.mkdir(parents=True, exist_ok=True)
    _check_same_kind(folder, information, format)
    # A server that polls the folder takes whole numbers for versions and ignores other names.
    with writing_folder(folder, stale_seconds=_STALE_SECONDS) as temporary:
        model = temporary / "model"
        signatures = build_signatures(outer, calibration)
        if format == "saved_model":
            _write_saved_model(signatures, model)
            _write_warmup(model, information)
        else:
            (model / "assets.extra").mkdir(parents=True)
            _write_portable(signatures, model / MODEL_FILES[format], format, quantize)
        write_json(model / "assets.extra" / "model.json", information)
        write_false_accepts(model / "assets.extra", false_accepts)
        (model / MODEL_CARD).write_text(model_card(information), encoding="utf-8")
        verify(outer, calibration, model, TOLERANCE if quantize is None else TOLERANCE_INT8)
        while True:
            version = folder / str(_next_number(folder))
            try:
                return model.rename(version)
            except OSError:
                if not version.exists():  # otherwise another export was faster: take the next
                    raise


def _next_number(folder: Path) -> int:
    numbers = [int(p.name) for p in folder.iterdir() if p.name.isascii() and p.name.isdecimal()]
    return 1 + max(numbers, default=0)


def _check_same_kind(folder: Path, information: Mapping[str, Any], format: str) -> None:
    """Refuse to make another model the next version of the one that clients ask."""
    found = versions(folder)
    if not found:
        return
    newest = found[max(found)]
    try:
        before = read_model_json(newest)
    except ModelError:
        return  # not an export of this package
    before_format = format_of(newest)
    if before_format != format:
        raise ArgumentError(
            f"`{folder}` holds versions in the format {before_format}, and one folder must hold "
            f"one format. Received: {format}. Export to another folder."
        )
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


def _write_saved_model(signatures: Mapping[str, Signature], path: Path) -> None:
    archive = keras.export.ExportArchive()  # no `track`: it would store every variable twice
    for signature, (function, inputs) in signatures.items():
        archive.add_endpoint(signature, function, inputs)
    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:  # TensorFlow's file system reports a full disk like this
        raise OSError(f"`{path}` cannot be written. {error.message}") from None


def _write_warmup(path: Path, information: Mapping[str, Any]) -> None:
    (path / WARMUP_FILE).parent.mkdir()
    requests = example_requests(information["image_shape"], batch_size=1)
    write_warmup_requests(path / WARMUP_FILE, information["name"], requests)


def _write_portable(
    signatures: Mapping[str, Signature], path: Path, format: str, quantize: str | None
) -> None:
    if format == "onnx":
        write_onnx(signatures["embed"], path)
        return
    with tempfile.TemporaryDirectory() as graph:
        names = ("serving_default", "embed")
        _write_saved_model({name: signatures[name] for name in names}, Path(graph))
        write_litert(Path(graph), path, quantize=quantize)


def verify(
    outer: keras.Model, calibration: Calibration, path: Path, tolerance: float = TOLERANCE
) -> None:
    """Load an exported version and compare its answers with those of the Keras model.

    Args:
        outer: The outer model.
        calibration: Threshold and slope.
        path: Folder of the version, in any format.
        tolerance: Largest difference that is allowed.

    Raises:
        ModelError: When a distance, embedding or similarity differs by more than `tolerance`
            (relative to the largest value of a row beyond 1), or a decision differs.
    """
    ask = load_version(path)
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
    if format_of(path) == "onnx":  # holds the base model alone
        requests = {name: requests[name] for name in ("embed", "embed_bytes")}
    for signature, inputs in requests.items():
        answer = ask(signature, inputs)
        for name, values in expected[signature].items():
            found = answer[name].astype(np.float64)
            rows = np.abs(values.reshape(len(values), -1)).max(axis=1)
            scale = np.maximum(1, rows).reshape(-1, *[1] * (values.ndim - 1))
            difference = np.max(np.abs(found - values) / scale)
            # A pair at the very threshold may be decided either way.
            clear = np.abs(distance - calibration.threshold) > tolerance
            if name == "same":
                difference = np.max(np.abs(found - values) * clear)
            # The steepest slope of the similarity is a quarter of the calibration's.
            allowed = tolerance * (max(1.0, calibration.slope / 4) if name == "similarity" else 1)
            if not difference <= allowed:  # so that NaN is refused as well
                raise ModelError(
                    f"The exported model does not answer as the Keras model does: {name} of "
                    f"{signature} differs by {difference:g}, where {allowed:g} is allowed. "
                    "Nothing was exported."
                )
