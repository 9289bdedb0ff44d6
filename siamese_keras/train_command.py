"""What `siamese-keras train` was asked for, saved in the run so that `--resume` can go on."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from siamese_keras.command_line import chosen_settings, option_name
from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError
from siamese_keras.files import COMMAND, write_json


@dataclasses.dataclass(frozen=True)
class Command:
    """The options of a training; those of the command line, by their names.

    Attributes:
        config: The settings, before the dataset is read.
        seeds: Seeds to train with, one after the other; none trains once.
        data_dir: Folder or file with the data.
        cache_dir: Folder of the caches.
        export_dir: Where to export the model to.
        name: Name to export it under.
        baselines: Whether to score all baselines.
        tensorboard: Whether to write TensorBoard logs.
        checkpoint_minutes: Minutes between checkpoints within an epoch.
        devices: Devices of this machine to train on.
    """

    config: Config
    seeds: tuple[int, ...] = ()
    data_dir: Path | None = None
    cache_dir: Path | None = None
    export_dir: Path | None = None
    name: str | None = None
    baselines: bool = False
    tensorboard: bool = False
    checkpoint_minutes: float = 10.0
    devices: int | None = None

    @classmethod
    def of_options(cls, config: Config, options: argparse.Namespace) -> Command:
        """Make the command of parsed options."""
        return cls(config, **_given(options))

    def save(self, run_dir: Path) -> None:
        """Write the command into the folder of a run."""
        content = dataclasses.asdict(self)
        for name, value in content.items():
            if isinstance(value, Path):
                content[name] = str(value.absolute())
        write_json(run_dir / COMMAND, content)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `Command` that were given."""
    names = [field.name for field in dataclasses.fields(Command) if field.name != "config"]
    return {name: value for name in names if (value := getattr(options, name)) not in (None, False)}


def resumed_command(run_dir: Path, options: argparse.Namespace) -> Command:
    """Read the command of a run; options that do not change the training replace what it says.

    A run that was not written by `siamese-keras train` has no command: it has settings alone.

    Raises:
        ArgumentError: When an option contradicts the run, there is no run, or its command is
            damaged.
        OSError: When it cannot be read.
    """
    settings = run_dir / "config.json"
    config = Config.load(settings) if settings.is_file() else None
    command = _saved_command(run_dir)
    if command is None and config is not None:
        command = Command(config)
    if command is None:
        raise ArgumentError(f"There is no run to resume in `{run_dir}`: it has no checkpoints.")
    config = config or command.config
    chosen = chosen_settings(options)
    differing = [
        f"{option_name(name)} {value}, before {getattr(config, name)}"
        for name, value in chosen.items()
        if value != getattr(config, name) and name != "epochs"
    ]
    if differing:
        raise ArgumentError(f"A resumed run keeps its settings. Received: {'; '.join(differing)}")
    return dataclasses.replace(
        command, config=dataclasses.replace(config, **chosen), **_given(options)
    )


def data_of_run(run_dir: Path) -> tuple[Path | None, Path | None]:
    """Return `data_dir` and `cache_dir` of the training that wrote a run, as far as it had any.

    Raises:
        ArgumentError: When the command of the run is damaged.
        OSError: When it cannot be read.
    """
    run_dir = run_dir.resolve()  # since `.` has a parent as well
    for folder in (run_dir, run_dir.parent):
        command = _saved_command(folder)
        if command and (folder == run_dir or command.seeds):
            return command.data_dir, command.cache_dir
    return None, None


def _saved_command(run_dir: Path) -> Command | None:
    path = run_dir / COMMAND
    if not path.is_file():
        return None
    try:
        return _parsed(json.loads(path.read_text(encoding="utf-8")))
    except (
        TypeError, KeyError, AttributeError, RecursionError, json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise ArgumentError(f"`{path}` is damaged: {error!r}") from None


def _parsed(content: dict[str, Any]) -> Command:
    values = {**content, "config": Config(**content["config"])}
    hints = get_type_hints(Command)
    for name, value in values.items():
        if value is None and hints[name] in (Path | None, str | None, int | None):
            continue
        if hints[name] == Path | None:
            values[name] = Path(value)
        elif name == "seeds":
            values[name] = tuple(
                dataclasses.replace(values["config"], seed=seed).seed for seed in value
            )
        elif name != "config" and not isinstance(value, hints[name]):
            raise TypeError(f"{name}={value!r}")
    return Command(**values)


@contextlib.contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Say how to go on when Ctrl-C or SIGTERM ends the block."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if any(run_dir.glob("**/checkpoints/*.npz")):
            print(f"\nresume: {resume_command(run_dir)}", file=sys.stderr)
        raise


def resume_command(run_dir: Path) -> str:
    """Return the command that goes on with a training."""
    return shlex.join(["python", "-m", "siamese_keras.train", "--resume", str(run_dir)])
