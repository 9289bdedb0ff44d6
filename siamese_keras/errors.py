"""Every exception of the package, under one base class."""

from __future__ import annotations

import numbers
import re
from typing import Any, get_args

_MOST_DISTANCE = 3.4e38  # the largest float32, about


class SiameseKerasError(ValueError):
    """An error caused by input: an argument, a file, a dataset or a model that does not fit."""


class ArgumentError(SiameseKerasError):
    """An argument or a setting is out of range or of the wrong type."""


class DataError(SiameseKerasError):
    """Images cannot be found, read or split; the message names the file or the folder."""


class NotPreparedError(DataError):
    """TensorFlow Datasets has the dataset's folder but not the dataset."""


class TrainingError(SiameseKerasError):
    """The training diverged, or the model does not separate same from different pairs."""


class ModelError(SiameseKerasError):
    """A run or an exported model cannot be loaded, queried or exported."""


class RequestError(ModelError):
    """The model refuses this request, for instance a broken image; it may answer another one."""


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise unless `value` is one of the values of the `Literal` type `choices`.

    Args:
        name: Name of the argument, for the message.
        value: What was passed.
        choices: A `typing.Literal`.

    Raises:
        ArgumentError: When it is not.
    """
    if value not in get_args(choices):
        expected = ", ".join(map(repr, get_args(choices)))
        raise ArgumentError(f"`{name}` must be one of {expected}. Received: {name}={value!r}")


def check_count(name: str, value: Any, *, least: int) -> None:
    """Raise unless `value` is an integer of at least `least`.

    Raises:
        ArgumentError: When it is not.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ArgumentError(
            f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}"
        )


def check_distance(name: str, value: Any) -> float:
    """Return `value`, a distance: a number of at least 0 that float32 can hold.

    Raises:
        ArgumentError: When it is not.
    """
    if not (isinstance(value, numbers.Real) and 0 <= float(value) <= _MOST_DISTANCE):
        raise ArgumentError(f"`{name}` must be a distance of at least 0. Received: {value!r}")
    return float(value)


def plain_reason(message: str) -> str:
    """Reduce a message of TensorFlow to one line, without names of nodes and stack traces."""
    noise = ("Graph execution error:", "Detected at node", "<stack traces", " ", "\t")
    lines = (line for line in message.splitlines() if line and not line.startswith(noise))
    line = re.sub(r"\{\{.*?\}\} *| *\[Op:.*$", "", next(lines, message))
    return re.sub(r"^assertion failed: \[(.*?)\]", r"\1", line)
