"""Where images come from: `load_dataset` finds, verifies and splits them.

Looks in this order: the folder that the caller names; TensorFlow Datasets (TFDS), if it has
prepared the dataset already; for Fashion-MNIST the places where Debian, Keras, torchvision and
this project's `make data` store the IDX files; last, TFDS downloads it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from pathlib import Path

import numpy as np

from siamese_keras.config import Config
from siamese_keras.data.cut import cut_dataset
from siamese_keras.data.decode import scale_to_fit
from siamese_keras.data.idx import FASHION_MNIST_SHA256, IDX_FILES, has_idx_files, read_idx_folder
from siamese_keras.data.image_folder import load_image_folder
from siamese_keras.data.local import expanded, idx_folders, tfds_folder
from siamese_keras.data.splits import Dataset, Split
from siamese_keras.data.tfds import load_tfds
from siamese_keras.errors import DataError, NotPreparedError

_log = logging.getLogger(__name__)

TEST_SHARE = 1 / 6  # of a folder of images without a test set, as Fashion-MNIST has it

FASHION_MNIST_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)


def load_dataset(
    name: str = "fashion_mnist",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation_size: int = 5000,
    image_size: int = 0,
) -> Dataset:
    """Load a dataset of classified images into memory.

    The same images give the same splits, whichever source they come from and in whatever order.

    Args:
        name: `"fashion_mnist"`; `"idx"` for the IDX files in `data_dir`, whatever they hold;
            `"folder"` for PNG and JPEG files in a subfolder of `data_dir` for each class; or the
            name of any image-classification dataset of TFDS.
        data_dir: Folder to look in, and nowhere else: one with the four IDX files, gzipped or
            not, or a TFDS data folder.
        validation_size: Number of images to hold out of the training images, in proportion to the
            size of each class.
        image_size: Height and width to resize images to, scaled to fit and centered on black; 0
            keeps their size.

    Returns:
        The images, all of one size, as a `Dataset`.

    Raises:
        DataError: When the images cannot be found, read, verified, downloaded or split.
        ArgumentError: When `validation_size` does not fit the dataset, or `image_size` is 0 for
            `"folder"`.
    """
    folder = None if data_dir is None else expanded(data_dir)
    if name == "folder":
        train, test, class_names = load_image_folder(_existing(folder, name), image_size)
    else:
        train, test, class_names = _find(name, folder)
    if name == "fashion_mnist":
        class_names = FASHION_MNIST_CLASSES
    if image_size and name != "folder":
        train, test = _resized(train, image_size), test and _resized(test, image_size)
    return cut_dataset(
        train,
        test,
        class_names,
        name=_short_name(name, folder),
        validation_size=validation_size,
        test_share=TEST_SHARE,
    )


def load_config_dataset(config: Config, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load the dataset that `config` names, split as it says; `data_dir` as in `load_dataset`."""
    return load_dataset(
        config.dataset,
        data_dir,
        validation_size=config.validation_size,
        image_size=config.image_size,
    )


def _short_name(name: str, folder: Path | None) -> str:
    """Return the name that a model of this dataset is exported under."""
    if name in ("folder", "idx") and folder is not None:
        name = folder.resolve().name
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "dataset"


def _find(name: str, data_dir: Path | None) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Return train and test images, and class names, from the first place that has them."""
    if data_dir is not None:
        _existing(data_dir, name)
        if name in ("idx", "fashion_mnist") and has_idx_files(data_dir):
            return read_idx_folder(data_dir, FASHION_MNIST_SHA256 if name != "idx" else (None,) * 4)
        if name == "idx" or not (data_dir / name).is_dir():
            raise DataError(
                f"The data folder `{data_dir}` must hold the IDX files {', '.join(IDX_FILES)} "
                f"(or the same with .gz), or {name!r} as prepared by TFDS. "
                f"It holds: {_listing(data_dir)}"
            )
        return load_tfds(name, data_dir)
    if name == "idx":
        return _find(name, _existing(data_dir, name))
    prepared = tfds_folder()
    if (prepared / name).is_dir():
        with contextlib.suppress(NotPreparedError):
            return load_tfds(name, prepared, download=False)
    if name == "fashion_mnist":
        for folder in filter(has_idx_files, idx_folders()):
            try:
                return read_idx_folder(folder, FASHION_MNIST_SHA256)
            except DataError as error:
                _log.warning("Skipping %s", error)
    return load_tfds(name, prepared)


def _existing(data_dir: Path | None, name: str) -> Path:
    if data_dir is None:
        raise DataError(f"Dataset {name!r} needs the folder of its files: name it with --data-dir.")
    if not data_dir.is_dir():
        raise DataError(f"The data folder `{data_dir}` is not a folder.")
    return data_dir


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join([*names[:8], "..."][: len(names)]) or "nothing"


def _resized(split: Split, size: int) -> Split:
    chunks = np.array_split(split.images, math.ceil(len(split.images) / 1024))
    return Split(
        np.concatenate([scale_to_fit(chunk, size, size) for chunk in chunks]), split.labels
    )
