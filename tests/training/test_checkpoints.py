import zipfile

import numpy as np
import pytest

from siamese_keras.errors import DataError
from siamese_keras.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint


def checkpoint(epoch, step=0):
    rng = np.random.default_rng(epoch)
    arrays = {
        "model": [rng.normal(size=(3, 2)).astype(np.float32) for _ in range(12)],
        "optimizer": [np.array(epoch, np.int64)],
        "best": [],
    }
    return Checkpoint(epoch, step, {"history": {"loss": [0.5, float("nan")]}}, arrays)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path):
    written = checkpoint(3, 7)
    write_checkpoint(tmp_path / "checkpoints", written)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert (found.epoch, found.step) == (3, 7)
    assert str(found.facts) == str(written.facts)
    assert {**found.arrays, "best": []}.keys() == written.arrays.keys()
    for group, arrays in found.arrays.items():
        for array, expected in zip(arrays, written.arrays[group], strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def test_the_newest_two_are_kept_whatever_the_clock_says(tmp_path):
    for epoch, step in ((0, 0), (1, 0), (1, 9), (1, 10), (2, 0)):
        write_checkpoint(tmp_path, checkpoint(epoch, step))
    assert names(tmp_path) == [
        "epoch-000001-step-000000010.npz",
        "epoch-000002-step-000000000.npz",
    ]
    (tmp_path / "epoch-000002-step-000000000.npz").touch()
    import os

    os.utime(tmp_path / "epoch-000002-step-000000000.npz", (0, 0))
    assert newest_checkpoint(tmp_path).epoch == 2


@pytest.mark.parametrize("folder", ["missing", "."])
def test_without_a_checkpoint_there_is_none(tmp_path, folder):
    (tmp_path / "notes.npz").write_text("not one")
    assert newest_checkpoint(tmp_path / folder) is None


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def with_pickle(path):
    np.savez(path, facts=np.array([print], object))


def compressed(path):
    np.savez_compressed(path, facts=np.zeros(10**6, np.uint8))


def without_facts(path):
    np.savez(path, **{"model/0": np.zeros(3)})


def with_another_text(path):
    np.savez(path, facts=np.frombuffer(b"[1, 2]", np.uint8))


def with_another_name(path):
    np.savez(path, facts=np.frombuffer(b"{}", np.uint8), model=np.zeros(3))


def larger_than_memory(path):
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
    header = (header % 10**15).ljust(127) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("facts.npy", header)


DAMAGES = [
    flip_a_bit, cut_off, empty, with_pickle, compressed, without_facts, with_another_text,
    with_another_name, larger_than_memory,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, caplog, damage):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, checkpoint(epoch))
    damage(tmp_path / "epoch-000002-step-000000000.npz")
    assert newest_checkpoint(tmp_path).epoch == 1
    (record,) = caplog.records
    message = record.getMessage()
    assert f"`{tmp_path}/epoch-000002-step-000000000.npz` is damaged: " in message
    assert message.endswith("Resuming from the previous one.")
    assert "\n" not in message


def test_when_all_are_damaged_that_is_an_error(tmp_path):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, checkpoint(epoch))
        cut_off(tmp_path / f"epoch-00000{epoch}-step-000000000.npz")
    with pytest.raises(DataError, match=r"epoch-000001-step-000000000\.npz` is damaged"):
        newest_checkpoint(tmp_path)
