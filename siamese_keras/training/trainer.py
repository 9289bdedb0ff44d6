"""The training: from a dataset and settings to a `Verifier`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from siamese_keras.config import Config
from siamese_keras.data.open_set import hold_out_classes
from siamese_keras.data.pairs import check_labels
from siamese_keras.data.splits import Dataset, Split
from siamese_keras.errors import (
    ArgumentError,
    DataError,
    ModelError,
    SiameseKerasError,
    TrainingError,
)
from siamese_keras.evaluation.protocol import calibrate_embeddings, validation_auc
from siamese_keras.files import expanded, locked_run
from siamese_keras.models.backbone import build_backbone, build_head, unfreeze, with_head
from siamese_keras.models.base_model import build_base_model, extend_base_model
from siamese_keras.models.false_accepts import count_false_accepts
from siamese_keras.models.outer_model import build_outer_model, pair_model
from siamese_keras.presets import as_config
from siamese_keras.runs import save_models
from siamese_keras.training.distribution import lost_worker, replicas_for
from siamese_keras.training.onednn import warn_without_onednn
from siamese_keras.training.pair_fit import fit_pairs
from siamese_keras.training.state import TrainingState
from siamese_keras.verifier import Verifier

_log = logging.getLogger(__name__)

_FEATURE_BATCH = 64
_FEATURE_PART = 1024


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
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    devices: int | None = None,
) -> Verifier:
    """Train a Siamese network.

    With `run_dir` a checkpoint is written after every epoch, and within epochs that take long. A
    training that was killed goes on from there with `resume`, and ends with the same weights, bit
    for bit, as one that was not killed, on the same machine.

    Ctrl-C ends the training, not the function: the model is kept, and
    `verifier.training["interrupted"]` is True. SIGTERM acts as usual, but a checkpoint is written
    before. Seeds Python's, NumPy's and TensorFlow's global random generators.

    On several devices or, with TF_CONFIG, machines, each replica of the model compares all pairs of
    its own part of a batch, so that there are fewer pairs of as many images; batch normalization
    is over the part. All workers read the data, and the chief alone writes the run; to resume it,
    the others must be able to read it.

    Args:
        dataset: Images of all classes, unseen ones too. With validation and test classes that
            are not in the training data, the threshold and the report are computed on them.
        config: The settings, or the name of a preset. Settings of the data are replaced by
            those that the dataset was loaded with.
        run_dir: Folder to write the run to, new or empty unless `resume`; without it nothing is
            written.
        base_model: Your own functional Keras model, image -> embedding, in place of the one that
            `config` describes. It is trained, not copied; layers that average shifts or flips are
            added around it, as `config` says.
        callbacks: Further callbacks for `fit`.
        seed: Seed to use instead of `config.seed`.
        tensorboard: Write TensorBoard logs into the run as well.
        verbose: As in `keras.Model.fit`.
        resume: Go on from the newest checkpoint in `run_dir`, with the same dataset, settings and
            `base_model`; from the beginning when it has none yet. `epochs` alone may differ, with
            a constant learning rate. Checkpoints do not save the state of your own
            callbacks.
        checkpoint_minutes: Minutes between checkpoints within an epoch; with several machines, they
            are written after epochs alone.
        devices: Devices of this machine to train on: GPUs, or CPU devices where there are none.
            None takes all GPUs if there are several. Machines that TF_CONFIG names use all of
            theirs; call `connect_workers` before TensorFlow runs anything.

    Returns:
        The trained verifier; saved when `run_dir` is given.

    Raises:
        ArgumentError: When `run_dir` is not empty, or another training writes to it, or dataset and
            settings do not fit, or are not those of the checkpoint.
        DataError: When a split has fewer than two classes or only one image of each, or all
            checkpoints are damaged.
        ModelError: When the backbone cannot be loaded, downloaded or built, or gives features that
            are not finite, or `base_model` does not map images to embeddings
            `[batch, embedding_dim]`.
        SiameseKerasError: When Keras does not use its TensorFlow backend.
        TrainingError: When the loss is no longer finite, the embedding collapses, another worker is
            lost, or the model does not separate same from different pairs. The models are in
            `run_dir` even then, with the weights of the last good epoch.
        OSError: When the run cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise SiameseKerasError(
            f"siamese_keras needs Keras's TensorFlow backend, but KERAS_BACKEND is "
            f"{keras.backend.backend()!r}."
        )
    config = as_config(config)
    config = config if seed is None else dataclasses.replace(config, seed=seed)
    config = _of_dataset(config, dataset)
    run_dir = None if run_dir is None else expanded(run_dir)
    if tensorboard and run_dir is None:
        raise ArgumentError("`tensorboard` needs a `run_dir` to write the logs to.")
    seen, unseen = hold_out_classes(dataset, config.unseen_classes)
    for part, split in {**seen.splits, "unseen": unseen}.items():
        if split is not None:
            _check_labels(split, part)  # now rather than after the training
    if copies := int(np.isin(seen.validation.digests, seen.train.digests).sum()):
        _log.warning(
            "%d of %d validation images are also training images, which makes the threshold too "
            "small.",
            copies,
            len(seen.validation),
        )
    if not checkpoint_minutes > 0:
        raise ArgumentError(
            f"`checkpoint_minutes` must be greater than 0. Received: {checkpoint_minutes}"
        )
    if resume and run_dir is None:
        raise ArgumentError("`resume` needs the `run_dir` of the run to resume.")
    warn_without_onednn()
    replicas = replicas_for(devices)
    checkpoints = None if run_dir is None else Path(run_dir, "checkpoints")
    state = TrainingState(
        config,
        dataset.fingerprint,
        checkpoints,
        own_base_model=base_model is not None,
        writes=replicas.is_chief,
    )
    with contextlib.ExitStack() as stack:
        folder = None
        if run_dir is not None and replicas.is_chief:
            folder = stack.enter_context(locked_run(run_dir, resume=resume))
        if resume:
            state.resume()
        keras.utils.set_random_seed(config.seed)
        if folder is not None:
            begin = functools.partial(_begin, folder, config)
            callbacks = [keras.callbacks.LambdaCallback(on_train_begin=begin), *callbacks]
            if tensorboard:
                callbacks = [*callbacks, keras.callbacks.TensorBoard(folder / "tensorboard")]
        fit_stage = functools.partial(
            fit_pairs,
            dataset=seen,
            callbacks=callbacks,
            verbose=verbose,
            state=state,
            replicas=replicas,
            history_file=None if folder is None else folder / "history.csv",
            checkpoint_minutes=checkpoint_minutes,
        )
        with lost_worker(replicas):
            return _fit(dataset, seen, config, folder, base_model, state, fit_stage)


def _check_labels(split: Split, part: str) -> None:
    try:
        check_labels(split.labels)
    except DataError as error:
        raise DataError(f"No pairs can be drawn from the {part} images. {error}") from None


def _begin(folder: Path, config: Config, _: Any = None) -> None:
    """Write the settings of a run, and remove the figures of the model that is trained further.

    Not before the first step: what is refused leaves a run that was there as it was.
    """
    for name in ("model.json", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    config.save(folder / "config.json")


def _of_dataset(config: Config, dataset: Dataset) -> Config:
    """Return the settings with what the dataset was loaded by, for the run to record."""
    if dataset.settings is None:
        return dataclasses.replace(config, dataset=dataset.name)
    settings = dict(dataset.settings)
    wanted, before = config.unseen_classes, settings["unseen_classes"]
    if dataset.is_open_set and wanted and wanted != before:
        raise ArgumentError(
            "`unseen_classes` must be those that the dataset was loaded with, which is split by "
            "class already: "
            f"{', '.join(before) or 'none'}. Received: {', '.join(wanted)}"
        )
    settings["unseen_classes"] = wanted or before
    return dataclasses.replace(config, **settings)


def _fit(
    dataset: Dataset,
    seen: Dataset,
    config: Config,
    folder: Path | None,
    base_model: keras.Model | None,
    state: TrainingState,
    fit_stage: Callable[..., dict[str, Any]],
) -> Verifier:
    """Train and calibrate, and write the run if there is a folder."""
    with _saved_when_it_fails(folder, config) as built:
        if config.backbone and base_model is None:
            base, facts = _fit_with_backbone(config, seen, state, fit_stage, built)
        else:
            base, facts = _fit_whole(config, seen, base_model, state, fit_stage, built)
        built.append(base)
        verifier = Verifier.of_model(
            build_outer_model(base),
            None,
            config=config,
            class_names=dataset.class_names,
            name=dataset.name,
            training={
                **facts,
                "data": dataset.fingerprint,
                "images": _sizes(seen),
                "classes": [dataset.class_names[i] for i in np.unique(seen.train.labels)],
                "own_base_model": base_model is not None,
            },
            history=state.history,
        )
        embeddings, labels = verifier.embed(seen.validation.images), seen.validation.labels
        verifier.calibration = calibrate_embeddings(embeddings, labels)
    verifier.false_accepts = count_false_accepts(embeddings, labels)
    if folder is not None:
        verifier.save(folder)
    return verifier


@contextlib.contextmanager
def _saved_when_it_fails(folder: Path | None, config: Config) -> Iterator[list[keras.Model]]:
    """Yield a list for base models; write the last one to the run when the training fails."""
    built: list[keras.Model] = []
    try:
        yield built
    except TrainingError:
        if folder is not None and built:
            save_models(folder, config, build_outer_model(built[-1]))
        raise


def _fit_whole(
    config: Config,
    dataset: Dataset,
    base_model: keras.Model | None,
    state: TrainingState,
    fit_stage: Callable[..., dict[str, Any]],
    built: list[keras.Model],
) -> tuple[keras.Model, dict[str, Any]]:
    """Fit the base model that `config` describes, or one that is given.

    Kept features and averaging come in after the training, which is of the embedding alone and
    would take several times as long with all views of an image.
    """
    if base_model is None:
        trained = {"kept_features": 0.0, "flip_averaging": False, "shift_averaging": "no"}
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
        if config.unit_length and config.loss != "contrastive":
            norms = np.linalg.norm(np.asarray(base(dataset.train.images[:8])), axis=-1)
            if not np.allclose(norms, 1, atol=1e-2):
                raise ArgumentError(
                    f"`base_model` must give embeddings of length 1 for the loss {config.loss}: "
                    f"end it with `UnitNormalization`. Received: lengths up to {norms.max():.3g}"
                )
        _extended(base, config)  # raises now, not after the training, when that cannot be done
    built.append(base)
    outer = build_outer_model(base, all_pairs=config.pairs == "all")
    values = {part: split.images for part, split in dataset.splits.items() if part != "test"}
    state.start_clock()
    facts = fit_stage(outer, values, config)
    return _chosen_extension(base, config, dataset.validation), facts


def _fit_with_backbone(
    config: Config,
    dataset: Dataset,
    state: TrainingState,
    fit_stage: Callable[..., dict[str, Any]],
    built: list[keras.Model],
) -> tuple[keras.Model, dict[str, Any]]:
    """Fit a head on features of a backbone, each computed once, then both together."""
    state.start_clock()
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
    features = {part: _features(backbone, values) for part, values in images.items()}
    if not all(np.isfinite(values).all() for values in features.values()):
        raise ModelError(
            "`backbone` must give finite features. Received: NaN or infinity from "
            f"`{config.backbone}`"
        )
    head = build_head(
        features["train"],
        units=config.units,
        dropout=config.dropout,
        embedding_dim=config.embedding_dim,
        embedding_activation=config.embedding_activation,
        unit_length=config.unit_length,
    )
    base = with_head(backbone, head)
    built.append(base)
    if not state.is_past(config.epochs):  # otherwise the head's training is over
        outer = pair_model(head, all_pairs=all_pairs, dtype="float32")
        facts = fit_stage(outer, features, dataclasses.replace(config, augment="none"))
        if not config.fine_tune or facts["interrupted"]:
            return _chosen_extension(base, config, dataset.validation), facts
    unfreeze(backbone)
    tuning = dataclasses.replace(
        config,
        epochs=config.fine_tune,
        learning_rate=config.fine_tune_learning_rate,
        optimizer="adam",
        schedule="constant",
    )
    outer = build_outer_model(base, all_pairs=all_pairs)
    facts = fit_stage(outer, images, tuning, first_epoch=config.epochs)
    return _chosen_extension(base, config, dataset.validation), facts


def _features(backbone: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the features of images a part at a time: `predict` copies all that it is given."""

    def of_part(start: int) -> np.ndarray:
        part = np.asarray(images[start : start + _FEATURE_PART])
        return backbone.predict(part, batch_size=_FEATURE_BATCH, verbose=0)

    return np.concatenate([of_part(start) for start in range(0, len(images), _FEATURE_PART)])


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
