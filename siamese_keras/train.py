"""Train a Siamese network and score it.

    python -m siamese_keras.train [--preset NAME] [--run-dir FOLDER] [--export-dir saved_models]

Writes a run: `config.json`, `model.json`, `base.keras`, `outer.keras`, `history.csv`,
`metrics.json`, `embeddings.npz` and `figures/`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from siamese_keras.command_line import run_program
from siamese_keras.config import Config, add_config_options, config_from_options
from siamese_keras.data.datasets import Dataset, split_unseen
from siamese_keras.data.pairs import check_labels, pair_pipeline, steps_per_epoch
from siamese_keras.evaluate import (
    evaluate,
    fit_run_classifier,
    load_run_dataset,
    save_figure,
    table,
)
from siamese_keras.evaluation import plots
from siamese_keras.evaluation.metrics import summarise
from siamese_keras.export import export
from siamese_keras.models.base_model import build_base_model, build_outer_model
from siamese_keras.models.extensions import extend_base_model
from siamese_keras.training.callbacks import StopOnInterrupt, TrainingWarnings, pair_metrics
from siamese_keras.training.losses import ContrastiveLoss
from siamese_keras.training.mixed_precision import bfloat16_convolutions
from siamese_keras.training.optimizer import build_optimizer
from siamese_keras.verifier import Run, embed, read_history, save_models, write_json


def train(
    config: Config,
    run_dir: Path,
    dataset: Dataset,
    *,
    tensorboard: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> Run:
    """Train as `config` says and write the run into `run_dir`.

    An interrupt (Ctrl-C) ends the fit, not the function: what was learnt is kept, and
    `run.training["interrupted"]` says so. Its last epoch is then not a whole one.

    Args:
        config: The settings.
        run_dir: Folder to write to: new, or empty.
        dataset: The dataset that `config` names, all classes.
        tensorboard: Write TensorBoard logs into the run as well.
        callbacks: Further callbacks for `fit`.
        verbose: As in `keras.Model.fit`.

    Returns:
        The run, saved. `evaluate` scores it.

    Raises:
        ValueError: When `run_dir` is not empty, dataset and settings do not fit, or what was
            learnt does not part same from different pairs; the models are saved even then.
        OSError: When the run cannot be written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if any(run_dir.iterdir()):
        raise ValueError(f"`run_dir` must be a new or empty folder. Received: `{run_dir}`")
    whole, class_names = dataset, dataset.class_names
    dataset, unseen = split_unseen(whole, config.unseen_classes)
    for split in (dataset.validation, dataset.test, *([] if unseen is None else [unseen])):
        check_labels(split.labels, class_names)  # now rather than after the training
    keras.utils.set_random_seed(config.seed)
    # Kept features and mirror images come in after the training, which is of the embedding alone
    # and would take twice as long with both views of an image.
    options = config.base_model_options()
    extensions = {name: options.pop(name) for name in ("features", "mirror")}
    base = build_base_model(dataset.image_shape, **options)
    fitted = build_outer_model(base, all_pairs=config.pairs == "all")
    steps = steps_per_epoch(config.pairs, dataset.train.labels, config.batch_size)
    fitted.compile(
        optimizer=build_optimizer(
            config.optimizer,
            config.learning_rate,
            schedule=config.schedule,
            steps=steps * config.epochs,
        ),
        loss=ContrastiveLoss(config.margin, config.positive_margin, weighting=config.weighting),
        metrics=pair_metrics(config.margin, config.positive_margin),
    )
    callbacks = [
        *callbacks,
        keras.callbacks.CSVLogger(run_dir / "history.csv"),
        TrainingWarnings(config.margin),
    ]
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(run_dir / "tensorboard"))
    pipelines = [
        pair_pipeline(
            config.pairs,
            split.images,
            split.labels,
            batch_size=config.batch_size,
            seed=config.seed + offset,
            epochs=epochs,
            augment=augment,
            class_names=class_names,
        )
        for split, epochs, offset, augment in (
            (dataset.train, config.epochs, 0, config.augment),
            (dataset.validation, 1, 1, "none"),
        )
    ]
    started = time.perf_counter()
    fitted.optimizer.build(fitted.trainable_variables)  # or the step would be traced twice
    with bfloat16_convolutions(config.bfloat16) as bfloat16, StopOnInterrupt() as stop:
        fitted.fit(
            pipelines[0],
            epochs=config.epochs,
            steps_per_epoch=steps,
            validation_data=pipelines[1].cache(),
            callbacks=[*callbacks, stop],
            shuffle=False,  # the pipeline has done so
            verbose=verbose,
        )
    seconds = time.perf_counter() - started
    base = extend_base_model(base, **extensions, unit_length=config.unit_length)
    outer = build_outer_model(base)
    save_models(run_dir, config, outer)  # first of all: what follows may fail
    run = Run(
        run_dir,
        config,
        outer,
        fit_run_classifier(lambda x: embed(base, x), dataset.validation, seed=config.seed),
        class_names,
        {
            "fit_seconds": round(seconds, 2),
            "epochs": len(read_history(run_dir / "history.csv").get("loss", ())),
            "interrupted": stop.interrupted,
            "bfloat16": bfloat16,
            "images": list(whole.sizes),
        },
    )
    run.save()
    return run


def train_and_evaluate(
    config: Config,
    run_dir: Path,
    dataset: Dataset,
    *,
    data_dir: Path | None = None,
    export_dir: Path | None = None,
    tensorboard: bool = False,
) -> dict[str, Any] | None:
    """Train, score, draw and, with `export_dir`, export; print what came of it.

    Args:
        config: As `train`.
        run_dir: As `train`.
        dataset: As `train`.
        data_dir: Where the dataset came from, for the command that is named after an interrupt.
        export_dir: Folder to export below, to `<export_dir>/<dataset>/<n>`.
        tensorboard: As `train`.

    Returns:
        The report of `evaluate`, or None when the training was interrupted.
    """
    print(f"training into {run_dir}")
    run = train(
        config,
        run_dir,
        dataset,
        tensorboard=tensorboard,
        verbose="auto" if sys.stdout.isatty() else 2,
    )
    if run.training["interrupted"]:
        print(
            f"\ninterrupted in epoch {run.training['epochs']} of {config.epochs}; what was "
            f"learnt is kept in {run_dir}\nscore it: python -m siamese_keras.evaluate {run_dir}"
            f"{'' if data_dir is None else f' --data-dir {data_dir}'}"
        )
        return None
    history = read_history(run_dir / "history.csv")
    (run_dir / "figures").mkdir(exist_ok=True)
    save_figure(plots.plot_history(history), run_dir / "figures" / "history.png")
    report = evaluate(run, dataset)
    print(f"\n{table(report)}\nfit in {run.training['fit_seconds']:.0f} s")
    print(f"run:    {run_dir}")
    if export_dir is None:
        print(f"next:   python -m siamese_keras.export {run_dir}")
    else:
        print(f"export: {export(run, export_dir / config.dataset)}")
    return report


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",")]
    if len(set(seeds)) < max(len(seeds), 2) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"expected two or more different seeds, not {text!r}")
    return seeds


def _train_seeds(
    configs: list[Config], run_dir: Path, data_dir: Path | None, tensorboard: bool
) -> int:
    reports = []
    seeds = [config.seed for config in configs]
    for config in configs:
        report = train_and_evaluate(
            config,
            run_dir / f"seed-{config.seed}",
            load_run_dataset(config, data_dir),
            data_dir=data_dir,
            tensorboard=tensorboard,
        )
        if report is None:
            return 130
        reports.append(report)
        keras.utils.clear_session()
    summary = summarise(reports)
    write_json(run_dir / "summary.json", {"seeds": seeds, **summary})
    print(f"\nmean and standard deviation over the seeds {', '.join(map(str, seeds))}")
    groups = [(g, k) for g in ("test", "unseen") for k in ("accuracy", "roc_auc", "eer", "ece")]
    for group, key in [*groups, ("retrieval", "recall_at_1"), ("retrieval", "map_at_r")]:
        if group in summary:
            value = summary[group][key]
            print(f"{group + ' ' + key:24s} {value['mean']:.4f} +- {value['std']:.4f}")
    print(f"written: {run_dir / 'summary.json'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m siamese_keras.train",
        description="Train a Siamese network, score it on test pairs and write a run.",
        allow_abbrev=False,
    )
    parser.add_argument("--run-dir", type=Path, help="new folder to write to (default: runs/...)")
    parser.add_argument(
        "--export-dir", type=Path, help="also export a SavedModel below this folder"
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the data")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs as well")
    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="SEED,SEED,...",
        help="train once with each of these seeds and report mean and standard deviation",
    )
    add_config_options(parser)
    options = parser.parse_args(argv)
    config = config_from_options(parser, options)
    if options.seeds and (options.export_dir or "seed" in options):
        parser.error("argument --seeds: not allowed with --seed or --export-dir")
    try:
        configs = [dataclasses.replace(config, seed=seed) for seed in options.seeds or ()]
    except ValueError as error:
        parser.error(str(error))
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    run_dir = options.run_dir or Path("runs") / f"{options.preset}-{now}"

    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        parser.error("argument --tensorboard: needs `pip install tensorboard`")

    def program() -> int:
        if options.seeds:
            return _train_seeds(configs, run_dir, options.data_dir, options.tensorboard)
        dataset = load_run_dataset(config, options.data_dir)
        report = train_and_evaluate(
            config,
            run_dir,
            dataset,
            data_dir=options.data_dir,
            export_dir=options.export_dir,
            tensorboard=options.tensorboard,
        )
        return 130 if report is None else 0

    return run_program(program)


if __name__ == "__main__":
    sys.exit(main())
