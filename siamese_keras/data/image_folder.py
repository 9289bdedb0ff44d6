"""Images of your own: a folder with a subfolder of PNG and JPEG files for every class.

Not `keras.utils.image_dataset_from_directory`, whose pixels differ from those that the exported
model makes of the same file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import decode_image, fit_image
from siamese_keras.data.splits import Source, Split
from siamese_keras.errors import ArgumentError, DataError, plain_reason

_SUFFIXES = (".png", ".jpg", ".jpeg")
_VALIDATION = ("val", "valid", "validation")
_PARTS = ("train", "test", *_VALIDATION)
# What file managers and archives add beside the user's files.
_NOT_THE_USERS = ("@eaDir", "__MACOSX")


def load_image_folder(folder: Path, image_size: int) -> Source:
    """Read `folder/CLASS/*.png`, or `folder/train/CLASS/*.png` beside `folder/test/CLASS/*.png`.

    In place of `test` there may be `query` and `gallery`, for images that are searched for and
    searched in. A folder `validation`, `valid` or `val` beside these is read as well. Test classes
    are those of the training, or none of them. Images are resized by the same operations as in
    `predict` and in the exported model. Hidden files and folders are skipped.

    Args:
        folder: The folder.
        image_size: Height and width to resize the images to, at least 1.

    Returns:
        Images, uint8 `[n, image_size, image_size, 3]`, and the names of the classes: those of the
        subfolders, in order.

    Raises:
        DataError: When there are fewer than two classes, the parts' classes do not fit, or a file
            cannot be read; the message names it.
        ArgumentError: When `image_size` is not positive.
    """
    if image_size < 1:
        raise ArgumentError(
            f"`image_size` must be given for a folder of images. Received: image_size={image_size}"
        )
    read = image_reader((image_size, image_size, 3))
    search = [folder / "query", folder / "gallery"]
    has_search = all(path.is_dir() for path in search)
    parts = {"train": folder / "train", "test": search[1] if has_search else folder / "test"}
    if not all(path.is_dir() for path in parts.values()):
        found = [p.name for p in folder.iterdir() if p.name.casefold() in _PARTS and p.is_dir()]
        if "train" in map(str.casefold, found):
            raise DataError(
                f"`{folder}` must hold either `train` and `test`, or a subfolder for each class. "
                f"Received: {', '.join(sorted(found))}"
            )
        names = _class_names(folder)
        return Source(_read_classes(folder, names, names, read), None, names)
    for name in _VALIDATION:
        if (folder / name).is_dir():
            parts["validation"] = folder / name
    names_of = {part: _class_names(path) for part, path in parts.items()}
    _check_parts(parts, names_of)
    every = tuple(sorted(set().union(*names_of.values())))
    splits = {part: _read_classes(parts[part], names_of[part], every, read) for part in parts}
    test, queries = splits["test"], None
    if has_search:
        names = _class_names(search[0])
        if unknown := set(names) - set(names_of["test"]):
            raise DataError(
                f"`{search[0]}` must have classes of `{search[1]}`. Received: {_shortened(unknown)}"
            )
        query = _read_classes(search[0], names, every, read)
        queries = np.repeat([True, False], [len(query), len(test)])
        test = Split(
            np.concatenate([query.images, test.images]), np.concatenate([query.labels, test.labels])
        )
    return Source(splits["train"], test, every, splits.get("validation"), queries)


def _check_parts(parts: Mapping[str, Path], names_of: Mapping[str, tuple[str, ...]]) -> None:
    """Raise unless every part has the training classes, or none of them and none of the others'."""
    train, test = set(names_of["train"]), set(names_of["test"])
    open_set = not train & test
    for part, names in names_of.items():
        others = set().union(*(names_of[other] for other in names_of if other != part))
        if set(names) != train if not open_set else set(names) & others:
            raise DataError(
                f"`{parts['train']}` and `{parts[part]}` must have the same classes, or all parts "
                f"different ones. Received: {_shortened(train)} and {_shortened(names)}"
            )


def _shortened(names: Collection[str]) -> str:
    return ", ".join([*sorted(names)[:10], "..."][: len(names)])


def find_image_files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> list[Path]:
    """Return the PNG and JPEG files below `folder`, in order, but for hidden ones.

    Args:
        folder: The folder.
        on_error: Called with the error of each folder below that cannot be read; without it the
            first one is raised.

    Raises:
        DataError: When a folder cannot be read and there is no `on_error`.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"`{error.filename}` cannot be read. {error}") from None

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=on_error or fail):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        paths = (Path(parent, name) for name in names if not _is_hidden(name))
        try:
            found += [p for p in paths if p.suffix.lower() in _SUFFIXES and p.is_file()]
        except OSError as error:  # names can be read, files cannot
            (on_error or fail)(error)
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_THE_USERS


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)))
    if len(names) < 2:
        raise DataError(
            f"`{folder}` must have a subfolder for each of at least two classes. "
            f"Received: {', '.join(names) or 'none'}"
        )
    return names


def _read_classes(
    folder: Path, names: Sequence[str], every: Sequence[str], read: Callable[[Path], np.ndarray]
) -> Split:
    """Read the subfolders `names`; an image's label is its class's place in `every`."""
    label_of = {name: label for label, name in enumerate(every)}
    images: list[np.ndarray] = []
    labels: list[int] = []
    for name in names:
        files = _class_files(folder / name)
        images += map(read, files)
        labels += [label_of[name]] * len(files)
    return Split(np.stack(images), np.array(labels, np.int32))


def _class_files(folder: Path) -> Sequence[Path]:
    files = find_image_files(folder)
    if not files:
        raise DataError(f"`{folder}` must hold PNG or JPEG files.")
    return files


def image_reader(shape: tuple[int, int, int]) -> Callable[[Path], np.ndarray]:
    """Return a function that reads a PNG or JPEG file and brings it to one shape.

    Args:
        shape: Height, width and channels, as for `fit_image`.

    Returns:
        Function of a path that gives uint8 `[height, width, channels]`, and raises `DataError` with
        the path when the file cannot be read.
    """

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(content: tf.Tensor) -> tf.Tensor:
        return fit_image(decode_image(content), shape)

    def read(path: Path) -> np.ndarray:
        try:
            return decode(path.read_bytes()).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise DataError(f"`{path}` cannot be read. {plain_reason(error.message)}") from None
        except OSError as error:
            raise DataError(f"`{path}` cannot be read. {error}") from None

    return read
