"""Checkpoints: all that a training needs to go on, each in one file that is whole or not there.

A file is a NumPy archive without pickles and without compression: arrays under the name of their
group and their place in it, `model/0`, and a JSON object, `facts`. Every array has a checksum
(CRC-32), as in any zip archive. The names are numbers of epochs and steps, not times: a clock that
is set back changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.errors import DataError
from siamese_keras.files import atomic_path

_log = logging.getLogger(__name__)

_NAME = re.compile(r"epoch-(\d{6})-step-(\d{9})\.npz")
_KEPT = 2
_FACTS = "facts"


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state of a training.

    Attributes:
        epoch: Whole epochs that are done.
        step: Steps that are done of the next epoch.
        facts: What JSON can hold.
        arrays: Lists of arrays by the name of their group.
    """

    epoch: int
    step: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, Sequence[np.ndarray]]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into `folder` and remove all but the newest two.

    Raises:
        OSError: When it cannot be written; the checkpoints that are there stay.
    """
    content = {
        f"{group}/{place}": array
        for group, arrays in checkpoint.arrays.items()
        for place, array in enumerate(arrays)
    }
    text = json.dumps(checkpoint.facts)
    content[_FACTS] = np.frombuffer(text.encode(), np.uint8)
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch-{checkpoint.epoch:06d}-step-{checkpoint.step:09d}.npz"
    with atomic_path(path) as temporary:
        np.savez(temporary, **content)  # type: ignore[arg-type]
    for old in _checkpoints(folder)[:-_KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()


def epochs_done(folder: Path) -> int:
    """Return the number of whole epochs that are done by the newest checkpoint, damaged or not."""
    paths = _checkpoints(folder)
    return int(_NAME.fullmatch(paths[-1].name)[1]) if paths else 0  # type: ignore[index]


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint in `folder`, or the one before when it is damaged.

    Returns:
        The checkpoint; None when there is none.

    Raises:
        DataError: When all are damaged.
        OSError: When one cannot be read.
    """
    paths = _checkpoints(folder)
    for path in reversed(paths):
        try:
            return _read(path)
        except DataError as error:
            if path == paths[0]:
                raise
            _log.warning("%s Resuming from the previous one.", error)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Return the files of the checkpoints in `folder`, in order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _read(path: Path) -> Checkpoint:
    epoch, step = map(int, _NAME.fullmatch(path.name).groups())  # type: ignore[union-attr]
    try:
        with zipfile.ZipFile(path) as archive:
            # Compressed, a small file could fill the memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        with np.load(path, allow_pickle=False) as content:
            facts = json.loads(content[_FACTS].tobytes())
            keys = [tuple(name.split("/")) for name in content.files if name != _FACTS]
            places = sorted((group, int(place)) for group, place in keys)
            arrays = {
                group: [content[f"{group}/{place}"] for _, place in members]
                for group, members in itertools.groupby(places, key=lambda key: key[0])
            }
        if not isinstance(facts, dict):
            raise ValueError("its facts are not a JSON object")
    except OSError:
        raise
    except Exception as error:  # zipfile, NumPy and JSON raise many kinds
        reason = str(error) or type(error).__name__
        raise DataError(f"The checkpoint `{path}` is damaged: {reason}.") from None
    return Checkpoint(epoch, step, facts, arrays)
