"""oneDNN, the library that computes convolutions on x86 processors."""

from __future__ import annotations

import logging
import os

import tensorflow as tf

_log = logging.getLogger(__name__)


def warn_without_onednn() -> None:
    """Log a warning when oneDNN is off on a CPU and nobody turned it off.

    TensorFlow reads TF_ENABLE_ONEDNN_OPTS when it is imported. `siamese_keras` sets it to 1, which
    is too late when TensorFlow or Keras were imported before.
    """
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1" or tf.config.list_physical_devices("GPU"):
        return
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:  # a private module, which another version may not have
        return
    if not IsMklEnabled():
        _log.warning(
            "oneDNN is off, which can double the training time on this processor: import "
            "siamese_keras before TensorFlow and Keras, or set TF_ENABLE_ONEDNN_OPTS=1."
        )
