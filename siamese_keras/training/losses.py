"""Contrastive loss: pulls same pairs together and pushes different pairs beyond a margin."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from siamese_keras.config import Weighting
from siamese_keras.errors import ArgumentError, check_choice


def _check_margins(margin: float, positive_margin: float) -> None:
    if not margin > 0:
        raise ArgumentError(f"`margin` must be positive. Received: margin={margin}")
    if not 0 <= positive_margin < margin:
        raise ArgumentError(
            "`positive_margin` must be at least 0 and less than `margin`. Received: "
            f"positive_margin={positive_margin}, margin={margin}"
        )


@keras.saving.register_keras_serializable(package="siamese_keras")
def contrastive_loss(
    different: Any, distance: Any, margin: float = 1.0, positive_margin: float = 0.0
) -> Any:
    """Compute the contrastive loss of each pair.

    `different * max(margin - distance, 0)**2 + (1 - different) * max(distance - positive_margin,
    0)**2`

    Args:
        different: `[...]`, 1 = different classes, 0 = same class.
        distance: `[...]` of the same shape, at least 0.
        margin: Distance beyond which different pairs cost nothing; positive.
        positive_margin: Distance below which same pairs cost nothing; at least 0 and less than
            `margin`. 0 is the classic loss.

    Returns:
        float32 of the same shape: the loss of each pair, not reduced.

    Raises:
        ArgumentError: When the shapes differ or a margin is out of range.

    Example:
        >>> contrastive_loss([0.0, 1.0], [0.5, 0.5], margin=2.0)  # 0.5**2 and (2 - 0.5)**2
        [0.25, 2.25]

    Reference:
        Hadsell, Chopra & LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (2006),
        there with a factor of 1/2 and a positive margin of 0.
    """
    _check_margins(margin, positive_margin)
    distance = ops.cast(ops.convert_to_tensor(distance), "float32")
    different = ops.cast(ops.convert_to_tensor(different), "float32")
    check_same_shape(different.shape, distance.shape)
    same_loss = ops.square(ops.maximum(distance - positive_margin, 0.0))
    different_loss = ops.square(ops.maximum(margin - distance, 0.0))
    return different * different_loss + (1.0 - different) * same_loss


def check_same_shape(different: tuple[int | None, ...], distance: tuple[int | None, ...]) -> None:
    """Refuse shapes that would broadcast, such as `[batch]` against `[batch, 1]`."""
    if len(different) != len(distance) or any(
        a != b for a, b in zip(different, distance, strict=True) if a is not None and b is not None
    ):
        raise ArgumentError(
            "`different` and `distance` must have the same shape. Received: "
            f"different.shape={tuple(different)}, distance.shape={tuple(distance)}"
        )


@keras.saving.register_keras_serializable(package="siamese_keras")
class ContrastiveLoss(keras.losses.Loss):
    """`contrastive_loss` for `model.compile`.

    Args:
        margin: As in `contrastive_loss`.
        positive_margin: As in `contrastive_loss`.
        weighting: Which pairs the loss of a batch is the mean of. `"uniform"`: all pairs.
            `"balanced"`: half the mean over the same pairs plus half the mean over the different
            pairs, however many there are of each. `"nonzero"`: like balanced, but only over pairs
            whose loss is not 0, so that the last hard pairs weigh as much as the many at first.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Raises:
        ArgumentError: When a margin is out of range or `weighting` is unknown.

    Example:
        >>> outer = build_outer_model(base_model)
        >>> outer.compile("adam", ContrastiveLoss(margin=1.0))
        >>> outer.fit({"left": left, "right": right}, different)
    """

    def __init__(
        self,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        *,
        weighting: Weighting = "uniform",
        reduction: str = "sum_over_batch_size",
        name: str = "contrastive_loss",
        dtype: Any = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check_margins(margin, positive_margin)
        check_choice("weighting", weighting, Weighting)
        self.margin = margin
        self.positive_margin = positive_margin
        self.weighting = weighting

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the weighted loss of each pair; shapes as in `contrastive_loss`."""
        losses = contrastive_loss(y_true, y_pred, self.margin, self.positive_margin)
        if self.weighting == "uniform":
            return losses
        different = ops.cast(y_true, "float32")
        num_pairs = ops.cast(ops.size(different), "float32")
        kinds = [different, 1.0 - different]
        if self.weighting == "nonzero":
            nonzero = ops.cast(losses > 0, "float32")
            kinds = [kind * nonzero for kind in kinds]
        # A batch may have no pairs of one kind: 1 avoids 0 / 0.
        weight = sum(0.5 * num_pairs * kind / ops.maximum(ops.sum(kind), 1.0) for kind in kinds)
        return losses * weight

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        return {
            **super().get_config(),
            "dtype": self.dtype,  # which Keras leaves out
            "margin": self.margin,
            "positive_margin": self.positive_margin,
            "weighting": self.weighting,
        }
