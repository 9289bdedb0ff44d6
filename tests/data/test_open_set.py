import dataclasses

import numpy as np
import pytest
from helpers.splits import content, noise

from siamese_keras.data.datasets import FASHION_MNIST_CLASSES
from siamese_keras.data.open_set import (
    cut_classes,
    cut_validation_classes,
    hold_out_classes,
)
from siamese_keras.data.splits import Dataset, Source, Split
from siamese_keras.errors import ArgumentError, DataError


def test_a_name_that_is_a_number_is_taken_as_a_name(sample):
    names = ("1", "10", "2", *sample.class_names[3:])
    dataset = Dataset(sample.train, sample.validation, sample.test, names)
    _, unseen = hold_out_classes(dataset, ["1", "2"])
    assert set(unseen.labels) == {0, 2}


def test_names_that_differ_in_case_alone_are_different_classes(sample):
    names = ("A", "a", "b", *sample.class_names[3:])
    dataset = Dataset(sample.train, sample.validation, sample.test, names)
    _, unseen = hold_out_classes(dataset, ["a", "B"])
    assert set(unseen.labels) == {1, 2}
    _, unseen = hold_out_classes(dataset, ["A", "a"])
    assert set(unseen.labels) == {0, 1}


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


def test_unseen_classes_are_not_held_out_beside_queries(sample):
    queries = np.arange(len(sample.test)) % 2 == 0
    searched = dataclasses.replace(sample, queries=queries)
    assert hold_out_classes(searched, []) == (searched, None)
    with pytest.raises(ArgumentError, match="where query and gallery images are of the classes"):
        hold_out_classes(searched, ["3", "6"])


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


MANY = tuple(f"class {i}" for i in range(60))


@pytest.fixture
def many(rng):
    """240 images of 60 classes, four of each but one of each of the last ten."""
    labels = np.append(np.repeat(np.arange(50), 4), np.repeat(np.arange(50, 60), 4))
    keep = np.append(np.arange(200), np.arange(200, 240, 4))
    return Split(noise(rng, 210), labels[keep])


def by_class(images, unseen=("20%",), *, names=MANY, validation_size=0):
    return cut_classes(images, names, unseen, name="many", validation_size=validation_size)


def classes_of(dataset):
    return {part: set(split.labels.tolist()) for part, split in dataset.splits.items()}


def assert_disjoint(dataset, images):
    parts = classes_of(dataset)
    assert sum(map(len, parts.values())) == len(set().union(*parts.values()))
    assert content(*dataset.splits.values()) == content(images)
    assert dataset.is_open_set


def test_classes_are_cut_three_ways(many):
    dataset = by_class(many)
    assert_disjoint(dataset, many)
    assert (dataset.name, dataset.class_names) == ("many", MANY)
    sizes = {part: len(classes) for part, classes in classes_of(dataset).items()}
    # 12 test classes; of the others' images a fifth, in whole classes.
    assert sizes["test"] == 12
    assert 9 <= sizes["validation"] <= 10
    assert by_class(many).fingerprint == dataset.fingerprint


def test_a_cut_depends_neither_on_the_order_nor_on_the_labels_of_classes(many, rng):
    dataset = by_class(many)
    order = rng.permutation(len(many))
    renamed = Split(many.images[order], 59 - many.labels[order])
    again = by_class(renamed, names=MANY[::-1])
    for part, split in dataset.splits.items():
        np.testing.assert_array_equal(split.images, again.splits[part].images)
        assert {MANY[i] for i in split.labels} == {MANY[::-1][i] for i in again.splits[part].labels}


def test_another_class_moves_few_others(many, rng):
    more = Split(
        np.concatenate([many.images, noise(rng, 4)]), np.append(many.labels, np.repeat(60, 4))
    )
    before, after = by_class(many), by_class(more, names=(*MANY, "one more"))
    for part, classes in classes_of(before).items():
        assert len(classes - classes_of(after)[part]) <= 2


@pytest.mark.parametrize("unseen", [("class 3", "7", " CLASS 58 "), ("3", "Class 7", "58")])
def test_test_classes_can_be_named(many, unseen):
    dataset = by_class(many, unseen)
    assert_disjoint(dataset, many)
    assert classes_of(dataset)["test"] == {3, 7, 58}


def test_classes_with_an_identical_image_are_in_one_split(many):
    twins = many.images.copy()
    for a, b in ((0, 4), (4, 8), (100, 204)):  # classes 0, 1 and 2; 25 and 54
        twins[a + 1] = twins[b]
    for unseen in (("20%",), ("class 1", "class 9")):
        dataset = by_class(Split(twins, many.labels), unseen)
        for classes in classes_of(dataset).values():
            assert len(classes & {0, 1, 2}) in (0, 3)
            assert len(classes & {25, 54}) in (0, 2)
    assert classes_of(dataset)["test"] == {0, 1, 2, 9}


def test_validation_classes_hold_about_as_many_images_as_asked_for(many):
    dataset = by_class(many, validation_size=60)
    assert 50 <= len(dataset.validation) <= 70
    few = by_class(many, validation_size=2)
    assert len(classes_of(few)["validation"]) == 5


@pytest.mark.parametrize("size", [1, 88])
def test_a_validation_size_that_does_not_fit_is_refused(many, size):
    with pytest.raises(ArgumentError, match=rf"`validation_size` must be .*_size={size}$"):
        by_class(many, validation_size=size)


def test_with_few_classes_left_nothing_is_cut(many):
    assert by_class(many.take(many.labels < 24)) is None  # 24 - 5
    assert by_class(many.take(many.labels < 25)) is not None


@pytest.mark.parametrize("item", ["0%", "100%", "250 %"])
def test_a_share_out_of_range_is_refused(many, item):
    with pytest.raises(
        ArgumentError, match="`unseen_classes` must be more than 0% and less than 100%"
    ):
        by_class(many, (item,))


def test_a_class_may_be_named_like_a_share(many):
    dataset = by_class(many, ("20%", "class 2"), names=("20%", *MANY[1:]))
    assert classes_of(dataset)["test"] == {0, 2}


def test_the_choices_in_a_message_are_not_thousands(many):
    with pytest.raises(ArgumentError, match="Received: 'shoe'") as caught:
        by_class(many, ("shoe",))
    assert len(str(caught.value)) < 500


def test_a_split_of_single_images_is_refused(many):
    with pytest.raises(DataError, match=r"The test split must have .* the largest with 1 i"):
        by_class(many, ("class 55", "class 56"))


def test_validation_classes_are_cut_off_where_test_classes_are_given(many):
    source = Source(many.take(many.labels < 40), many.take(many.labels >= 40), MANY)
    dataset = cut_validation_classes(source, source.test, name="many", validation_size=0)
    assert_disjoint(dataset, many)
    assert classes_of(dataset)["test"] == set(range(40, 60))
    assert len(classes_of(dataset)["validation"]) == 8  # a fifth of 40
    own = dataclasses.replace(
        source, train=many.take(many.labels < 30), validation=many.take((many.labels // 10) == 3)
    )
    dataset = cut_validation_classes(own, own.test, name="many", validation_size=0)
    assert classes_of(dataset)["validation"] == set(range(30, 40))
    with pytest.raises(ArgumentError, match="`validation_size` must be 0 for data with validation"):
        cut_validation_classes(own, own.test, name="many", validation_size=80)


def test_a_share_of_few_classes_is_held_out_too(sample):
    seen, unseen = hold_out_classes(sample, ["30%"])
    assert len(set(unseen.labels)) == 3
    assert not set(unseen.labels) & set(seen.train.labels)


def test_a_dataset_that_is_cut_by_class_stays_as_it_is(many):
    dataset = by_class(many)
    assert hold_out_classes(dataset, ["20%"]) == (dataset, None)
    tested, trained = (MANY[split.labels[0]] for split in (dataset.test, dataset.train))
    assert hold_out_classes(dataset, [tested]) == (dataset, None)
    with pytest.raises(ArgumentError, match="must be among the dataset's test classes"):
        hold_out_classes(dataset, [tested, trained])
