"""CSV files: lists of image files, and pixels."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from siamese_keras.config import Config
from siamese_keras.data import image_cache
from siamese_keras.data.csv_files import load_csv
from siamese_keras.data.datasets import load_config_dataset, load_dataset
from siamese_keras.data.image_folder import load_image_folder
from siamese_keras.errors import ArgumentError, DataError


def rows_of(photos):
    return [(path.relative_to(photos.parent), path.parent.name) for path in photos.glob("*/*")]


def write_list(photos, rows, header="path,label"):
    path = photos.parent / "labels.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize("header", ["path,label", "filename,class", "\ufeffPath, Label"])
def test_a_list_is_what_the_folder_is(photos, header):
    path = write_list(photos, rows_of(photos), header)
    first = load_dataset("csv", path, validation_size=6)
    second = load_dataset("folder", photos, validation_size=6)
    assert first.fingerprint == second.fingerprint
    assert first.name == "labels"


def test_a_split_column_is_honored(photos):
    places = ("train", "train", "train", "Test", "val")
    rows = [(*row, places[i % 5]) for i, row in enumerate(sorted(rows_of(photos)))]
    rows = [(split, path, label) for path, label, split in rows]
    source = load_csv(write_list(photos, rows, "split,path,label"))
    assert [len(s) for s in (source.train, source.validation, source.test)] == [22, 7, 7]


def test_another_label_does_not_decode_the_files_again(photos, tmp_path, monkeypatch):
    rows = rows_of(photos)
    load_dataset("csv", write_list(photos, rows), cache_dir=tmp_path / "cache", validation_size=6)
    rows[0] = (rows[0][0], next(label for _, label in rows if label != rows[0][1]))
    monkeypatch.setattr(image_cache, "read_photo", None)
    path = write_list(photos, rows)
    found = load_dataset("csv", path, cache_dir=tmp_path / "cache", validation_size=6)
    monkeypatch.undo()
    assert found.fingerprint == load_dataset("csv", path, validation_size=6).fingerprint


def test_queries_and_a_gallery_take_the_place_of_test(photos, caplog):
    places = ("train", "train", "gallery", "query", "test")
    rows = [(*row, places[i % 5]) for i, row in enumerate(sorted(rows_of(photos)))]
    dataset = load_dataset("csv", write_list(photos, rows, "path,label,split"), validation_size=6)
    assert (len(dataset.train), len(dataset.test)) == (9, 14)
    assert dataset.queries.sum() == 7
    assert "7 test images" in caplog.text


def test_semicolons_quotes_and_absolute_paths(photos, tmp_path):
    lines = [f'"{photos.parent / path}";"{label}"' for path, label in rows_of(photos)]
    (tmp_path / "other.csv").write_text("\r\n".join(["path;label", *lines]))
    assert len(load_csv(tmp_path / "other.csv").train) == 36


def test_a_missing_file_is_skipped_by_name(photos, caplog):
    missing = [("photos/bag/gone.png", "bag"), ("x" * 9000, "bag")]
    path = write_list(photos, [*missing, *rows_of(photos)])
    assert len(load_csv(path).train) == 36
    assert "Skipping 2 of 38 images" in caplog.text
    assert "gone.png`: No such file or directory" in caplog.text
    assert "File name too long" in caplog.text


@pytest.fixture
def pixels(sample):
    """Kaggle's table of 100 images."""
    images = sample.test.images[:100].reshape(100, -1)
    return np.concatenate([sample.test.labels[:100, None], images], axis=1)


def write_pixels(path, table, header=True):
    names = ["label", *(f"pixel{i}" for i in range(1, table.shape[1]))]
    lines = [",".join(map(str, row)) for row in table.tolist()]
    path.write_text("\n".join([*([",".join(names)] if header else []), *lines]) + "\n")
    return path


@pytest.mark.parametrize("header", [True, False])
def test_pixels_become_square_images(tmp_path, pixels, sample, header):
    source = load_csv(write_pixels(tmp_path / "digits.csv", pixels, header))
    np.testing.assert_array_equal(source.train.images, sample.test.images[:100])
    np.testing.assert_array_equal(source.train.labels, sample.test.labels[:100])
    assert source.test is None
    assert source.class_names == tuple("0123456789")


def test_a_folder_of_train_and_test_is_one_dataset(tmp_path, pixels):
    write_pixels(tmp_path / "fashion-mnist_train.csv", pixels[:60])
    write_pixels(tmp_path / "fashion-mnist_test.csv", pixels[60:])
    source = load_csv(tmp_path)
    assert (len(source.train), len(source.test)) == (60, 40)
    (tmp_path / "fashion-mnist_test.csv").unlink()
    assert len(load_csv(tmp_path).train) == 60


@pytest.mark.parametrize(
    ("name", "value"), [("color_mode", "rgb"), ("strict", True), ("cache_dir", Path("cache"))]
)
def test_pixels_are_neither_color_nor_decoded(tmp_path, pixels, name, value):
    path = write_pixels(tmp_path / "digits.csv", pixels)
    with pytest.raises(ArgumentError, match=f"`{name}` is for image files"):
        load_dataset("csv", path, **{name: value})
    dataset = load_dataset("csv", path)
    assert load_config_dataset(Config(**dataset.settings), path).fingerprint == dataset.fingerprint


def test_pixels_of_queries_are_refused(tmp_path, pixels):
    write_pixels(tmp_path / "train.csv", pixels)
    write_pixels(tmp_path / "query.csv", pixels)
    with pytest.raises(DataError, match=r"of train, validation or test\. Received: `.*query\.csv`"):
        load_csv(tmp_path)


def test_lists_of_train_and_test_may_be_two_files(photos):
    rows = sorted(rows_of(photos))
    shutil.move(write_list(photos, rows[::2]), photos.parent / "train.csv")
    shutil.move(write_list(photos, rows[1::2]), photos.parent / "test.csv")
    source = load_csv(photos.parent)
    assert (len(source.train), len(source.test)) == (18, 18)
    expected = load_image_folder(photos)
    assert source.class_names == expected.class_names


def test_labels_that_are_not_utf_8_become_names_that_can_be_written(photos):
    lines = [b"path,label"]
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        lines.append(os.fsencode(file.relative_to(photos)) + [b",caf\xe9", b",bar"][i % 2])
    (photos / "labels.csv").write_bytes(b"\n".join(lines))
    assert load_csv(photos / "labels.csv").class_names == ("bar", "caf\\xe9")


def test_a_path_that_no_file_can_have_is_named_with_its_line(photos):
    (photos / "labels.csv").write_text("path,label\na\0b.png,bag\n")
    with pytest.raises(DataError, match="line 2: path must not hold the character NUL"):
        load_csv(photos / "labels.csv")


@pytest.mark.parametrize("name", ["path", "label", "split"])
def test_a_column_that_occurs_twice_is_refused(photos, name):
    (photos / "labels.csv").write_text(f"path,label,split,{name}\na.png,bag,train,bag\n")
    with pytest.raises(DataError, match=f"one column of each name. Twice: {name}"):
        load_csv(photos / "labels.csv")
