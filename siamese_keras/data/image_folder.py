"""Images of your own: a folder with a subfolder of PNG and JPEG files for every class.

Not `keras.utils.image_dataset_from_directory`, whose pixels differ from those that the exported
model makes of the same file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import decode_image, fit_image
from siamese_keras.data.splits import Split
from siamese_keras.errors import ArgumentError, DataError, plain_reason

_SUFFIXES = (".png", ".jpg", ".jpeg")
_PARTS = ("train", "test", "val", "valid", "validation")
# What file managers and archives add beside the user's files.
_NOT_THE_USERS = ("@eaDir", "__MACOSX")


def load_image_folder(folder: Path, image_size: int) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Read `folder/CLASS/*.png`, or `folder/train/CLASS/*.png` beside `folder/test/CLASS/*.png`.

    Images are resized by the same operations as in `predict` and in the exported model. Hidden
    files and folders are skipped.

    Args:
        folder: The folder.
        image_size: Height and width to resize the images to, at least 1.

    Returns:
        Train images, uint8 `[n, image_size, image_size, 3]`; test images, or None when there is no
        `test` folder; and the names of the classes: those of the subfolders, in order.

    Raises:
        DataError: When there are fewer than two classes, train and test have different ones, or a
            file cannot be read; the message names it.
        ArgumentError: When `image_size` is not positive.
    """
    if image_size < 1:
        raise ArgumentError(
            f"`image_size` must be given for a folder of images. Received: image_size={image_size}"
        )
    read = _reader(image_size)
    parts = [folder / "train", folder / "test"]
    if all(part.is_dir() for part in parts):
        (train, names), (test, test_names) = (_read_classes(part, read) for part in parts)
        if names != test_names:
            raise DataError(
                f"`{parts[0]}` and `{parts[1]}` must have the same classes. Received: "
                f"{', '.join(names)} and {', '.join(test_names)}"
            )
        return train, test, names
    found = [p.name for p in folder.iterdir() if p.name.casefold() in _PARTS and p.is_dir()]
    if "train" in map(str.casefold, found):
        raise DataError(
            f"`{folder}` must hold either `train` and `test`, or a subfolder for each class. "
            f"Received: {', '.join(sorted(found))}"
        )
    whole, names = _read_classes(folder, read)
    return whole, None, names


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


def _read_classes(
    folder: Path, read: Callable[[Path], np.ndarray]
) -> tuple[Split, tuple[str, ...]]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)))
    if len(names) < 2:
        raise DataError(
            f"`{folder}` must have a subfolder for each of at least two classes. "
            f"Received: {', '.join(names) or 'none'}"
        )
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _class_files(folder / name)
        images += map(read, files)
        labels += [label] * len(files)
    return Split(np.stack(images), np.array(labels, np.int32)), names


def _class_files(folder: Path) -> Sequence[Path]:
    files = find_image_files(folder)
    if not files:
        raise DataError(f"`{folder}` must hold PNG or JPEG files.")
    return files


def _reader(image_size: int) -> Callable[[Path], np.ndarray]:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(content: tf.Tensor) -> tf.Tensor:
        return fit_image(decode_image(content), (image_size, image_size, 3))

    def read(path: Path) -> np.ndarray:
        try:
            return decode(path.read_bytes()).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise DataError(f"`{path}` cannot be read. {plain_reason(error.message)}") from None
        except OSError as error:
            raise DataError(f"`{path}` cannot be read. {error}") from None

    return read
