import numpy as np
import pytest
from helpers.splits import NAMES, clothes, content, cut, noise

from siamese_keras.data.cut import default_validation_size
from siamese_keras.data.splits import Split, image_digests
from siamese_keras.errors import ArgumentError, DataError


@pytest.fixture
def images(rng):
    return clothes(rng)


@pytest.fixture
def published(rng):
    """50 more, as a dataset brings them along."""
    return Split(noise(rng, 50), np.repeat(range(5), 10))


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


@pytest.mark.parametrize("size", [1, 9, 231, 240])
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
    message = (
        r"Every class needs 6 training images, 2 for each of 3 splits. Too few: scarf \(5\), belt"
    )
    with pytest.raises(DataError, match=message):
        cut(with_counts(6, 5, 6, 1, 6), validation_size=10)
    cut(with_counts(4, 4, 4, 4, 4), published, validation_size=10)
    message = r"Every class needs 4 training images, 2 for each of 2 splits. Too few: glove \(3\)$"
    with pytest.raises(DataError, match=message):
        cut(with_counts(4, 4, 3, 4, 4), published, validation_size=10)
    with pytest.raises(DataError, match=r"at least two classes\. Received: 1"):
        cut(with_counts(50), validation_size=10)


def test_of_many_small_classes_some_are_named(rng):
    names = [f"c{i}" for i in range(9)]
    with pytest.raises(DataError, match=r"Too few: c0 \(\d\), c1 .* c4 \(\d\) and 4 more$"):
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


def test_a_default_validation_size_is_a_twelfth_or_up_to_500_of_fewer_images(rng, published):
    assert [default_validation_size(n) for n in (60_000, 12_000, 5928, 2500, 320)] == [
        5000, 1000, 500, 500, 64,
    ]  # fmt: skip
    assert len(cut(clothes(rng), published, validation_size=0).validation) == 48  # a fifth of 240
    small = Split(noise(rng, 24), np.repeat(range(5), [8, 4, 4, 4, 4]))
    assert len(cut(small, published, validation_size=0).validation) == 10  # two of each class


def test_validation_images_that_a_dataset_brings_along_are_taken_as_they_are(images, published):
    test = Split(255 - published.images, published.labels)
    dataset = cut(images, test, published, validation_size=0)
    assert content(dataset.train) == content(images)
    assert content(dataset.validation) == content(published)
    assert content(dataset.test) == content(test)
    assert len(cut(images, None, published, validation_size=0).test) == 40
    with pytest.raises(ArgumentError, match="`validation_size` must be 0 for data with validation"):
        cut(images, test, published, validation_size=40)
