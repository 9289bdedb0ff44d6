"""The optimizer, and the course of its learning rate."""

from __future__ import annotations

from typing import Any

import keras


def build_optimizer(
    name: str, learning_rate: float, *, schedule: str, steps: int
) -> keras.optimizers.Optimizer:
    """Build an optimizer.

    Args:
        name: `"adam"` or `"rmsprop"`.
        learning_rate: The learning rate; the peak of it in a one-cycle.
        schedule: `"constant"`, or `"one-cycle"`: from a 25th up to the peak in the first quarter of
            the steps, then down to 0 along a cosine (Smith & Topin, "Super-Convergence", 2019).
        steps: Number of steps of the whole training.

    Returns:
        The optimizer.
    """
    rate: Any = learning_rate
    if schedule == "one-cycle":
        rising = steps // 4
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 25,
            decay_steps=max(steps - rising, 1),
            warmup_target=learning_rate,
            warmup_steps=rising,
        )
    optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    return optimizers[name](rate)
