"""The state of a training run: its progress and its results so far; saved as checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError, DataError
from siamese_keras.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint


class TrainingState:
    """The progress of a training run and its results so far.

    Args:
        config: Settings of the training.
        data: Fingerprint of the dataset.
        own_base_model: Whether the user gave the base model, which the settings do not describe.
        folder: Folder of the checkpoints; without it there are none.
        writes: Whether to write them, and not only read one.

    Attributes:
        history: The value of each figure after every epoch.
        best_auc: The highest ROC-AUC of validation pairs after an epoch; -1 before the first one.
        best_epoch: The number of epochs that were done then.
        best_weights: The weights at that time, where they are to be kept; otherwise empty.
        epoch: Whole epochs that were done when the training was resumed; otherwise 0.
        step: Steps of the next epoch that were done then.
        saved: Whether a checkpoint was written or read.
        has_folder: Whether checkpoints are written.
    """

    def __init__(
        self,
        config: Config,
        data: str,
        folder: Path | None = None,
        *,
        own_base_model: bool = False,
        writes: bool = True,
    ) -> None:
        self.history: dict[str, list[float]] = {}
        self.best_auc = -1.0
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] = []
        self.epoch = self.step = 0
        self.saved = False
        self.has_folder = writes and folder is not None
        self._config, self._data, self._folder = config, data, folder
        self._own_base_model = own_base_model
        self._read: Checkpoint | None = None
        self._steps_per_epoch = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def start_clock(self) -> None:
        """Begin to count seconds."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds that the training has taken, before it was resumed too."""
        return self._seconds_before + time.monotonic() - self._started

    def resume(self) -> None:
        """Take the state of the newest checkpoint, if there is one.

        Raises:
            ArgumentError: When it is of other settings, of another dataset, or of a base model that
                the user gave, where this one is built by the settings, or the other way round.
            DataError: When all checkpoints are damaged.
        """
        if self._folder is None or (checkpoint := newest_checkpoint(self._folder)) is None:
            return
        try:
            facts = checkpoint.facts
            before, data = Config(**facts["config"]), str(facts["data"])
            self.history = {name: list(map(float, v)) for name, v in facts["history"].items()}
            self.best_auc, self.best_epoch = float(facts["best_auc"]), int(facts["best_epoch"])
            self._seconds_before = float(facts["seconds"])
            self._steps_per_epoch = int(facts["steps_per_epoch"])
            if checkpoint.step and checkpoint.step >= self._steps_per_epoch:
                raise ValueError(f"an epoch has {self._steps_per_epoch} steps")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"The checkpoints in `{self._folder}` are damaged: {error}") from None
        _check_same(before, self._config, checkpoint)
        own = facts.get("own_base_model", self._own_base_model)  # earlier versions did not note it
        if own != self._own_base_model:
            raise ArgumentError(
                "`base_model` must be given to `fit` again when a training with one is resumed, "
                f"and only then. Received: {'a' if self._own_base_model else 'no'} `base_model`"
            )
        if data != self._data:
            raise ArgumentError(
                "The dataset must be the one that the training began with. Its fingerprint: "
                f"{data[:12]}.... Received: {self._data[:12]}..."
            )
        self.best_weights = list(checkpoint.arrays.get("best", ()))
        self.epoch, self.step = checkpoint.epoch, checkpoint.step
        self._read, self.saved = checkpoint, True

    def is_past(self, epoch: int) -> bool:
        """Return whether the training was resumed at a step after `epoch` whole epochs."""
        return (self.epoch, self.step) > (epoch, 0)

    def begin(self, first_epoch: int) -> tuple[int, int]:
        """Begin to fit a model from `first_epoch` on, or go on with it.

        Returns:
            Whole epochs that are done, and steps of the next one.
        """
        if self.is_past(first_epoch):
            return self.epoch, self.step
        self.best_auc, self.best_epoch, self.best_weights = -1.0, first_epoch, []
        return first_epoch, 0

    def restore(self, outer: keras.Model, metrics: Iterable[keras.metrics.Metric]) -> None:
        """Give a compiled model the weights of the checkpoint that was read, if any.

        The state of its optimizer and of its random generators is restored as well, and within an
        epoch that of the metrics.

        Raises:
            DataError: When the checkpoint is of another model.
        """
        if self._read is None:
            return
        for name, variables in _variables(outer, metrics).items():
            if name != "metrics" or self.step:
                arrays = self._read.arrays.get(name, ())
                self._check_shapes(name, arrays, variables)
                for variable, array in zip(variables, arrays, strict=True):
                    variable.assign(array)
        if self.best_weights:
            self._check_shapes("best", self.best_weights, outer.weights)

    def _check_shapes(
        self, name: str, arrays: Sequence[np.ndarray], variables: Sequence[Any]
    ) -> None:
        found = [(array.shape, array.dtype.name) for array in arrays]
        if found != [(tuple(v.shape), str(v.dtype)) for v in variables]:
            raise DataError(
                f"The checkpoints in `{self._folder}` are of another model: the shapes of its "
                f"{name} differ."
            )

    def save(
        self,
        outer: keras.Model,
        metrics: Iterable[keras.metrics.Metric],
        *,
        epoch: int,
        step: int,
        steps_per_epoch: int,
    ) -> None:
        """Write a checkpoint, if they are written.

        Args:
            outer: The model.
            metrics: Its metrics, whose state counts within an epoch.
            epoch: Whole epochs that are done.
            step: Steps of the next epoch that are done.
            steps_per_epoch: Steps of an epoch.

        Raises:
            OSError: When it cannot be written.
        """
        if self._folder is None or not self.has_folder:
            return
        arrays: dict[str, Sequence[np.ndarray]] = {
            name: [np.asarray(variable) for variable in variables]
            for name, variables in _variables(outer, metrics).items()
            if name != "metrics" or step
        }
        facts = {
            "config": dataclasses.asdict(self._config),
            "data": self._data,
            "own_base_model": self._own_base_model,
            "steps_per_epoch": steps_per_epoch,
            "history": self.history,
            "best_auc": self.best_auc,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 3),
        }
        arrays["best"] = self.best_weights
        write_checkpoint(self._folder, Checkpoint(epoch, step, facts, arrays))
        self.saved = True

    def check_steps(self, steps_per_epoch: int) -> None:
        """Raise unless the epochs of the checkpoint that was read had as many steps.

        Raises:
            ArgumentError: When they had another number, as `min_steps` may bring about.
        """
        if self._read is not None and self._steps_per_epoch != steps_per_epoch:
            raise ArgumentError(
                "A resumed run must keep its number of steps per epoch, which depends on "
                f"`min_steps` and `epochs`: {self._steps_per_epoch}. Received: {steps_per_epoch}"
            )


def _variables(
    outer: keras.Model, metrics: Iterable[keras.metrics.Metric]
) -> Mapping[str, list[Any]]:
    loss, *_ = outer.metrics  # the mean of the loss comes first; the others are not built yet
    return {
        "model": outer.variables,
        "optimizer": outer.optimizer.variables,
        "metrics": [variable for metric in (loss, *metrics) for variable in metric.variables],
    }


def _check_same(before: Config, now: Config, checkpoint: Checkpoint) -> None:
    """Raise unless a training with settings `now` goes on where one with `before` was."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    differing = [name for name in old if old[name] != new[name]]
    if differing == ["epochs"]:
        if now.schedule != "constant" or now.fine_tune:
            raise ArgumentError(
                "`epochs` can be changed only where the learning rate does not depend on it, with "
                f"schedule constant and no fine_tune. Received: epochs={now.epochs}, before "
                f"{before.epochs}, schedule={now.schedule!r}"
            )
        if now.epochs < (begun := checkpoint.epoch + bool(checkpoint.step)):
            raise ArgumentError(
                f"`epochs` must be at least {begun}, the number of epochs begun. "
                f"Received: {now.epochs}"
            )
        return
    if differing:
        listed = ", ".join(f"{name}={new[name]!r}, before {old[name]!r}" for name in differing)
        raise ArgumentError(f"A resumed run keeps its settings. Received: {listed}")
