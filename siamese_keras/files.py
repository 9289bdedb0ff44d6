"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from siamese_keras.errors import ArgumentError, DataError

LAST_MTIME = 2**63 - 1  # nanoseconds, in the year 2262: the last time of change in an int64
COMMAND = "command.json"  # in the folder of a run: what `siamese-keras train` was asked for
_LOCK = ".lock"
_WRITING = ".writing-"
_LEFT_SECONDS = 86_400  # in which a program that is running adds to its file
_NEW = {_LOCK, COMMAND}  # what may be in the folder of a new training
_BEGUN = {*_NEW, "config.json", "tensorboard"}  # and of one that has written no checkpoint yet


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace `~`, where the home folder is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no HOME and no entry for the user
        return Path(path)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it to `path` when the block succeeds.

    A file that was at `path` stays as it was until then, and for good when the block fails. The
    content is on the disk before the name is: a power failure leaves one of the two files, whole.
    A symbolic link stays one: the file that it names is replaced.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    _clear_left_over(path)
    folder = _temporary_folder(path.parent)
    try:
        yield folder / path.name
        _to_disk(folder / path.name)
        (folder / path.name).replace(path)
        with contextlib.suppress(OSError):  # not every file system can do that with a folder
            _to_disk(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left_over(path: Path) -> None:
    """Remove what programs that were killed have written of this file."""
    for left in path.parent.glob(f"{_WRITING}*/{glob.escape(path.name)}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(left.parent)


def _temporary_folder(parent: Path) -> Path:
    """Make a hidden folder whose name says which process writes there."""
    return Path(tempfile.mkdtemp(prefix=f"{_WRITING}{os.getpid()}-", dir=parent))


def _is_left_over(folder: Path) -> bool:
    """Return whether the process that wrote to a temporary folder of this machine has ended.

    So has one with the number of this process: in a container, every program may get the same one.
    """
    process = folder.name.removeprefix(_WRITING).partition("-")[0]
    if os.name != "posix" or not process.isdecimal() or int(process) == os.getpid():
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        pass
    return False


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in its cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing_folder(parent: Path, *, stale_seconds: float) -> Iterator[Path]:
    """Yield a temporary folder in `parent`, which is removed with all that is left in it.

    Its name begins with a dot. What killed programs left there is removed as well.

    Args:
        parent: A folder; it is created when it is missing.
        stale_seconds: Age from which a temporary folder is taken to be left over: longer than any
            writing takes.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob(f"{_WRITING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > stale_seconds and _is_left_over(path):
                shutil.rmtree(path)
    folder = _temporary_folder(parent)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


@contextlib.contextmanager
def locked_run(path: str | os.PathLike[str], *, resume: bool = False) -> Iterator[Path]:
    """Keep the folder of a run to one training, in this and in other processes.

    A training that was killed leaves nothing behind that would stand in the way of the next one.

    Args:
        path: The folder; it is made when it is missing. It must hold nothing but the settings of a
            training that wrote nothing else, unless `resume`.
        resume: Go on with what is in the folder.

    Yields:
        The folder.

    Raises:
        ArgumentError: When it is not empty, another training writes to it, there is nothing to go
            on with, or it is an address such as `gs://bucket`.
        OSError: When it cannot be made.
    """
    if "://" in os.fspath(path):
        raise ArgumentError(f"`run_dir` must be a folder on this machine. Received: {path}")
    path = Path(path)
    if not resume:
        path.mkdir(parents=True, exist_ok=True)
    names = {e.name for e in path.iterdir()} if path.is_dir() else set()
    names = {name for name in names if not name.startswith(_WRITING)}
    if not resume and names - _NEW:
        raise ArgumentError(f"`run_dir` must be a new or empty folder. Received: `{path}`")
    if resume and not (names & {"checkpoints", COMMAND} or (names and names <= _BEGUN)):
        raise ArgumentError(f"There is no run to resume in `{path}`: it has no checkpoints.")
    try:  # one object for each folder: a program may lock it, and call `fit`, which does so again
        lock = filelock.FileLock(path / _LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except filelock.Timeout:
        raise ArgumentError(f"Another training run is writing to `{path}`.") from None
    try:
        for left in (*path.glob(f"{_WRITING}*"), *path.glob(f"checkpoints/{_WRITING}*")):
            if _is_left_over(left):  # by a training that was killed
                shutil.rmtree(left, ignore_errors=True)
        yield path
    finally:
        lock.release()


def clear_unused(path: Path) -> None:
    """Empty the folder of a new training that has written nothing but its settings.

    The caller holds its lock.
    """
    settings = {*_NEW, "config.json"}
    with contextlib.suppress(OSError):
        if {entry.name for entry in path.iterdir()} <= settings:
            for name in settings:
                (path / name).unlink(missing_ok=True)


def check_outside(folder: Path, path: Path, name: str) -> None:
    """Raise when what is to be written would become a class of a folder of images.

    Args:
        folder: The folder of images, of which hidden folders are not read.
        path: The folder to write.
        name: The argument that named it.

    Raises:
        ArgumentError: When it is the folder of images or below it, and not hidden.
    """
    inner, outer = path.resolve(), folder.resolve()
    if not inner.is_relative_to(outer):
        return
    if not any(part.startswith(".") for part in inner.relative_to(outer).parts):
        raise ArgumentError(
            f"`{name}` must not be inside the folder of images, where it would be read as a class. "
            f"Received: `{path}` in `{folder}`"
        )


def check_output(path: str | os.PathLike[str], *suffixes: str) -> Path:
    """Return `path`, to which a file can be written, before the work that makes the file.

    Args:
        path: The path.
        suffixes: What its name may end with, such as `.npz`.

    Raises:
        ArgumentError: When its name ends otherwise, its folder does not exist or cannot be written
            to, or it is a folder.
    """
    path = expanded(path)
    if path.suffix.lower() not in suffixes:
        raise ArgumentError(f"The output must end in {' or '.join(suffixes)}. Received: `{path}`")
    if path.is_dir() or not path.parent.is_dir():
        expected = "must not be a folder" if path.is_dir() else "must lie in a folder that exists"
        raise ArgumentError(f"The output {expected}. Received: `{path}`")
    if not os.access(Path(os.path.realpath(path)).parent, os.W_OK):  # where a link leads
        raise ArgumentError(
            f"The output must lie in a folder that can be written to. Received: `{path}`"
        )
    return path


def delimiter_of(header: str) -> str:
    """Return what separates the values of a CSV file by its first line: comma, semicolon or tab."""
    return max(",;\t", key=header.count)


def check_columns(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    """Raise unless no column of a CSV file that is read occurs twice.

    Args:
        path: The file, for the message.
        header: The names of its columns.
        names: The columns that are read.

    Raises:
        DataError: When one does.
    """
    if twice := [name for name in names if header.count(name) > 1]:
        raise DataError(f"`{path}` must have one column of each name. Twice: {', '.join(twice)}")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` to `path` as JSON, in place of a file that was there.

    Raises:
        ValueError: When `content` holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of one length to the CSV file `path`, names first."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_columns(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Read what `write_columns` wrote; a missing file has no columns.

    Raises:
        DataError: When the file is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
        return {n: [float(row[i]) for row in rows] for i, n in enumerate(names)}
    except (ValueError, IndexError) as error:
        raise DataError(f"`{path}` must hold columns of numbers. {error}") from None
