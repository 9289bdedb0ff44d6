import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.data.augmentation import augment_images, erase, flip_and_shift, shift
from siamese_keras.errors import ArgumentError

SEED = tf.constant([1, 2])
KINDS = ["none", "shift", "shift-erase", "flip-shift", "flip-shift-erase"]

R = range(-2, 3)  # of shifts


def dots(count):
    """A dot in the middle, and a paler one to its right: to the left when flipped."""
    images = np.zeros((count, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200
    images[:, 4, 5] = 100
    return images


def test_images_are_flipped_and_shifted_each_on_its_own():
    found = set()
    for image in flip_and_shift(dots(512), SEED).numpy()[..., 0]:
        assert (image > 0).sum() == 2
        (y,), (x,) = np.nonzero(image == 200)
        (_,), (pale,) = np.nonzero(image == 100)
        assert abs(pale - x) == 1
        found.add((int(y), int(x), int(pale - x)))
    assert {y for y, _, _ in found} == {2, 3, 4, 5, 6}
    assert {x for _, x, _ in found} == {2, 3, 4, 5, 6}
    assert {side for _, _, side in found} == {-1, 1}
    assert len(found) == 50  # independently of each other


def test_shifting_brings_in_black_and_not_the_other_side():
    images = np.full((64, 8, 6, 3), 255, np.uint8)
    shifted = flip_and_shift(images, SEED).numpy()
    assert shifted.shape == images.shape
    for image in shifted:
        rows, columns = image[..., 0].any(axis=1), image[..., 0].any(axis=0)
        np.testing.assert_array_equal(image[..., 0] == 255, np.outer(rows, columns))
        assert rows.sum() in (6, 7, 8)
        assert columns.sum() in (4, 5, 6)
        assert set(np.unique(image)) <= {0, 255}
    assert shifted.min() == 0


def test_shifted_images_are_not_flipped():
    images = np.zeros((300, 9, 9, 1), np.uint8)
    images[:, 4, 3], images[:, 4, 5] = 1, 2  # 1 left of 2
    shifted = augment_images(images, SEED, "shift").numpy()[..., 0]
    places = [[np.argwhere(image == value)[0] for value in (1, 2)] for image in shifted]
    assert all(np.array_equal(b - a, [0, 2]) for a, b in places)
    assert {tuple(a) for a, _ in places} == {(4 + y, 3 + x) for y in R for x in R}


def test_erased_images_hold_a_rectangle_of_noise_each_second_time():
    images = np.full((400, 28, 14, 1), 7, np.uint8)
    erased = erase(images, SEED).numpy()
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
    for edge in (erased[:, 0], erased[:, -1], erased[:, :, 0], erased[:, :, -1]):
        assert (edge != 7).any()  # to the very edges
    np.testing.assert_array_equal(erased, erase(images, SEED))


def test_the_kinds_build_on_each_other():
    images = np.full((400, 28, 14, 1), 7, np.uint8)
    np.testing.assert_array_equal(  # of one gray, flipped ones look alike
        augment_images(images, SEED, "shift") > 0,
        shift(images, tf.unstack(tf.random.split(SEED, 2))[0]) > 0,
    )
    shifted = augment_images(images, SEED, "flip-shift").numpy()
    assert set(np.unique(shifted)) == {0, 7}
    both = augment_images(images, SEED, "flip-shift-erase").numpy()
    assert (both == 0).any()  # shifted over black
    assert len(np.unique(both)) > 100
    untouched = (both == shifted).all(axis=(1, 2, 3))
    assert 160 < untouched.sum() < 240  # where nothing is erased, the same shifts


@pytest.mark.parametrize("kind", KINDS[1:])
def test_augmentation_is_a_function_of_its_seed(kind, rng):
    images = rng.integers(0, 256, (8, 12, 10, 3), np.uint8)
    first = augment_images(images, SEED, kind).numpy()
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, augment_images(images, SEED, kind))
    for other in ([1, 3], [2, 2]):
        assert not np.array_equal(first, augment_images(images, tf.constant(other), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_eager_and_in_a_pipeline_are_equal(kind, rng):
    images = rng.integers(0, 256, (8, 12, 10, 3), np.uint8)
    mapped = tf.data.Dataset.from_tensors(images).map(lambda x: augment_images(x, SEED, kind))
    np.testing.assert_array_equal(augment_images(images, SEED, kind), next(iter(mapped)))


def test_images_stay_as_they_are_without_augmentation():
    images = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5, 1)
    np.testing.assert_array_equal(augment_images(images, SEED, "none"), images)


@pytest.mark.parametrize("kind", [False, None, "flip", "erase"])
def test_unknown_augmentation_is_refused_with_the_choices(kind):
    choices = ", ".join(map(repr, KINDS))
    expected = rf"`augment` must be one of {choices}\. Received: augment={kind!r}$"
    with pytest.raises(ArgumentError, match=expected):
        augment_images(np.zeros((2, 5, 5, 1), np.uint8), SEED, kind)
