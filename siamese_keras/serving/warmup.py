"""Warm-up requests: what TensorFlow Serving replays before it serves a version.

The format is a TFRecord file of `tensorflow.serving.PredictionLog` messages. Their classes come
with `tensorflow-serving-api`, which pins TensorFlow's version. The four nested messages are
therefore encoded here, and the tests read them back with the real classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def write_warmup_requests(
    path: Path, model_name: str, requests: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write requests to `path`.

    Args:
        path: File to write.
        model_name: Name that the model is served under.
        requests: Arrays by input name, by signature.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            writer.write(prediction_log(model_name, signature, inputs))


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Encode one request as a `PredictionLog`.

    Field numbers are those of prediction_log.proto, predict.proto and model.proto of TF Serving.
    """
    model_spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, array in inputs.items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))  # an entry of a map
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes: its tag, its length as base-128 varint, its content."""
    length = len(content)
    varint = bytearray()
    while length >= 128:
        varint.append(length % 128 + 128)
        length //= 128
    return bytes([number << 3 | 2, *varint, length]) + content
