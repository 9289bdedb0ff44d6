"""The folder of a run, which `fit` writes and `load_verifier` reads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from siamese_keras._version import __version__
from siamese_keras.config import Config
from siamese_keras.errors import ModelError
from siamese_keras.files import (
    atomic_path,
    read_columns,
    write_columns,
    write_json,
    writing_folder,
)
from siamese_keras.models import base_model as _registers_its_functions  # noqa: F401
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.false_accepts import (
    FalseAccepts,
    read_false_accepts,
    write_false_accepts,
)
from siamese_keras.models.outer_model import base_model_of

_REPORT = ("metrics.json", "classes.csv", "embeddings.npz", "report.html")  # and `figures/`
_STALE_SECONDS = 3600.0  # longer than any writing of a run takes


def save_models(folder: Path, config: Config, outer: keras.Model) -> None:
    """Write `config.json`, `base.keras` and `outer.keras` into `folder`."""
    config.save(folder / "config.json")
    for name, model in (("base", base_model_of(outer)), ("outer", outer)):
        with atomic_path(folder / f"{name}.keras") as temporary:
            model.save(temporary)


def save_run(
    folder: Path,
    config: Config,
    outer: keras.Model,
    calibration: Calibration,
    history: Mapping[str, list[float]],
    facts: Mapping[str, Any],
    false_accepts: FalseAccepts | None = None,
) -> None:
    """Write a run into `folder`, in place of a run that was there and of its report.

    What was there stays when the run cannot be written. `model.json`, which completes a run, goes
    first and comes last: an interruption leaves no mixture of two runs that could be loaded.

    Args:
        folder: The folder; it is created when it is missing.
        config: Settings of the training.
        outer: The outer model.
        calibration: Threshold and slope.
        history: The value of each figure after every epoch.
        facts: `name`, `class_names` and `training`, as the attributes of `Verifier`.
        false_accepts: Table of false accepts by threshold.
    """
    with writing_folder(folder, stale_seconds=_STALE_SECONDS) as written:
        save_models(written, config, outer)
        write_columns(written / "history.csv", history)
        content = {"siamese_keras": __version__, **facts, **dataclasses.asdict(calibration)}
        write_false_accepts(written, false_accepts)
        if false_accepts is not None:
            content["false_accepts"] = false_accepts.summary()
        write_json(written / "model.json", content)
        for name in ("model.json", *_REPORT):
            (folder / name).unlink(missing_ok=True)
        write_false_accepts(folder, None)
        shutil.rmtree(folder / "figures", ignore_errors=True)
        for path in sorted(written.iterdir(), key=lambda path: path.name == "model.json"):
            path.replace(folder / path.name)


def load_run(path: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Read a run.

    Returns:
        The outer model, and the other attributes of its `Verifier` by name.

    Raises:
        ModelError: When the folder is not a complete run; the message names the file.
        ArgumentError: When its `config.json` is damaged.
    """
    for name in ("config.json", "model.json", "outer.keras"):
        if not (path / name).is_file():
            hint = (
                f" Its training is incomplete: continue with `siamese-keras train --resume {path}`."
                if (path / "checkpoints").is_dir()
                else ""
            )
            raise ModelError(
                f"`{path}` is not the folder of a complete run: it has no {name}.{hint}"
            )
    config = Config.load(path / "config.json")
    try:
        facts = json.loads((path / "model.json").read_text(encoding="utf-8"))
        threshold = facts["threshold"]
        calibration = Calibration(threshold, facts["slope"], facts.get("midpoint", threshold))
        names, training = list(map(str, facts["class_names"])), dict(facts["training"])
        name = str(facts["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"`{path / 'model.json'}` is damaged: {error!r}") from None
    try:
        outer = keras.models.load_model(path / "outer.keras", compile=False)
        base_model_of(outer)
    except Exception as error:  # Keras raises many kinds for a damaged archive
        first_line = str(error).partition("\n")[0]
        raise ModelError(f"`{path / 'outer.keras'}` cannot be loaded. {first_line}") from None
    scored = path / "metrics.json"
    try:
        metrics = json.loads(scored.read_text(encoding="utf-8")) if scored.is_file() else None
    except ValueError as error:
        raise ModelError(f"`{scored}` is damaged: {error!r}") from None
    return outer, {
        "calibration": calibration,
        "config": config,
        "class_names": names,
        "name": name,
        "training": training,
        "history": read_columns(path / "history.csv"),
        "metrics": metrics,
        "false_accepts": read_false_accepts(path),
    }
