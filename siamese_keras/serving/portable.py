"""Exports for other runtimes than TensorFlow: LiteRT, for phones and small machines, and ONNX.

Beside the model's file lies `assets.extra/model.json`, as in a SavedModel. What a format needs to
be written or queried is an extra of the package, and is imported only then.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import decode_batch
from siamese_keras.data.inputs import Batch
from siamese_keras.errors import ArgumentError, ModelError, RequestError, plain_reason
from siamese_keras.serving.client import Ask, load_saved_model
from siamese_keras.serving.formats import MODEL_FILES, format_of
from siamese_keras.terminal import held_stderr

if TYPE_CHECKING:  # it imports Keras
    from siamese_keras.serving.signatures import Signature

# What asks a model of each format, and what writes it beside that.
_RUNTIMES = {"litert": "ai_edge_litert.interpreter", "onnx": "onnxruntime"}
_CONVERTERS = {"onnx": "tf2onnx"}


def check_format(format: str, quantize: str | None) -> None:
    """Check that a format can be written here.

    Args:
        format: "saved_model", "litert" or "onnx".
        quantize: "int8", for LiteRT alone, or None.

    Raises:
        ArgumentError: When it is unknown, what it needs is not installed, or it cannot be
            quantized.
    """
    if format not in MODEL_FILES:
        raise ArgumentError(f"`format` must be one of {', '.join(MODEL_FILES)}. Received: {format}")
    if quantize not in (None, "int8"):
        raise ArgumentError(f"`quantize` must be int8 or None. Received: {quantize}")
    if quantize is not None and format != "litert":
        raise ArgumentError(f"`quantize` needs the format litert. Received: the format {format}")
    for modules in (_RUNTIMES, _CONVERTERS):
        if format in modules:
            _check_installed(modules[format], format)


def _check_installed(module: str, format: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise ArgumentError(
            f"The format {format} needs the package {module.partition('.')[0]}. In a clone of the "
            f"repository: pip install -e '.[{format}]'"
        ) from None


def write_litert(saved_model: Path, path: Path, *, quantize: str | None) -> None:
    """Convert a SavedModel of this package for LiteRT.

    Args:
        saved_model: Folder of the SavedModel.
        path: File to write. It has the signatures `serving_default` and `embed` of the SavedModel.
        quantize: "int8" rounds the weights to 8 bits, which makes the file a quarter as large; None
            keeps them.

    Raises:
        ModelError: When it cannot be converted.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=["serving_default", "embed"]
    )
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with _converting("litert"):
        content = converter.convert()
    path.write_bytes(content)


def write_onnx(embed: Signature, path: Path) -> None:
    """Convert the signature `embed` to ONNX.

    Args:
        embed: The signature.
        path: File to write. Its input is `images`, uint8 `[n, height, width, channels]`, its output
            `embedding`, float32 `[n, embedding_dim]`.

    Raises:
        ModelError: When it cannot be converted.
    """
    import tf2onnx

    function, inputs = embed
    with _converting("onnx"):
        model, _ = tf2onnx.convert.from_function(
            tf.function(function, input_signature=inputs), input_signature=inputs, opset=18
        )
    path.write_bytes(model.SerializeToString())


def load_version(version: Path) -> Ask:
    """Load a version of an exported model in any format.

    Args:
        version: Its folder, `saved_models/<name>/<n>`.

    Returns:
        The function that queries it. An ONNX export has only the signatures `embed` and
        `embed_bytes`.

    Raises:
        ArgumentError: When what its format needs is not installed.
        ModelError: When it cannot be loaded.
    """
    format = format_of(version)
    if format is None or format == "saved_model":
        return load_saved_model(version)
    _check_installed(_RUNTIMES[format], format)
    path = version / MODEL_FILES[format]
    try:
        return (_load_litert if format == "litert" else _load_onnx)(path)
    except Exception as error:  # of many kinds, few of them documented
        raise ModelError(f"`{path}` cannot be loaded. {plain_reason(str(error))}") from None


def _load_litert(path: Path) -> Ask:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    runners = {
        name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()
    }
    shape = runners["embed"].get_input_details()["images"]["shape_signature"][1:]
    with held_stderr():  # at the first call LiteRT says which kernels it uses
        runners["embed"](images=np.zeros((1, *shape), np.uint8))
    one_at_a_time = threading.Lock()  # an interpreter is not made for several threads

    def ask(signature: str, inputs: Mapping[str, Batch]) -> dict[str, np.ndarray]:
        plain, arrays = _decoded(signature, inputs, shape)
        with one_at_a_time:
            answers: dict[str, np.ndarray] = runners[plain](**arrays)
        return answers

    return ask


def _load_onnx(path: Path) -> Ask:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    (embedding,) = session.get_outputs()
    shape = images.shape[1:]

    def ask(signature: str, inputs: Mapping[str, Batch]) -> dict[str, np.ndarray]:
        plain, arrays = _decoded(signature, inputs, shape)
        if plain != "embed":
            raise ModelError(f"The model in `{path}` has no signature {signature!r}.")
        return {"embedding": session.run([embedding.name], {images.name: arrays["images"]})[0]}

    return ask


def _decoded(
    signature: str, inputs: Mapping[str, Batch], shape: Any
) -> tuple[str, dict[str, np.ndarray]]:
    """Return the signature for arrays and the arrays, decoded as the graph of a SavedModel does."""
    shape = tuple(map(int, shape))
    if signature in ("compare_bytes", "embed_bytes"):
        signature = {"compare_bytes": "serving_default", "embed_bytes": "embed"}[signature]
        try:
            arrays = {
                name: decode_batch(tf.constant(files), shape).numpy()
                for name, files in inputs.items()
            }
        except tf.errors.OpError as error:
            raise RequestError(plain_reason(error.message)) from None
    else:
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
    # Neither runtime says in one line what is wrong with an input.
    lengths = {len(array) for array in arrays.values()}
    for array in arrays.values():
        if array.shape[1:] != shape or array.dtype != np.uint8 or not len(array):
            raise RequestError(
                f"The images must be uint8 of the shape {shape}. Received: {array.dtype} "
                f"{array.shape}"
            )
    if len(lengths) != 1:
        raise RequestError(f"The inputs must hold equally many images. Received: {sorted(lengths)}")
    return signature, arrays


@contextlib.contextmanager
def _converting(format: str) -> Iterator[None]:
    """Keep converters, which list all variables, off the terminal; say that a model defeats one."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:  # of many kinds, few of them documented
        reason = plain_reason(str(error))
        raise ModelError(f"The model cannot be converted to {format}. {reason}") from error
