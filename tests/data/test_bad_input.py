"""Bad input, by kind: one line that names the file or the argument, what is expected, what came."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import SAMPLE
from PIL import Image

from siamese_keras.data.datasets import load_dataset
from siamese_keras.data.idx import IDX_FILES
from siamese_keras.errors import SiameseKerasError

RNG = np.random.default_rng(0)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (9, 9), np.uint8)).save(path)


def folder(*names: str, count: int = 6):
    """Make a folder with `count` images in each subfolder of these names."""

    def build(root: Path) -> Path:
        for name in names:
            for i in range(count):
                image(root / name / f"{i}.png")
        return root

    return build


def with_file(build, name: str, content: bytes):
    def built(root: Path) -> Path:
        path = build(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return root

    return built


def with_folder(build, name: str):
    def built(root: Path) -> Path:
        (build(root) / name).mkdir(parents=True)
        return root

    return built


def text(name: str, content: str | bytes):
    def build(root: Path) -> Path:
        image(root / "a.png")
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root / name

    return build


def npz(**arrays):
    def build(root: Path) -> Path:
        root.mkdir(exist_ok=True)
        np.savez(root / "data.npz", **arrays)
        return root / "data.npz"

    return build


def idx(index: int, content: bytes | None):
    """The sample with one of its four files replaced, or removed."""

    def build(root: Path) -> Path:
        root.mkdir(exist_ok=True)
        for i, name in enumerate(IDX_FILES):
            raw = gzip.decompress((SAMPLE / f"{name}.gz").read_bytes())
            if i != index or content is not None:
                (root / name).write_bytes(content if i == index else raw)
        return root

    return build


def two_sets(root: Path) -> Path:
    for name in ("letters", "digits"):
        root.mkdir(exist_ok=True)
        for file in IDX_FILES:
            (root / f"emnist-{name}-{file.replace('t10k', 'test')}").touch()
    return root


X, Y = np.zeros((20, 8, 8), np.uint8) + 9, np.arange(20) % 2
PIXELS = "label," + ",".join(f"pixel{i}" for i in range(4)) + "\n"

ROWS = [
    # Folders
    ("folder", folder(), "a", r"does not exist: --data-dir must name"),
    ("folder", with_folder(folder(), "x"), "", r"at least two classes\. Received: x"),
    ("folder", folder("cat"), "", r"at least two classes\. Received: cat"),
    ("folder", folder("."), "", r"Received: none, and 6 image files in no subfolder"),
    ("folder", with_folder(folder("cat", "dog"), "cow"), "", r"cow` must hold .*: no file"),
    ("folder", with_file(folder("cat", "dog"), "cow/1.heic", b""), "", r"cow` .*: 1 \.heic"),
    ("folder", with_file(folder("cat", "dog"), "cow/1.png", b"oh"), "", r"'cow' in the train im"),
    ("folder", folder("cat", "dog", count=1), "", r"needs 6 training .*: cat \(1\), dog \(1\)"),
    ("folder", folder("train", "val"), "", r"either `train`, with a subfolder .*: train, val"),
    ("folder", folder("test/cat", "test/dog", "val/cat", "val/dog"), "", r"either `train`"),
    ("folder", folder("train/cat", "train/dog", "test/cat"), "", r"Only in train: dog\. Only in t"),
    ("folder", folder("train/cat", "train/dog", "val/cat", "val/cow"), "", r"Only in val.*: cow"),
    ("folder", folder("train/a", "train/b", "val/a", "valid/a"), "", r"one folder of valid.*val, "),
    ("folder", folder("x/cat", "x/dog", "y/cat", "y/dog"), "", r"x, y all hold cat, dog"),
    ("folder", text("file.txt", "x"), "", r"file\.txt` must be a folder for dataset 'folder'"),
    ("folder", text("list.csv", "path,label\n"), "", r"For it use --dataset csv"),
    # CSV files
    ("csv", text("data.csv", ""), "", r"Missing: path\. It begins: nothing"),
    (
        "csv",
        text("data.csv", "path,label\n"),
        "",
        r"must list image files\. Received: only a header",
    ),
    ("csv", text("data.csv", "file,label\na.png,x\n"), "", r"Missing: path\. It begins: file, lab"),
    ("csv", text("data.csv", "path,breed\na.png,x\n"), "", r"Missing: label"),
    ("csv", text("data.csv", "path,label\na.png\n"), "", r"line 2: expected 2 values.*: 1"),
    ("csv", text("data.csv", "path,label\na.png,\n"), "", r"line 2: path and label must not be em"),
    ("csv", text("data.csv", "path,label,split\na.png,x,7\n"), "", r"line 2: split must.*'7'"),
    ("csv", text("data.csv", "path,label\nb.png,x\n"), "", r"None of the 1 files .*b\.png"),
    ("csv", text("data.csv", "path,label\na.png,x\n"), "", r"at least two classes\. Received: x"),
    ("csv", text("data.csv", PIXELS), "", r"must hold images, 5 values .* only a header"),
    ("csv", text("data.csv", PIXELS + "1,2,3,4,999\n"), "", r"0 to 255\. Line 2 holds 1 to 999"),
    ("csv", text("data.csv", PIXELS + "0,2,3,4,5\n-1,2,3,4,5\n"), "", r"Line 3 holds -1 to 5"),
    (
        "csv",
        text("data.csv", PIXELS + "1,2,3,4\n"),
        "",
        r"5 values in .*Received: 4 values",
    ),
    ("csv", text("data.csv", PIXELS + "1,2,3,4,x\n"), "", r"data\.csv` must hold numbers"),
    (
        "csv",
        text("data.csv", b"\x89PNG\r\n\x1a\n\0\0\0\xff\xfe"),
        "",
        r"csv` must have a hea",
    ),
    ("csv", folder("a"), "", r"must hold one CSV file.*Received: no CSV file"),
    # Files of arrays
    ("npz", npz(a=X), "", r"data\.npz` must hold the arrays x_train .*: a"),
    ("npz", npz(x_train=X), "", r"must hold y_train too\. Received: x_train"),
    ("npz", npz(x_train=X / 255, y_train=Y), "", r"x_train and y_train: .*divide by 255.*float64"),
    ("npz", npz(x_train=X, y_train=Y[:9]), "", r"must be 20 integers.*shape \(9,\)"),
    ("npz", npz(x_train=X, y_train=Y / 2), "", r"must be 20 integers.*float64"),
    ("npz", npz(x_train=X, y_train=np.eye(20)), "", r"one-hot labels take labels\.argmax"),
    ("npz", npz(x_train=X, y_train=Y - 1), "", r"from 0\. Received: -1 to 0"),
    ("npz", npz(x_train=X[:, 0], y_train=Y), "", r"shape \[n, height, width, channels\]"),
    ("npz", npz(x_train=X[:, None], y_train=Y), "", r"channels last.*moveaxis"),
    ("npz", npz(x_train=X > 8, y_train=Y), "", r"must be uint8.*bool"),
    ("npz", npz(x_train=X // 9 * Y[:, None, None].astype(np.uint8), y_train=Y), "", r"of 0 to 1"),
    ("npz", npz(x_train=X, y_train=Y, x_test=X[:, 1:], y_test=Y), "", r"one shape"),
    ("npz", npz(x_train=np.array([None] * 20), y_train=Y), "", r"npz` must be an \.npz file"),
    ("npz", text("data.npz", b"PK\3\4 and so on"), "", r"data\.npz` must be an \.npz file"),
    ("npz", text("data.npz", b""), "", r"data\.npz` must be an \.npz file"),
    ("npz", folder("a"), "", r"must be an \.npz file for dataset 'npz'\. Received: a folder"),
    # IDX files
    ("idx", folder("a"), "", r"must hold the IDX files train-images.*It holds: a$"),
    ("idx", idx(1, None), "", r"must hold the IDX files"),
    ("idx", idx(0, b""), "", r"images-idx3-ubyte` must be an IDX file"),
    ("idx", idx(2, b"\x89PNG"), "", r"t10k-images-idx3-ubyte` must be an IDX file.*89504e47"),
    ("idx", idx(3, b"\0\0\x08\1\0\0\0\5abc"), "", r"t10k-labels.* 5 bytes .* Received: 3 bytes"),
    ("idx", idx(3, b"\0\0\x08\1\0\0\0\3abc"), "", r"as many labels.*\[200, 28, 28\], labels \[3\]"),
    ("idx", idx(1, b"\x1f\x8b\x08 cut"), "", r"train-labels-idx1-ubyte` cannot be read"),
    ("idx", two_sets, "", r"IDX files of one dataset\. Received: emnist-digits, emnist-letters"),
]


@pytest.mark.parametrize(("name", "build", "below", "expected"), ROWS)
def test_bad_input_is_said_in_one_line(tmp_path, name, build, below, expected):
    path = build(tmp_path / "data") / below
    with pytest.raises(SiameseKerasError, match=expected) as caught:
        load_dataset(name, path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message.replace(str(tmp_path), "")) < 400


@pytest.mark.parametrize("name", ["folder", "csv", "npz", "idx", "fashion_mnist"])
def test_addresses_are_no_paths(name):
    with pytest.raises(SiameseKerasError, match=r"`data_dir` .* on this machine.*gs://bucket/x"):
        load_dataset(name, "gs://bucket/x")


@pytest.mark.parametrize("value", ["gray", "RGB", 3, None])
def test_an_unknown_color_mode_is_refused(tmp_path, value):
    with pytest.raises(SiameseKerasError, match="`color_mode` must be one of 'auto', 'rgb', 'gr"):
        load_dataset("folder", tmp_path, color_mode=value)
