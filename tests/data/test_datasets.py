import gzip
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import SAMPLE

from siamese_keras.data import datasets as data
from siamese_keras.data import tfds as tfds_source
from siamese_keras.data.datasets import load_dataset, split_unseen
from siamese_keras.data.idx import IDX_FILES, idx_path, read_idx
from siamese_keras.errors import DataError

# Debian strips the gzip header's name and time; TFDS verifies the compressed bytes.
PUBLISHED_MTIME = {"train": 1504176606, "t10k": 1504176627}


@pytest.fixture
def folder(tmp_path):
    """A copy of the sample that may be damaged."""
    shutil.copytree(SAMPLE, tmp_path / "sample")
    return tmp_path / "sample"


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine without any dataset: nothing where `load_dataset` looks."""
    for name in ("XDG_CACHE_HOME", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(data, "_idx_folders", lambda: [])
    return tmp_path


@pytest.fixture(scope="session")
def fashion_mnist_folder():
    """The real files, which `make test` has put there."""
    found = data.find_local()
    assert found is not None, "Fashion-MNIST is not on this machine: run `make data`"
    return found


def test_sample_is_read_and_split(sample):
    assert sample.image_shape == (28, 28, 1)
    assert [len(s.labels) for s in (sample.train, sample.validation, sample.test)] == [
        500,
        100,
        200,
    ]
    assert sample.train.images.dtype == np.uint8
    assert sample.train.labels.dtype == np.int32
    # Cut class by class alike, and nothing lost or doubled.
    np.testing.assert_array_equal(np.bincount(sample.validation.labels), np.full(10, 10))
    whole = read_idx(SAMPLE / "train-images-idx3-ubyte.gz")
    parts = np.concatenate([sample.train.images, sample.validation.images])[..., 0]
    assert sorted(x.tobytes() for x in parts) == sorted(x.tobytes() for x in whole)


def test_split_depends_on_the_seed_alone():
    first, again, other = (
        load_dataset("idx", SAMPLE, validation_size=100, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.validation.images, again.validation.images)
    assert not np.array_equal(first.validation.images, other.validation.images)


def test_files_may_be_gzipped_or_not(folder, sample):
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    loaded = load_dataset("idx", folder, validation_size=100)
    np.testing.assert_array_equal(loaded.train.images, sample.train.images)


def test_images_are_resized(sample):
    resized = load_dataset("idx", SAMPLE, validation_size=100, image_size=14)
    assert resized.test.images.shape == (200, 14, 14, 1)
    assert resized.test.images.dtype == np.uint8
    means = sample.test.images.reshape(200, 14, 2, 14, 2).mean(axis=(2, 4))
    assert np.abs(resized.test.images[..., 0] - means).mean() < 8


def spoil_truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def spoil_not_gzip(path):
    path.write_bytes(b"<html>not found</html>")


def spoil_not_idx(path):
    path.write_bytes(gzip.compress(b"\x89PNG and so on"))


def spoil_short(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def spoil_long(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\x00"))


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_header(path):
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x03\x00\x00"))


def spoil_shape(path):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[3] = 1  # one dimension of 600 entries, followed by too many
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_truncate, spoil_not_gzip, spoil_not_idx, spoil_short, spoil_long, spoil_empty,
        spoil_header, spoil_shape,
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_the_error(folder, spoil):
    path = folder / "train-images-idx3-ubyte.gz"
    spoil(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_dataset("idx", folder, validation_size=100)


def test_images_and_labels_must_be_as_many(folder):
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"images \[600, 28, 28\], labels \[200\]"):
        load_dataset("idx", folder, validation_size=100)


def test_other_images_are_not_taken_for_fashion_mnist():
    with pytest.raises(DataError, match=r"is not the published file\. SHA-256: "):
        load_dataset("fashion_mnist", SAMPLE)


def test_a_folder_without_the_files_is_named_with_what_it_holds(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"must hold the IDX files .*It holds: photo.jpg$"):
        load_dataset("fashion_mnist", tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("fashion_mnist", tmp_path / "missing")
    with pytest.raises(DataError, match="name it by --data-dir"):
        load_dataset("idx")


def test_validation_needs_two_images_of_each_class():
    with pytest.raises(ValueError, match=r"two images of each class. Received: validation_size=15"):
        load_dataset("idx", SAMPLE, validation_size=15)


@pytest.mark.parametrize("size", [9, 591])
def test_validation_size_must_leave_images_of_every_class(size):
    with pytest.raises(ValueError, match=f"between 10 and 590 .* Received: validation_size={size}"):
        load_dataset("idx", SAMPLE, validation_size=size)


def test_unknown_dataset_is_reported(empty_machine):
    with pytest.raises(DataError, match="TFDS has no dataset 'fashion_mints'"):
        load_dataset("fashion_mints")


def test_without_network_and_data_it_fails_soon_and_names_the_ways_out(tmp_path):
    # A process of its own: proxies and folders as on a machine with nothing. Port 9 of the
    # loopback address refuses at once; what is measured is that nothing retries for minutes.
    environment = {
        **os.environ,
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    code = (
        "from siamese_keras.data import datasets as data\n"
        "folders = data._idx_folders\n"
        "data._idx_folders = lambda: [f for f in folders() if not str(f).startswith('/usr')]\n"
        "try:\n    data.load_dataset()\nexcept ValueError as error:\n    print(error)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - started < 30  # imports included
    (line,) = done.stdout.splitlines()
    for way in ("cannot be reached", "make data", "--data-dir", "connect once"):
        assert way in line


def test_a_host_that_does_not_answer_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(tfds_source, "_PROBE_SECONDS", 0.3)
    monkeypatch.setattr(tfds_source.urllib.request, "urlopen", lambda *a, **k: time.sleep(2))
    started = time.monotonic()
    assert (
        tfds_source._unreachable(["http://silent.example/file"]) == "silent.example does not answer"
    )
    assert time.monotonic() - started < 1.5


def test_a_damaged_copy_in_a_usual_place_is_passed_over(empty_machine, folder, monkeypatch, caplog):
    monkeypatch.setattr(data, "_idx_folders", lambda: [folder])
    monkeypatch.setattr(tfds_source, "_unreachable", lambda urls: "the network is down")
    with pytest.raises(DataError, match="is not on this machine and the network is down"):
        load_dataset("fashion_mnist")
    assert "is not the published file" in caplog.text


def test_real_fashion_mnist_is_verified_and_complete(fashion_mnist_folder):
    dataset = load_dataset("fashion_mnist")
    sizes = [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [55_000, 5_000, 10_000]
    assert dataset.class_names[9] == "boot"
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))


def test_tfds_prepares_and_loads_the_same_images_offline(fashion_mnist_folder, empty_machine):
    """The real builder, fed the published archives made again from the files on this machine."""
    import tensorflow_datasets as tfds

    archives = empty_machine / "archives"
    archives.mkdir()
    for name in IDX_FILES:
        source = idx_path(fashion_mnist_folder, name)
        if source is None:
            pytest.skip("Fashion-MNIST is here as TFDS prepared it, which is what this test shows")
        if source.suffix == ".gz":
            raw = source.read_bytes()
            mtime = PUBLISHED_MTIME[name.split("-")[0]].to_bytes(4, "little")
            header = raw[:3] + b"\x08" + mtime + raw[8:10] + name.encode() + b"\x00"
            (archives / f"{name}.gz").write_bytes(header + raw[10:])
    builder = tfds.builder("fashion_mnist", data_dir=empty_machine / "tfds")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(archives))
    )
    from_tfds = load_dataset("fashion_mnist", empty_machine / "tfds")
    direct = load_dataset("fashion_mnist", fashion_mnist_folder)
    assert from_tfds.class_names == direct.class_names
    for split in ("train", "validation", "test"):
        # TFDS shuffles: the same images, not the same order.
        ours, theirs = (
            sorted(x.tobytes() + bytes([y]) for x, y in zip(s.images, s.labels, strict=True))
            for s in (getattr(direct, split), getattr(from_tfds, split))
        )
        if split == "test":
            assert ours == theirs
        assert len(ours) == len(theirs)


@pytest.fixture
def photos(tmp_path, sample):
    """A folder of 12 images of each of three classes, as PNG and JPEG, grey and in colour."""
    for label, name in enumerate(("boot", "bag", "coat")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        chosen = sample.train.images[sample.train.labels == label][:12]
        for i, image in enumerate(chosen):
            path = tmp_path / "photos" / name / f"{i:02d}"
            if i % 2:
                path.with_suffix(".png").write_bytes(tf.io.encode_png(image).numpy())
            else:
                colour = np.repeat(image, 3, axis=2)
                path.with_suffix(".JPG").write_bytes(tf.io.encode_jpeg(colour, quality=99).numpy())
    return tmp_path / "photos"


def test_a_folder_of_images_is_read_by_class(photos, sample):
    dataset = load_dataset("folder", photos, validation_size=6, image_size=28)
    assert dataset.class_names == ("bag", "boot", "coat")  # in the order of their names
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [24, 6, 6]
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [2, 2, 2])
    assert dataset.image_shape == (28, 28, 3)
    boots = np.concatenate(
        [s.images[s.labels == 1] for s in (dataset.train, dataset.validation, dataset.test)]
    )
    originals = sample.train.images[sample.train.labels == 0][:12].astype(int)
    gaps = np.abs(boots[:, None].astype(int) - originals[None]).mean(axis=(2, 3, 4))
    assert (gaps.min(axis=0) < 3).all()  # JPEG is not exact
    assert load_dataset("folder", photos, validation_size=6, image_size=16).image_shape[0] == 16


def test_train_and_test_folders_are_kept_apart(photos, tmp_path):
    for part, numbers in (("train", range(8)), ("test", range(8, 12))):
        for name in ("bag", "boot", "coat"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
            for i in numbers:
                (source,) = (photos / name).glob(f"{i:02d}.*")
                shutil.copy(source, tmp_path / "parts" / part / name)
    dataset = load_dataset("folder", tmp_path / "parts", validation_size=6, image_size=28)
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [18, 6, 12]
    shutil.rmtree(tmp_path / "parts" / "test" / "bag")
    with pytest.raises(
        DataError, match=r"the same classes. Received: bag, boot, coat and boot, coat"
    ):
        load_dataset("folder", tmp_path / "parts", validation_size=6, image_size=28)


def test_what_is_wrong_with_a_folder_of_images_is_named(photos, tmp_path):
    with pytest.raises(ValueError, match="`image_size` must be given"):
        load_dataset("folder", photos, validation_size=6)
    (photos / "bag" / "00.JPG").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"00\.JPG` cannot be read.*PNG or JPEG"):
        load_dataset("folder", photos, validation_size=6, image_size=28)
    shutil.rmtree(photos / "bag")
    (photos / "bag").mkdir()
    with pytest.raises(DataError, match=r"bag` must hold PNG or JPEG files"):
        load_dataset("folder", photos, validation_size=6, image_size=28)
    with pytest.raises(DataError, match=r"subfolder for each .* Received: none"):
        load_dataset("folder", photos / "bag", validation_size=6, image_size=28)


def test_a_folder_with_train_and_validation_is_not_taken_for_two_classes(photos):
    (photos / "bag").rename(photos / "train")
    (photos / "coat").rename(photos / "val")
    with pytest.raises(DataError, match=r"either `train` and `test`.* Received: train, val"):
        load_dataset("folder", photos, validation_size=6, image_size=28)


def test_images_that_are_not_square_are_fitted_and_not_stretched(photos, tmp_path):
    wide = np.full((7, 28, 1), 200, np.uint8)
    for path in photos.rglob("*.*"):
        path.unlink()
    for name in ("boot", "bag", "coat"):
        for i in range(12):
            (photos / name / f"{i}.png").write_bytes(tf.io.encode_png(wide).numpy())
    from_files = load_dataset("folder", photos, validation_size=6, image_size=14).train.images[0]
    split = data.Split(np.stack([wide] * 3), np.zeros(3, np.int32))
    resized = data._resized(split, 14).images[0]
    np.testing.assert_array_equal(resized[..., 0], from_files[..., 0])
    filled = (resized[..., 0] > 100).any(axis=1).sum()
    assert filled in (4, 5)  # 14 * 7 / 28 = 3.5 rows of 14


def test_a_name_that_is_a_number_is_taken_as_a_name(sample):
    names = ("1", "10", "2", *sample.class_names[3:])
    dataset = data.Dataset(sample.train, sample.validation, sample.test, names)
    _, unseen = split_unseen(dataset, ["1", "2"])
    assert set(unseen.labels) == {0, 2}


def test_unseen_classes_are_held_out_by_name_or_number(sample):
    seen, unseen = split_unseen(
        data.Dataset(sample.train, sample.validation, sample.test, data.FASHION_MNIST_CLASSES),
        ["Dress", "6", " sneaker", "8"],
    )
    for split in (seen.train, seen.validation, seen.test):
        assert set(split.labels) == {0, 1, 2, 4, 5, 9}
    assert set(unseen.labels) == {3, 6, 7, 8}
    assert len(unseen.labels) == 80
    same, none = split_unseen(sample, [])
    assert same is sample
    assert none is None


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["hat"], "Received: 'hat'"),
        (["10"], "Received: '10'"),
        (["3"], "at least two"),
        ([str(i) for i in range(9)], "leave at least two"),
    ],
)
def test_unseen_classes_must_be_known_and_leave_enough(sample, classes, message):
    with pytest.raises(ValueError, match=message):
        split_unseen(sample, classes)
