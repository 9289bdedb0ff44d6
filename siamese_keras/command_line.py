"""What all programs share: options, the quiet start, the error line and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from siamese_keras._version import __version__
from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError, SiameseKerasError
from siamese_keras.files import expanded
from siamese_keras.presets import PRESETS
from siamese_keras.terminal import held_stderr

TERMINATED = 128 + signal.SIGTERM  # exit status


def make_parser(prog: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Make a parser with the options that every program has."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, allow_abbrev=False, **options
    )
    parser.add_argument("--version", action="version", version=f"siamese-keras {__version__}")
    parser.add_argument(
        "--quiet", action="store_true", help="print only results, warnings and errors"
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error occurred"
    )
    return parser


def local_path(text: str) -> Path:
    """Parse the path of an option, `~` is the home folder; addresses are refused."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"expected a path on this machine, not {text!r}")
    return expanded(text)


def run_program(
    program: Callable[[], int | None], *, traceback: bool = False, quiet: bool = False
) -> int:
    """Call `program` and return its exit status.

    Args:
        program: The work of the program; TensorFlow is imported quietly before.
        traceback: Let every error show its traceback.
        quiet: Show warnings and errors, but neither messages nor progress.

    Returns:
        What `program` returns (None counts as 0); 1 after a `SiameseKerasError` or an `OSError`,
        whose message goes to standard error in one line; 130 when interrupted. Other errors are
        raised, and SIGTERM ends the program with status 143.
    """
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.showwarning = _show_warning
        logger = logging.getLogger("siamese_keras")
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.WARNING if quiet else logging.INFO)
        if hasattr(sys.stdout, "reconfigure"):  # names of files that are not UTF-8
            sys.stdout.reconfigure(errors="surrogateescape")
        try:
            stack.enter_context(_ended_by_sigterm())
            _import_tensorflow_quietly()
            status = program() or 0
            if sys.stdout is not None:
                sys.stdout.flush()  # now, while an error of it can still be reported
            return status
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            _discard_output()
            return 1
        except (SiameseKerasError, OSError) as error:
            _discard_output()
            if traceback:
                raise
            print("error: " + " ".join(_message(error).split()), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def _message(error: Exception) -> str:
    """Return the message of an error; that of an `OSError` names the file first."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = "" if error.filename is None else f"{error.filename}: "
    return f"{name}{error.strerror}"


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End the program by SIGTERM as by an exception, so that it removes its temporary files."""

    def terminate(number: int, frame: types.FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _discard_output() -> None:
    """Discard what cannot be written to standard output, which would fail again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _show_warning(message: object, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _import_tensorflow_quietly() -> None:
    """Import TensorFlow without what its C++ libraries print while they are loaded.

    With TF_CPP_MIN_LOG_LEVEL set everything is shown, and so it is when the import fails.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with held_stderr():
        import tensorflow  # noqa: F401


def add_config_options(parser: argparse.ArgumentParser, *, group: str | None = None) -> None:
    """Give `parser` the options `--preset` and `--config`, and one for each field of `Config`.

    Args:
        parser: The parser.
        group: The group of fields to give options for, such as `"base model"`; None takes all.
    """
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--preset", choices=PRESETS, help="settings to start from (default: fast)")
    start.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="start from the config.json of a run instead",
    )
    groups: dict[str, Any] = {}
    hints = get_type_hints(Config)
    for field in dataclasses.fields(Config):
        title, hint = field.metadata["group"], hints[field.name]
        if group not in (None, title):
            continue
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        keywords: dict[str, Any] = {
            "help": f"{field.metadata['help']} ({_shown(field.default)})".replace("%", "%%"),
            "default": argparse.SUPPRESS,
        }
        if hint is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        elif get_origin(hint) is Literal:
            keywords["choices"] = get_args(hint)
        else:
            keywords["type"] = _parser_of(hint)
            keywords["metavar"] = _METAVARS.get(hint, field.name.upper())
        groups[title].add_argument(option_name(field.name), **keywords)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _presets_text()


def config_from_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Config:
    """Make the `Config` that the options of `add_config_options` describe.

    A value out of range ends the program as argparse does: one line and exit status 2.
    """
    try:
        start = _of_run(options.config) if options.config else PRESETS[options.preset or "fast"]
        chosen = chosen_settings(options)
        config = dataclasses.replace(start, **chosen)
    except (ArgumentError, OSError) as error:
        parser.error(_message(error))
    for name, reason in _without_effect(config).items():
        if name in chosen:
            parser.error(f"argument {option_name(name)}: not allowed {reason}")
    return config


def _of_run(path: Path) -> Config:
    """Read the settings of a run, which must describe its base model."""
    config = Config.load(path)
    try:
        facts = json.loads(path.with_name("model.json").read_text(encoding="utf-8"))
        is_own = facts["training"]["own_base_model"]
    except (OSError, ValueError, LookupError, TypeError):
        is_own = False  # settings alone, without the run
    if is_own:
        raise ArgumentError(
            "argument --config: expected settings that describe the base model of their run. "
            f"Received: `{path}`, of a run whose base model was given to `fit`"
        )
    return config


def _without_effect(config: Config) -> dict[str, str]:
    """Return the settings that have no effect beside the others, each with the reason.

    A `Config` is not refused for them, since presets hold values for all settings.
    """
    found = {}
    if config.loss != "supervised-contrastive":
        found["temperature"] = "without --loss supervised-contrastive"
    if config.loss != "contrastive":
        for name in ("margin", "positive_margin", "weighting"):
            found[name] = "without --loss contrastive"
    if config.backbone:
        found["architecture"] = "with --backbone"
        if not config.fine_tune:
            found["fine_tune_learning_rate"] = "without --fine-tune"
    if config.backbone or config.architecture == "mlp":
        found["filters"] = found["pooling"] = "with --backbone or --architecture mlp"
    if any(number > config.epochs + config.fine_tune for number in config.hard_epochs):
        found["hard_epochs"] = "beyond the last of --epochs"
    if config.classes_per_batch:
        found["batch_size"] = "with --classes-per-batch"
    return found


def chosen_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `Config` that options were given for.

    Files are absolute, so that a training can be resumed from another folder.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    chosen = {name: value for name, value in vars(options).items() if name in names}
    if chosen.get("backbone", "").endswith(".keras"):
        chosen["backbone"] = str(expanded(chosen["backbone"]).absolute())
    if chosen.get("weights", "none") not in ("imagenet", "none"):
        chosen["weights"] = str(expanded(chosen["weights"]).absolute())
    return chosen


def model_name(text: str) -> str:
    """Return the name to export a model under, which is that of a folder."""
    if Path(text).name != text or text in ("", ".", ".."):
        raise argparse.ArgumentTypeError(f"expected the name of a folder, not {text!r}")
    return text


def option_name(field: str) -> str:
    """Return the option of a field: `--batch-size` of `batch_size`."""
    return "--" + field.replace("_", "-")


# How `--help` names the values of a list.
_METAVARS: dict[Any, str] = {tuple[int, ...]: "N,N,...", tuple[str, ...]: "CLASS,CLASS,..."}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ((), ""):
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _presets_text() -> str:
    """Return the presets for `--help`, each by the options in which it differs from `fast`."""
    default = dataclasses.asdict(PRESETS["fast"])
    lines = ["In parentheses: the values of preset fast. The other presets differ by:", ""]
    for name, config in PRESETS.items():
        differing = []
        for field, value in dataclasses.asdict(config).items():
            if value == default[field]:
                continue
            option = option_name(field)
            if isinstance(value, bool):
                differing.append(option if value else option.replace("--", "--no-", 1))
            else:
                differing.append(f"{option} {_shown(value)}")
        if differing:
            text = " ".join(differing)
            margin = " " * 13
            lines += textwrap.wrap(
                text, 79, initial_indent=f"{name:13s}", subsequent_indent=margin,
                break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)


def _parser_of(hint: Any) -> Any:
    if get_origin(hint) is not tuple:
        return hint
    item = get_args(hint)[0]

    def parse(text: str) -> tuple[Any, ...]:
        if item is int and text.strip() == "none":  # a class may have this name
            return ()
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"list of {item.__name__}"  # argparse shows it in its error message
    return parse
