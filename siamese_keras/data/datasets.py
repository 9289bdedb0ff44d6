"""Where images come from: `load_dataset` finds, verifies and splits them.

Looks in this order: the folder that the caller names; TensorFlow Datasets (TFDS), if it has
prepared the dataset already; for Fashion-MNIST the places where Debian, Keras, torchvision and
this project's `make data` store the IDX files; last, TFDS downloads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siamese_keras.config import ColorMode, Config
from siamese_keras.data.csv_files import load_csv
from siamese_keras.data.cut import MIN_IMAGES, cut_dataset
from siamese_keras.data.decode import scale_to_fit
from siamese_keras.data.idx import (
    FASHION_MNIST_SHA256,
    IDX_FILES,
    find_idx_files,
    has_idx_files,
    read_idx_folder,
)
from siamese_keras.data.image_folder import load_image_folder
from siamese_keras.data.local import idx_folders, tfds_folder
from siamese_keras.data.npz import load_npz
from siamese_keras.data.open_set import (
    DEFAULT_SHARE,
    MIN_CLASSES,
    class_share,
    cut_classes,
    cut_validation_classes,
)
from siamese_keras.data.splits import Dataset, Source, Split, join_splits
from siamese_keras.data.tfds import load_tfds
from siamese_keras.errors import (
    ArgumentError,
    DataError,
    NotPreparedError,
    check_choice,
    check_count,
)
from siamese_keras.files import check_outside, expanded
from siamese_keras.progress import Progress

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
    validation_size: int = 0,
    image_size: int = 0,
    color_mode: ColorMode = "auto",
    strict: bool = False,
    unseen_classes: Sequence[str | int] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a dataset of classified images.

    The same images give the same splits, whichever source they come from and in whatever order.

    For the open-set protocol whole classes are held out: `train`, `validation` and `test` of the
    dataset then have no class in common. This happens in three cases: the dataset brings its own
    test images, of other classes; `unseen_classes` is set and at least 20 classes remain; or there
    are at least 25 classes, one of them with fewer than six images, and no validation or test
    images: then a fifth of the classes is held out for the test.

    Args:
        name: `"fashion_mnist"`; `"folder"` for image files in a subfolder of `data_dir` for each
            class; `"csv"` for a CSV file of paths and labels, or of pixels; `"npz"` for an .npz
            file of x_train, y_train, x_test and y_test; `"idx"` for the IDX files in `data_dir`,
            whatever they hold; or the name of any image-classification dataset of TFDS.
        data_dir: Folder to look in, and nowhere else: one of images, one with the four IDX files,
            gzipped or not, or a TFDS data folder. For `"csv"` and `"npz"` the file.
        validation_size: Number of images to hold out of the training images, in proportion to the
            size of each class, or as whole classes for the open-set protocol. 0 takes a twelfth of
            them; of fewer than 6,000 up to 500, but no more than a fifth.
        image_size: Height and width to resize images to, scaled to fit and centered on black; 0
            keeps their size, but of image files takes the median of their smaller sides, at most
            64.
        color_mode: Channels of image files: `"rgb"`, `"grayscale"`, or `"auto"` for grayscale if
            all images are gray.
        strict: Refuse image files that cannot be read, which are skipped with a warning otherwise.
        unseen_classes: Names or numbers of the test classes, or a share of all classes, such as
            `["20%"]`. If fewer than 20 other classes remain, images are split within
            classes, and `hold_out_classes` removes the unseen ones later.
        cache_dir: Folder for the decoded pixels of image files. Training then reads them from disk,
            and needs no memory for them; and they are not decoded again until a file or a setting
            changes. None keeps them in memory.
        progress: Called with how many image files are read and how many there are.

    Returns:
        The images, all of one size, as a `Dataset`.

    Raises:
        DataError: When the images cannot be found, read, verified, downloaded or split.
        ArgumentError: When `validation_size` does not fit the dataset, a class is unknown,
            `unseen_classes` is a string, or `cache_dir`, `color_mode` or `strict` is given for a
            dataset without image files.
    """
    check_choice("color_mode", color_mode, ColorMode)
    check_count("image_size", image_size, least=0)
    check_count("validation_size", validation_size, least=0)
    if isinstance(unseen_classes, str):
        raise ArgumentError(
            f"`unseen_classes` must be a list of classes. Received: {unseen_classes!r}"
        )
    unseen = tuple(map(str, unseen_classes))
    if data_dir is not None and "://" in os.fspath(data_dir):
        raise DataError(f"`data_dir` must be a path on this machine. Received: {data_dir}")
    folder = None if data_dir is None else expanded(data_dir)
    if cache_dir is not None and name not in ("folder", "csv"):
        raise ArgumentError(
            f"`cache_dir` is for image files, datasets folder and csv. Received: dataset {name}"
        )
    if (color_mode != "auto" or strict) and name not in ("folder", "csv"):
        setting = "strict" if color_mode == "auto" else "color_mode"
        raise ArgumentError(
            f"`{setting}` is for image files, datasets folder and csv. Received: dataset {name}"
        )
    if name in ("folder", "csv"):
        load = load_image_folder if name == "folder" else load_csv
        path = _existing(folder, name)
        cache = None if cache_dir is None else expanded(cache_dir)
        if name == "folder" and cache is not None:
            check_outside(path, cache, "cache_dir")
        source = load(
            path, image_size, color_mode=color_mode, strict=strict, cache_dir=cache,
            progress=progress,
        )  # fmt: skip
    elif name == "npz":
        source = load_npz(_existing(folder, name))
    else:
        source = _find(name, folder)
    if name == "fashion_mnist":
        source = dataclasses.replace(source, class_names=FASHION_MNIST_CLASSES)
    if image_size and source.train.images.shape[1:3] != (image_size, image_size):
        test, validation = (
            None if split is None else _resized(split, image_size)
            for split in (source.test, source.validation)
        )
        train = _resized(source.train, image_size)
        source = dataclasses.replace(source, train=train, test=test, validation=validation)
    dataset = _cut(source, _short_name(name, folder), validation_size, unseen)
    height, width, channels = dataset.image_shape
    if name in ("folder", "csv"):  # so that its images are the same when files are added
        image_size = height if height == width else image_size
        color_mode = "grayscale" if channels == 1 else "rgb"
    settings = {
        "dataset": name,
        "validation_size": validation_size,
        "image_size": image_size,
        "color_mode": color_mode,
        "strict": strict,
        "unseen_classes": unseen,
    }
    return dataclasses.replace(dataset, superclasses=source.superclasses, settings=settings)


def _cut(source: Source, name: str, validation_size: int, unseen_classes: Sequence[str]) -> Dataset:
    """Cut the images into splits, by class where that is asked for or cannot be helped."""
    test = source.test
    if test is not None and not np.isin(test.labels, source.train.labels).any():
        if unseen_classes and class_share(unseen_classes[0], source.class_names) is not None:
            raise ArgumentError(
                "`unseen_classes` must not be a share of the classes where the data have test "
                f"classes of their own. Received: {', '.join(unseen_classes)}"
            )
        return cut_validation_classes(source, test, name=name, validation_size=validation_size)
    _, count = np.unique(source.train.labels, return_counts=True)
    given = [s for s in (source.train, source.validation, source.test) if s is not None]
    needed = MIN_IMAGES * 3  # for train, validation and test, all of which are cut here
    is_free = not unseen_classes and len(given) == 1
    if is_free and count.min() < needed and len(count) * 0.8 >= MIN_CLASSES:
        unseen_classes = [DEFAULT_SHARE]
        _log.info(
            "Some classes have fewer than %d images, too few to hold out images of each: %s of the "
            "classes are held out instead.",
            needed,
            DEFAULT_SHARE,
        )
    if unseen_classes and source.queries is None:
        dataset = cut_classes(
            join_splits(given),
            source.class_names,
            unseen_classes,
            name=name,
            validation_size=validation_size,
        )
        if dataset is not None:
            if len(given) > 1:
                _log.info(
                    "The given validation and test images are pooled with the training images, and "
                    "all are split by class."
                )
            return dataset
    return cut_dataset(source, name=name, validation_size=validation_size, test_share=TEST_SHARE)


def load_config_dataset(
    config: Config,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load the dataset that `config` names, split as it says; the others as in `load_dataset`."""
    return load_dataset(
        config.dataset,
        data_dir,
        validation_size=config.validation_size,
        image_size=config.image_size,
        color_mode=config.color_mode,
        strict=config.strict,
        unseen_classes=config.unseen_classes,
        cache_dir=cache_dir,
        progress=progress,
    )


def _short_name(name: str, folder: Path | None) -> str:
    """Return the name that a model of this dataset is exported under."""
    if name in ("folder", "csv", "npz", "idx") and folder is not None:
        name = folder.resolve().stem if folder.is_file() else folder.resolve().name
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "dataset"


def _find(name: str, data_dir: Path | None) -> Source:
    """Return what the dataset holds, from the first place that has them."""
    if data_dir is not None:
        _existing(data_dir, name)
        if name in ("idx", "fashion_mnist") and (
            has_idx_files(data_dir) or find_idx_files(data_dir) is not None
        ):
            digests = FASHION_MNIST_SHA256 if name != "idx" else (None,) * 4
            return Source(*read_idx_folder(data_dir, digests))
        if name == "idx" or not (data_dir / name).is_dir():
            raise DataError(
                f"The data folder `{data_dir}` must hold the IDX files {', '.join(IDX_FILES)} "
                f"(or the same with .gz), or {name!r} as prepared by TFDS. "
                f"It holds: {_listing(data_dir)}"
            )
        return load_tfds(name, data_dir)
    if name == "idx":
        return _find(name, _existing(data_dir, name))
    return load_local(name) or load_tfds(name, tfds_folder())


def load_local(name: str) -> Source | None:
    """Return a dataset that is on this machine where TFDS or others store it; download nothing."""
    prepared = tfds_folder()
    if (prepared / name).is_dir():
        with contextlib.suppress(NotPreparedError):
            return load_tfds(name, prepared, download=False)
    if name == "fashion_mnist":
        for folder in filter(has_idx_files, idx_folders()):
            try:
                return Source(*read_idx_folder(folder, FASHION_MNIST_SHA256))
            except DataError as error:
                _log.warning("Skipping %s", error)
    return None


def _existing(data_dir: Path | None, name: str) -> Path:
    """Return the folder of a dataset, or the file where it is one, or raise."""
    is_file = name in ("csv", "npz")
    if data_dir is None:
        where = "file" if is_file else "folder of its files"
        raise DataError(f"Dataset {name!r} needs the {where}: name it with --data-dir.")
    if is_file and data_dir.is_file():
        return data_dir
    if name != "npz" and data_dir.is_dir():
        return data_dir
    if not data_dir.exists():
        raise DataError(f"`{data_dir}` does not exist: --data-dir must name the data.")
    suffix = data_dir.suffix.lower().removeprefix(".")
    if data_dir.is_file():
        hint = f" For it use --dataset {suffix}." if suffix in ("csv", "npz") else ""
        raise DataError(f"`{data_dir}` must be a folder for dataset {name!r}.{hint}")
    raise DataError(f"`{data_dir}` must be an .npz file for dataset {name!r}. Received: a folder")


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join([*names[:8], "..."][: len(names)]) or "nothing"


def _resized(split: Split, size: int) -> Split:
    chunks = np.array_split(split.images, math.ceil(len(split.images) / 1024))
    return Split(
        np.concatenate([scale_to_fit(chunk, size, size) for chunk in chunks]), split.labels
    )
