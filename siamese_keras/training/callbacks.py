"""Callbacks of the training: validation, checkpoints, and when to stop."""

from __future__ import annotations

import functools
import math
import signal
import threading
import time
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras.errors import TrainingError
from siamese_keras.evaluation.protocol import embeddings_auc
from siamese_keras.files import write_columns
from siamese_keras.models.embedder import batch_size_of
from siamese_keras.progress import progress_line
from siamese_keras.training.distribution import Replicas
from siamese_keras.training.state import TrainingState

_COMPILED_FROM = 2000  # images: compiling takes longer than it saves for fewer
_CHANCE = 0.6  # ROC-AUC of an embedding that tells nothing is about 0.5
_COLLAPSED = "all images come close to one point"


class ValidationAUC(keras.callbacks.Callback):
    """Add `val_roc_auc` to the figures of every epoch: ROC-AUC of pairs of validation images.

    The pairs are those that the threshold is fitted on. Accuracy at a fixed distance depends on the
    scale of the distances, which changes during training; this figure does not. Callbacks that come
    later see it.

    Args:
        base: The model that embeds.
        values: `[n, ...]`, what it embeds: the validation images, or features of them.
        labels: int `[n]`, their classes.
        replicas: Those that are trained: all of them take the value of the first one, since others
            may differ in the last digit.
    """

    def __init__(
        self, base: keras.Model, values: np.ndarray, labels: np.ndarray, replicas: Replicas
    ):
        super().__init__()
        self._values, self._labels, self._replicas = values, labels, replicas
        self._embed = functools.partial(base, training=False)
        if len(values) >= _COMPILED_FROM:
            signature = [tf.TensorSpec([None, *values.shape[1:]], values.dtype)]
            self._embed = tf.function(self._embed, input_signature=signature)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Embed the validation images."""
        size = batch_size_of(self._values.shape[1:])
        batches = [
            np.asarray(self._embed(self._values[start : start + size]))
            for start in range(0, len(self._values), size)
        ]
        if logs is not None:
            auc = embeddings_auc(np.concatenate(batches), self._labels)
            logs["val_roc_auc"] = float(self._replicas.gathered(auc)[0])


class EpochLines(keras.callbacks.Callback):
    """Print one line for each epoch, and show a bar of its steps on a terminal.

    Keras's own line has a dozen figures, which `history.csv` holds too, and is longer than most
    terminals are wide.

    Args:
        epochs: Number of the last epoch.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._show = progress_line(f"steps of epoch {epoch + 1}/{self._epochs}", in_files=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move the bar."""
        self._show(batch + 1, self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the line."""
        logs = logs or {}
        seconds = time.monotonic() - self._started
        print(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  validation: "
            f"loss {logs['val_loss']:.4f}, ROC-AUC {logs['val_roc_auc']:.4f}  {seconds:.0f} s",
            flush=True,
        )


def small_distance(margin: float) -> float:
    """Return the mean distance of different pairs below which the embedding has collapsed."""
    return 0.05 * margin


class Guard(keras.callbacks.Callback):
    """Stop a training run that has failed, and say why.

    The weights of the last good epoch are put back, if there is one. An epoch is good when all
    weights are finite and the validation images are not embedded close to one point. When the
    labels look inverted, there is a warning.

    Args:
        margin: Margin of the loss: the scale against which a distance is small.
        good: Weights to put back when the first epoch fails, of a training that is resumed after a
            good epoch.
    """

    def __init__(self, margin: float, good: Sequence[np.ndarray] = ()):
        super().__init__()
        self.margin = margin
        self.warned = False
        self._good = list(good)
        self._epoch = 0
        self._figures, self._auc = "", 1.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Check the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self._end(f"The loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the mean distances of the epoch."""
        logs = logs or {}
        prefix = "val_" if "val_same_distance" in logs else ""
        same, different = logs[f"{prefix}same_distance"], logs[f"{prefix}different_distance"]
        figures = f"mean distance {same:.3f} of same pairs, {different:.3f} of different pairs"
        if not math.isfinite(same + different):
            self._end(f"Distances are no longer numbers after epoch {epoch + 1} ({figures})")
        # In validation distances may be small in the first steps, since the averages that batch
        # normalization keeps are still far from those of the images. In training they are averages
        # over the epoch, and dropout keeps them apart.
        is_good = different >= small_distance(self.margin)
        if not is_good and (self._good or logs["different_distance"] < small_distance(self.margin)):
            self._end(f"The embedding collapsed in epoch {epoch + 1}: {_COLLAPSED} ({figures})")
        weights = self.model.get_weights()
        if not all(np.isfinite(values).all() for values in weights):  # a ReLU may hide them
            self._end(f"The weights are no longer numbers after epoch {epoch + 1} ({figures})")
        if different < 0.95 * same and not self.warned:
            self.warned = True
            warnings.warn(
                f"The labels look inverted ({figures}): 1 means different classes, 0 the same.",
                stacklevel=2,
            )
        self._figures, self._auc = figures, logs.get("val_roc_auc", 1.0)
        if is_good:
            self._good = weights

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Check that the training did not begin with a collapse and never left it."""
        if self._epoch and not self._good and self._auc < _CHANCE:
            self._end(f"The embedding collapsed: {_COLLAPSED} ({self._figures})")

    def _end(self, reason: str) -> None:
        kept = "There are no good weights from before."
        if self._good:
            self.model.set_weights(self._good)
            kept = "The last good weights are kept."
        raise TrainingError(f"{reason}. Try a lower learning rate. {kept}")


class KeepBest(keras.callbacks.Callback):
    """Track the best epoch by `val_roc_auc`, and stop after `patience` epochs without a better one.

    Args:
        state: Where the best epoch is noted.
        patience: Epochs without a better one after which to stop; 0 never stops.
        keep_weights: Note the weights of the best epoch too.
    """

    def __init__(self, state: TrainingState, *, patience: int, keep_weights: bool):
        super().__init__()
        self._state, self._patience, self._keep_weights = state, patience, keep_weights

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare the epoch with the best one."""
        state, auc = self._state, (logs or {})["val_roc_auc"]
        if auc > state.best_auc:
            state.best_auc, state.best_epoch = auc, epoch + 1
            state.best_weights = self.model.get_weights() if self._keep_weights else []
        if is_stale(state, epoch + 1, self._patience):
            self.model.stop_training = True


def is_stale(state: TrainingState, epoch: int, patience: int) -> bool:
    """Return whether after `epoch` epochs there was no better one for `patience` epochs."""
    return bool(patience) and epoch - state.best_epoch >= patience


class History(keras.callbacks.Callback):
    """Note the figures of every epoch, and write them into a CSV file that is whole at any time.

    Args:
        columns: Where they are noted: of each figure a list.
        path: The file; it is replaced after each epoch.
    """

    def __init__(self, columns: dict[str, list[float]], path: Path | None = None):
        super().__init__()
        self.columns, self.path = columns, path

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add a row and write the file."""
        logs = logs or {}
        epochs = max(map(len, self.columns.values()), default=0)
        for name in {**self.columns, **logs}:  # a callback may log some figures now and then
            column = self.columns.setdefault(name, [math.nan] * epochs)
            column.append(float(logs.get(name, math.nan)))
        if self.path is not None:
            write_columns(self.path, self.columns)


class Checkpoints(keras.callbacks.Callback):
    """Write a checkpoint before the first epoch, after every epoch and, in long ones, within.

    It comes after all callbacks whose work a checkpoint holds.

    Args:
        state: What is written.
        metrics: The metrics that the model was compiled with.
        steps_per_epoch: Steps of a whole epoch.
        first_step: Steps of the first epoch that were done before, when it is resumed.
        minutes: Minutes between checkpoints within an epoch; with infinity there is one only where
            the training is to end.
        stop: Asked whether the training ends with this batch.
    """

    def __init__(
        self,
        state: TrainingState,
        metrics: Sequence[keras.metrics.Metric],
        *,
        steps_per_epoch: int,
        first_step: int,
        minutes: float,
        stop: StopOnSignal,
    ):
        super().__init__()
        self._state, self._metrics = state, metrics
        self._steps_per_epoch, self._first_step = steps_per_epoch, first_step
        self._seconds, self._stop = 60 * minutes, stop
        self._epoch = self._done = 0
        self._written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Restore the metrics within an epoch that is resumed; write the first checkpoint."""
        self._epoch, self._done = epoch, self._first_step
        if self._first_step:
            self._state.restore(self.model, self._metrics)
            self._first_step = 0
        elif not self._state.saved:
            self._write(epoch, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Write a checkpoint when it is time, or when the training is to end here."""
        self._done += 1
        due = self._stop.requested or time.monotonic() - self._written >= self._seconds
        if due and self._done < self._steps_per_epoch:
            self._write(self._epoch, self._done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write a checkpoint, but not of an epoch that was interrupted."""
        if self._done == self._steps_per_epoch:
            self._write(epoch + 1, 0)

    def _write(self, epoch: int, step: int) -> None:
        steps = self._steps_per_epoch
        self._state.save(self.model, self._metrics, epoch=epoch, step=step, steps_per_epoch=steps)
        self._written = time.monotonic()


class StopOnSignal(keras.callbacks.Callback):
    """Let the first Ctrl-C end `fit` after the current batch; the second one acts as usual.

    A context manager around `fit`. An exception raised in between could be lost in any code of
    Keras; a flag is read where it is safe to stop. The unfinished epoch is validated like a whole
    one. SIGTERM, with which schedulers announce that they are about to kill, acts as usual after
    the current batch. Outside the main thread, which alone may handle signals, and where a signal
    is ignored, nothing changes.

    Args:
        signals: What to handle: `SIGINT`, and `SIGTERM` when there is something to save before.

    Attributes:
        requested: Whether there was a signal.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        super().__init__()
        self.requested: signal.Signals | None = None
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is under nohup
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ask `fit` to stop, unless the epoch ends here: a whole one is saved first."""
        if batch + 1 != self.params.get("steps"):
            self._stop_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ask `fit` to stop: the signal may have come during validation."""
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.requested == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        if self.requested:
            self.model.stop_training = True

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
