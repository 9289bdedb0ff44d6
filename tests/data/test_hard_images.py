import numpy as np
import pytest
from sklearn.linear_model import Ridge

from siamese_keras.data import hard_images
from siamese_keras.data.hard_images import difficulty, draw_hard_half


@pytest.fixture
def halves(rng):
    """Images of two classes, bright in the left or in the right half, the first eight in both."""
    labels = np.arange(60) % 2
    images = rng.integers(0, 50, (60, 6, 6, 1), np.uint8)
    images[labels == 0, :, :3] += 180
    images[labels == 1, :, 3:] += 180
    images[:8] = rng.integers(180, 230, (8, 6, 6, 1))
    return images, labels


def test_images_that_look_like_two_classes_are_the_hardest(halves):
    values = difficulty(*halves)
    assert values.shape == (60,)
    assert values[:8].min() > -0.5
    assert values[8:].max() < -0.7  # clear images: near 0 for the other class, near 1 for their own


def test_an_image_under_a_wrong_label_scores_above_zero(halves):
    images, labels = halves
    labels[50] = 1 - labels[50]
    assert difficulty(images, labels).argmax() == 50
    assert difficulty(images, labels)[50] > 0


def test_neither_names_of_classes_nor_the_unit_of_values_matter(halves):
    images, labels = halves
    values = difficulty(images, labels)
    np.testing.assert_allclose(difficulty(images, 3 + 5 * labels), values)
    scaled = (images / 255e3).astype(np.float32).reshape(60, -1)  # as features of a backbone are
    np.testing.assert_allclose(difficulty(scaled, labels), values, atol=1e-4)


def test_large_images_in_a_file_are_measured_as_those_in_memory(halves, tmp_path):
    images, labels = halves
    large = images.repeat(12, axis=1).repeat(12, axis=2)  # 5,184 pixels: more than are used
    np.save(tmp_path / "images.npy", large)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    values = difficulty(mapped, labels)
    np.testing.assert_array_equal(values, difficulty(large, labels))
    assert values[:8].min() > values[8:].max()


def test_large_images_that_differ_in_one_channel_are_told_apart(rng):
    labels = np.arange(40) % 2
    images = rng.integers(0, 50, (40, 64, 64, 3), np.uint8)
    images[np.arange(40), :, :, 1 + labels] += 100  # green or blue, never red
    labels[5] = 1 - labels[5]
    values = difficulty(images, labels)
    assert values[5] > np.delete(values, 5).max() + 0.1


def test_more_images_than_are_fitted_or_read_at_a_time_are_all_measured(rng):
    labels = rng.integers(0, 3, 12_000)
    images = np.zeros((12_000, 2, 2, 1), np.uint8)
    images[np.arange(12_000), labels // 2, labels % 2] = 200
    wrong = np.arange(0, 12_000, 100)
    labels[wrong] = (labels[wrong] + 1) % 3
    np.testing.assert_array_equal(np.flatnonzero(difficulty(images, labels) > 0), wrong)


def test_scores_are_those_of_ridge_regression(halves):
    images, labels = halves
    labels[50:] += 2  # to four classes, of 25 and 5 images
    pixels = images.reshape(60, -1).astype(float)
    ridge = Ridge(alpha=0.1 * np.square(pixels).mean() * 60).fit(pixels, np.eye(4)[labels])
    scores = ridge.predict(pixels)
    own = scores[np.arange(60), labels]
    scores[np.arange(60), labels] = -np.inf
    np.testing.assert_allclose(difficulty(images, labels), scores.max(axis=1) - own, atol=1e-9)


def test_classes_may_be_many_and_some_of_them_not_among_the_images_fitted(rng, monkeypatch):
    monkeypatch.setattr(hard_images, "_FITTED", 30)
    values = difficulty(rng.integers(0, 256, (20_000, 4, 4, 1), np.uint8), np.arange(20_000) // 2)
    assert np.isfinite(values).all()
    assert (values > 0).sum() >= 20_000 - 60  # nothing speaks for a class that was not fitted


def test_equal_images_are_equally_hard():
    values = difficulty(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(values, values[0])


def test_half_of_the_images_are_drawn_the_hardest_always():
    hard = np.random.default_rng(0).permutation(201)
    labels = hard % 4
    draws = [draw_hard_half(hard, labels, np.random.default_rng(seed)) for seed in range(20)]
    for chosen in draws:
        assert len(chosen) == len(set(chosen)) == 101
        assert set(np.flatnonzero(hard >= 201 - 71)) <= set(chosen)
    # The others come by chance: 30 of 130, so that in 20 draws nearly all of them come.
    assert len(set(np.concatenate(draws))) > 190


def test_all_images_are_drawn_where_half_of_them_would_make_no_pairs():
    rng = np.random.default_rng(0)
    one_class = draw_hard_half(np.array([3, 2, 0]), np.array([0, 0, 1]), rng)
    assert sorted(one_class) == [0, 1, 2]
    of_one_image_each = draw_hard_half(np.array([3, 0, 2]), np.array([0, 0, 1]), rng)
    assert sorted(of_one_image_each) == [0, 1, 2]
