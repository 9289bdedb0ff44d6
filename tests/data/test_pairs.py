import collections

import numpy as np
import pytest

from siamese_keras.data.pairs import (
    balanced_pairs,
    calibration_pairs,
    check_labels,
    classic_pairs,
    epoch_rng,
    evaluation_pairs,
    grouped_order,
    hard_pairs,
    random_pairs,
)
from siamese_keras.errors import DataError

SAMPLERS = [random_pairs, balanced_pairs, classic_pairs]


@pytest.fixture
def labels(rng):
    """Three uneven classes, 5, 9 and 31 images, with a gap in the numbering."""
    return rng.permutation(np.repeat([0, 2, 7], [5, 9, 31])).astype(np.int32)


def assert_labels_are_right(pairs, labels):
    assert (pairs.left != pairs.right).all()
    expected = [float(labels[a] != labels[b]) for a, b in zip(pairs.left, pairs.right, strict=True)]
    np.testing.assert_array_equal(pairs.different, expected)
    assert pairs.different.dtype == np.float32


@pytest.mark.parametrize("draw", SAMPLERS)
def test_labels_are_right_and_no_image_is_paired_with_itself(draw, labels, rng):
    for _ in range(20):
        assert_labels_are_right(draw(labels, rng), labels)


def test_random_pairs_are_the_same_class_about_one_time_in_ten(rng):
    labels = np.repeat(np.arange(10), 1000)
    pairs = random_pairs(labels, rng)
    assert 1 - pairs.different.mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(np.sort(pairs.left), np.arange(10_000))


def test_balanced_pairs_are_half_and_half_and_spread_over_the_partners(labels, rng):
    partners = collections.Counter()
    for _ in range(300):
        pairs = balanced_pairs(labels, rng)
        np.testing.assert_array_equal(np.sort(pairs.left), np.arange(45))
        assert pairs.different.sum() in (22, 23)
        same = pairs.different == 0
        partners.update(pairs.right[same][labels[pairs.right[same]] == 0].tolist())
    # The 5 images of class 0 are each other's only partners: about 300 * 0.5 draws for each.
    assert len(partners) == 5
    assert all(100 < count < 200 for count in partners.values())


def test_different_pairs_take_the_other_class_first_so_that_small_classes_count(rng):
    labels = np.repeat([0, 1, 2], [10, 100, 1000])
    rights = collections.Counter()
    for _ in range(20):
        pairs = balanced_pairs(labels, rng)
        chosen = (pairs.different == 1) & (labels[pairs.left] == 2)
        rights.update(labels[pairs.right[chosen]].tolist())
    # Class 0 as often as class 1, though it has a tenth of its images.
    assert rights[0] == pytest.approx(rights[1], rel=0.1)


def test_classic_pairs_equal_the_classic_exercise(rng):
    labels = np.repeat(np.arange(10), 6)[rng.permutation(60)]
    pairs = classic_pairs(labels, rng)
    members = {c: np.flatnonzero(labels == c).tolist() for c in range(10)}
    found = collections.Counter()
    for same, different in zip(range(0, len(pairs), 2), range(1, len(pairs), 2), strict=True):
        left = pairs.left[same]
        place = members[labels[left]].index(left)
        assert pairs.right[same] == members[labels[left]][place + 1]
        assert pairs.left[different] == left
        other = pairs.right[different]
        assert labels[other] != labels[left]
        assert members[labels[other]].index(other) == place
        found[left] += 1
    assert len(pairs) == 2 * 5 * 10
    assert set(found) == {i for m in members.values() for i in m[:5]}


def test_evaluation_pairs_of_the_test_set_are_19980():
    labels = np.repeat(np.arange(10), 1000)
    pairs = evaluation_pairs(labels)
    assert len(pairs) == 19_980
    assert pairs.different.mean() == 0.5


def test_hard_pairs_take_different_images_from_the_rival_class(labels, rng):
    rival = np.zeros(8, int)
    rival[[0, 2, 7]] = [7, 0, 2]
    pairs = hard_pairs(labels, rival, rng)
    assert_labels_are_right(pairs, labels)
    different = pairs.different == 1
    assert different.sum() in (22, 23)
    np.testing.assert_array_equal(
        labels[pairs.right[different]], rival[labels[pairs.left[different]]]
    )


@pytest.mark.parametrize("draw", SAMPLERS)
def test_pairs_depend_on_seed_and_epoch_alone(draw, labels):
    first, again, *others = (
        draw(labels, epoch_rng(seed, epoch)) for seed, epoch in ((3, 1), (3, 1), (4, 1), (3, 2))
    )
    np.testing.assert_array_equal(first.left, again.left)
    np.testing.assert_array_equal(first.right, again.right)
    for other in others:
        assert not np.array_equal(first.right, other.right)


@pytest.mark.parametrize("draw", [evaluation_pairs, calibration_pairs])
def test_pairs_to_judge_by_are_the_same_at_every_call(draw, labels):
    """Whatever the seed of the training: figures of two trainings are of the same pairs."""
    first = draw(labels)
    np.random.seed(5)
    again = draw(labels)
    for name in ("left", "right", "different"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert_labels_are_right(first, labels)


def test_evaluation_pairs_are_classic_pairs(labels):
    pairs = evaluation_pairs(labels)
    assert len(pairs) == 2 * (4 + 8 + 30)  # of classes of 5, 9 and 31 images
    np.testing.assert_array_equal(pairs.different, [0, 1] * 42)
    np.testing.assert_array_equal(pairs.left[::2], pairs.left[1::2])
    for label in (0, 2, 7):  # every image is in a same pair
        same = np.concatenate([pairs.left[::2], pairs.right[::2]])
        assert set(np.flatnonzero(labels == label)) <= set(same)


def test_calibration_pairs_are_many_and_show_every_two_classes(labels):
    pairs = calibration_pairs(labels)
    assert len(pairs) == 10 * 45
    assert 220 <= pairs.different.sum() <= 230
    np.testing.assert_array_equal(np.bincount(pairs.left), np.full(45, 10))
    both = np.stack([labels[pairs.left], labels[pairs.right]])
    assert len(np.unique(both, axis=1).T) == 9
    draws = np.split(pairs.right, 10)
    assert len({draw.tobytes() for draw in draws}) == 10


@pytest.mark.parametrize("draw", [*SAMPLERS, lambda labels, _: calibration_pairs(labels)])
@pytest.mark.parametrize("single", [2, 30])
def test_an_image_alone_in_its_class_takes_part_in_different_pairs(draw, single, rng):
    labels = np.append(np.repeat([0, 1], 10), np.arange(2, 2 + single))
    seen = set()
    for _ in range(20):
        pairs = draw(labels, rng)
        assert_labels_are_right(pairs, labels)
        seen |= set(labels[pairs.left]) | set(labels[pairs.right])
    assert seen == set(labels)


@pytest.mark.parametrize("single", [2, 30])
def test_half_of_the_pairs_are_same_however_many_classes_have_one_image(single, rng):
    labels = np.append(np.repeat([0, 1], 10), np.arange(2, 2 + single))
    assert balanced_pairs(labels, rng).different.mean() == 0.5
    assert calibration_pairs(labels).different.mean() == 0.5
    assert hard_pairs(labels, 1 - np.minimum(np.arange(40), 1), rng).different.mean() >= 0.5


@pytest.mark.parametrize("draw", [evaluation_pairs, calibration_pairs, check_labels])
def test_classes_of_one_image_alone_make_no_same_pairs(draw):
    with pytest.raises(DataError, match="Every class has only one image; a same pair needs two"):
        draw(np.arange(5))


def groups_of(order, labels):
    """The runs of one class in an order, as lists of images."""
    runs = [[order[0]]]
    for image in order[1:]:
        if labels[image] == labels[runs[-1][-1]]:
            runs[-1].append(image)
        else:
            runs.append([image])
    return runs


def test_grouped_order_shows_every_image_once_in_groups_of_its_class(rng):
    labels = rng.permutation(np.repeat(np.arange(200), rng.integers(1, 10, 200)))
    order = grouped_order(labels, rng, 4)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(labels)))
    whole = 0
    for run in groups_of(order, labels):
        size = np.count_nonzero(labels == labels[run[0]])
        parts = -(-size // 4)
        possible = {size // parts, -(-size // parts)}  # 9 images are groups of 3, 3 and 3
        whole += len(run) in possible  # two groups of a class may stand side by side by chance
    assert whole > 0.98 * len(groups_of(order, labels))


def test_grouped_order_mixes_classes_and_images(rng):
    labels = np.repeat(np.arange(50), 8)
    first, second = (grouped_order(labels, rng, 4) for _ in range(2))
    partners = collections.Counter()
    for _ in range(300):
        order = grouped_order(labels, rng, 4)
        for run in np.split(order, 100):
            assert len(set(labels[run])) == 1
            partners.update(set(run.tolist()) - {0} if 0 in run else ())
    assert not np.array_equal(labels[first], labels[second])
    # The 7 others of its class are each with image 0 in 3 of 7 groups.
    assert set(partners) == set(range(1, 8))
    assert all(90 < count < 170 for count in partners.values())


@pytest.mark.parametrize("draw", [evaluation_pairs, calibration_pairs, check_labels])
@pytest.mark.parametrize("count", [0, 5])
def test_one_class_makes_no_different_pairs(draw, count):
    with pytest.raises(DataError, match=f"at least two classes. Received: {min(count, 1)}"):
        draw(np.zeros(count, int))


def test_repr_is_one_short_line_and_take_keeps_the_columns_together(labels):
    pairs = evaluation_pairs(labels)
    assert repr(pairs) == "<Pairs: 84, 42 of them different>"
    some = pairs.take(pairs.different == 1)
    assert repr(some) == "<Pairs: 42, 42 of them different>"
    assert_labels_are_right(some, labels)


def test_balanced_pairs_show_images_alone_in_their_class_once_like_all_others(rng):
    labels = np.repeat([0, 1, 2, 3], [20, 20, 1, 1])
    for _ in range(20):
        pairs = balanced_pairs(labels, rng)
        np.testing.assert_array_equal(np.sort(pairs.left), np.arange(42))
        assert pairs.different.sum() == 21


def test_grouped_order_takes_few_classes_of_very_different_sizes(rng):
    labels = np.repeat([0, 1], [9, 1])
    np.testing.assert_array_equal(np.sort(grouped_order(labels, rng, 4)), np.arange(10))
