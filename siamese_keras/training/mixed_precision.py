"""Convolutions in bfloat16, on processors that support it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

_REWRITER = "auto_mixed_precision_onednn_bfloat16"
_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself.

    Other processors convert them to float32 and back, which takes longer than float32.

    Args:
        cpuinfo: The file in which Linux lists what the processor supports.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def bfloat16_convolutions(wanted: bool) -> Iterator[bool]:
    """Compute convolutions and matrix products in bfloat16 within the block.

    Weights, sums, distances and the loss stay float32, and so does all that is computed after the
    block. TensorFlow rewrites the graph of a function when it first runs: a model that was fitted
    within the block keeps that graph for `fit` alone.

    Args:
        wanted: Whether to do so, if the processor supports it.

    Yields:
        Whether bfloat16 is used.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options().get(_REWRITER, False)
    done = wanted and has_bfloat16()
    options.set_experimental_options({_REWRITER: done})
    try:
        yield done
    finally:
        options.set_experimental_options({_REWRITER: before})
