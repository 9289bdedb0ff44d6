import dataclasses

import numpy as np
import pytest

from siamese_keras.data.cut import cut_dataset
from siamese_keras.data.datasets import FASHION_MNIST_CLASSES
from siamese_keras.data.splits import Dataset, Split, hold_out_classes, image_digests
from siamese_keras.errors import ArgumentError, DataError

NAMES = ("hat", "scarf", "glove", "belt", "sock")
COUNTS = (60, 25, 100, 12, 43)


def noise(rng, count, shape=(4, 4, 1)):
    return rng.integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def images(rng):
    """240 different images of five uneven classes, shuffled."""
    return Split(noise(rng, sum(COUNTS)), rng.permutation(np.repeat(range(5), COUNTS)))


@pytest.fixture
def published(rng):
    """50 more, as a dataset brings them along."""
    return Split(noise(rng, 50), np.repeat(range(5), 10))


def cut(train, test=None, *, names=NAMES, validation_size=30):
    return cut_dataset(
        train,
        test,
        names,
        name="clothes",
        validation_size=validation_size,
        test_share=1 / 6,
    )


def content(*splits):
    """The images with their labels, as a sorted list."""
    return sorted(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def assert_equal_in_order(first, second):
    for part, split in first.splits.items():
        np.testing.assert_array_equal(split.images, second.splits[part].images)
        np.testing.assert_array_equal(split.labels, second.splits[part].labels)


@pytest.mark.parametrize("own_test", [False, True])
def test_the_order_of_the_images_does_not_matter(images, published, own_test, rng):
    test = published if own_test else None
    first = cut(images, test)
    for _ in range(3):
        shuffled = images.take(rng.permutation(len(images)))
        shuffled_test = test and test.take(rng.permutation(len(test)))
        again = cut(shuffled, shuffled_test)
        assert_equal_in_order(first, again)
        assert first.fingerprint == again.fingerprint


def test_the_order_of_equal_images_with_unequal_labels_does_not_matter(images, rng):
    images.images[20:40] = images.images[0]
    first, again = (cut(images.take(rng.permutation(len(images)))) for _ in range(2))
    assert_equal_in_order(first, again)


def test_no_image_is_lost_or_doubled(images, published):
    three_parts = cut(images)
    assert content(*three_parts.splits.values()) == content(images)
    two_parts = cut(images, published)
    assert content(two_parts.train, two_parts.validation) == content(images)
    assert content(two_parts.test) == content(published)


def test_what_is_held_out_is_not_what_came_first(images):
    """In files that are sorted by date or by maker, the first images are not like the last."""
    for label in range(5):
        places = np.flatnonzero(images.labels == label)
        first = {image.tobytes() for image in images.images[places[: len(places) // 4]]}
        held_out = {
            image.tobytes()
            for split in (cut(images).validation, cut(images).test)
            for image in split.images[split.labels == label]
        }
        assert not held_out <= first


@pytest.mark.parametrize("own_test", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_identical_images_are_not_separated_whatever_their_labels(own_test, seed, published):
    rng = np.random.default_rng(seed)
    different = noise(rng, 150)
    copies = different[rng.integers(0, 150, 300)]  # two on the average, up to nine
    dataset = cut(Split(copies, rng.integers(0, 5, 300)), published if own_test else None)
    made = ["train", "validation"] if own_test else ["train", "validation", "test"]
    digests = [set(image_digests(dataset.splits[part].images)) for part in made]
    assert sum(map(len, digests)) == len(set.union(*digests))
    assert all(digests)


def test_the_validation_size_is_met_beside_identical_images(rng):
    pairs = np.repeat(noise(rng, 30), 2, axis=0)
    copies = np.concatenate([noise(rng, 60), pairs])
    dataset = cut(Split(copies, np.tile(range(5), 24)), validation_size=31)
    assert len(dataset.validation) == 31


def test_published_of_the_dataset_stay_even_when_they_are_in_train_too(images):
    """The published test set of Fashion-MNIST has such images; it is not ours to change."""
    dataset = cut(images, images.take(np.arange(200)))
    assert content(dataset.test) == content(images.take(np.arange(200)))


@pytest.mark.parametrize("own_test", [False, True])
def test_another_image_moves_few_others(images, published, own_test, rng):
    test = published if own_test else None
    before = cut(images, test)
    for label in [*range(5)] * 4:
        labels = np.append(images.labels, label)
        after = cut(Split(np.concatenate([images.images, noise(rng, 1)]), labels), test)
        moved = [
            len(set(content(split)) - set(content(after.splits[part])))
            for part, split in before.splits.items()
        ]
        # One makes room in the class of the new image, for the test and for the validation, and
        # the rounding of the quotas may move one more each way.
        assert sum(moved) <= 4


@pytest.mark.parametrize("size", [10, 11, 24, 100, 229, 230])
def test_the_validation_size_is_exact_and_every_class_has_two_images(images, published, size):
    dataset = cut(images, published, validation_size=size)
    assert len(dataset.validation) == size
    assert len(dataset.train) == 240 - size
    for split in (dataset.train, dataset.validation):
        assert np.bincount(split.labels, minlength=5).min() >= 2


def test_classes_give_in_proportion_to_their_size(images, published):
    dataset = cut(images, published, validation_size=48)
    # A fifth of 60, 25, 100, 12 and 43 images: 12, 5, 20, 2.4 and 8.6.
    assert np.bincount(dataset.validation.labels).tolist() == [12, 5, 20, 2, 9]
    dataset = cut(images, validation_size=40)
    # A sixth for the test, at least 2: 10, 4.2, 16.7, 2 and 7.2.
    assert np.bincount(dataset.test.labels).tolist() == [10, 4, 17, 2, 7]
    # A fifth of the remaining 50, 21, 83, 10 and 36: 10, 4.2, 16.6, 2 and 7.2.
    assert np.bincount(dataset.validation.labels).tolist() == [10, 4, 17, 2, 7]


@pytest.mark.parametrize("size", [0, 9, 231, 240])
def test_a_validation_size_out_of_range_is_refused(images, published, size):
    message = (
        f"`validation_size` must be between 10 and 230 for 240 images of 5 classes. "
        f"Received: validation_size={size}"
    )
    with pytest.raises(ArgumentError, match=message):
        cut(images, published, validation_size=size)


def test_the_range_of_the_validation_size_counts_what_the_test_set_leaves(images):
    with pytest.raises(ArgumentError, match="between 10 and 190 for 200 images of 5 classes"):
        cut(images, validation_size=191)
    assert len(cut(images, validation_size=190).train) == 10


def test_classes_without_images_are_left_alone(images):
    some = images.take(images.labels != 1)
    dataset = cut(some)
    assert dataset.class_names == NAMES
    assert {1} == {0, 1, 2, 3, 4} - set(dataset.validation.labels.tolist())


def test_classes_that_are_too_small_are_named(images, published):
    def with_counts(*counts):
        places = [np.flatnonzero(images.labels == i)[:count] for i, count in enumerate(counts)]
        return images.take(np.concatenate(places))

    cut(with_counts(6, 6, 6, 6, 6), validation_size=10)
    message = r"Every class needs 6 training images, 2 for each of 3 splits. Too few: scarf, belt$"
    with pytest.raises(DataError, match=message):
        cut(with_counts(6, 5, 6, 1, 6), validation_size=10)
    cut(with_counts(4, 4, 4, 4, 4), published, validation_size=10)
    message = r"Every class needs 4 training images, 2 for each of 2 splits. Too few: glove$"
    with pytest.raises(DataError, match=message):
        cut(with_counts(4, 4, 3, 4, 4), published, validation_size=10)
    with pytest.raises(DataError, match=r"at least two classes\. Received: 1"):
        cut(with_counts(50), validation_size=10)


def test_of_many_small_classes_some_are_named(rng):
    names = [f"c{i}" for i in range(9)]
    with pytest.raises(DataError, match=r"Too few: c0, c1, c2, c3, c4 and 4 more$"):
        cut(Split(noise(rng, 9), np.arange(9)), names=names)


@pytest.mark.parametrize(("copies", "count"), [(40, "no"), (39, "one")])
def test_a_class_of_identical_images_is_named(images, published, copies, count):
    """Together on one side, they leave the other side without a pair of the class."""
    (belts,) = np.nonzero(images.labels == 3)
    others = images.take(images.labels != 3)
    same = np.repeat(images.images[belts[:1]], copies, axis=0)
    belt_images = np.concatenate([same, images.images[belts[1 : 1 + 40 - copies]]])
    train = Split(
        np.concatenate([others.images, belt_images]),
        np.concatenate([others.labels, np.full(40, 3)]),
    )
    with pytest.raises(DataError, match=f"'belt' has {count} image in the validation .* identical"):
        cut(train, published)


def test_a_class_with_one_test_image_is_named_and_one_without_is_left_alone(images, published):
    few = np.flatnonzero(published.labels == 2)
    dataset = cut(images, published.take(np.delete(np.arange(50), few)))
    assert len(dataset.test) == 40
    with pytest.raises(DataError, match="Class 'glove' has one image in the test split"):
        cut(images, published.take(np.delete(np.arange(50), few[1:])))


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


def test_a_name_that_is_a_number_is_taken_as_a_name(sample):
    names = ("1", "10", "2", *sample.class_names[3:])
    dataset = Dataset(sample.train, sample.validation, sample.test, names)
    _, unseen = hold_out_classes(dataset, ["1", "2"])
    assert set(unseen.labels) == {0, 2}


def test_unseen_classes_are_held_out_by_name_or_number(sample):
    seen, unseen = hold_out_classes(
        Dataset(sample.train, sample.validation, sample.test, FASHION_MNIST_CLASSES),
        ["Dress", "6", " sneaker", "8"],
    )
    for split in seen.splits.values():
        assert set(split.labels) == {0, 1, 2, 4, 5, 9}
    assert seen.class_names == FASHION_MNIST_CLASSES
    assert set(unseen.labels) == {3, 6, 7, 8}
    assert len(unseen) == 80
    assert content(unseen, seen.test) == content(sample.test)
    same, none = hold_out_classes(sample, [])
    assert same is sample
    assert none is None


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["hat"], "Received: 'hat'"),
        (["10"], "Received: '10'"),
        (["-1"], "Received: '-1'"),
        (["3"], "at least two"),
        (["3", "3"], "at least two"),
        ([str(i) for i in range(9)], "leave at least two"),
    ],
)
def test_unseen_classes_must_be_known_and_leave_enough(sample, classes, message):
    with pytest.raises(ArgumentError, match=message):
        hold_out_classes(sample, classes)
