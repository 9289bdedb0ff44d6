"""The signatures of an exported model, and requests that try each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import decode_batch
from siamese_keras.errors import ModelError
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.outer_model import base_model_of

Signature = tuple[Callable[..., dict[str, Any]], list[tf.TensorSpec]]


def build_signatures(outer: keras.Model, calibration: Calibration) -> dict[str, Signature]:
    """Build the functions that a served model offers, each with its named inputs.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | `left`, `right`: uint8 `[n, height, width, channels]` | `distance`, \
      `similarity`: float32 `[n]`; `same`: bool `[n]` |
    | `compare_bytes` | `left`, `right`: string `[n]`, PNG or JPEG files | the same |
    | `embed` | `images`: uint8 `[n, height, width, channels]` | `embedding`: float32 `[n, d]` |
    | `embed_bytes` | `images`: string `[n]`, PNG or JPEG files | the same |

    Files are decoded as `decode_image` does it, the EXIF orientation of JPEG files included. Other
    formats are decoded by the client, `photo.py`, and sent as PNG.

    A request of the wrong shape, or an empty one, gets INVALID_ARGUMENT. Without these checks an
    input of the wrong rank ends the server's process, inside the convolution.

    Args:
        outer: The outer model, (left, right) -> distance.
        calibration: Threshold and slope, which become part of the graph.

    Returns:
        Function and input specifications by signature.

    Raises:
        ModelError: When the model takes images of other than 1 or 3 channels.
    """
    base = base_model_of(outer)
    shape = base.input_shape[1:]
    if shape[-1] not in (1, 3):
        raise ModelError(f"An exported model must take 1 or 3 channels. Received: {shape[-1]}")

    def compare(left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        left, right = _batches(left, right, shape=[None, *shape])
        distance = outer({"left": left, "right": right}, training=False)
        similarity = tf.sigmoid(calibration.slope * (calibration.midpoint - distance))
        same = distance <= calibration.threshold
        return {"distance": distance, "similarity": similarity, "same": same}

    def compare_bytes(left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        left, right = _batches(left, right, shape=[None])
        return compare(decode_batch(left, shape), decode_batch(right, shape))

    def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
        (images,) = _batches(images, shape=[None, *shape])
        return {"embedding": base(images, training=False)}

    def embed_bytes(images: tf.Tensor) -> dict[str, tf.Tensor]:
        (images,) = _batches(images, shape=[None])
        return embed(decode_batch(images, shape))

    def named(*names: str, files: bool) -> list[tf.TensorSpec]:
        spec = (
            tf.TensorSpec([None], tf.string) if files else tf.TensorSpec([None, *shape], tf.uint8)
        )
        return [tf.TensorSpec(spec.shape, spec.dtype, name) for name in names]

    return {
        "serving_default": (compare, named("left", "right", files=False)),
        "compare_bytes": (compare_bytes, named("left", "right", files=True)),
        "embed": (embed, named("images", files=False)),
        "embed_bytes": (embed_bytes, named("images", files=True)),
    }


def _batches(*tensors: tf.Tensor, shape: list[int | None]) -> list[tf.Tensor]:
    """Return the inputs, for operations that must not run unless they are batches of one size."""
    shaped = [tf.ensure_shape(tensor, shape) for tensor in tensors]
    sizes = tf.stack([tf.shape(tensor)[0] for tensor in shaped])
    check = tf.debugging.Assert(
        tf.reduce_all(sizes == sizes[0]) & (sizes[0] > 0),
        ["The inputs must hold equally many images, at least 1. Received:", sizes],
    )
    with tf.control_dependencies([check]):
        return [tf.identity(tensor) for tensor in shaped]


def example_requests(
    shape: tuple[int, int, int], *, batch_size: int
) -> dict[str, dict[str, np.ndarray]]:
    """Make one request for every signature; the images of all are the same noise.

    Args:
        shape: Height, width and channels of an image.
        batch_size: Images in each input.

    Returns:
        Arrays by input name, by signature; files are PNG, as an array of `bytes` objects.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, batch_size, *shape), np.uint8)
    files = np.empty((2, batch_size), object)
    for index in np.ndindex(files.shape):
        files[index] = tf.io.encode_png(pixels[index]).numpy()
    return {
        "serving_default": {"left": pixels[0], "right": pixels[1]},
        "compare_bytes": {"left": files[0], "right": files[1]},
        "embed": {"images": pixels[0]},
        "embed_bytes": {"images": files[0]},
    }
