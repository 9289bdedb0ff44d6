"""Train a Siamese network and score it.

    python -m siamese_keras.train [--preset NAME] [--run-dir FOLDER] [--export-dir saved_models]
    python -m siamese_keras.train --resume FOLDER

Writes a run: `config.json`, `model.json`, `base.keras`, `outer.keras`, `history.csv`,
`false_accepts.csv`, `metrics.json`, `classes.csv`, `embeddings.npz`, `figures/` and `report.html`;
and, to resume it when it was killed, `command.json` and `checkpoints/`. With `--seeds` the folder
holds such a run for each seed, `seed-N/`, and `summary.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.util
import itertools
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamese_keras.command_line import (
    add_config_options,
    config_from_options,
    local_path,
    make_parser,
    model_name,
    option_name,
    run_program,
)
from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError
from siamese_keras.files import COMMAND, check_outside, clear_unused, locked_run, write_json
from siamese_keras.progress import progress_line
from siamese_keras.train_command import Command, resumable, resume_command, resumed_command

if TYPE_CHECKING:
    from siamese_keras.data.splits import Dataset


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.train") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog,
        "Train a Siamese network, score it on test pairs and write a run.",
        usage="%(prog)s [options]",
    )
    parser.add_argument("--data-dir", type=local_path, help="folder or file with the data")
    parser.add_argument(
        "--cache-dir",
        type=local_path,
        help="keep the decoded pixels of image files in this folder, not in memory",
    )
    parser.add_argument(
        "--run-dir", type=local_path, help="new folder to write to (default: runs/PRESET-TIME)"
    )
    parser.add_argument(
        "--resume",
        type=local_path,
        metavar="RUN",
        help="resume a training run that was killed or interrupted, with the options that it was "
        "started with; --epochs may be raised if the learning rate is constant",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=_minutes,
        metavar="MINUTES",
        help="minutes between checkpoints within an epoch; each epoch ends with one (default: 10)",
    )
    parser.add_argument(
        "--devices",
        type=_devices,
        metavar="N",
        help="devices of this machine to train on: GPUs, or CPU devices where there are none "
        "(default: all GPUs if there are several, otherwise one device); several machines are "
        "named in TF_CONFIG",
    )
    parser.add_argument(
        "--export-dir", type=local_path, help="also export a SavedModel to EXPORT_DIR/NAME/"
    )
    parser.add_argument(
        "--name",
        type=model_name,
        help="name to export the model under (default: the name of the dataset, or of its folder "
        "or file)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="score all baselines and nearest neighbors, not just raw pixels",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs as well")
    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="SEED,SEED,...",
        help="train once with each of these seeds and report mean and standard deviation",
    )
    add_config_options(parser)
    options = parser.parse_args(argv)
    if options.resume:
        _refuse_with_resume(parser, options)
    else:
        command = Command.of_options(config_from_options(parser, options), options)
        try:
            for seed in command.seeds:
                dataclasses.replace(command.config, seed=seed)
        except ArgumentError as error:
            parser.error(str(error))
    if options.seeds and (options.export_dir or "seed" in options):
        parser.error("argument --seeds: not allowed with --seed or --export-dir")
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        parser.error("argument --tensorboard: needs `pip install tensorboard`")

    def program() -> int:
        wanted = resumed_command(options.resume, options) if options.resume else command
        if wanted.seeds and options.export_dir:
            raise ArgumentError("--export-dir is not allowed when resuming a run with --seeds.")
        if wanted.config.dataset == "folder" and wanted.data_dir is not None:
            if options.export_dir:
                check_outside(wanted.data_dir, options.export_dir, "export_dir")
            if not options.resume:
                check_outside(wanted.data_dir, options.run_dir or Path("runs"), "run_dir")
        if os.environ.get("TF_CONFIG") and not _is_chief(wanted, options):
            return _work(wanted, options)
        if options.resume:
            with resumable(options.resume), locked_run(options.resume, resume=True):
                return _run(wanted, options.resume, options)
        run_dir = options.run_dir or _default_run_dir(options.config or options.preset or "fast")
        try:
            with resumable(run_dir), locked_run(run_dir):
                try:
                    wanted.save(run_dir)
                    return _run(wanted, run_dir, options)
                finally:
                    clear_unused(run_dir)
        finally:
            if options.run_dir is None:
                with contextlib.suppress(OSError):
                    run_dir.rmdir()  # if nothing was written

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


def _is_chief(command: Command, options: argparse.Namespace) -> bool:
    """Connect with the workers that TF_CONFIG names, and return whether this one is the chief.

    When all epochs are done there is nothing to share, and the others may have ended.
    """
    from siamese_keras.training.checkpoints import epochs_done
    from siamese_keras.training.distribution import connect_workers, is_chief

    if command.seeds:
        raise ArgumentError("--seeds is not supported with TF_CONFIG: start one run for each seed.")
    chief = is_chief()
    epochs = command.config.epochs + command.config.fine_tune
    if options.resume and epochs_done(options.resume / "checkpoints") >= epochs:
        del os.environ["TF_CONFIG"]
    else:
        connect_workers()
    return chief


def _work(command: Command, options: argparse.Namespace) -> int:
    """Train as a worker that is not the chief, which alone writes and scores."""
    if not os.environ.get("TF_CONFIG"):
        return 0
    from siamese_keras.data.datasets import load_config_dataset
    from siamese_keras.training.trainer import fit

    dataset = load_config_dataset(command.config, command.data_dir, cache_dir=command.cache_dir)
    fit(
        dataset,
        command.config,
        run_dir=options.resume,
        resume=options.resume is not None,
        verbose=0,
    )
    print("the chief scores and saves the model")
    return 0


def _run(command: Command, run_dir: Path, options: argparse.Namespace) -> int:
    """Read the data and train; return the exit status."""
    from siamese_keras.data.datasets import load_config_dataset

    dataset = load_config_dataset(
        command.config, command.data_dir, cache_dir=command.cache_dir,
        progress=progress_line("images"),
    )  # fmt: skip
    if command.seeds:
        return _train_seeds(command, dataset, run_dir, options)
    return 130 if _train(command, command.config, dataset, run_dir, options) is None else 0


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    seeds = [int(part) for part in parts if part.isdecimal()]
    if len(set(seeds)) < max(len(parts), 2):
        raise argparse.ArgumentTypeError(f"expected two or more different seeds, not {text!r}")
    return seeds


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, not {text!r}")
    return minutes


def _devices(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _default_run_dir(start: str | Path) -> Path:
    """Create and return a new folder below `runs/`, also when two trainings start at once."""
    name = start if isinstance(start, str) else start.resolve().parent.name
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = Path("runs") / f"{name}-{now}{'' if number == 1 else f'-{number}'}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError


def _refuse_with_resume(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in ("run_dir", "preset", "config", "seeds"):
        if getattr(options, name):
            parser.error(
                f"argument {option_name(name)}: not allowed with --resume, which keeps the "
                "settings of the run"
            )


def _train(
    command: Command, config: Config, dataset: Dataset, run_dir: Path, options: argparse.Namespace
) -> dict[str, Any] | None:
    """Train, score and export; return the metrics, or None after an interrupt."""
    import keras

    from siamese_keras.evaluation.report_page import write_run_page
    from siamese_keras.training.callbacks import EpochLines
    from siamese_keras.training.trainer import fit

    callbacks = [] if options.quiet else [EpochLines(config.epochs + config.fine_tune)]
    if options.resume and (options.resume / COMMAND).is_file():  # for the next time
        save = keras.callbacks.LambdaCallback(on_train_begin=lambda _: command.save(options.resume))
        callbacks = [*callbacks, save]
    if not options.quiet:
        print(f"training on {dataset.name} into {run_dir}", flush=True)
    verifier = fit(
        dataset,
        config,
        run_dir=run_dir,
        tensorboard=command.tensorboard,
        callbacks=callbacks,
        verbose=0,
        resume=options.resume is not None and run_dir.is_dir() and any(run_dir.iterdir()),
        checkpoint_minutes=command.checkpoint_minutes,
        # Other machines may go on with a run than those that began it.
        devices=options.devices if os.environ.get("TF_CONFIG") else command.devices,
    )
    if verifier.training["interrupted"]:
        score = ["python", "-m", "siamese_keras.evaluate", str(run_dir)]
        for option, path in (("--data-dir", command.data_dir), ("--cache-dir", command.cache_dir)):
            score += [option, str(path)] if path else []
        print(
            f"\ninterrupted in epoch {verifier.training['epochs']} of "
            f"{config.epochs + config.fine_tune}; the model is kept in {run_dir}\n"
            f"score it: {shlex.join(score)}\n"
            f"resume:   {resume_command(run_dir.parent if command.seeds else run_dir)}"
        )
        return None
    if not options.quiet:
        print("scoring", flush=True)
    report = verifier.evaluate(
        dataset, baselines=command.baselines, progress=progress_line("images embedded")
    )
    report.save(run_dir)
    print(f"\n{report}\n\nfit in {verifier.training['fit_seconds']:.0f} s")
    print(f"run:      {run_dir}")
    print(f"report:   {write_run_page(run_dir)}")
    if command.export_dir is not None:
        print(f"exported: {verifier.export(command.export_dir / (command.name or verifier.name))}")
    else:
        name = ["--name", command.name] if command.name else []
        export = ["python", "-m", "siamese_keras.export", str(run_dir), *name]
        print(f"next:     {shlex.join(export)}")
    return report.metrics


def _train_seeds(
    command: Command, dataset: Dataset, run_dir: Path, options: argparse.Namespace
) -> int:
    import keras

    from siamese_keras.evaluation.report import summarize
    from siamese_keras.evaluation.report_page import PAGE, run_folders, write_comparison_page

    reports = []
    for seed in command.seeds:
        config = dataclasses.replace(command.config, seed=seed)
        metrics = _train(command, config, dataset, run_dir / f"seed-{seed}", options)
        if metrics is None:
            return 130
        reports.append(metrics)
        keras.utils.clear_session()
    summary = summarize(reports)
    write_json(run_dir / "summary.json", {"seeds": command.seeds, **summary})
    print(f"\nmean and standard deviation over the seeds {', '.join(map(str, command.seeds))}")
    rows = [(g, k) for g in ("test", "unseen") for k in ("accuracy", "roc_auc", "eer", "ece")]
    for group, key in [*rows, ("retrieval", "recall_at_1"), ("retrieval", "map_at_r")]:
        if group in summary:
            value = summary[group][key]
            print(f"{group + ' ' + key:24s} {value['mean']:.4f} +- {value['std']:.4f}")
    page = write_comparison_page(run_folders(run_dir), run_dir / PAGE)
    print(f"written: {run_dir / 'summary.json'}, {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
