"""Decoded image files in a cache: the same pixels, decoded once, written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_keras import load_dataset
from siamese_keras.data import disk_arrays, image_cache, splits
from siamese_keras.data.image_cache import default_image_size, load_pixels
from siamese_keras.errors import ArgumentError, DataError

HERE = Path("here")


@pytest.fixture
def paths(tmp_path, rng):
    """Nine files in color; the third is none, the fifth of one color."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        image = rng.integers(0, 256, (14, 10, 3), np.uint8) if i != 4 else np.full((14, 10, 3), 9)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"none")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "new" / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names = []
    read = image_cache.read_photo
    monkeypatch.setattr(image_cache, "read_photo", lambda data: names.append(1) or read(data))
    return names


def assert_equal(a, b):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.digests, b.digests)
    assert (a.unread, a.flat) == (b.unread, b.flat)


@pytest.mark.parametrize("color_mode", ["rgb", "grayscale", "auto"])
def test_a_cache_holds_what_decoding_gives(paths, cache_dir, decoded, color_mode):
    expected = load_pixels(paths, HERE, 8, color_mode)
    assert expected.images.shape == (8, 8, 8, 1 if color_mode == "grayscale" else 3)
    assert list(expected.unread) == [2]
    assert expected.flat == [3]
    assert len(decoded) == 9
    for _ in range(2):
        found = load_pixels(paths, HERE, 8, color_mode, cache_dir=cache_dir)
        assert_equal(found, expected)
        assert isinstance(found.images, np.memmap)
    assert len(decoded) == 19  # the second time from the cache, but for the one that is none
    (folder,) = cache_dir.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["digests.npy", "facts.json", "images.npy"]


def test_gray_images_are_kept_gray(paths, cache_dir):
    for path in paths:
        Image.new("L", (9, 9), 7).save(path)
    assert load_pixels(paths, HERE, 0, "auto", cache_dir=cache_dir).images.shape == (9, 9, 9, 1)


def touch(paths):
    os.utime(paths[0], (1, 1))


def rewrite(paths):
    Image.new("RGB", (30, 30), (9, 200, 30)).save(paths[0])


def remove(paths):
    Path(paths[0]).unlink()


def add(paths):
    paths.append(str(Path(paths[0]).with_name("new.png")))
    Image.new("RGB", (30, 30), (9, 200, 30)).save(paths[-1])


@pytest.mark.parametrize("change", [touch, rewrite, remove, add])
def test_a_changed_file_is_decoded_anew_and_the_old_cache_goes(paths, cache_dir, decoded, change):
    before = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    pixels = before.images.copy()
    change(paths)
    after = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert len(decoded) >= 17
    assert_equal(after, load_pixels(paths, HERE, 8, "rgb"))
    np.testing.assert_array_equal(before.images, pixels)  # who reads it goes on reading it
    assert len(list(cache_dir.iterdir())) == 1


@pytest.mark.parametrize("asked", [(0, "auto"), (10, "auto"), (0, "rgb")])
def test_what_the_defaults_came_to_is_not_decoded_again(paths, cache_dir, decoded, asked):
    before = load_pixels(paths, HERE, *asked, cache_dir=cache_dir)
    decoded.clear()
    assert_equal(load_pixels(paths, HERE, 10, "rgb", cache_dir=cache_dir), before)
    assert len(decoded) == 1  # the file that is none
    for size, color_mode in ((10, "grayscale"), (9, "rgb")):
        other = load_pixels(paths, HERE, size, color_mode, cache_dir=cache_dir)
        assert_equal(other, load_pixels(paths, HERE, size, color_mode))


def test_images_that_do_not_fit_into_memory_are_one_line(paths, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(image_cache.np, "empty", refuse)
    with pytest.raises(DataError, match="9 images of 30000 x 30000 pixels do not fit into memory"):
        load_pixels(paths, HERE, 30_000, "rgb")


def test_other_settings_and_files_have_caches_of_their_own(paths, cache_dir, decoded):
    asked = [
        (paths, HERE, 8, "rgb"),
        (paths, HERE, 8, "auto"),
        (paths, HERE, 9, "rgb"),
        (paths[:5], Path("there"), 8, "rgb"),
    ]
    for arguments in asked * 2:
        assert_equal(load_pixels(*arguments, cache_dir=cache_dir), load_pixels(*arguments))
    assert len(list(cache_dir.iterdir())) == 4


def cut(folder):
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:-100])


def empty(folder):
    (folder / "facts.json").write_text("")


def of_another_type(folder):
    np.save(folder / "images.npy", np.zeros((9, 8, 8, 3), np.float32))


def strange(folder):
    (folder / "facts.json").write_text('["state"]')


def without_digests(folder):
    (folder / "digests.npy").unlink()


def with_other_digests(folder):
    np.save(folder / "digests.npy", np.zeros(8))


def test_a_file_that_could_not_be_read_for_a_time_is_tried_again(paths, cache_dir, monkeypatch):
    """Permission to read it changes neither its size nor its time of change."""
    with monkeypatch.context() as patch:
        refused = Path(paths[0]).read_bytes()
        patch.setattr(image_cache, "read_photo", refusing(refused, image_cache.read_photo))
        assert set(load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir).unread) == {0, 2}
    found = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert_equal(found, load_pixels(paths, HERE, 8, "rgb"))


def refusing(refused, read):
    def read_another(content):
        if content == refused:
            raise PermissionError(13, "Permission denied")
        return read(content)

    return read_another


def test_a_time_of_change_may_be_far_in_the_future(paths, cache_dir):
    os.utime(paths[0], (0, 10_413_792_000))  # the year 2300
    found = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert_equal(found, load_pixels(paths, HERE, 8, "rgb"))


DAMAGES = [cut, empty, of_another_type, strange, without_digests, with_other_digests]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_written_anew(paths, cache_dir, damage):
    load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    (folder,) = cache_dir.iterdir()
    damage(folder)
    found = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert_equal(found, load_pixels(paths, HERE, 8, "rgb"))


def test_a_failure_leaves_nothing(paths, cache_dir, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(disk_arrays, "reserve", full)
    with pytest.raises(OSError, match="No space"):
        load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_two_programs_at_once_write_one_cache(paths, cache_dir, monkeypatch):
    """The other one is done first, between the end of our decoding and the publication."""
    decode = image_cache._decode

    def decode_and_be_overtaken(*arguments):
        pixels = decode(*arguments)
        monkeypatch.setattr(image_cache, "_decode", decode)
        load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
        return pixels

    monkeypatch.setattr(image_cache, "_decode", decode_and_be_overtaken)
    found = load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert_equal(found, load_pixels(paths, HERE, 8, "rgb"))
    assert len(list(cache_dir.iterdir())) == 1


def test_what_a_killed_program_left_goes_after_a_week(paths, cache_dir):
    old, young = cache_dir / ".writing-old", cache_dir / ".writing-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    load_pixels(paths, HERE, 8, "rgb", cache_dir=cache_dir)
    assert (old.exists(), young.exists()) == (False, True)


def test_many_files_are_read_in_parts(paths, cache_dir, monkeypatch):
    expected = load_pixels(paths, HERE, 8, "grayscale")
    monkeypatch.setattr(image_cache, "_CHUNK", 2)
    assert_equal(load_pixels(paths, HERE, 8, "grayscale", cache_dir=cache_dir), expected)


def test_no_file_at_all(cache_dir):
    assert load_pixels([], HERE, 8, "rgb").images.shape == (0, 8, 8, 3)


PARTS = {"classes alone": [""], "train and test": ["train", "test"]}
CUTS = [{}, {"unseen_classes": ["20%"]}, {"validation_size": 60}]


@pytest.fixture(params=PARTS.values(), ids=PARTS)
def photos(tmp_path, rng, request):
    """A folder of 25 classes."""
    for part in request.param:
        for c in range(25):
            folder = tmp_path / "photos" / part / f"c{c:02d}"
            folder.mkdir(parents=True)
            for i in range(12):
                Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("options", CUTS)
def test_a_dataset_from_a_cache_is_the_same(photos, cache_dir, options):
    expected = load_dataset("folder", photos, **options)
    found = load_dataset("folder", photos, cache_dir=cache_dir, **options)
    for part, split in found.splits.items():
        assert isinstance(split.images, np.memmap)
        np.testing.assert_array_equal(split.images, expected.splits[part].images)
        np.testing.assert_array_equal(split.labels, expected.splits[part].labels)
    assert found.fingerprint == expected.fingerprint


@pytest.mark.parametrize("options", CUTS)
def test_a_folder_read_again_is_neither_copied_nor_digested(
    photos, cache_dir, monkeypatch, options
):
    expected = load_dataset("folder", photos, cache_dir=cache_dir, **options)
    fingerprint = expected.fingerprint
    monkeypatch.setattr(disk_arrays, "_fill", None)
    monkeypatch.setattr(splits, "image_digests", None)
    found = load_dataset("folder", photos, cache_dir=cache_dir, **options)
    assert found.fingerprint == fingerprint
    for part, split in found.splits.items():
        np.testing.assert_array_equal(split.images, expected.splits[part].images)


def test_a_damaged_split_is_written_anew(photos, cache_dir):
    expected = load_dataset("folder", photos, cache_dir=cache_dir)
    pixels = {part: split.images.copy() for part, split in expected.splits.items()}
    del expected
    kept = list(cache_dir.glob("*/rows-*.npy"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1])
    found = load_dataset("folder", photos, cache_dir=cache_dir)
    for part, split in found.splits.items():
        np.testing.assert_array_equal(split.images, pixels[part])


def test_the_folder_may_be_named_in_another_way(photos, cache_dir, decoded, monkeypatch):
    load_dataset("folder", photos, cache_dir=cache_dir)
    count = len(decoded)
    monkeypatch.chdir(photos.parent)
    load_dataset("folder", "photos", cache_dir=cache_dir)
    assert len(decoded) == count


def test_datasets_without_image_files_have_no_cache(tmp_path):
    with pytest.raises(ArgumentError, match=r"datasets folder and csv\. Received: dataset idx"):
        load_dataset("idx", tmp_path, cache_dir=tmp_path / "cache")


def test_the_default_size_is_the_median_of_the_smaller_sides(tmp_path):
    def write(name, size):
        Image.new("RGB", size).save(tmp_path / name)
        return str(tmp_path / name)

    sizes = [(30, 20), (24, 90), (50, 50), (7, 7), (40, 33)]  # smaller sides 20 24 50 7 33
    files = [write(f"{i}.png", size) for i, size in enumerate(sizes)]
    (tmp_path / "broken.png").write_bytes(b"")
    others = [str(tmp_path / name) for name in ("broken.png", "missing.png")]
    assert default_image_size([*files, *others]) == 24
    assert default_image_size([write("large.png", (300, 200))]) == 64
    assert default_image_size([]) == 64


def test_a_cache_that_cannot_be_written_to_is_read(photos, cache_dir, monkeypatch):
    load_dataset("folder", photos, cache_dir=cache_dir)
    files = sorted(cache_dir.rglob("*"))
    monkeypatch.setattr(disk_arrays.os, "access", lambda *_: False)
    found = load_dataset("folder", photos, cache_dir=cache_dir, unseen_classes=["30%"])
    assert found.fingerprint == load_dataset("folder", photos, unseen_classes=["30%"]).fingerprint
    assert isinstance(found.train.images, np.memmap)
    assert sorted(cache_dir.rglob("*")) == files


def test_a_cache_is_not_made_a_class_of_the_images(photos):
    for place in (photos, photos / "cache", photos / "c00" / "cache"):
        with pytest.raises(ArgumentError, match="`cache_dir` must not be inside the folder of im"):
            load_dataset("folder", photos, cache_dir=place)
    assert not (photos / "cache").exists()
    for _ in range(2):
        assert len(load_dataset("folder", photos, cache_dir=photos / ".cache").train)
