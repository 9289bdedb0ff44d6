"""Your own images: a folder with a subfolder of image files for every class.

The layout is that of `keras.utils.image_dataset_from_directory`. The pixels are not: they are those
that the exported model makes of the same file.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from siamese_keras.config import ColorMode
from siamese_keras.data.image_files import (
    ClassFiles,
    load_image_files,
    part_of,
    printable,
    shortened,
)
from siamese_keras.data.photo import FORMATS, SUFFIXES
from siamese_keras.data.splits import Source
from siamese_keras.errors import DataError
from siamese_keras.progress import Progress

_log = logging.getLogger(__name__)

# What file managers and archives add beside the user's files.
_NOT_THE_USERS = ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini")


def load_image_folder(
    folder: Path,
    image_size: int = 0,
    *,
    color_mode: ColorMode = "auto",
    strict: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Read `folder/CLASS/*.png`, or `folder/train/CLASS/*.png` beside `folder/test/CLASS/*.png`.

    Beside `train` there may be `validation` (`val`, `valid`) and `test`, or `query` and `gallery`
    for images that are searched for and searched in; `training`, `test_set`, `seg_train` and the
    like are understood, in any case of letters. All image files below a class's folder belong to
    it. Test classes are those of the training, or none of them. Hidden files and folders are passed
    over, links to folders are followed once, and files of other kinds are counted in a warning.

    Args:
        folder: The folder.
        image_size: Height and width to resize the images to; 0 takes the median of their smaller
            sides, at most 64.
        color_mode: `rgb`, `grayscale`, or `auto`: grayscale if all images are gray.
        strict: Refuse files that cannot be read, which are skipped with a warning otherwise.
        cache_dir: Folder to keep the pixels in, as in `load_dataset`.
        progress: Called with how many files are read and how many there are.

    Returns:
        Images, uint8 `[n, image_size, image_size, channels]`, and the names of the classes: those
        of the subfolders, in order.

    Raises:
        DataError: When there are fewer than two classes, the parts' classes do not fit, a class has
            no image, or `strict` and a file cannot be read.
    """
    folder = _inner(folder)
    groups: list[ClassFiles] = []
    others: list[str] = []
    for part, path in _parts(folder).items():
        for class_folder in _class_folders(path, least=2 if part == "train" else 1):
            found, passed = _class_files(class_folder, strict=strict)
            groups.append(ClassFiles(found, printable(class_folder.name), part))
            others += passed
    if others:
        _log.warning("Skipping files below `%s` that are not images: %s", folder, _counted(others))
    return load_image_files(
        groups, folder, image_size=image_size, color_mode=color_mode, strict=strict,
        cache_dir=cache_dir, progress=progress,
    )  # fmt: skip


def _parts(folder: Path) -> dict[str, Path]:
    """Return the folders of train, validation and test; a folder of classes is all `train`."""
    subfolders = _subfolders(folder)
    found: dict[str, Path] = {}
    for path in subfolders:
        part = part_of(path.name)
        if part is not None and part in found:
            raise DataError(
                f"`{folder}` must hold one folder of {part} images. Received: "
                f"{found[part].name}, {path.name}"
            )
        if part is not None:
            found[part] = path
    only_parts = len(found) == len(subfolders)
    is_class = list(found) == ["train"] and not only_parts and not _subfolders(found["train"])
    if not found or ("train" not in found and not only_parts) or is_class:
        return {"train": folder}  # a lone `train` may be a class, of vehicles
    if "train" not in found or not _subfolders(found["train"]):
        raise DataError(
            f"`{folder}` must hold either `train`, with a subfolder for each class, and perhaps "
            "`validation` and `test`, or itself a subfolder for each class. Received: "
            f"{shortened([path.name for path in subfolders])}"
        )
    has_search = {"query", "gallery"} <= set(found)
    unread = {"test"} if has_search else {"query", "gallery"}
    parts = {part: path for part, path in found.items() if part not in unread}
    if left := [path.name for path in subfolders if path not in parts.values()]:
        _log.warning("Skipping folders beside `%s`: %s", parts["train"], shortened(left))
    return {part: _inner(path) for part, path in parts.items()}


def _inner(folder: Path) -> Path:
    """Return the folder that holds more than another folder: archives are often doubled."""
    while len(subfolders := _subfolders(folder)) == 1 and not _images(folder):
        if not _subfolders(subfolders[0]) or _images(subfolders[0]):
            break
        folder = subfolders[0]
        _log.info("Reading `%s`, as it is all that the folder above holds.", folder)
    return folder


def _class_folders(folder: Path, *, least: int) -> list[Path]:
    subfolders = _subfolders(folder)
    stray = _images(folder)
    if len(subfolders) < least:
        files = f", and {len(stray)} image files in no subfolder" if stray else ""
        classes = "at least two classes" if least == 2 else "its classes"
        raise DataError(
            f"`{folder}` must have a subfolder for each of {classes}. "
            f"Received: {shortened([path.name for path in subfolders])}{files}"
        )
    if stray:
        _log.warning(
            "Skipping %d image files in `%s`, which are not in a class folder: %s",
            len(stray),
            folder,
            shortened(stray, 3),
        )
    if len(subfolders) == 1:
        return subfolders
    first, second = subfolders[:2]
    names = {path.name for path in subfolders}
    for path in subfolders if len(subfolders) > 2 else ():
        beside = second if path == first else first
        # Asked first, since listing a class of many files takes much longer.
        has_one = os.path.isdir(path / beside.name)  # noqa: PTH112 - False for an unreadable folder
        if has_one and _subfolder_names(path) == names - {path.name}:
            _log.warning("Skipping `%s`, which repeats the folders beside it", path)
            return [other for other in subfolders if other != path]
    inside = _subfolder_names(first)
    if len(inside) > 1 and all(
        _subfolder_names(path) == inside and not _images(path) for path in subfolders
    ):
        raise DataError(
            f"`{folder}` must have a subfolder for each class. Its subfolders "
            f"{shortened([path.name for path in subfolders])} all hold {shortened(inside)}: name "
            "one of them, or rename them to train, validation and test."
        )
    return subfolders


def _class_files(folder: Path, *, strict: bool) -> tuple[list[str], list[str]]:
    """Return the image files of a class, and the names of its other files."""

    def skip(error: OSError) -> None:
        if strict or error.filename == str(folder):
            raise DataError(f"`{error.filename}` cannot be read. {error.strerror}") from None
        _log.warning("Skipping `%s`: %s", error.filename, error.strerror)

    files = _visible_files(folder, skip)
    images = [path for path in files if path.lower().endswith(SUFFIXES)]
    others: list[str] = []
    if len(images) < len(files):
        others = [Path(path).name for path in files if not path.lower().endswith(SUFFIXES)]
    if not images:
        raise DataError(
            f"`{folder}` must hold {FORMATS} files: it is the folder of a class. Received: "
            f"{_counted(others) or 'no file'}"
        )
    return images, others


def find_image_files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> list[Path]:
    """Return the image files below `folder`, in order, except hidden ones.

    Links to folders are followed, but no folder is searched twice.

    Args:
        folder: The folder.
        on_error: Called with the error of each folder below that cannot be read; without it the
            first one is raised.

    Raises:
        DataError: When a folder cannot be read and there is no `on_error`.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"`{error.filename}` cannot be read. {error}") from None

    files = _visible_files(folder, on_error or fail)
    return sorted(Path(path) for path in files if path.lower().endswith(SUFFIXES))


def _visible_files(folder: Path, on_error: Callable[[OSError], None]) -> list[str]:
    """Return the paths of the files below a folder, except hidden ones, in order."""
    found: list[str] = []
    searched: set[tuple[int, int]] = set()
    left = [str(folder)]
    while left:
        parent = left.pop()
        try:
            status = Path(parent).stat()
            key = (status.st_dev, status.st_ino)
            if key in searched:
                continue
            searched.add(key)
            entries = _entries(parent)
            left += sorted((e.path for e in _visible(os.DirEntry.is_dir, entries)), reverse=True)
            found += [entry.path for entry in _visible(os.DirEntry.is_file, entries)]
        except OSError as error:
            on_error(error)
    return sorted(found)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _visible(
    kind: Callable[[os.DirEntry[str]], bool], entries: Sequence[os.DirEntry[str]]
) -> list[os.DirEntry[str]]:
    """Return the entries that are files, or folders, except hidden ones."""
    try:
        found = list(filter(kind, entries))  # much faster than one by one
    except OSError:
        found = [e for e in entries if not _is_hidden(e.name) and _is_of(kind, e)]
    return [entry for entry in found if not _is_hidden(entry.name)]


def _is_of(kind: Callable[[os.DirEntry[str]], bool], entry: os.DirEntry[str]) -> bool:
    """Return what `is_dir` or `is_file` of an entry says.

    A link to itself is neither. One that cannot be followed for another reason is taken for a file,
    which is named when it cannot be read.
    """
    try:
        return kind(entry)
    except OSError as error:
        return error.errno != errno.ELOOP and kind is os.DirEntry.is_file


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_THE_USERS


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        folders = _visible(os.DirEntry.is_dir, _entries(folder))
        return sorted(Path(entry.path) for entry in folders)
    except OSError as error:
        raise DataError(f"`{folder}` cannot be read. {error.strerror}") from None


def _subfolder_names(folder: Path) -> set[str]:
    return {path.name for path in _subfolders(folder)}


def _images(folder: Path) -> list[str]:
    """Return the names of the image files in `folder` itself."""
    files = _visible(os.DirEntry.is_file, _entries(folder))
    return [entry.name for entry in files if entry.name.lower().endswith(SUFFIXES)]


def _counted(names: Sequence[str]) -> str:
    """Return how many names have which suffix: `12 .heic, 3 .txt`."""
    counts = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix}" for suffix, count in ordered[:10])
