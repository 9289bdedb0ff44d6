import collections

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.data import augmentation
from siamese_keras.data.pairs import (
    balanced_pairs,
    evaluation_pairs,
    hard_pairs,
    lab_pairs,
    pair_pipeline,
    random_pairs,
    steps_per_epoch,
)

KINDS = ["random", "balanced", "lab", "all"]


@pytest.fixture
def labels(rng):
    """Three uneven classes, 5, 9 and 31 images, with a gap in the numbering."""
    return rng.permutation(np.repeat([0, 2, 7], [5, 9, 31])).astype(np.int32)


def picture_of(labels):
    """Images whose every pixel is the image's own index."""
    return np.broadcast_to(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 2, 1)
    )


@pytest.mark.parametrize("draw", [random_pairs, balanced_pairs, lab_pairs])
def test_labels_are_right_and_no_image_is_paired_with_itself(draw, labels, rng):
    for _ in range(20):
        pairs = draw(labels, rng)
        assert (pairs.left != pairs.right).all()
        expected = [
            float(labels[a] != labels[b]) for a, b in zip(pairs.left, pairs.right, strict=True)
        ]
        np.testing.assert_array_equal(pairs.different, expected)
        assert pairs.different.dtype == np.float32


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


def test_lab_pairs_equal_the_classic_exercise(rng):
    labels = np.repeat(np.arange(10), 6)[rng.permutation(60)]
    pairs = lab_pairs(labels, rng)
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


def test_lab_pairs_of_the_test_set_are_19980():
    labels = np.repeat(np.arange(10), 1000)
    pairs = evaluation_pairs("lab", labels, seed=0)
    assert len(pairs) == 19_980
    assert pairs.different.mean() == 0.5


def test_hard_pairs_take_different_images_from_the_rival_class(labels, rng):
    rival = np.zeros(8, int)
    rival[[0, 2, 7]] = [7, 0, 2]
    pairs = hard_pairs(labels, rival, rng)
    different = pairs.different == 1
    assert different.sum() in (22, 23)
    np.testing.assert_array_equal(
        labels[pairs.right[different]], rival[labels[pairs.left[different]]]
    )


def test_evaluation_pairs_depend_on_the_seed_alone(labels):
    for kind in ("random", "balanced", "lab"):
        first, again, other = (evaluation_pairs(kind, labels, seed=s) for s in (3, 3, 4))
        np.testing.assert_array_equal(first.right, again.right)
        assert not np.array_equal(first.right, other.right)


@pytest.mark.parametrize("kind", KINDS)
def test_pipeline_gives_the_images_of_its_pairs_with_their_labels(kind, labels):
    steps = steps_per_epoch(kind, labels, 4)
    pipeline = pair_pipeline(kind, picture_of(labels), labels, batch_size=4, seed=0, epochs=2)
    assert pipeline.cardinality() == 2 * steps
    batches = list(pipeline.as_numpy_iterator())
    assert len(batches) == 2 * steps
    for inputs, different in batches:
        left, right = inputs["left"], inputs["right"]
        assert left.shape == right.shape == (4, 2, 2, 1)
        assert left.dtype == np.uint8
        a, b = labels[left[:, 0, 0, 0]], labels[right[:, 0, 0, 0]]
        expected = a[:, None] != b[None, :] if kind == "all" else a != b
        np.testing.assert_array_equal(different, expected)
        assert different.dtype == np.float32
        assert not np.array_equal(left, right)


def test_all_pairs_show_every_image_at_most_once_an_epoch(labels):
    pipeline = pair_pipeline("all", picture_of(labels), labels, batch_size=4, seed=0)
    seen = [
        i for x, _ in pipeline.as_numpy_iterator() for side in x.values() for i in side[:, 0, 0, 0]
    ]
    assert len(seen) == len(set(seen)) == 40  # 45 images: 5 full batches of 4 + 4


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_a_function_of_seed_and_epoch(kind, labels):
    def epochs(first, last, seed=0):
        pipeline = pair_pipeline(
            kind,
            picture_of(labels),
            labels,
            batch_size=8,
            seed=seed,
            epochs=last,
            first_epoch=first,
        )
        return [
            np.concatenate([x["left"], x["right"]])[:, 0, 0, 0]
            for x, _ in pipeline.as_numpy_iterator()
        ]

    whole = epochs(0, 3)
    resumed = epochs(2, 3)
    np.testing.assert_array_equal(whole[-len(resumed) :], resumed)
    assert not np.array_equal(whole[: len(resumed)], resumed)
    assert not np.array_equal(whole, epochs(0, 3, seed=1))


def test_lab_pipeline_shows_the_same_pairs_in_every_epoch(labels):
    def pairs(epoch):
        pipeline = pair_pipeline(
            "lab",
            picture_of(labels),
            labels,
            batch_size=1,
            seed=0,
            epochs=epoch + 1,
            first_epoch=epoch,
        )
        return [
            (int(x["left"].max()), int(x["right"].max())) for x, _ in pipeline.as_numpy_iterator()
        ]

    assert pairs(0) != pairs(1)
    assert sorted(pairs(0)) == sorted(pairs(1))


def test_a_batch_larger_than_the_data_is_one_smaller_batch(labels):
    pipeline = pair_pipeline("all", picture_of(labels), labels, batch_size=1000, seed=0)
    ((inputs, different),) = pipeline.as_numpy_iterator()
    assert inputs["left"].shape[0] == 22
    assert different.shape == (22, 22)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_with_one_image_is_reported_by_name(kind):
    labels = np.array([0, 0, 1, 2, 2])
    with pytest.raises(ValueError, match="Class 'bag' has one image"):
        pair_pipeline(
            kind,
            picture_of(labels),
            labels,
            batch_size=2,
            seed=0,
            class_names=["cap", "bag", "hat"],
        )


def test_one_class_makes_no_different_pairs():
    with pytest.raises(ValueError, match=r"at least two classes. Received: 1"):
        evaluation_pairs("balanced", np.zeros(5, int), seed=0)


def test_augmented_images_are_mirrored_and_shifted_copies(rng):
    labels = np.arange(64) % 2
    images = np.zeros((64, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200  # a dot in the middle
    images[:, 4, 5] = 100  # and a paler one to its right, to the left when mirrored

    def batches(**options):
        pipeline = pair_pipeline(
            "balanced", images, labels, batch_size=64, augment="shift", **options
        )
        return np.stack([x["left"] for x, _ in pipeline.as_numpy_iterator()])[..., 0]

    epochs = batches(seed=0, epochs=4)
    found = set()
    for image in epochs.reshape(-1, 9, 9):
        assert (image > 0).sum() == 2
        (y,), (x,) = np.nonzero(image == 200)
        (_,), (pale,) = np.nonzero(image == 100)
        assert abs(pale - x) == 1
        found.add((int(y), int(x), int(pale - x)))
    assert {y for y, _, _ in found} == {2, 3, 4, 5, 6}
    assert {x for _, x, _ in found} == {2, 3, 4, 5, 6}
    assert {side for _, _, side in found} == {-1, 1}
    np.testing.assert_array_equal(epochs[2:], batches(seed=0, epochs=4, first_epoch=2))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs, batches(seed=1, epochs=4))


def test_erased_images_hold_a_rectangle_of_noise_each_second_time(rng):
    images = np.full((400, 28, 14, 1), 7, np.uint8)
    seed = tf.constant([1, 2])
    erased = augmentation.erase(images, seed).numpy()
    shares, heights, widths = [], [], []
    for image in erased[..., 0]:
        changed = image != 7
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        if not changed.any():
            continue
        rectangle = image[np.ix_(rows, columns)]
        assert np.ptp(np.flatnonzero(rows)) + 1 == rows.sum()
        assert np.ptp(np.flatnonzero(columns)) + 1 == columns.sum()
        shares.append((rectangle != 7).mean())
        heights.append(rows.sum())
        widths.append(columns.sum())
    assert 160 < len(shares) < 240
    assert np.mean(shares) > 0.98
    assert (min(heights), max(heights)) == (4, 14)
    assert (min(widths), max(widths)) == (2, 7)
    assert erased.dtype == np.uint8
    assert (erased[:, 0] != 7).any()  # to the very edges
    assert (erased[:, -1] != 7).any()
    np.testing.assert_array_equal(erased, augmentation.erase(images, seed))
    both = augmentation.augment_images(images, seed, "shift-erase").numpy()
    assert (both == 0).any()  # shifted over black
    assert len(np.unique(both)) > 100


def test_images_stay_as_they_are_without_augmentation():
    images = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5, 1)
    np.testing.assert_array_equal(augmentation.augment_images(images, [0, 1], "none"), images)


def test_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match=r"`augment` must be one of .* Received: False"):
        augmentation.augment_images(np.zeros((2, 5, 5, 1), np.uint8), [0, 1], False)
