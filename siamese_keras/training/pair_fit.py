"""The fit of an outer model to pairs: `model.compile` and `model.fit` as the settings say."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from siamese_keras.config import Config
from siamese_keras.data.pipeline import (
    choose_images_per_class,
    pairs_of,
    passes_per_epoch,
    steps_per_epoch,
)
from siamese_keras.data.splits import Dataset
from siamese_keras.training.batch_losses import (
    MultiSimilarityLoss,
    SupervisedContrastiveLoss,
    TripletSemiHardLoss,
)
from siamese_keras.training.callbacks import CollapseMonitor, StopOnInterrupt
from siamese_keras.training.losses import ContrastiveLoss
from siamese_keras.training.metrics import pair_metrics
from siamese_keras.training.mixed_precision import bfloat16_convolutions
from siamese_keras.training.optimizer import build_optimizer

_log = logging.getLogger(__name__)

# Validation pairs are the same in every epoch and for every seed; no training has this seed.
_VALIDATION_SEED = 2**31


def fit_pairs(
    outer: keras.Model,
    values: Mapping[str, np.ndarray],
    config: Config,
    dataset: Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: str | int,
    *,
    first_epoch: int = 0,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Fit an outer model to pairs.

    Args:
        outer: The outer model.
        values: Of `"train"` and `"validation"`, what the outer model takes: images, or features.
        config: Pairs, loss and optimization; augmentation is for images.
        dataset: The labels of the values.
        callbacks: Further callbacks for `fit`.
        verbose: As in `keras.Model.fit`.
        first_epoch: Number of the first epoch.

    Returns:
        Of each figure the value after every epoch; and facts, as `Verifier.training` has them.
    """
    labels = {part: dataset.splits[part].labels for part in values}
    batch_size, images_per_class = _batches(config, labels["train"])
    pass_steps = steps_per_epoch(config.pairs, labels["train"], batch_size)
    passes = passes_per_epoch(pass_steps, config.epochs, config.min_steps)
    steps = passes * pass_steps
    planned = steps * config.epochs
    if passes > 1:
        _log.info(
            "There are few images: each of %d epochs passes over them %d times (min_steps).",
            config.epochs,
            passes,
        )
    outer.compile(
        optimizer=build_optimizer(
            config.optimizer, config.learning_rate, schedule=config.schedule, steps=planned
        ),
        loss=_loss(config),
        metrics=pair_metrics(config.margin, config.positive_margin),
    )
    shape: dict[str, Any] = {
        "kind": config.pairs,
        "batch_size": batch_size,
        "images_per_class": images_per_class,
    }
    training_pairs = pairs_of(
        values["train"],
        labels["train"],
        seed=config.seed,
        epochs=(first_epoch + config.epochs) * passes,
        first_step=first_epoch * steps,
        augment=config.augment,
        **shape,
    )
    validation_pairs = pairs_of(
        values["validation"], labels["validation"], seed=_VALIDATION_SEED, **shape
    )
    started = time.perf_counter()
    outer.optimizer.build(outer.trainable_variables)  # or the step would be traced twice
    with bfloat16_convolutions(config.bfloat16) as bfloat16, StopOnInterrupt() as stop:
        fitted = outer.fit(
            training_pairs,
            epochs=first_epoch + config.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps,
            validation_data=validation_pairs.cache(),
            callbacks=[*callbacks, CollapseMonitor(config.margin), stop],
            shuffle=False,  # the pipeline does
            verbose=verbose,
        )
    history = {name: [float(v) for v in found] for name, found in fitted.history.items()}
    return history, {
        "fit_seconds": round(time.perf_counter() - started, 2),
        "epochs": len(history.get("loss", ())),
        "interrupted": stop.requested and int(outer.optimizer.iterations) < planned,
        "bfloat16": bfloat16,
        "images_per_class": images_per_class,
    }


def _batches(config: Config, labels: np.ndarray) -> tuple[int, int]:
    """Return the left images of a batch, and how many images of a class stand together."""
    if config.pairs != "all":
        return config.batch_size, 1
    chosen = config.images_per_class or choose_images_per_class(labels, config.batch_size)
    if chosen > 1 and not config.images_per_class:
        _log.info(
            "There are many classes: batches are drawn %d images of a class at a time "
            "(images_per_class).",
            chosen,
        )
    return config.classes_per_batch * chosen // 2 or config.batch_size, chosen


def _loss(config: Config) -> keras.losses.Loss:
    if config.loss == "multi-similarity":
        return MultiSimilarityLoss()
    if config.loss == "semi-hard-triplet":
        return TripletSemiHardLoss()
    if config.loss == "supervised-contrastive":
        return SupervisedContrastiveLoss(config.temperature)
    return ContrastiveLoss(config.margin, config.positive_margin, weighting=config.weighting)
