"""What `model.fit` shows of pairs, and the warnings when training goes wrong."""

from __future__ import annotations

import signal
import threading
import types
import warnings
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="siamese_keras")
class PairAccuracy(keras.metrics.Metric):
    """Mean of the accuracies on same and on different pairs, however many there are of each.

    Args:
        threshold: Distance at which the decision flips.
        name: Name of the metric.
    """

    def __init__(self, threshold: float, name: str = "pair_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        # Rows: same, different. Columns: right decisions, pairs.
        self.counts = self.add_weight(shape=(2, 2), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count the pairs of a batch: label and distance, both of one shape."""
        different = ops.cast(y_true, "float32")
        right = ops.cast(ops.equal(y_pred > self.threshold, different > 0.5), "float32")
        same = 1.0 - different
        self.counts.assign_add(
            ops.stack(
                [
                    ops.stack([ops.sum(right * same), ops.sum(same)]),
                    ops.stack([ops.sum(right * different), ops.sum(different)]),
                ]
            )
        )

    def result(self) -> Any:
        """Return the balanced accuracy so far, in [0, 1]."""
        return ops.mean(self.counts[:, 0] / ops.maximum(self.counts[:, 1], 1.0))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this metric again."""
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
        counted = ops.equal(ops.cast(y_true, "float32"), self.different)
        super().update_state(y_pred, ops.cast(counted, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this metric again."""
        return {**super().get_config(), "different": self.different}


def pair_metrics(margin: float, positive_margin: float) -> list[keras.metrics.Metric]:
    """Make the metrics of `model.compile`; the accuracy is that midway between the margins."""
    return [
        PairAccuracy(threshold=(margin + positive_margin) / 2),
        MeanDistance(0.0, name="same_distance"),
        MeanDistance(1.0, name="different_distance"),
    ]


class TrainingWarnings(keras.callbacks.Callback):
    """Warn once when the labels look inverted or the embedding collapses.

    Args:
        margin: Margin of the loss: the scale against which a distance is small.
    """

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin
        self.warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judge the mean distances of the epoch."""
        logs = logs or {}
        prefix = "val_" if "val_same_distance" in logs else ""
        same, different = logs[f"{prefix}same_distance"], logs[f"{prefix}different_distance"]
        if self.warned:
            return
        figures = f"mean distance {same:.3f} of same pairs, {different:.3f} of different pairs"
        if different < 0.05 * self.margin:
            self._warn(f"The embedding collapses: all images come close to one point ({figures}).")
        elif different < 0.95 * same:
            self._warn(
                f"The labels look inverted ({figures}): 1 means different classes, 0 the same."
            )

    def _warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=2)
        self.warned = True


class StopOnInterrupt(keras.callbacks.Callback):
    """Let the first Ctrl-C end `fit` after the batch at hand; the second one acts as ever.

    A context manager around `fit`. An exception in the midst of it could be raised, and lost, in
    any code of Keras; a flag is looked at where it is safe to stop. What came of the epoch so far
    is validated as a whole epoch is. Outside the main thread, which alone may handle signals, and
    where interrupts are ignored, nothing changes.

    Attributes:
        interrupted: Whether there was a Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False
        self._previous: Any = None

    def __enter__(self) -> StopOnInterrupt:
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as under nohup
        if threading.current_thread() is threading.main_thread() and not ignored:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ask `fit` to stop."""
        if self.interrupted:
            self.model.stop_training = True

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self.interrupted = True
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
