"""Where the tests of data find some: copies that may be damaged, photos, and the real files."""

import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import SAMPLE

from siamese_keras import Dataset
from siamese_keras.data.idx import IDX_FILES, has_idx_files
from siamese_keras.data.local import idx_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the sample that may be damaged."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "sample"))


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """A function that writes the four IDX files to a folder and returns it."""

    def write(folder: Path, *arrays: np.ndarray) -> Path:
        folder.mkdir(parents=True)
        for name, array in zip(IDX_FILES, arrays, strict=True):
            dimensions = np.array(array.shape, ">u4").tobytes()
            header = bytes([0, 0, 8, array.ndim]) + dimensions
            (folder / name).write_bytes(header + array.astype(np.uint8).tobytes())
        return folder

    return write


@pytest.fixture
def photos(tmp_path: Path, sample: Dataset) -> Path:
    """A folder of 12 images of each of three classes, as PNG and JPEG, gray and in color."""
    for label, name in enumerate(("boot", "bag", "coat")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        chosen = sample.train.images[sample.train.labels == label][:12]
        for i, image in enumerate(chosen):
            path = tmp_path / "photos" / name / f"{i:02d}"
            if i % 2:
                path.with_suffix(".png").write_bytes(tf.io.encode_png(image).numpy())
            else:
                color = np.repeat(image, 3, axis=2)
                path.with_suffix(".JPG").write_bytes(tf.io.encode_jpeg(color, quality=99).numpy())
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def fashion_mnist_folder() -> Path:
    """The folder of the published files, wherever `make data` or another program has put it."""
    found = next(filter(has_idx_files, idx_folders()), None)
    if found is None:
        reason = "the IDX files of Fashion-MNIST are not on this machine: run `make data`"
        (pytest.fail if "CI" in os.environ else pytest.skip)(reason)
    return found.resolve()


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home and current folder of a machine without any dataset."""
    for name in ("XDG_CACHE_HOME", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    # No variable moves Debian's folder out of the way.
    monkeypatch.setattr(
        "siamese_keras.data.datasets.idx_folders",
        lambda: [path for path in idx_folders() if not path.is_relative_to("/usr")],
    )
    return home


@pytest.fixture
def use_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that sends every request to an address, or to none when it is empty."""

    def use(address: str) -> None:
        proxies = dict.fromkeys(("http", "https"), address) if address else {}
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        handler = urllib.request.ProxyHandler(proxies)
        urllib.request.install_opener(urllib.request.build_opener(handler))

    yield use
    urllib.request.install_opener(None)  # the next request makes one of the environment


@pytest.fixture
def no_network(use_proxy: Callable[[str], None]) -> None:
    """Refuse every request at once, whatever network the machine has."""
    use_proxy("http://127.0.0.1:9")
