import numpy as np
import pytest

from siamese_keras.data.datasets import load_dataset
from siamese_keras.data.npz import load_npz
from siamese_keras.errors import DataError


@pytest.fixture
def arrays(sample):
    whole = {part: (split.images[..., 0], split.labels) for part, split in sample.splits.items()}
    return {
        "x_train": whole["train"][0], "y_train": whole["train"][1],
        "x_test": whole["test"][0], "y_test": whole["test"][1],
    }  # fmt: skip


def test_the_arrays_of_keras_are_read(tmp_path, arrays, sample):
    np.savez(tmp_path / "mnist.npz", **arrays)
    source = load_npz(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(source.train.images, sample.train.images)
    np.testing.assert_array_equal(source.test.labels, sample.test.labels)
    assert source.class_names == tuple("0123456789")
    dataset = load_dataset("npz", tmp_path / "mnist.npz", validation_size=100)
    assert [len(split) for split in dataset.splits.values()] == [400, 100, 200]
    assert dataset.name == "mnist"


@pytest.mark.parametrize("part", ["test", "val"])
def test_classes_without_training_images_are_refused(tmp_path, arrays, part):
    known = arrays["y_train"] < 8
    named = {
        "x_train": arrays["x_train"][known], "y_train": arrays["y_train"][known],
        f"x_{part}": arrays["x_test"], f"y_{part}": arrays["y_test"],
    }  # fmt: skip
    np.savez(tmp_path / "mnist.npz", **named)
    whole = "validation" if part == "val" else part
    with pytest.raises(DataError, match=f"Only in {whole}: 8, 9"):
        load_dataset("npz", tmp_path / "mnist.npz")


def test_labels_may_be_a_column_and_validation_may_be_given(tmp_path, arrays):
    named = {
        "train_images": arrays["x_train"], "train_labels": arrays["y_train"][:, None],
        "val_images": arrays["x_test"], "val_labels": arrays["y_test"][:, None],
    }  # fmt: skip
    np.savez_compressed(tmp_path / "medical.npz", **named)
    source = load_npz(tmp_path / "medical.npz")
    assert len(source.validation) == 200
    assert source.test is None
    dataset = load_dataset("npz", tmp_path / "medical.npz", image_size=14)
    assert {split.images.shape[1:] for split in dataset.splits.values()} == {(14, 14, 1)}


def test_color_and_train_alone(tmp_path, arrays):
    color = np.repeat(arrays["x_train"][..., None], 3, axis=3)
    np.savez(tmp_path / "color.npz", x_train=color, y_train=arrays["y_train"])
    source = load_npz(tmp_path / "color.npz")
    assert source.train.images.shape == (500, 28, 28, 3)
    assert source.test is None


def test_a_damaged_file_is_one_line(tmp_path, arrays):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)  # within the first array
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"must be an \.npz file of arrays"):
        load_npz(path)


def test_another_file_is_not_called_a_pickle(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label")
    with pytest.raises(
        DataError, match=r"must be an \.npz file of arrays\. It is not a zip archive"
    ):
        load_npz(tmp_path / "labels.csv")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_images_is_refused(tmp_path, arrays, part):
    arrays |= {f"x_{part}": arrays["x_test"][:0], f"y_{part}": arrays["y_test"][:0]}
    np.savez(tmp_path / "empty.npz", **arrays)
    with pytest.raises(DataError, match=f"must hold {part} images. Received: none"):
        load_npz(tmp_path / "empty.npz")
