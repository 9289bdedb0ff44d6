"""Where images come from: `load_dataset` finds, verifies and splits them.

Looks in this order: the folder that the caller names; TensorFlow Datasets (TFDS), if it has
prepared the dataset already; for Fashion-MNIST the places where Debian, Keras, torchvision and
this project's `make data` leave the IDX files; last, TFDS downloads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from siamese_keras.data.decode import scale_to_fit
from siamese_keras.data.idx import FASHION_MNIST_SHA256, IDX_FILES, has_idx_files, read_idx_folder
from siamese_keras.data.image_folder import load_image_folder
from siamese_keras.data.tfds import NotPreparedError, load_tfds
from siamese_keras.errors import DataError

_log = logging.getLogger(__name__)

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


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes:
        images: uint8 `[n, height, width, channels]`, 0 to 255.
        labels: int32 `[n]`, indices into the dataset's `class_names`.
    """

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Split:
        """Return the images and labels at `indices`, a list of indices or a boolean mask."""
        return Split(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset cut into disjoint splits; `class_names[label]` is a label's name."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of train, validation and test images."""
        return len(self.train.labels), len(self.validation.labels), len(self.test.labels)


def load_dataset(
    name: str = "fashion_mnist",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation_size: int = 5000,
    image_size: int = 0,
    seed: int = 0,
) -> Dataset:
    """Load a dataset of classified images into memory.

    Args:
        name: `"fashion_mnist"`; `"idx"` for the IDX files in `data_dir`, whatever they hold;
            `"folder"` for PNG and JPEG files in a subfolder of `data_dir` for each class; or the
            name of any image-classification dataset of TFDS.
        data_dir: Folder to look in, and nowhere else: one with the four IDX files, gzipped or
            not, or a TFDS data folder.
        validation_size: Number of images to cut off train, class by class alike.
        image_size: Height and width to bring images to, scaled to fit and centred on black; 0
            keeps their own size.
        seed: Seed of that cut.

    Returns:
        The images, all of one size, as a `Dataset`.

    Raises:
        DataError: When the images cannot be found, read, verified or downloaded.
        ValueError: When `validation_size` does not fit the dataset, or `image_size` is 0 for
            `"folder"`.
    """
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if name == "folder":
        *arrays, class_names = load_image_folder(_existing(folder, name), image_size, seed=seed)
    else:
        *arrays, class_names = _find(name, folder)
    train, test = (Split(images, labels) for images, labels in arrays)
    if name == "fashion_mnist":
        class_names = FASHION_MNIST_CLASSES
    if image_size and name != "folder":
        train, test = (_resized(split, image_size) for split in (train, test))
    classes = len(np.unique(train.labels))
    if not classes <= validation_size <= len(train.labels) - classes:
        raise ValueError(
            f"`validation_size` must be between {classes} and {len(train.labels) - classes} for "
            f"{len(train.labels)} images of {classes} classes. Received: "
            f"validation_size={validation_size}"
        )
    try:
        kept, cut = train_test_split(
            np.arange(len(train.labels)),
            test_size=validation_size,
            stratify=train.labels,
            random_state=seed,
        )
    except ValueError as error:  # a class with a single image
        raise DataError(f"Dataset {name!r} cannot be split. {error}") from None
    validation = train.take(np.sort(cut))
    if np.unique(validation.labels, return_counts=True)[1].min() < 2:
        raise ValueError(
            "`validation_size` must be large enough for two images of each class. Received: "
            f"validation_size={validation_size}"
        )
    return Dataset(train.take(np.sort(kept)), validation, test, class_names)


_Arrays = tuple[np.ndarray, np.ndarray]


def _find(name: str, data_dir: Path | None) -> tuple[_Arrays, _Arrays, tuple[str, ...]]:
    """Return (images, labels) of train and test, and class names, from the first place found."""
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
    prepared = _tfds_folder()
    if (prepared / name).is_dir():
        with contextlib.suppress(NotPreparedError):
            return load_tfds(name, prepared, download=False)
    if name == "fashion_mnist":
        for folder in filter(has_idx_files, _idx_folders()):
            try:
                return read_idx_folder(folder, FASHION_MNIST_SHA256)
            except DataError as error:
                _log.warning("Left out: %s", error)
    return load_tfds(name, prepared)


def _existing(data_dir: Path | None, name: str) -> Path:
    if data_dir is None:
        raise DataError(f"Dataset {name!r} needs the folder of its files: name it by --data-dir.")
    if not data_dir.is_dir():
        raise DataError(f"The data folder `{data_dir}` is not a folder.")
    return data_dir


def find_local() -> Path | None:
    """Return the first folder that holds Fashion-MNIST already, or None; nothing is verified."""
    prepared = _tfds_folder() / "fashion_mnist"
    if any(prepared.glob("*/dataset_info.json")):
        return prepared
    return next(filter(has_idx_files, _idx_folders()), None)


def _tfds_folder() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _idx_folders() -> Iterable[Path]:
    home = Path.home()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    keras_home = Path(os.environ.get("KERAS_HOME") or home / ".keras")
    yield cache / "siamese_keras" / "fashion-mnist"  # `make data`
    yield Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
    yield keras_home / "datasets" / "fashion-mnist"
    for root in (Path(), Path("data"), home / "data"):  # torchvision, by its customary roots
        yield root / "FashionMNIST" / "raw"


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join([*names[:8], "..."][: len(names)]) or "nothing"


def _resized(split: Split, size: int) -> Split:
    chunks = np.array_split(split.images, math.ceil(len(split.images) / 1024))
    return Split(
        np.concatenate([scale_to_fit(chunk, size, size) for chunk in chunks]), split.labels
    )


def split_unseen(dataset: Dataset, unseen_classes: Sequence[str]) -> tuple[Dataset, Split | None]:
    """Part the classes to train on from those that the model is not to see.

    Args:
        dataset: All classes.
        unseen_classes: Names or numbers of the classes to hold out; none is allowed.

    Returns:
        The dataset without these classes, and the test images of these classes, or None when none
        are held out. Labels and `class_names` stay as they were.

    Raises:
        ValueError: When a class is unknown, or fewer than two classes are on either side.
    """
    if not unseen_classes:
        return dataset, None
    names = [name.casefold() for name in dataset.class_names]
    unseen = set()
    for item in unseen_classes:
        if item.strip().casefold() in names:  # first, since a name may be a number
            unseen.add(names.index(item.strip().casefold()))
        elif item.strip().isdecimal() and int(item) < len(names):
            unseen.add(int(item))
        else:
            raise ValueError(
                f"`unseen_classes` must be among {', '.join(dataset.class_names)} or their numbers "
                f"from 0. Received: {item!r}"
            )
    held_out = np.array(sorted(unseen))
    if len(unseen) < 2 or len(set(np.unique(dataset.train.labels)) - unseen) < 2:
        raise ValueError(
            "`unseen_classes` must hold out at least two classes and leave at least two. "
            f"Received: {', '.join(unseen_classes)}"
        )

    def seen(split: Split) -> Split:
        return split.take(~np.isin(split.labels, held_out))

    test = dataset.test.take(np.isin(dataset.test.labels, held_out))
    return (
        Dataset(
            seen(dataset.train), seen(dataset.validation), seen(dataset.test), dataset.class_names
        ),
        test,
    )
