"""Metrics of pairs that `model.fit` shows."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from siamese_keras.errors import ArgumentError
from siamese_keras.training.losses import contrastive_loss


@keras.saving.register_keras_serializable(package="siamese_keras")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean of the accuracies on same and on different pairs, decided at a fixed distance.

    Args:
        threshold: Distance at which the decision flips.
        name: Name of the metric.
    """

    def __init__(self, threshold: float, name: str = "balanced_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        # Rows: same, different. Columns: correct decisions, pairs.
        self.counts = self.add_weight(shape=(2, 2), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count the pairs of a batch: label and distance, both of one shape."""
        _refuse_weights(sample_weight)
        different = ops.cast(y_true, "float32")
        correct = ops.cast(ops.equal(y_pred > self.threshold, different > 0.5), "float32")
        same = 1.0 - different
        self.counts.assign_add(
            ops.stack(
                [
                    ops.stack([ops.sum(correct * same), ops.sum(same)]),
                    ops.stack([ops.sum(correct * different), ops.sum(different)]),
                ]
            )
        )

    def result(self) -> Any:
        """Return the balanced accuracy so far, in [0, 1]."""
        return ops.mean(self.counts[:, 0] / ops.maximum(self.counts[:, 1], 1.0))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this metric."""
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="siamese_keras")
class MeanDistance(keras.metrics.Mean):
    """Mean distance of the pairs with one label.

    Args:
        different: The label: 1.0 for different pairs, 0.0 for same pairs.
        name: Name of the metric.
    """

    def __init__(self, different: float, name: str, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.different = different

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the pairs of a batch: label and distance, both of one shape."""
        _refuse_weights(sample_weight)
        counted = ops.equal(ops.cast(y_true, "float32"), self.different)
        super().update_state(y_pred, ops.cast(counted, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this metric."""
        return {**super().get_config(), "different": self.different}


def _refuse_weights(sample_weight: Any) -> None:
    if sample_weight is not None:
        raise ArgumentError("`sample_weight` is not supported by the metrics of pairs.")


def pair_metrics(margin: float, positive_margin: float) -> list[keras.metrics.Metric]:
    """Make the metrics of `model.compile`.

    Returns:
        `contrastive_loss`, the mean over all pairs, whatever the weighting of the loss that is
        minimized; `midpoint_accuracy`, the balanced accuracy midway between the margins; and the
        mean distances of same and of different pairs.
    """
    return [
        keras.metrics.MeanMetricWrapper(
            contrastive_loss,
            name="contrastive_loss",
            margin=margin,
            positive_margin=positive_margin,
        ),
        BalancedAccuracy((margin + positive_margin) / 2, name="midpoint_accuracy"),
        MeanDistance(0.0, name="same_distance"),
        MeanDistance(1.0, name="different_distance"),
    ]
