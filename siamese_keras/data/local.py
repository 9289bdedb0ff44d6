"""Where datasets may lie on this machine already. Importing it does not load TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from siamese_keras.data.idx import has_idx_files
from siamese_keras.files import expanded


def find_local() -> Path | None:
    """Return the first folder that holds Fashion-MNIST already, or None; nothing is verified."""
    prepared = tfds_folder() / "fashion_mnist"
    if any(prepared.glob("*/dataset_info.json")):
        return prepared
    return next(filter(has_idx_files, idx_folders()), None)


def tfds_folder() -> Path:
    """Return the data folder of TensorFlow Datasets."""
    return expanded(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))


def idx_folders() -> Iterable[Path]:
    """Yield the folders in which Fashion-MNIST's IDX files may lie."""
    home = expanded("~")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    keras_home = Path(os.environ.get("KERAS_HOME") or home / ".keras")
    yield cache / "siamese_keras" / "fashion-mnist"  # `make data`
    yield Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
    yield keras_home / "datasets" / "fashion-mnist"
    for root in (Path(), Path("data"), home / "data"):  # torchvision, by its customary roots
        yield root / "FashionMNIST" / "raw"
