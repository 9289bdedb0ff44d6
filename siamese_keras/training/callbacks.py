"""Callbacks of the training: warnings, the history file, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import keras

from siamese_keras.files import write_columns


class CollapseMonitor(keras.callbacks.Callback):
    """Warn once when the labels look inverted or the embedding collapses.

    Args:
        margin: Margin of the loss: the scale against which a distance is small.
    """

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin
        self.warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the mean distances of the epoch."""
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


class HistoryFile(keras.callbacks.Callback):
    """Write the figures of every epoch into a CSV file, which is whole at any time.

    Args:
        path: The file. It is replaced after each epoch.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.columns: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add a row and write the file."""
        for name, value in (logs or {}).items():
            self.columns.setdefault(name, []).append(float(value))
        write_columns(self.path, self.columns)


class StopOnInterrupt(keras.callbacks.Callback):
    """Let the first Ctrl-C end `fit` after the current batch; the second one acts as usual.

    A context manager around `fit`. An exception raised in between could be lost in any code of
    Keras; a flag is read where it is safe to stop. The unfinished epoch is validated like a whole
    one. Outside the main thread, which alone may handle signals, and where interrupts are ignored,
    nothing changes.

    Attributes:
        requested: Whether there was a Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
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
        self._stop_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ask `fit` to stop: the interrupt may have come during validation."""
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.requested:
            self.model.stop_training = True

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
