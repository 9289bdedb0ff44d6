"""Where images come from: `load_dataset` finds, verifies and splits them.

Looks in this order: the folder that the caller names; TensorFlow Datasets (TFDS), if it has
prepared the dataset already; for Fashion-MNIST the places where Debian, Keras, torchvision and
this project's `make data` leave the IDX files; last, TFDS downloads it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import gzip
import hashlib
import logging
import math
import os
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

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

# IDX files in the order train images, train labels, test images, test labels, with the SHA-256
# of Fashion-MNIST's decompressed bytes: compressed files differ from one distributor to another.
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_FASHION_MNIST_SHA256 = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
_PROBE_SECONDS = 8


class DataError(ValueError):
    """The images cannot be had; the message names the file or place and the ways out."""


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
        name: `"fashion_mnist"`; `"idx"` for the IDX files in `data_dir`, whatever they hold; or
            the name of any image-classification dataset of TFDS.
        data_dir: Folder to look in, and nowhere else: one with the four IDX files, gzipped or
            not, or a TFDS data folder.
        validation_size: Number of images to cut off train, class by class alike.
        image_size: Height and width to resize to; 0 keeps the images' own size.
        seed: Seed of that cut.

    Returns:
        The images, all of one size, as a `Dataset`.

    Raises:
        DataError: When the images cannot be found, read, verified or downloaded.
        ValueError: When `validation_size` does not fit the dataset.
    """
    train, test, class_names = _find(name, None if data_dir is None else Path(data_dir))
    if image_size:
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
    return Dataset(train.take(np.sort(kept)), train.take(np.sort(cut)), test, class_names)


def _find(name: str, data_dir: Path | None) -> tuple[Split, Split, tuple[str, ...]]:
    """Return train, test and class names from the first place that has them."""
    if data_dir is not None:
        data_dir = data_dir.expanduser()
        if not data_dir.is_dir():
            raise DataError(f"The data folder `{data_dir}` is not a folder.")
        if name in ("idx", "fashion_mnist") and _has_idx_files(data_dir):
            return _read_idx_folder(data_dir, verify=name == "fashion_mnist")
        if name == "idx" or not (data_dir / name).is_dir():
            raise DataError(
                f"The data folder `{data_dir}` must hold the IDX files {', '.join(_IDX_FILES)} "
                f"(or the same with .gz), or {name!r} as prepared by TFDS. "
                f"It holds: {_listing(data_dir)}"
            )
        return _load_tfds(name, data_dir)
    if name == "idx":
        raise DataError("Dataset 'idx' needs the folder of its IDX files: name it by `data_dir`.")
    prepared = _tfds_folder()
    if (prepared / name).is_dir():
        with contextlib.suppress(_NotPreparedError):
            return _load_tfds(name, prepared, download=False)
    if name == "fashion_mnist":
        for folder in filter(_has_idx_files, _idx_folders()):
            try:
                return _read_idx_folder(folder, verify=True)
            except DataError as error:
                _log.warning("Left out: %s", error)
    return _load_tfds(name, prepared)


def find_local() -> Path | None:
    """Return the first folder that holds Fashion-MNIST already, or None; nothing is verified."""
    prepared = _tfds_folder() / "fashion_mnist"
    if any(prepared.glob("*/dataset_info.json")):
        return prepared
    return next(filter(_has_idx_files, _idx_folders()), None)


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


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _has_idx_files(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return all(_idx_path(folder, name) for name in _IDX_FILES)
    return False


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join([*names[:8], "..."][: len(names)]) or "nothing"


def _read_idx_folder(folder: Path, *, verify: bool) -> tuple[Split, Split, tuple[str, ...]]:
    arrays = []
    for name, sha256 in zip(_IDX_FILES, _FASHION_MNIST_SHA256, strict=True):
        path = _idx_path(folder, name)
        if path is None:
            raise DataError(f"`{folder / name}` is missing.")
        arrays.append(read_idx(path, sha256=sha256 if verify else None))
    splits = []
    for images, labels, name in zip(arrays[::2], arrays[1::2], _IDX_FILES[::2], strict=True):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise DataError(
                f"`{folder / name}` must hold [n, height, width] images with as many labels. "
                f"Received: images {list(images.shape)}, labels {list(labels.shape)}"
            )
        splits.append(Split(images[..., np.newaxis], labels.astype(np.int32)))
    train, test = splits
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"`{folder}` must hold train and test images of one size.")
    classes = 1 + max(int(split.labels.max()) for split in splits)
    return train, test, FASHION_MNIST_CLASSES if verify else tuple(map(str, range(classes)))


def read_idx(path: Path, *, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped when its name ends in `.gz`.

    The format is that of LeCun, Cortes & Burges, "The MNIST database of handwritten digits": two
    zero bytes, the type (8), the number of dimensions, each dimension as big-endian uint32, data.

    Args:
        path: The file.
        sha256: Expected SHA-256 of the decompressed bytes, in hexadecimal.

    Returns:
        uint8 array of the dimensions that the file states.

    Raises:
        DataError: When the file cannot be read, is not IDX, is cut short or is not the expected
            one; the message names it.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"`{path}` cannot be read. {error}") from None
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise DataError(f"`{path}` must be an IDX file of bytes. It begins: {content[:4].hex()}")
    header = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if len(shape) != content[3] or len(content) != header + math.prod(shape):
        raise DataError(
            f"`{path}` must hold {math.prod(shape)} bytes for the dimensions {list(shape)} that "
            f"it states. Received: {max(len(content) - header, 0)} bytes"
        )
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"`{path}` is not the published file. SHA-256: {found}, not {sha256}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class _NotPreparedError(Exception):
    """TFDS has the folder but not the dataset in it."""


def _load_tfds(
    name: str, data_dir: Path, *, download: bool = True
) -> tuple[Split, Split, tuple[str, ...]]:
    import tensorflow_datasets as tfds  # takes seconds: only where it is needed

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise DataError(f"TFDS has no dataset {name!r}. See tensorflow.org/datasets.") from None
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()):
        raise DataError(f"TFDS dataset {name!r} must have the features image and label.")
    if not builder.is_prepared():
        if not download:
            raise _NotPreparedError
        _prepare(builder, name, tfds)
    test_name = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if "train" not in builder.info.splits or test_name is None:
        raise DataError(f"TFDS dataset {name!r} must have the splits train and test.")
    if None in (shape := features["image"].shape):
        raise DataError(f"TFDS dataset {name!r} must have images of one size, not {shape}.")
    splits = []
    for split in ("train", test_name):
        columns = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        splits.append(Split(columns["image"], columns["label"].astype(np.int32)))
    names = tuple(features["label"].names)
    return splits[0], splits[1], FASHION_MNIST_CLASSES if name == "fashion_mnist" else names


def _prepare(builder: Any, name: str, tfds: Any) -> None:
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos}
    if problem := _unreachable(list(hosts.values())):
        ways = f"connect once and run it again so that TFDS can prepare {name!r}"
        if name == "fashion_mnist":
            ways += (
                ", run `make data` (needs Debian's or Ubuntu's apt-get), or name the folder of "
                "the four IDX files (from github.com/zalandoresearch/fashion-mnist) by --data-dir"
            )
        raise DataError(f"{name!r} is not on this machine and {problem}: {ways}.")
    _log.info("Downloading %s into %s by TensorFlow Datasets.", name, builder.data_path)
    try:
        builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise DataError(f"TFDS could not prepare {name!r}. {error}") from None


def _unreachable(urls: Sequence[str]) -> str | None:
    """Say which of `urls` cannot be reached, within `_PROBE_SECONDS`; TFDS itself takes minutes."""

    def probe(url: str) -> str | None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return None  # some servers refuse HEAD: the host answered
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))
        return None

    # A thread, since no time-out covers the look-up of the host's name.
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(len(urls), 1))
    probes = {pool.submit(probe, url): url for url in urls}
    done, pending = concurrent.futures.wait(probes, timeout=_PROBE_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for future in done:
        if reason := future.result():
            return f"{urllib.parse.urlsplit(probes[future]).netloc} cannot be reached ({reason})"
    for future in pending:
        return f"{urllib.parse.urlsplit(probes[future]).netloc} does not answer"
    return None


def _resized(split: Split, size: int) -> Split:
    import tensorflow as tf

    resized = [
        tf.cast(tf.round(tf.image.resize(chunk, (size, size), antialias=True)), tf.uint8).numpy()
        for chunk in np.array_split(split.images, math.ceil(len(split.images) / 1024))
    ]
    return Split(np.concatenate(resized), split.labels)


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
        if item.strip().isdecimal() and int(item) < len(names):
            unseen.add(int(item))
        elif item.strip().casefold() in names:
            unseen.add(names.index(item.strip().casefold()))
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
