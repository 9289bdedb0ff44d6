"""Two ways to ask an exported model: load it, or ask the TensorFlow Serving that serves it.

Both give an `Ask`: `ask("compare_bytes", {"left": [...], "right": [...]})` returns NumPy arrays by
output name. Nothing here imports Keras, so that a program starts as fast as TensorFlow.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

Ask = Callable[[str, Mapping[str, Sequence[bytes]]], dict[str, np.ndarray]]


class ModelError(ValueError):
    """The model cannot be asked; the message says why."""


class RefusedError(ModelError):
    """The model refuses this request, as when a file is no image; it may well answer another."""


def versions(folder: Path) -> list[int]:
    """Return the numbers of the versions below `folder`, in order; other names are none."""
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch("[0-9]+", path.name))


def newest_version(folder: Path) -> Path:
    """Return the folder of the highest version below `folder`, or `folder` if it is a version.

    Raises:
        ModelError: When there is none.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder) if folder.is_dir() else []
    if not found:
        raise ModelError(
            f"`{folder}` must be the folder of an exported model. Export one with "
            "`python -m siamese_keras.export RUN`, or name another folder by --model."
        )
    return folder / str(found[-1])


def load_saved_model(folder: Path) -> Ask:
    """Load a version of an exported model, with TensorFlow alone.

    Args:
        folder: `saved_models/<name>/<n>`.

    Returns:
        The way to ask it. It raises `RefusedError` for what the model refuses.

    Raises:
        ModelError: When it cannot be loaded.
    """
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises many kinds for damaged files
        raise ModelError(f"`{folder}` cannot be loaded. {plain_reason(str(error))}") from None

    def ask(signature: str, inputs: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        if signature not in model.signatures:
            raise ModelError(f"The model in `{folder}` has no signature {signature!r}.")
        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        try:
            outputs = model.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise RefusedError(plain_reason(error.message)) from None
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return ask


def connect(url: str, *, timeout: float = 10.0) -> Ask:
    """Reach a model of a running TensorFlow Serving by its REST interface.

    Args:
        url: The model's address, `http://host:8501/v1/models/<name>`, with `/versions/<n>` behind
            it or not.
        timeout: Seconds to wait for the connection, and for each part of the answer.

    Returns:
        The way to ask it; nothing is sent before. It raises `RefusedError` for what the model
        refuses and `ModelError` when no answer comes.
    """

    def ask(signature: str, inputs: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        columns = {
            name: [{"b64": base64.b64encode(value).decode()} for value in values]
            for name, values in inputs.items()
        }
        outputs = _post(f"{url}:predict", {"signature_name": signature, "inputs": columns}, timeout)
        if not isinstance(outputs, dict):  # of a single output, the server leaves out the name
            outputs = {"embedding": outputs}
        return {name: np.asarray(values) for name, values in outputs.items()}

    return ask


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
        raise (RefusedError if error.code == 400 else ModelError)(message) from None
    except OSError as error:
        reason = getattr(error, "reason", error)  # urllib wraps what happens before the answer
        if isinstance(reason, TimeoutError):
            raise ModelError(f"`{url}` did not answer within {timeout:g} s.") from None
        raise ModelError(f"`{url}` cannot be reached: {reason}") from None
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        raise ModelError(f"`{url}` does not answer as TensorFlow Serving does.") from None


def _stated_reason(error: urllib.error.HTTPError) -> str:
    try:
        return plain_reason(json.load(error)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)


def plain_reason(message: str) -> str:
    """Reduce a message of TensorFlow to what a user can use: one line, without names of nodes."""
    noise = ("Graph execution error:", "Detected at node", "<stack traces", " ", "\t")
    lines = (line for line in message.splitlines() if line and not line.startswith(noise))
    line = re.sub(r"\{\{.*?\}\} *| *\[Op:.*$", "", next(lines, message))
    return re.sub(r"^assertion failed: \[(.*?)\]", r"\1", line)
