"""Arrays on disk: cut and joined as arrays in memory are, without memory and without leftovers."""

import errno

import numpy as np
import pytest

from siamese_keras.data import disk_arrays
from siamese_keras.data.disk_arrays import joined, taken
from siamese_keras.data.pipeline import pair_pipeline
from siamese_keras.data.splits import Split


@pytest.fixture
def on_disk(tmp_path):
    """A function that writes an array into a file and maps it."""

    def write(array, name="array.npy"):
        np.save(tmp_path / name, array)
        return np.load(tmp_path / name, mmap_mode="r")

    return write


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3000, 3, 2, 1), np.uint8)


@pytest.mark.parametrize(
    "indices",
    [
        np.arange(3000)[::-1],
        np.arange(3000) % 7 == 3,
        np.arange(3000),
        np.ones(3000, bool),
        np.zeros(3000, bool),
        np.array([5, 5, 2999]),
        np.array([], np.int64),
    ],
)
def test_what_is_taken_is_the_same_and_stays_on_disk(images, on_disk, tmp_path, indices):
    found = taken(on_disk(images), indices)
    np.testing.assert_array_equal(found, images[indices])
    assert isinstance(found, np.memmap) or not len(found)
    assert not isinstance(taken(images, indices), np.memmap)
    assert [p.name for p in tmp_path.iterdir()] == ["array.npy"]  # the other file has no name


def test_what_is_taken_twice_lies_beside_the_first_file(images, on_disk, tmp_path, monkeypatch):
    folders = []
    create = disk_arrays.tempfile.NamedTemporaryFile

    def note(**options):
        folders.append(options["dir"])
        return create(**options)

    monkeypatch.setattr(disk_arrays.tempfile, "NamedTemporaryFile", note)
    once = taken(on_disk(images), np.arange(2000, 0, -1))
    twice = taken(once[5:], np.array([3, 1]))
    np.testing.assert_array_equal(twice, images[[1992, 1994]])
    assert folders == [tmp_path, tmp_path]


def test_arrays_are_joined_where_the_first_one_lies(images, on_disk, tmp_path):
    first, second = on_disk(images), on_disk(images[:1500], "second.npy")
    found = joined([first, second])
    np.testing.assert_array_equal(found, np.concatenate([images, images[:1500]]))
    assert isinstance(found, np.memmap)
    assert joined([first]) is first
    in_memory = joined([images, images[:2]])
    assert not isinstance(in_memory, np.memmap)
    assert len(in_memory) == 3002


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(images, on_disk, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    mapped = on_disk(images)
    monkeypatch.setattr(disk_arrays.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        taken(mapped, np.array([1, 0]))


def test_a_split_on_disk_stays_there(images, on_disk):
    split = Split(on_disk(images), np.arange(3000) % 4)
    assert isinstance(split.images, np.memmap)
    assert isinstance(split.take(split.labels == 2).images, np.memmap)


@pytest.mark.parametrize("kind", ["all", "balanced"])
def test_pairs_of_images_on_disk_are_the_same(images, on_disk, kind):
    labels = np.arange(3000) % 5
    options = {"kind": kind, "batch_size": 64, "seed": 3, "augment": "flip-shift"}
    pipelines = [pair_pipeline(x, labels, **options) for x in (images, on_disk(images))]
    for (inputs, different), (others, same) in zip(*pipelines, strict=True):
        for side in ("left", "right"):
            np.testing.assert_array_equal(inputs[side], others[side])
            assert others[side].shape[1:] == (3, 2, 1)
        np.testing.assert_array_equal(different, same)


def test_a_cache_that_is_deleted_meanwhile_does_not_end_the_program(images, on_disk, tmp_path):
    (tmp_path / "cache").mkdir()
    array, keep = on_disk(images, "cache/array.npy"), tmp_path / "cache" / "split.npy"
    indices = np.arange(2000, 0, -1)

    class Deleting(np.memmap):
        """An array whose folder is deleted when it is read."""

        def __getitem__(self, key):
            for path in (tmp_path / "cache").rglob("split.npy"):
                path.unlink()
            return np.asarray(super().__getitem__(key))

    found = taken(array.view(Deleting), indices, keep)
    np.testing.assert_array_equal(found, images[indices])
