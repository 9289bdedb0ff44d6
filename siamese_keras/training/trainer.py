"""The training: from a dataset and settings to a `Verifier`."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import keras

from siamese_keras.config import Config
from siamese_keras.data.open_set import hold_out_classes
from siamese_keras.data.pairs import check_labels
from siamese_keras.data.splits import Dataset, Split
from siamese_keras.errors import ArgumentError, SiameseKerasError, TrainingError
from siamese_keras.evaluation.protocol import calibrate_embeddings, validation_auc
from siamese_keras.files import new_folder
from siamese_keras.models.backbone import build_backbone, build_head, unfreeze, with_head
from siamese_keras.models.base_model import build_base_model, extend_base_model
from siamese_keras.models.false_accepts import count_false_accepts
from siamese_keras.models.outer_model import build_outer_model, pair_model
from siamese_keras.presets import as_config
from siamese_keras.runs import save_models
from siamese_keras.training.callbacks import HistoryFile
from siamese_keras.training.pair_fit import fit_pairs
from siamese_keras.verifier import Verifier

_log = logging.getLogger(__name__)

_FEATURE_BATCH = 64


def fit(
    dataset: Dataset,
    config: Config | str = "fast",
    *,
    run_dir: str | os.PathLike[str] | None = None,
    base_model: keras.Model | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int | None = None,
    tensorboard: bool = False,
    verbose: str | int = "auto",
) -> Verifier:
    """Train a Siamese network.

    Ctrl-C ends the training, not the function: the model is kept, and
    `verifier.training["interrupted"]` is True. Seeds Python's, NumPy's and TensorFlow's global
    random generators.

    Args:
        dataset: Images of all classes, unseen ones too. With validation and test classes that
            training does not show, threshold and report are of these.
        config: The settings, or the name of a preset.
        run_dir: Folder to write the run to, new or empty; without it nothing is written.
        base_model: A functional Keras model of your own, image -> embedding, in place of the one
            that `config` describes. It is trained, not copied.
        callbacks: Further callbacks for `fit`.
        seed: Seed to use instead of `config.seed`.
        tensorboard: Write TensorBoard logs into the run as well.
        verbose: As in `keras.Model.fit`.

    Returns:
        The trained verifier; saved when `run_dir` is given.

    Raises:
        ArgumentError: When `run_dir` is not empty or dataset and settings do not fit.
        DataError: When a split has fewer than two classes, or one image of each.
        TrainingError: When the training diverged or the model does not separate same from
            different pairs. The models are in `run_dir` even then.
        OSError: When the run cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise SiameseKerasError(
            f"siamese_keras needs Keras's TensorFlow backend, but KERAS_BACKEND is "
            f"{keras.backend.backend()!r}."
        )
    config = as_config(config)
    config = config if seed is None else dataclasses.replace(config, seed=seed)
    if tensorboard and run_dir is None:
        raise ArgumentError("`tensorboard` needs a `run_dir` to write the logs to.")
    seen, unseen = hold_out_classes(dataset, config.unseen_classes)
    for split in (*seen.splits.values(), *([] if unseen is None else [unseen])):
        check_labels(split.labels)  # now rather than after the training
    folder = None if run_dir is None else new_folder(run_dir)

    keras.utils.set_random_seed(config.seed)
    written: list[keras.callbacks.Callback] = []
    if folder is not None:
        written.append(HistoryFile(folder / "history.csv"))
        if tensorboard:
            written.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    callbacks = [*callbacks, *written]
    if config.backbone and base_model is None:
        base, history, facts = _fit_with_backbone(config, seen, callbacks, verbose)
    else:
        base, history, facts = _fit_whole(config, seen, base_model, callbacks, verbose)
    outer = build_outer_model(base)
    verifier = Verifier.of_model(
        outer,
        None,
        config=config,
        class_names=dataset.class_names,
        name=dataset.name,
        training={**facts, "data": dataset.fingerprint, "images": _sizes(dataset)},
        history=history,
    )
    try:
        embeddings, labels = verifier.embed(seen.validation.images), seen.validation.labels
        verifier.calibration = calibrate_embeddings(embeddings, labels)
    except TrainingError:
        if folder is not None:
            save_models(folder, config, outer)
        raise
    verifier.false_accepts = count_false_accepts(embeddings, labels)
    if folder is not None:
        verifier.save(folder)
    return verifier


def _fit_whole(
    config: Config,
    dataset: Dataset,
    base_model: keras.Model | None,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: str | int,
) -> tuple[keras.Model, dict[str, list[float]], dict[str, Any]]:
    """Fit the base model that `config` describes, or one that is given.

    Kept features and averaging come in after the training, which is of the embedding alone and
    would take several times as long with all views of an image.
    """
    if base_model is None:
        trained = {"kept_features": 0.0, "flip_averaging": False, "shift_averaging": False}
        options = config.base_model_options()
        base = build_base_model(dataset.image_shape, **{**options, **trained})
    else:
        base = base_model
        shape = getattr(base, "input_shape", None)  # a subclassed or an unbuilt model has none
        if shape is None or tuple(shape[1:]) != dataset.image_shape:
            raise ArgumentError(
                "`base_model` must be a functional model that takes images of "
                f"{dataset.image_shape}, as the dataset has them. Received: input_shape={shape}"
            )
        _extended(base, config)  # raises now, not after the training, when that cannot be done
    outer = build_outer_model(base, all_pairs=config.pairs == "all")
    values = {part: split.images for part, split in dataset.splits.items() if part != "test"}
    history, facts = fit_pairs(outer, values, config, dataset, callbacks, verbose)
    return _chosen_extension(base, config, dataset.validation), history, facts


def _fit_with_backbone(
    config: Config,
    dataset: Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: str | int,
) -> tuple[keras.Model, dict[str, list[float]], dict[str, Any]]:
    """Fit a head on features of a backbone, each computed once, then both together."""
    started = time.perf_counter()
    all_pairs = config.pairs == "all"
    backbone = build_backbone(
        config.backbone,
        dataset.image_shape,
        weights=config.weights,
        stages=config.backbone_stages,
    )
    images = {part: split.images for part, split in dataset.splits.items() if part != "test"}
    number = sum(map(len, images.values()))
    _log.info("Computing the features of %d images with %s.", number, config.backbone)
    features = {
        part: backbone.predict(values, batch_size=_FEATURE_BATCH, verbose=0)
        for part, values in images.items()
    }
    head = build_head(
        features["train"],
        units=config.units,
        dropout=config.dropout,
        embedding_dim=config.embedding_dim,
        embedding_activation=config.embedding_activation,
        unit_length=config.unit_length,
    )
    outer = pair_model(head, all_pairs=all_pairs, dtype="float32")
    plain = dataclasses.replace(config, augment="none")
    history, facts = fit_pairs(outer, features, plain, dataset, callbacks, verbose)
    base = with_head(backbone, head)
    if config.fine_tune and not facts["interrupted"]:
        unfreeze(backbone)
        tuning = dataclasses.replace(
            config,
            epochs=config.fine_tune,
            learning_rate=config.fine_tune_learning_rate,
            optimizer="adam",
            schedule="constant",
        )
        more, facts = fit_pairs(
            build_outer_model(base, all_pairs=all_pairs), images, tuning, dataset, callbacks,
            verbose, first_epoch=config.epochs,
        )  # fmt: skip
        history = {name: values + more.get(name, []) for name, values in history.items()}
    base = _chosen_extension(base, config, dataset.validation)
    facts["fit_seconds"] = round(time.perf_counter() - started, 2)
    facts["epochs"] = len(history["loss"])
    return base, history, facts


def _extended(base: keras.Model, config: Config) -> keras.Model:
    """Extend a base model by what the settings ask for."""
    names = ("kept_features", "flip_averaging", "shift_averaging")
    options = {name: config.base_model_options()[name] for name in names}
    return extend_base_model(base, unit_length=config.unit_length, **options)


def _chosen_extension(base: keras.Model, config: Config, validation: Split) -> keras.Model:
    """Extend a trained base model; where flips are averaged only if that helps, find out."""
    if config.flip_averaging != "auto":
        return _extended(base, config)
    candidates = {
        choice: _extended(base, dataclasses.replace(config, flip_averaging=choice))
        for choice in ("no", "yes")
    }
    auc = {
        choice: validation_auc(Verifier.of_model(build_outer_model(model), None).embed, validation)
        for choice, model in candidates.items()
    }
    chosen = "yes" if auc["yes"] > auc["no"] else "no"
    _log.info(
        "Averaging with mirror images: %s. ROC-AUC of validation pairs: %.4f with it, %.4f without "
        "(flip_averaging).",
        chosen, auc["yes"], auc["no"],
    )  # fmt: skip
    return candidates[chosen]


def _sizes(dataset: Dataset) -> dict[str, int]:
    return {part: len(split) for part, split in dataset.splits.items()}
