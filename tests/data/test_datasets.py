import dataclasses
import gzip
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import SAMPLE
from PIL import Image

from siamese_keras.config import Config
from siamese_keras.data.datasets import (
    load_config_dataset,
    load_dataset,
    load_local,
)
from siamese_keras.data.idx import IDX_FILES, read_idx
from siamese_keras.errors import ArgumentError, DataError


def assert_same_dataset(first, second):
    """The same images in the same splits, in the same order, with the same labels."""
    for part, split in first.splits.items():
        np.testing.assert_array_equal(split.images, second.splits[part].images)
        np.testing.assert_array_equal(split.labels, second.splits[part].labels)
    assert first.class_names == second.class_names
    assert first.fingerprint == second.fingerprint


def test_sample_is_read_and_split(sample):
    assert sample.image_shape == (28, 28, 1)
    assert [len(split) for split in sample.splits.values()] == [500, 100, 200]
    assert sample.train.images.dtype == np.uint8
    assert sample.train.labels.dtype == np.int32
    assert sample.class_names == tuple("0123456789")
    # Cut class by class alike, and nothing lost or doubled.
    np.testing.assert_array_equal(np.bincount(sample.validation.labels), np.full(10, 10))
    whole = read_idx(SAMPLE / "train-images-idx3-ubyte.gz")
    parts = np.concatenate([sample.train.images, sample.validation.images])[..., 0]
    assert sorted(x.tobytes() for x in parts) == sorted(x.tobytes() for x in whole)
    test = read_idx(SAMPLE / "t10k-images-idx3-ubyte.gz")
    assert sorted(x.tobytes() for x in sample.test.images) == sorted(x.tobytes() for x in test)


def test_the_order_in_idx_files_does_not_matter(sample, tmp_path, write_idx, rng):
    arrays = [read_idx(SAMPLE / f"{name}.gz") for name in IDX_FILES]
    for images, labels in ((0, 1), (2, 3)):
        order = rng.permutation(len(arrays[images]))
        arrays[images], arrays[labels] = arrays[images][order], arrays[labels][order]
    folder = write_idx(tmp_path / "permuted", *arrays)
    assert_same_dataset(load_dataset("idx", folder, validation_size=100), sample)


def test_the_names_of_image_files_do_not_matter(photos, tmp_path, rng):
    first = load_dataset("folder", photos, validation_size=6, image_size=28)
    for name in ("bag", "boot", "coat"):
        (tmp_path / "renamed" / name / "more").mkdir(parents=True)
        sources = sorted((photos / name).iterdir())
        for number, source in zip(rng.permutation(len(sources)), sources, strict=True):
            place = "more" if number % 3 == 0 else "."
            shutil.copy(source, tmp_path / "renamed" / name / place / f"{number}{source.suffix}")
    renamed = load_dataset("folder", tmp_path / "renamed", validation_size=6, image_size=28)
    assert_same_dataset(first, renamed)


def test_a_new_image_file_moves_few_others(photos, rng):
    """Those who add photos and train again do not score on images that were trained on."""
    options = {"validation_size": 6, "image_size": 28, "color_mode": "rgb"}
    before = load_dataset("folder", photos, **options)
    (photos / "bag" / "00000.png").write_bytes(
        tf.io.encode_png(rng.integers(0, 256, (28, 28, 3), np.uint8)).numpy()
    )
    after = load_dataset("folder", photos, **options)
    moved = 0
    for part, split in before.splits.items():
        stayed = {image.tobytes() for image in after.splits[part].images}
        moved += sum(image.tobytes() not in stayed for image in split.images)
    assert moved <= 3


def test_files_may_be_gzipped_or_not(folder, sample):
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert_same_dataset(load_dataset("idx", folder, validation_size=100), sample)


def test_images_are_resized(sample):
    resized = load_dataset("idx", SAMPLE, validation_size=100, image_size=14)
    assert [split.images.shape for split in resized.splits.values()] == [
        (500, 14, 14, 1),
        (100, 14, 14, 1),
        (200, 14, 14, 1),
    ]
    assert resized.test.images.dtype == np.uint8
    means = sample.test.images.reshape(200, 14, 2, 14, 2).mean(axis=(2, 4))
    # In the order of their own pixels: each is close to the means of one image of its class.
    gaps = [
        np.abs(means[sample.test.labels == label] - image).mean(axis=(1, 2)).min()
        for image, label in zip(resized.test.images[..., 0], resized.test.labels, strict=True)
    ]
    assert np.mean(gaps) < 8
    assert max(gaps) < 20


def test_images_that_are_not_square_are_fitted_and_not_stretched(tmp_path, write_idx):
    wide = np.full((12, 7, 28), 200, np.uint8) - np.arange(12, dtype=np.uint8)[:, None, None]
    labels = np.arange(12) % 3
    for i, image in enumerate(wide):
        for part in ("train", "test"):
            path = tmp_path / "files" / part / str(labels[i]) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image[..., np.newaxis]).numpy())
    folder = write_idx(tmp_path / "idx", wide, labels, wide, labels)
    options = {"validation_size": 6, "image_size": 14}
    resized = load_dataset("idx", folder, **options).test.images[..., 0]
    from_files = load_dataset("folder", tmp_path / "files", **options).test.images[..., 0]
    assert {image.tobytes() for image in resized} == {image.tobytes() for image in from_files}
    assert len({image.tobytes() for image in resized}) == 12
    filled = (resized[0] > 100).any(axis=1).sum()
    assert filled in (4, 5)  # 14 * 7 / 28 = 3.5 rows of 14
    assert (resized[0] > 100).any(axis=0).all()


def test_a_damaged_file_is_named_in_the_error(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_dataset("idx", folder, validation_size=100)


def test_other_images_are_not_taken_for_fashion_mnist():
    with pytest.raises(DataError, match=r"is not the published file\. SHA-256: "):
        load_dataset("fashion_mnist", SAMPLE)


def test_a_folder_without_the_files_is_named_with_what_it_holds(tmp_path):
    with pytest.raises(DataError, match=r"must hold the IDX files .*It holds: nothing$"):
        load_dataset("idx", tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"must hold the IDX files .*It holds: photo.jpg$"):
        load_dataset("fashion_mnist", tmp_path)
    for i in range(9):
        (tmp_path / f"a{i}").touch()
    with pytest.raises(DataError, match=r"'mnist' as prepared by TFDS.*: a0, .* a7, \.\.\.$"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("name", ["idx", "folder", "fashion_mnist", "mnist"])
def test_a_missing_folder_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"`{tmp_path / 'missing'}` does not exist"):
        load_dataset(name, tmp_path / "missing", image_size=28)
    with pytest.raises(DataError, match=rf"`{tmp_path / 'file'}` must be a folder for dataset"):
        load_dataset(name, tmp_path / "file", image_size=28)


@pytest.mark.parametrize("name", ["idx", "folder"])
def test_files_of_your_own_need_a_folder(name):
    with pytest.raises(DataError, match=f"'{name}' needs the folder .* with --data-dir"):
        load_dataset(name, image_size=28)


def test_without_a_size_images_get_one_that_the_run_records(photos):
    dataset = load_dataset("folder", photos, validation_size=6)
    assert dataset.image_shape == (28, 28, 1)
    config = Config(**dataset.settings)
    assert (config.image_size, config.color_mode) == (28, "grayscale")
    Image.new("RGB", (500, 90), "red").save(photos / "bag" / "large.png")
    again = load_config_dataset(config, photos)
    assert again.image_shape == (28, 28, 1)
    config = Config(dataset="idx", validation_size=100)
    assert Config(**load_config_dataset(config, SAMPLE).settings) == config


@pytest.mark.parametrize("size", [9, 19, 581, 591])
def test_validation_size_must_leave_images_of_every_class(size):
    expected = f"between 20 and 580 for 600 images of 10 classes. Received: validation_size={size}"
    with pytest.raises(ArgumentError, match=expected):
        load_dataset("idx", SAMPLE, validation_size=size)


def test_classes_of_photos_that_are_too_small_are_named(photos):
    for i in range(5, 12):
        (path,) = (photos / "coat").glob(f"{i:02d}.*")
        path.unlink()
    with pytest.raises(DataError, match=r"needs 6 training images.* Too few: coat \(5\)$"):
        load_dataset("folder", photos, validation_size=6, image_size=28)


def test_a_folder_of_images_is_cut_in_three(photos):
    dataset = load_dataset("folder", photos, validation_size=6, image_size=28)
    assert dataset.class_names == ("bag", "boot", "coat")  # in the order of their names
    assert [len(split) for split in dataset.splits.values()] == [24, 6, 6]
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [2, 2, 2])
    assert dataset.image_shape == (28, 28, 1)  # the photos are gray
    assert load_dataset("folder", photos, validation_size=6, image_size=16).image_shape[0] == 16


def test_a_test_folder_stays_the_test_set(photos, tmp_path):
    for part, numbers in (("train", range(8)), ("test", range(8, 12))):
        for name in ("bag", "boot", "coat"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
            for i in numbers:
                (source,) = (photos / name).glob(f"{i:02d}.*")
                shutil.copy(source, tmp_path / "parts" / part / name)
    dataset = load_dataset("folder", tmp_path / "parts", validation_size=6, image_size=28)
    assert [len(split) for split in dataset.splits.values()] == [18, 6, 12]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_a_text_or_a_path(kind, sample):
    assert_same_dataset(load_dataset("idx", kind(SAMPLE), validation_size=100), sample)


def test_a_folder_may_be_named_by_a_tilde(folder, sample, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert_same_dataset(load_dataset("idx", "~/sample", validation_size=100), sample)


def test_without_a_home_a_tilde_is_a_missing_folder(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for path in ("~/sample", "~nobody-of-that-name/sample"):
        with pytest.raises(DataError, match=f"`{path}` does not exist"):
            load_dataset("idx", path)


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [
        ("photos", "photos"),
        ("my photos (2024)", "my_photos_2024"),
        ("v1.2-final", "v1.2-final"),
        (".photos", "photos"),
        ("Füße", "Füße"),
        ("((()))", "dataset"),
    ],
)
def test_a_dataset_of_your_own_is_named_after_its_folder(
    photos, sample, folder_name, name, tmp_path, monkeypatch
):
    """A model is exported as that: two collections of photos are no versions of one model."""
    shutil.copytree(SAMPLE, tmp_path / "x" / folder_name)
    assert load_dataset("idx", tmp_path / "x" / folder_name, validation_size=100).name == name
    monkeypatch.chdir(tmp_path / "x" / folder_name)
    assert load_dataset("idx", ".", validation_size=100).name == name


def test_a_folder_of_images_is_named_after_its_folder(photos):
    assert load_dataset("folder", photos, validation_size=6, image_size=14).name == "photos"


@pytest.fixture
def small_classes(tmp_path, rng):
    """30 classes of 3 photos, the last one of a single photo."""
    for label in range(30):
        folder = tmp_path / "stamps" / f"stamp {label}"
        folder.mkdir(parents=True)
        for number in range(1 if label == 29 else 3):
            picture = rng.integers(0, 256, (6, 6, 3), np.uint8)
            (folder / f"{number}.png").write_bytes(tf.io.encode_png(picture).numpy())
    return tmp_path / "stamps"


def test_many_classes_of_few_images_are_cut_by_class(small_classes, caplog):
    with caplog.at_level("INFO", logger="siamese_keras"):
        dataset = load_dataset("folder", small_classes, image_size=6)
    assert "fewer than 6 images" in caplog.text
    assert "20% of the classes are held out" in caplog.text
    assert dataset.is_open_set
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 88
    assert len(set(dataset.test.labels)) == 6
    asked = load_dataset("folder", small_classes, image_size=6, unseen_classes=["20%"])
    assert asked.fingerprint == dataset.fingerprint


def test_test_images_of_its_own_are_never_trained_on(small_classes):
    """Not even where a class is too small, which cuts other data by class."""
    for path in list(small_classes.glob("stamp *")):
        for part in ("train", "test"):
            shutil.copytree(path, small_classes / part / path.name)
        shutil.rmtree(path)
    with pytest.raises(DataError, match="Every class needs 4 training images, 2 for each of 2 spl"):
        load_dataset("folder", small_classes, image_size=6)
    asked = load_dataset("folder", small_classes, image_size=6, unseen_classes=["20%"])
    assert asked.is_open_set


def test_test_classes_are_named_by_the_settings(small_classes):
    names = ("stamp 3", "stamp 4")
    config = Config(dataset="folder", image_size=6, unseen_classes=names)
    dataset = load_config_dataset(config, small_classes)
    assert {dataset.class_names[label] for label in dataset.test.labels} == set(names)
    assert len(dataset.test) == 6


def test_classes_of_enough_images_are_cut_by_class_when_that_is_asked_for(small_classes, rng):
    for folder in small_classes.iterdir():
        for number in range(3, 9):
            picture = rng.integers(0, 256, (6, 6, 3), np.uint8)
            (folder / f"{number}.png").write_bytes(tf.io.encode_png(picture).numpy())
    assert not load_dataset("folder", small_classes, image_size=6).is_open_set
    dataset = load_dataset("folder", small_classes, image_size=6, unseen_classes=["30%"])
    assert dataset.is_open_set
    assert len(set(dataset.test.labels)) == 9
    # With fewer than 20 others, the classes stay together here: training holds them out.
    dataset = load_dataset("folder", small_classes, image_size=6, unseen_classes=["50%"])
    assert not dataset.is_open_set


@pytest.mark.parametrize("apart", [False, True])
def test_queries_stay_queries_in_the_dataset(small_classes, apart):
    """Whether the classes that are searched among are those of the training or others."""
    for path in list(small_classes.glob("stamp *")):
        number = int(path.name.split()[1])
        parts = ["query", "gallery"] if apart and number >= 22 else ["train"]
        parts = parts if apart else ["train", "query", "gallery"]
        for part in parts:
            copy = small_classes / part / path.name
            shutil.copytree(path, copy)
            if part == "query":
                for extra in list(copy.iterdir())[1:]:
                    extra.unlink()
        shutil.rmtree(path)
    if not apart:  # four times as many, or the cut would have too few
        for path in list((small_classes / "train").glob("*/*.png")):
            image = tf.io.decode_png(path.read_bytes())
            for number, other in enumerate((image[::-1], image[:, ::-1], image[::-1, ::-1])):
                copy = path.with_name(f"turned {number} {path.name}")
                copy.write_bytes(tf.io.encode_png(other).numpy())
    dataset = load_dataset("folder", small_classes, image_size=6)
    assert dataset.is_open_set is apart
    assert dataset.queries.sum() == (8 if apart else 30)
    asked = dataset.test.take(dataset.queries)
    assert len(set(asked.labels)) == len(asked)
    without = dataclasses.replace(dataset, queries=None)
    assert without.fingerprint != dataset.fingerprint


def test_test_classes_of_its_own_are_honored(small_classes):
    for part in ("train", "test"):
        (small_classes / part).mkdir()
    for path in list(small_classes.glob("stamp *")):
        part = "test" if int(path.name.split()[1]) >= 22 else "train"
        path.rename(small_classes / part / path.name)
    dataset = load_dataset("folder", small_classes, image_size=6)
    assert dataset.is_open_set
    tested = {int(dataset.class_names[label].split()[1]) for label in dataset.test.labels}
    assert tested == set(range(22, 30))
    assert len(set(dataset.validation.labels)) == 5
    with pytest.raises(ArgumentError, match=r"must not be a share .* Received: 50%"):
        load_dataset("folder", small_classes, image_size=6, unseen_classes=["50%"])
    named = load_dataset("folder", small_classes, image_size=6, unseen_classes=["stamp 25"])
    assert named.fingerprint == dataset.fingerprint


def test_the_settings_of_a_run_choose_the_dataset(photos, sample):
    config = Config(dataset="folder", validation_size=9, image_size=20)
    dataset = load_config_dataset(config, photos)
    assert dataset.image_shape == (20, 20, 1)
    assert [len(split) for split in dataset.splits.values()] == [21, 9, 6]
    config = Config(dataset="idx", validation_size=100)
    assert_same_dataset(load_config_dataset(config, SAMPLE), sample)
    with pytest.raises(DataError, match="needs the folder of its files"):
        load_config_dataset(config)


def test_neither_the_seed_nor_the_random_state_changes_the_splits(sample):
    for seed in (1, 2):
        np.random.seed(seed)
        config = Config(dataset="idx", validation_size=100, seed=seed)
        assert_same_dataset(load_config_dataset(config, SAMPLE), sample)


@pytest.mark.usefixtures("empty_machine")
def test_unknown_dataset_is_reported():
    with pytest.raises(DataError, match="TFDS has no dataset 'fashion_mints'"):
        load_dataset("fashion_mints")


@pytest.mark.usefixtures("empty_machine", "no_network")
def test_without_network_and_data_it_fails_soon_and_names_the_ways_out():
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_dataset()
    assert time.monotonic() - started < 10  # TFDS alone retries for minutes
    for way in ("cannot be reached", "make data", "--data-dir", "connect once"):
        assert way in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_a_damaged_copy_in_a_usual_place_is_passed_over(empty_machine, caplog):
    place = empty_machine / ".cache/siamese_keras/fashion-mnist"
    shutil.copytree(SAMPLE, place)
    with pytest.raises(DataError, match=r"is not on this machine and .* cannot be reached"):
        load_dataset("fashion_mnist")
    assert f"Skipping `{place}" in caplog.text
    assert "is not the published file" in caplog.text


def test_what_is_not_on_this_machine_is_not_downloaded(empty_machine, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it asked the network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (empty_machine / "tensorflow_datasets" / "fashion_mnist").mkdir(parents=True)
    assert load_local("fashion_mnist") is None
    assert load_local("mnist") is None


@pytest.mark.usefixtures("no_network")
def test_real_fashion_mnist_is_found_behind_a_damaged_copy(empty_machine, fashion_mnist_folder):
    """And behind the folder of a TFDS that was stopped before it had prepared anything."""
    (empty_machine / "tensorflow_datasets" / "fashion_mnist").mkdir(parents=True)
    shutil.copytree(SAMPLE, empty_machine / ".cache/siamese_keras/fashion-mnist")
    raw = empty_machine / "data/FashionMNIST/raw"
    raw.parent.mkdir(parents=True)
    raw.symlink_to(fashion_mnist_folder)
    dataset = load_dataset()
    assert [len(split) for split in dataset.splits.values()] == [55_000, 5_000, 10_000]
    assert dataset.name == "fashion_mnist"
    assert dataset.class_names[9] == "boot"
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))
    np.testing.assert_array_equal(np.bincount(dataset.validation.labels), np.full(10, 500))


def test_unseen_classes_may_be_given_as_numbers():
    dataset = load_dataset("idx", SAMPLE, validation_size=100, unseen_classes=[3, np.int64(8)])
    assert dataset.settings["unseen_classes"] == ("3", "8")


def test_a_named_folder_is_looked_in_and_nowhere_else(empty_machine, fashion_mnist_folder):
    place = empty_machine / ".cache/siamese_keras/fashion-mnist"
    place.parent.mkdir(parents=True)
    place.symlink_to(fashion_mnist_folder)
    (empty_machine / "other").mkdir()
    with pytest.raises(DataError, match=r"other` must hold the IDX files .*It holds: nothing$"):
        load_dataset("fashion_mnist", empty_machine / "other")
    damaged = shutil.copytree(SAMPLE, empty_machine / "damaged")
    with pytest.raises(DataError, match="is not the published file"):
        load_dataset("fashion_mnist", damaged)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_size": 100.5}, "`validation_size` must be an integer of at least 0"),
        ({"validation_size": -1}, "`validation_size` must be an integer of at least 0"),
        ({"image_size": -1}, "`image_size` must be an integer of at least 0"),
        ({"unseen_classes": "12"}, "`unseen_classes` must be a list of classes"),
        ({"color_mode": "grayscale"}, "`color_mode` is for image files"),
        ({"strict": True}, "`strict` is for image files"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        load_dataset("idx", SAMPLE, **arguments)
