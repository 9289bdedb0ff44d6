"""Images of one's own: a folder with a subfolder of PNG and JPEG files for every class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from siamese_keras.data.decode import decode_image, fit_image
from siamese_keras.errors import DataError
from siamese_keras.serving.client import plain_reason

_SUFFIXES = (".png", ".jpg", ".jpeg")
_TEST_SHARE = 1 / 6
_PARTS = ("train", "test", "val", "valid", "validation")


def load_image_folder(
    folder: Path, image_size: int, *, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Read `folder/CLASS/*.png`, or `folder/train/CLASS/*.png` beside `folder/test/CLASS/*.png`.

    Images are brought to one size as `predict` and the exported model do it.

    Args:
        folder: The folder. Without `train` and `test` in it, a sixth of each class is the test.
        image_size: Height and width to bring the images to, at least 1.
        seed: Seed of that cut.

    Returns:
        (images, labels) of train and of test, images uint8 `[n, image_size, image_size, 3]`, labels
        int32 `[n]`, and the names of the classes: those of the subfolders, in order.

    Raises:
        DataError: When there are fewer than two classes, train and test have different ones, a
            class has too few images, or a file cannot be read; the message names it.
        ValueError: When `image_size` is not positive.
    """
    if image_size < 1:
        raise ValueError(
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
    parted = [p.name for p in folder.iterdir() if p.name.casefold() in _PARTS and p.is_dir()]
    if "train" in parted:
        raise DataError(
            f"`{folder}` must hold either `train` and `test`, or a subfolder for each class. "
            f"Received: {', '.join(sorted(parted))}"
        )
    (images, labels), names = _read_classes(folder, read)
    try:
        train_rows, test_rows = train_test_split(
            np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(f"`{folder}` has too few images to cut off a test set. {error}") from None
    train_rows, test_rows = np.sort(train_rows), np.sort(test_rows)
    return (images[train_rows], labels[train_rows]), (images[test_rows], labels[test_rows]), names


def _read_classes(
    folder: Path, read: Callable[[Path], np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    if len(names) < 2:
        raise DataError(
            f"`{folder}` must have a subfolder for each of two classes or more. "
            f"Received: {', '.join(names) or 'none'}"
        )
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _image_files(folder / name)
        images += map(read, files)
        labels += [label] * len(files)
    return (np.stack(images), np.array(labels, np.int32)), names


def _image_files(folder: Path) -> Sequence[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
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
