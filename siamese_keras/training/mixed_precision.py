"""Computing convolutions in bfloat16, on processors that do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

_REWRITER = "auto_mixed_precision_onednn_bfloat16"
_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself.

    Elsewhere they would be converted there and back, which takes longer than float32.

    Args:
        cpuinfo: Where Linux lists what the processor can do. False on other systems.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def bfloat16_convolutions(wanted: bool) -> Iterator[bool]:
    """Let TensorFlow compute convolutions and matrix products in bfloat16 within the block.

    Weights, sums, distances and the loss stay float32, and so does all that is computed after the
    block. TensorFlow rewrites the graph of a function when it first runs: a model that was fitted
    within the block keeps that graph for `fit` alone.

    Args:
        wanted: Whether to, where the processor can.

    Yields:
        Whether it is done.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options().get(_REWRITER, False)
    done = wanted and has_bfloat16()
    options.set_experimental_options({_REWRITER: done})
    try:
        yield done
    finally:
        options.set_experimental_options({_REWRITER: before})
