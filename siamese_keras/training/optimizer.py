"""The optimizer and its learning rate schedule."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from siamese_keras.config import Optimizer, Schedule
from siamese_keras.errors import check_choice


@keras.saving.register_keras_serializable(package="siamese_keras")
class Muon(keras.optimizers.Muon):
    """Muon for matrices and for the kernels of convolutions; Adam for vectors.

    Muon replaces the momentum of a matrix by the nearest matrix with orthonormal rows or columns,
    so that a step moves all directions alike. Keras's own optimizer does so for matrices alone.
    Here, as in the original, a kernel `[height, width, channels, filters]` is taken as a matrix
    with a column for each filter.

    Args: as `keras.optimizers.Muon`, without weight decay and with three Newton-Schulz steps by
    default. `exclude_layers` and `exclude_embeddings` have no effect.

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
        https://kellerjordan.github.io/posts/muon/; the scale of the step is that of Liu et al.,
        "Muon is Scalable for LLM Training" (2025), https://arxiv.org/abs/2502.16982.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        weight_decay: float | None = None,
        adam_weight_decay: float | None = None,
        ns_steps: int = 3,
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            adam_weight_decay=adam_weight_decay,
            ns_steps=ns_steps,
            **kwargs,
        )

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) < 2

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the orthonormal matrix nearest to `x`, in the shape of `x`."""
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """Scale a step to the root mean square of a step of Adam."""
        if self.rms_rate is None:
            return x
        return x * self.rms_rate * math.sqrt(max(math.prod(x.shape[:-1]), x.shape[-1]))


_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "muon": Muon,
    "rmsprop": keras.optimizers.RMSprop,
}


def build_optimizer(
    name: Optimizer, learning_rate: float, *, schedule: Schedule, steps: int
) -> keras.optimizers.Optimizer:
    """Build an optimizer.

    Args:
        name: `"adam"`, `"muon"` or `"rmsprop"`.
        learning_rate: The learning rate; its peak with `"warmup-cosine"`.
        schedule: `"constant"`, or `"warmup-cosine"`: linearly from a 25th up to the peak in the
            first quarter of the steps, then down to 0 along a cosine (after Smith & Topin,
            "Super-Convergence", 2019, which also cycles momentum).
        steps: Number of steps of the whole training.

    Returns:
        The optimizer.

    Raises:
        ArgumentError: When `name` or `schedule` is unknown.
    """
    check_choice("optimizer", name, Optimizer)
    check_choice("schedule", schedule, Schedule)
    rate: Any = learning_rate
    if schedule == "warmup-cosine":
        rising = steps // 4
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 25,
            decay_steps=max(steps - rising, 1),
            warmup_target=learning_rate,
            warmup_steps=rising,
        )
    return _OPTIMIZERS[name](rate)
