import dataclasses

import numpy as np
import pytest
from helpers.splits import NAMES, clothes, cut, noise

from siamese_keras.data.splits import Dataset, Split, image_digests
from siamese_keras.errors import DataError


@pytest.fixture
def images(rng):
    return clothes(rng)


@pytest.fixture
def dataset(images):
    return cut(images)


def with_part(dataset, part, images=None, labels=None):
    split = dataset.splits[part]
    images = split.images if images is None else images
    labels = split.labels if labels is None else labels
    return dataclasses.replace(dataset, **{part: Split(images, labels)})


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_fingerprint_covers_every_pixel_and_label(dataset, part):
    images, labels = dataset.splits[part].images.copy(), dataset.splits[part].labels.copy()
    images[-1, -1, -1, -1] ^= 1
    labels[-1] = (labels[-1] + 1) % 5
    variants = [
        dataset,
        with_part(dataset, part, images=images),
        with_part(dataset, part, labels=labels),
        with_part(dataset, part, images=images, labels=labels),
    ]
    assert len({variant.fingerprint for variant in variants}) == 4


def test_the_fingerprint_covers_the_split_the_class_names_and_the_shape(dataset):
    moved = dataclasses.replace(
        dataset,
        train=dataset.train.take(np.arange(1, len(dataset.train))),
        validation=Split(
            np.concatenate([dataset.validation.images, dataset.train.images[:1]]),
            np.append(dataset.validation.labels, dataset.train.labels[0]),
        ),
    )
    exchanged = dataclasses.replace(dataset, validation=dataset.test, test=dataset.validation)
    renamed = dataclasses.replace(dataset, class_names=("cap", *NAMES[1:]))
    flat = [
        Split(split.images.reshape(-1, 2, 8, 1), split.labels) for split in dataset.splits.values()
    ]
    reshaped = Dataset(*flat, class_names=NAMES)
    variants = [dataset, moved, exchanged, renamed, reshaped]
    assert len({variant.fingerprint for variant in variants}) == 5


def test_the_fingerprint_covers_where_one_split_ends_and_the_next_begins(images):
    digests = image_digests(images.images)
    in_order = images.take(np.array(sorted(range(len(images)), key=digests.__getitem__)))
    fingerprints = set()
    for end in (99, 100, 101):
        parts = np.split(np.arange(len(images)), [end, 200])
        fingerprints.add(Dataset(*map(in_order.take, parts), class_names=NAMES).fingerprint)
    assert len(fingerprints) == 3


def test_the_fingerprint_covers_which_label_an_image_has(dataset):
    labels = dataset.train.labels.copy()
    first, second = 0, np.flatnonzero(labels != labels[0])[0]
    labels[[first, second]] = labels[[second, first]]
    assert with_part(dataset, "train", labels=labels).fingerprint != dataset.fingerprint


def test_the_fingerprint_covers_neither_the_order_within_a_split_nor_the_name(dataset, rng):
    shuffled = {
        part: split.take(rng.permutation(len(split))) for part, split in dataset.splits.items()
    }
    assert dataclasses.replace(dataset, **shuffled).fingerprint == dataset.fingerprint
    assert dataclasses.replace(dataset, name="other").fingerprint == dataset.fingerprint
    wide = Split(dataset.train.images, dataset.train.labels.astype(np.int64))
    assert dataclasses.replace(dataset, train=wide).fingerprint == dataset.fingerprint


def test_the_fingerprint_is_the_same_in_every_version():
    """It is kept in `model.json`: a change here makes every trained model refuse its dataset."""
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    pair = np.array([0, 1])
    dataset = Dataset(
        Split(images[:2], pair), Split(images[2:4], pair), Split(images[4:], pair), ("a", "b")
    )
    assert dataset.fingerprint == (
        "2c86e568e4f321f5c755a8502d7c1aec72f222d77ab8d0eeaf7a12b86f41d4fc"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 4, 4, 1), np.float32), r"do not divide by 255.*float32 of shape \(3, 4, 4,"),
        (np.zeros((3, 4, 4, 1), np.int64), "must be uint8.*Received: int64"),
        (np.zeros((3, 4, 4, 1), bool), "must be uint8.*Received: bool"),
        (np.zeros((3, 4, 4), np.uint8), r"\[n, height, width, channels\].*\(3, 4, 4\)"),
        (np.zeros((3, 16), np.uint8), r"\[n, height, width, channels\].*\(3, 16\)"),
        (np.zeros((1, 3, 4, 4, 1), np.uint8), r"\[n, height, width, channels\]"),
        (np.zeros((3, 4, 4, 0), np.uint8), r"\[n, height, width, channels\].*\(3, 4, 4, 0\)"),
        (np.zeros((3, 0, 4, 1), np.uint8), r"\[n, height, width, channels\].*\(3, 0, 4, 1\)"),
        (np.zeros((3, 1, 8, 8), np.uint8), r"channels last.*moveaxis.*\(3, 1, 8, 8\)"),
        (np.zeros((3, 4, 4), np.uint8), r"add the axis of channels"),
        ([[[0]]] * 3, "must be uint8.*Received: int64"),
        (["a.png", "b.png", "c.png"], "must be uint8"),
    ],
)
def test_a_split_refuses_what_is_not_a_batch_of_images(images, message):
    with pytest.raises(DataError, match=message):
        Split(images, np.zeros(3, int))


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.zeros((3, 1), int), r"int64 of shape \(3, 1\)"),
        (np.eye(3, dtype=int), r"int64 of shape \(3, 3\)"),
        ([[0], [1], [1]], r"int64 of shape \(3, 1\)"),
        (np.zeros(3), r"float64 of shape \(3,\)"),
        (np.zeros(2, int), r"int64 of shape \(2,\)"),
        (np.zeros(4, int), r"int64 of shape \(4,\)"),
        (np.array(["a", "b", "c"]), "of shape"),
        (0, r"of shape \(\)"),
    ],
)
def test_a_split_refuses_labels_that_do_not_fit(labels, received):
    with pytest.raises(DataError, match=f"`labels` must be 3 integers, .* Received: .*{received}"):
        Split(np.zeros((3, 4, 4, 1), np.uint8), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_labels_of_any_integer_type_become_int32(dtype):
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 7], dtype))
    assert split.labels.dtype == np.int32
    assert split.labels.tolist() == [0, 7]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("label", [-1, 5])
def test_a_dataset_refuses_labels_without_a_name(dataset, part, label):
    labels = dataset.splits[part].labels.copy()
    labels[1] = label
    with pytest.raises(DataError, match=f"Labels must be 0 to 4.* Received: .*{label}.* in {part}"):
        with_part(dataset, part, labels=labels)


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("shape", [(5, 4, 1), (4, 4, 3)])
def test_a_dataset_refuses_splits_of_several_shapes(dataset, part, shape, rng):
    images = noise(rng, len(dataset.splits[part]), shape)
    expected = rf"one shape.* Received: {part} images \({', '.join(map(str, shape))}\), train"
    with pytest.raises(DataError, match=expected):
        with_part(dataset, part, images=images)


def test_repr_is_one_short_line(dataset):
    assert repr(dataset) == (
        "<Dataset clothes: 170 train, 30 validation, 40 test images of 4x4x1, 5 classes>"
    )
    assert repr(dataset.train) == "<Split: 170 images of 4x4x1, 5 classes>"


def test_datasets_and_splits_can_be_compared_and_hashed(dataset, images):
    """Those that hold arrays raise from `==` when their fields are compared."""
    assert dataset == dataset
    assert dataset != cut(images)
    assert len({dataset, dataset.train, dataset.test}) == 3


def test_a_dataset_refuses_queries_that_are_not_one_for_each_test_image(dataset):
    with pytest.raises(DataError, match="`queries` must be 40 truth values"):
        dataclasses.replace(dataset, queries=np.zeros(39, bool))


@pytest.mark.parametrize("shared", [False, True])
def test_a_dataset_is_open_set_when_no_test_class_is_trained_on(images, shared):
    train, test = (np.isin(images.labels, classes) for classes in ([0, 1], [2, 3]))
    test[np.flatnonzero(train)[0]] = shared
    dataset = Dataset(images.take(train), images.take(images.labels == 4), images.take(test), NAMES)
    assert dataset.is_open_set is not shared
    assert ("split by class" in repr(dataset)) is not shared


def test_a_dataset_refuses_images_of_0_to_1(dataset):
    """Divided by 255 and cast: nearly everything would be black."""
    images = dataset.train.images // 200
    with pytest.raises(DataError, match=r"do not divide by 255.* Received: train images of 0 to 1"):
        with_part(dataset, "train", images=images)


@pytest.mark.parametrize("name", ["", "..", "my own/photos"])
def test_a_name_that_no_folder_can_have_is_refused(sample, name):
    with pytest.raises(DataError, match=r"`name` must be the name of a folder\. Received: "):
        dataclasses.replace(sample, name=name)


def test_a_dataset_of_black_images_is_not_taken_for_one_of_0_to_1(dataset):
    images = np.zeros_like(dataset.train.images)
    assert len(with_part(dataset, "train", images=images).train) == 170


def test_a_dataset_refuses_superclasses_that_are_not_one_for_each_class(dataset):
    with pytest.raises(DataError, match="`superclasses` must be 5 integers, one for each class"):
        dataclasses.replace(dataset, superclasses=np.zeros(4, int))


def test_labels_that_are_too_large_for_int32_are_refused():
    with pytest.raises(
        DataError, match=r"`labels` must be less than 2\*\*31\. Received: 2147483648"
    ):
        Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2**31]))


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (np.zeros((3, 1), int), r": take labels\[:, 0\]"),
        (np.eye(3), r": of one-hot labels take labels\.argmax\(axis=1\)"),
        (np.array(["a", "b", "c"]), r": np\.unique\(labels, return_inverse=True\) gives .*"),
        (np.zeros(4, int), ""),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_to_do(labels, hint):
    with pytest.raises(DataError, match=rf"one for each image{hint}\. Received"):
        Split(np.zeros((3, 4, 4, 1), np.uint8), labels)
