"""The fit of an outer model to pairs: `model.compile` and `model.fit` as the settings say."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras.config import Augmentation, Config
from siamese_keras.data.hard_images import difficulty
from siamese_keras.data.pipeline import (
    IMAGES_PER_CLASS,
    choose_images_per_class,
    pairs_of,
    passes_per_epoch,
    steps_per_epoch,
)
from siamese_keras.data.splits import Dataset
from siamese_keras.errors import ArgumentError
from siamese_keras.models.outer_model import base_model_of
from siamese_keras.training.batch_losses import (
    MultiSimilarityLoss,
    SupervisedContrastiveLoss,
    TripletSemiHardLoss,
)
from siamese_keras.training.callbacks import (
    Checkpoints,
    Guard,
    History,
    KeepBest,
    StopOnSignal,
    ValidationAUC,
    is_stale,
    small_distance,
)
from siamese_keras.training.distribution import Replicas
from siamese_keras.training.losses import ContrastiveLoss
from siamese_keras.training.metrics import pair_metrics
from siamese_keras.training.mixed_precision import bfloat16_convolutions
from siamese_keras.training.optimizer import build_optimizer
from siamese_keras.training.state import TrainingState

_log = logging.getLogger(__name__)

# Validation pairs are the same in every epoch and for every seed; no training has this seed.
_VALIDATION_SEED = 2**31


def fit_pairs(
    outer: keras.Model,
    values: Mapping[str, np.ndarray],
    config: Config,
    *,
    dataset: Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: str | int,
    state: TrainingState,
    first_epoch: int = 0,
    replicas: Replicas,
    history_file: Path | None = None,
    checkpoint_minutes: float = 10.0,
) -> dict[str, Any]:
    """Fit an outer model to pairs, or go on where the state says.

    Args:
        outer: The outer model.
        values: Of `"train"` and `"validation"`, what the outer model takes: images, or features.
        config: Pairs, loss and optimization; augmentation is for images.
        dataset: The labels of the values.
        callbacks: Further callbacks for `fit`.
        verbose: As in `keras.Model.fit`.
        state: Where the training is; it is brought up to date and saved.
        first_epoch: Number of the first epoch.
        replicas: The replicas that the model is trained on.
        history_file: CSV file for the history.
        checkpoint_minutes: Minutes between checkpoints within an epoch.

    Returns:
        Facts, as `Verifier.training` has them.

    Raises:
        TrainingError: When the loss is not finite or the embedding collapses.
        ArgumentError: When the state is of epochs of another length.
    """
    labels = {part: dataset.splits[part].labels for part in values}
    batch_size, images_per_class = _batches(config, labels["train"])
    pass_steps = steps_per_epoch(config.pairs, labels["train"], batch_size)
    passes = passes_per_epoch(pass_steps, config.epochs, config.min_steps)
    steps = passes * pass_steps
    planned = steps * config.epochs
    last_epoch = first_epoch + config.epochs
    is_first_part = config.fine_tune > 0 and first_epoch == 0
    if batch_size < replicas.number:
        raise ArgumentError(
            "`batch_size` must be at least the number of replicas, which share a batch: "
            f"{replicas.number}. Received: {batch_size}"
        )
    augment = _augmentation(config, passes)
    model, metrics = _compiled(outer, config, planned, replicas)
    epoch, step = state.begin(first_epoch)
    if (epoch, step) != (first_epoch, 0):
        state.check_steps(steps)
        state.restore(model, metrics)
    spread = max(state.history.get("val_different_distance", ()), default=0.0)
    had_good_epoch = epoch > 0 and spread >= small_distance(config.margin)
    replicas.check_equal([dataclasses.asdict(config), dataset.fingerprint, epoch, step])
    pairs = functools.partial(
        pairs_of, kind=config.pairs, batch_size=batch_size, images_per_class=images_per_class
    )
    hard_epochs = [number - 1 for number in config.hard_epochs if epoch < number <= last_epoch]
    hard_images = difficulty(values["train"], labels["train"]) if hard_epochs else None

    def kept_in_memory(data: tf.data.Dataset) -> tf.data.Dataset:
        return data if isinstance(values["validation"], np.memmap) else data.cache()

    validation_pairs = replicas.dataset(
        lambda **parts: kept_in_memory(
            pairs(values["validation"], labels["validation"], seed=_VALIDATION_SEED, **parts)
        )
    )
    validation_steps = steps_per_epoch(config.pairs, labels["validation"], batch_size)
    # Outside of a run there is nothing to save: SIGTERM ends the program as usual. A worker that
    # stopped after a batch would leave the others waiting: it ends, and they see that.
    signals = [signal.SIGINT, *([signal.SIGTERM] if state.has_folder else [])]
    signals = [] if replicas.has_others else signals

    def fit_epochs(first: int, last: int, *, done: int = 0) -> bool:
        """Fit epochs, the first one without the steps that are done; return whether to stop."""
        training_pairs = replicas.dataset(
            lambda **parts: pairs(
                values["train"],
                labels["train"],
                seed=config.seed,
                epochs=last * passes,
                first_step=first * steps + done,
                augment=augment,
                difficulty=hard_images,
                hard_epochs={e * passes + i for e in hard_epochs for i in range(passes)},
                **parts,
            )
        )
        model.fit(
            training_pairs,
            epochs=last,
            initial_epoch=first,
            steps_per_epoch=steps - done,
            validation_data=validation_pairs,
            validation_steps=validation_steps,
            callbacks=all_callbacks,
            shuffle=False,  # the pipeline does
            verbose=verbose,
        )
        return model.stop_training

    # TensorFlow would also exchange weights in bfloat16, and those of the workers would differ.
    wanted = config.bfloat16 and replicas.strategy is None
    with bfloat16_convolutions(wanted) as bfloat16, StopOnSignal(signals) as stop:
        all_callbacks = [
            ValidationAUC(
                base_model_of(model), values["validation"], labels["validation"], replicas
            ),
            *callbacks,
            History(state.history, history_file),
            Guard(config.margin, model.get_weights() if had_good_epoch else ()),
            KeepBest(state, patience=config.early_stopping, keep_weights=config.keep == "best"),
            Checkpoints(
                state,
                metrics,
                steps_per_epoch=steps,
                first_step=step,
                # Workers would have to agree on the step to save.
                minutes=math.inf if replicas.has_others else checkpoint_minutes,
                stop=stop,
            ),
            stop,
        ]
        try:
            stopped = is_stale(state, epoch, config.early_stopping)
            if stopped:
                _log.info("The training stopped early, after epoch %d.", epoch)
            if step and not stopped:
                stopped = fit_epochs(epoch, epoch + 1, done=step)
                epoch += 1
            if epoch < last_epoch and not stopped:
                fit_epochs(epoch, last_epoch)
        finally:
            if model is not outer:
                outer.set_weights(model.get_weights())
    if state.best_weights and config.keep == "best":
        outer.set_weights(state.best_weights)
    return {
        "fit_seconds": round(state.seconds, 2),
        "epochs": len(state.history.get("loss", ())),
        "interrupted": stop.requested is not None
        and (is_first_part or int(np.asarray(model.optimizer.iterations)) < planned),
        "bfloat16": bfloat16,
        "images_per_class": images_per_class,
        "replicas": replicas.number,
    }


def _augmentation(config: Config, passes: int) -> Augmentation:
    """Return how training images are changed, and say so when they are shown several times."""
    augment: Augmentation = "none"
    if config.augment != "auto":
        augment = config.augment
    elif passes > 1:
        augment = "shift-erase"
    if passes > 1:
        _log.info(
            "There are few images: each of %d epochs passes over them %d times (min_steps)%s.",
            config.epochs,
            passes,
            "" if augment == "none" else ", changed at random (augment)",
        )
    return augment


def _compiled(
    outer: keras.Model, config: Config, steps: int, replicas: Replicas
) -> tuple[keras.Model, list[keras.metrics.Metric]]:
    """Return the model that is trained, compiled for so many steps, and its metrics."""
    model = replicas.model(outer)
    with replicas.scope():
        metrics = pair_metrics(config.margin, config.positive_margin)
        optimizer = build_optimizer(
            config.optimizer, config.learning_rate, schedule=config.schedule, steps=steps
        )
        model.compile(optimizer=optimizer, loss=_loss(config), metrics=metrics)
        # Or the step would be traced twice. Keras may have put one that scales the loss around it.
        model.optimizer.build(model.trainable_variables)
    return model, metrics


def _batches(config: Config, labels: np.ndarray) -> tuple[int, int]:
    """Return the left images of a batch, and how many images of a class stand together."""
    if config.pairs != "all":
        return config.batch_size, 1
    if config.classes_per_batch:
        chosen = config.images_per_class or IMAGES_PER_CLASS
        return config.classes_per_batch * chosen // 2, chosen
    chosen = config.images_per_class or choose_images_per_class(labels, config.batch_size)
    if chosen > 1 and not config.images_per_class:
        _log.info(
            "There are many classes for one batch: images are drawn %d at a time from each class "
            "(images_per_class).",
            chosen,
        )
    return config.batch_size, chosen


def _loss(config: Config) -> keras.losses.Loss:
    if config.loss == "multi-similarity":
        return MultiSimilarityLoss()
    if config.loss == "semi-hard-triplet":
        return TripletSemiHardLoss()
    if config.loss == "supervised-contrastive":
        return SupervisedContrastiveLoss(config.temperature)
    return ContrastiveLoss(config.margin, config.positive_margin, weighting=config.weighting)
