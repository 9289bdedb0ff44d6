import gzip
import re
import shutil

import numpy as np
import pytest
from helpers.tiny import SAMPLE

from siamese_keras.data.idx import (
    FASHION_MNIST_SHA256,
    IDX_FILES,
    has_idx_files,
    idx_path,
    read_idx,
    read_idx_folder,
)
from siamese_keras.errors import DataError


def test_an_idx_file_is_read_as_the_format_says(tmp_path):
    # Two zeros, type 8, 2 dimensions; 2 rows of 3 columns; the bytes row by row.
    path = tmp_path / "file"
    path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    array = read_idx(path)
    assert array.tolist() == [[1, 2, 3], [4, 5, 255]]
    assert array.dtype == np.uint8


def test_the_sample_is_read_with_labels_as_names():
    train, test, names = read_idx_folder(SAMPLE)
    assert train.images.shape == (600, 28, 28, 1)
    assert test.images.shape == (200, 28, 28, 1)
    assert names == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(train.labels), np.full(10, 60))
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(10, 20))


def test_files_may_be_gzipped_or_not(folder):
    expected = read_idx_folder(folder)
    for path in folder.glob("t*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert has_idx_files(folder)
    for split, again in zip(expected[:2], read_idx_folder(folder)[:2], strict=True):
        np.testing.assert_array_equal(split.images, again.images)
        np.testing.assert_array_equal(split.labels, again.labels)


@pytest.mark.parametrize("name", IDX_FILES)
def test_all_four_files_are_needed(folder, name):
    assert has_idx_files(folder)
    assert idx_path(folder, name) == folder / f"{name}.gz"
    (folder / f"{name}.gz").unlink()
    assert not has_idx_files(folder)
    assert idx_path(folder, name) is None
    with pytest.raises(DataError, match=re.escape(f"`{folder / name}` is missing")):
        read_idx_folder(folder)


def spoil_truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def spoil_not_gzip(path):
    path.write_bytes(b"<html>not found</html>")


def spoil_not_idx(path):
    path.write_bytes(gzip.compress(b"\x89PNG and so on"))


def spoil_bits(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def spoil_short(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def spoil_long(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\x00"))


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_to_three_bytes(path):
    path.write_bytes(gzip.compress(b"\x00\x00\x08"))


def spoil_header(path):
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x03\x00\x00"))


def spoil_shape(path):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[3] = 1  # one dimension of 600 entries, followed by too many
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_truncate, spoil_not_gzip, spoil_not_idx, spoil_bits, spoil_short, spoil_long,
        spoil_empty, spoil_to_three_bytes, spoil_header, spoil_shape,
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_the_error(folder, spoil):
    path = folder / "train-images-idx3-ubyte.gz"
    spoil(path)
    with pytest.raises(DataError, match=re.escape(f"`{path}`")):
        read_idx_folder(folder)


def test_images_and_labels_must_be_as_many(folder):
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"images \[600, 28, 28\], labels \[200\]"):
        read_idx_folder(folder)


@pytest.mark.parametrize(
    ("images", "labels"),
    [((4, 8), (4,)), ((4, 8, 8, 3), (4,)), ((4, 8, 8), (4, 1)), ((0, 8, 8), (0,))],
)
def test_images_have_three_dimensions_and_labels_one(tmp_path, write_idx, images, labels):
    fine = np.zeros((4, 8, 8)), np.zeros(4)
    folder = write_idx(tmp_path / "idx", np.zeros(images), np.zeros(labels), *fine)
    with pytest.raises(DataError, match=r"must hold \[n, height, width\] images .* Received: im"):
        read_idx_folder(folder)


def test_train_and_test_images_must_be_of_one_size(tmp_path, write_idx):
    zeros = np.zeros
    folder = write_idx(tmp_path / "idx", zeros((4, 8, 8)), zeros(4), zeros((4, 8, 9)), zeros(4))
    with pytest.raises(DataError, match="train and test images of one size"):
        read_idx_folder(folder)


def test_names_go_up_to_the_highest_label(tmp_path, write_idx):
    images = np.zeros((2, 4, 4))
    folder = write_idx(tmp_path / "idx", images, np.array([0, 2]), images, np.array([4, 0]))
    assert read_idx_folder(folder)[2] == ("0", "1", "2", "3", "4")


def test_other_images_are_not_taken_for_fashion_mnist():
    with pytest.raises(DataError, match=r"is not the published file\. SHA-256: "):
        read_idx_folder(SAMPLE, FASHION_MNIST_SHA256)


def test_the_published_files_are_recognized(fashion_mnist_folder):
    train, test, _ = read_idx_folder(fashion_mnist_folder, FASHION_MNIST_SHA256)
    assert (len(train), len(test)) == (60_000, 10_000)


def dotted(folder, name, content):
    """7-Zip unpacks the files under these names."""
    (folder / name.replace("-idx", ".idx")).write_bytes(content)


def of_emnist(folder, name, content):
    path = folder / f"emnist-letters-{name.replace('t10k', 'test')}.gz"
    path.write_bytes(gzip.compress(content))


def nested(folder, name, content):
    """Kaggle's archive has a folder of each name that holds the file."""
    (folder / name).mkdir()
    (folder / name / name).write_bytes(content)


@pytest.mark.parametrize("write", [dotted, of_emnist, nested])
def test_files_are_found_under_their_customary_names(tmp_path, write, caplog):
    for name in IDX_FILES:
        write(tmp_path, name, gzip.decompress((SAMPLE / f"{name}.gz").read_bytes()))
    assert not has_idx_files(tmp_path)
    for split, expected in zip(
        read_idx_folder(tmp_path)[:2], read_idx_folder(SAMPLE), strict=False
    ):
        np.testing.assert_array_equal(split.images, expected.images)
        np.testing.assert_array_equal(split.labels, expected.labels)
    assert ("stores its images transposed" in caplog.text) == (write is of_emnist)
