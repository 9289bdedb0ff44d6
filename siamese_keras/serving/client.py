"""Clients of an exported model: loaded into this process, or behind a TensorFlow Serving.

Nothing here imports Keras, so that a program starts as fast as TensorFlow.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from siamese_keras.data.inputs import Batch
from siamese_keras.errors import ArgumentError, ModelError, RequestError, plain_reason
from siamese_keras.serving.address import check_model_url
from siamese_keras.serving.formats import format_of

# ask("compare_bytes", {"left": [...], "right": [...]}) returns arrays by output name.
Ask = Callable[[str, Mapping[str, Batch]], dict[str, np.ndarray]]

_BATCH_SIZE = 64
_REQUEST_BYTES = 16_000_000  # of images in a request, in JSON up to five times as many


class ExportedModel:
    """An exported model, queried through its signatures.

    Args:
        ask: From `load_version` or `connect`.
        image_shape: Height, width and channels of its images, where they are known.
    """

    batch_size = _BATCH_SIZE

    def __init__(self, ask: Ask, image_shape: tuple[int, int, int] | None = None) -> None:
        self._ask = ask
        self.image_shape = image_shape

    def embed(self, images: Batch) -> np.ndarray:
        """Return the embeddings of images, float32 `[n, embedding_dim]`.

        Raises:
            RequestError: When the model refuses an image.
            ModelError: When the model cannot be queried or is not an export of this package.
        """
        signature = "embed" if isinstance(images, np.ndarray) else "embed_bytes"
        embeddings = []
        for (part,) in _requests(images):
            answer = self._ask(signature, {"images": part})
            embeddings.append(_rows(answer, "embedding", len(part), rank=2))
        return np.concatenate(embeddings).astype(np.float32, copy=False)

    def compare(self, left: Batch, right: Batch) -> dict[str, np.ndarray]:
        """Return `distance`, `similarity` and `same` of pairs, each `[n]`.

        Raises:
            ArgumentError: When one side is an array and the other one files.

        Also raises what `embed` raises.
        """
        if isinstance(left, np.ndarray) != isinstance(right, np.ndarray):
            raise ArgumentError(
                "`left` and `right` must be both arrays or both files: a server compares them in "
                "one request. Received: one of each"
            )
        signature = "serving_default" if isinstance(left, np.ndarray) else "compare_bytes"
        found: dict[str, list[np.ndarray]] = {"distance": [], "similarity": [], "same": []}
        for part, other in _requests(left, right):
            answer = self._ask(signature, {"left": part, "right": other})
            for name, values in found.items():
                values.append(_rows(answer, name, len(part), rank=1))
        return {name: np.concatenate(values) for name, values in found.items()}


def is_one_request(*batches: Batch) -> bool:
    """Return whether batches of equally many rows are small enough for a single request."""
    sizes = [x.nbytes if isinstance(x, np.ndarray) else sum(map(len, x)) for x in batches]
    return len(batches[0]) < 2 or sum(sizes) <= _REQUEST_BYTES


def _requests(*batches: Batch) -> Iterator[tuple[Batch, ...]]:
    """Cut batches of equally many rows, so that large photos come in several requests."""
    if is_one_request(*batches):
        yield batches
        return
    rows = len(batches[0])
    for half in (slice(rows // 2), slice(rows // 2, rows)):
        yield from _requests(*(batch[half] for batch in batches))


def _rows(answer: Mapping[str, np.ndarray], name: str, rows: int, *, rank: int) -> np.ndarray:
    values = answer.get(name, np.empty(0))
    if values.ndim != rank or len(values) != rows or values.dtype.kind not in "bif":
        raise ModelError("The model that answered is not an export of this package.")
    return values


def versions(folder: Path) -> dict[int, Path]:
    """Return the folders of the versions below `folder` by number, in order."""
    found = {
        int(path.name): path
        for path in folder.iterdir()
        if path.name.isascii() and path.name.isdecimal() and path.is_dir()
    }
    return dict(sorted(found.items()))


def newest_version(folder: Path) -> Path:
    """Return the folder of the highest version below `folder`, or `folder` if it is a version.

    Raises:
        ModelError: When there is none.
    """
    if format_of(folder) is not None:
        return folder
    found = versions(folder) if folder.is_dir() else {}
    if not found:
        raise ModelError(
            f"`{folder}` must be the folder of a run, as `python -m siamese_keras.train` writes "
            "it, or of an exported model, as `python -m siamese_keras.export RUN` does."
        )
    return found[max(found)]


def only_model(folder: Path) -> Path:
    """Return the only model below `folder`; exports for LiteRT and ONNX do not count.

    Raises:
        ModelError: When there is none, or more than one.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    found = [
        path
        for path in paths
        if versions(path) and format_of(newest_version(path)) not in ("litert", "onnx")
    ]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(
            f"`{folder}` must hold one exported model, or --model must name one. Received: {names}"
        )
    return found[0]


def read_model_json(version: Path) -> dict[str, Any]:
    """Read the facts of an exported model, `assets.extra/model.json`.

    Raises:
        ModelError: When the file is missing or damaged.
    """
    path = version / "assets.extra" / "model.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"`{version}` is not an export of this package: `{path}` cannot be read. {error}"
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"`{path}` must be a JSON object.")
    return content


def load_saved_model(folder: Path) -> Ask:
    """Load a version of an exported model, with TensorFlow alone.

    Args:
        folder: `saved_models/<name>/<n>`.

    Returns:
        The function that queries it. It raises `RequestError` for requests that the
        model refuses.

    Raises:
        ModelError: When it cannot be loaded.
    """
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises many kinds for damaged files
        raise ModelError(f"`{folder}` cannot be loaded. {plain_reason(str(error))}") from None

    def ask(signature: str, inputs: Mapping[str, Batch]) -> dict[str, np.ndarray]:
        if signature not in model.signatures:
            raise ModelError(f"The model in `{folder}` has no signature {signature!r}.")
        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        try:
            outputs = model.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise RequestError(plain_reason(error.message)) from None
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return ask


def connect(url: str, *, timeout: float = 10.0) -> Ask:
    """Reach a model of a running TensorFlow Serving through its REST API.

    Args:
        url: The model's address, `http://host:8501/v1/models/<name>`, with or without
            `/versions/<n>`.
        timeout: Seconds to wait for the connection, and for each part of the answer.

    Returns:
        The function that queries it; nothing is sent before. It raises `RequestError` for requests
        that the model refuses and `ModelError` when no answer comes.

    Raises:
        ArgumentError: When `url` is not the address of a model.
    """
    check_model_url(url)
    url = url.rstrip("/")

    def ask(signature: str, inputs: Mapping[str, Batch]) -> dict[str, np.ndarray]:
        columns = {
            name: values.tolist() if isinstance(values, np.ndarray) else list(map(_as_json, values))
            for name, values in inputs.items()
        }
        outputs = _post(f"{url}:predict", {"signature_name": signature, "inputs": columns}, timeout)
        if not isinstance(outputs, dict):  # the server does not name a single output
            outputs = {"embedding": outputs}
        try:
            return {name: np.asarray(values) for name, values in outputs.items()}
        except ValueError:  # rows of several lengths
            raise ModelError(f"`{url}` does not answer as TensorFlow Serving does.") from None

    return ask


def _as_json(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def _post(url: str, content: dict[str, Any], timeout: float) -> Any:
    request = urllib.request.Request(
        url, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer = json.load(response)
        return answer["outputs"]
    except urllib.error.HTTPError as error:
        message = f"`{url}` answered {error.code}: {_stated_reason(error)}"
        raise (RequestError if error.code == 400 else ModelError)(message) from None
    except OSError as error:
        reason = getattr(error, "reason", error)  # urllib wraps what happens before the answer
        if isinstance(reason, TimeoutError):
            raise ModelError(f"`{url}` did not answer within {timeout:g} s.") from None
        raise ModelError(f"`{url}` cannot be reached: {reason}") from None
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        raise ModelError(f"`{url}` does not answer as TensorFlow Serving does.") from None


def _stated_reason(error: urllib.error.HTTPError) -> str:
    try:
        return plain_reason(str(json.load(error)["error"]))
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return str(error.reason)
