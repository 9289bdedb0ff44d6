import itertools

import numpy as np
import pytest

from siamese_keras.errors import ArgumentError
from siamese_keras.evaluation import open_set
from siamese_keras.evaluation.open_set import (
    class_figures,
    few_shot,
    open_set_metrics,
    operating_point_inconsistency,
)
from siamese_keras.models.calibration import Calibration


def clouds(rng, sizes, spread=1.0, dim=5):
    labels = rng.permutation(np.repeat(10 + np.arange(len(sizes)), sizes))
    centers = rng.normal(size=(10 + len(sizes), dim))
    return centers[labels] + spread * rng.normal(size=(len(labels), dim)), labels


def distances(embeddings):
    return np.linalg.norm(embeddings[:, np.newaxis] - embeddings[np.newaxis], axis=2)


# Few-shot classification


@pytest.mark.parametrize("shots", [1, 3])
def test_all_way_few_shot_is_the_nearest_class_mean(rng, shots):
    """Against a loop that draws its own support sets: the means over many agree."""
    embeddings, labels = clouds(rng, [4, 5, 6, 4, 7, 4])
    found, (low, high) = few_shot(embeddings, labels, ways=6, shots=shots, seed=0)
    right = asked = 0
    for _ in range(800):
        support = np.concatenate(
            [rng.permutation(np.flatnonzero(labels == c))[:shots] for c in np.unique(labels)]
        )
        means = {c: embeddings[support[labels[support] == c]].mean(axis=0) for c in set(labels)}
        for query in set(range(len(labels))) - set(support):
            nearest = min(means, key=lambda c, q=query: np.linalg.norm(embeddings[q] - means[c]))
            right += nearest == labels[query]
            asked += 1
    assert found == pytest.approx(right / asked, abs=0.02)
    assert low < found < high


def test_fewer_ways_are_easier_and_chance_is_one_in_n(rng):
    embeddings, labels = clouds(rng, [4] * 40)
    shares = [few_shot(embeddings, labels, ways=n, shots=1, seed=0)[0] for n in (5, 20, 40)]
    assert shares[0] > shares[1] > shares[2]
    noise = rng.normal(size=embeddings.shape)
    for ways in (5, 20):
        share, _ = few_shot(noise, labels, ways=ways, shots=1, seed=0)
        assert share == pytest.approx(1 / ways, abs=0.03)


def test_more_shots_are_easier(rng):
    embeddings, labels = clouds(rng, [8] * 20)
    one, five = (few_shot(embeddings, labels, ways=20, shots=n, seed=0)[0] for n in (1, 5))
    assert five > one + 0.05


def test_a_class_of_one_image_distracts_and_is_not_asked_about():
    labels = np.array([0, 0, 1, 1, 2])
    embeddings = np.array([[0.0], [1.0], [10.0], [11.0], [0.4]])  # class 2 between those of class 0
    share, _ = few_shot(embeddings, labels, ways=3, shots=1, seed=0)
    # Queries of class 1 are right; of class 0, image 0 is nearer to class 2 and image 1 as well.
    assert share == pytest.approx(0.5)


def test_a_tie_is_not_won():
    labels = np.array([0, 0, 1, 1])
    assert few_shot(np.zeros((4, 3)), labels, ways=2, shots=1, seed=0)[0] == 0


def test_within_a_superclass_only_its_classes_compete():
    """Two superclasses with the same three points each: a class has a twin in the other one."""
    labels = np.repeat(np.arange(6), 4)
    superclasses = np.array([0, 0, 0, 1, 1, 1])
    embeddings = np.array([[0.0], [1.0], [2.0]])[labels % 3]

    def one_shot(**options):
        return few_shot(embeddings, labels, shots=1, seed=0, **options)[0]

    assert one_shot(ways=3, superclasses=superclasses) == 1
    assert one_shot(ways=6) == 0  # a tie with the twin
    with pytest.raises(ArgumentError, match="needs 4 classes of one superclass"):
        one_shot(ways=4, superclasses=superclasses)


def test_the_report_has_one_shot_within_superclasses_where_there_are_any(rng):
    embeddings, labels = clouds(rng, [4] * 12)
    calibration = Calibration(1.0, 1.0)
    superclasses = np.zeros(22, int)
    superclasses[16:] = 1
    found = open_set_metrics(embeddings, labels, calibration, superclasses=superclasses)
    assert set(found["one_shot_within_superclass"]) == {"5_way", "5_way_ci95"}
    assert "one_shot_within_superclass" not in open_set_metrics(embeddings, labels, calibration)


def test_few_shot_is_a_function_of_its_seed(rng):
    embeddings, labels = clouds(rng, [4] * 12)
    first, again, other = (
        few_shot(embeddings, labels, ways=5, shots=1, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_interval_is_of_classes(rng):
    """Half of the classes are always right, half never: the interval is as wide as 20 draws."""
    labels = np.repeat(np.arange(20), 50)
    embeddings = np.eye(20)[labels]
    embeddings[labels >= 10] = 0.5 * np.eye(20)[0]  # all of them on one point
    share, (low, high) = few_shot(embeddings, labels, ways=20, shots=1, seed=0)
    assert share == pytest.approx(0.5)
    assert 0.2 < low < 0.35
    assert 0.65 < high < 0.8


@pytest.mark.parametrize(
    ("sizes", "ways", "shots"), [([2, 2], 3, 1), ([1, 1, 1], 2, 1), ([5, 5, 4], 3, 5)]
)
def test_too_few_classes_are_refused(rng, sizes, ways, shots):
    embeddings, labels = clouds(rng, sizes)
    with pytest.raises(ArgumentError, match=f"{ways}-way {shots}-shot classification needs {ways}"):
        few_shot(embeddings, labels, ways=ways, shots=shots, seed=0)


# Classes


def test_class_figures_equal_plain_loops(rng):
    embeddings, labels = clouds(rng, [5, 9, 1, 7])
    distance, threshold = distances(embeddings), 2.5
    found = class_figures(embeddings, labels, Calibration(threshold, 1.0))
    assert found["label"] == [10, 11, 12, 13]
    assert found["images"] == [5, 9, 1, 7]
    for row, label in enumerate(found["label"]):
        members, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        same = [distance[a, b] <= threshold for a, b in itertools.combinations(members, 2)]
        different = [distance[a, b] > threshold for a in members for b in others]
        expected = np.mean(same) if same else np.nan
        assert found["sensitivity"][row] == pytest.approx(expected, nan_ok=True)
        assert found["specificity"][row] == pytest.approx(np.mean(different))


def test_operating_point_inconsistency_equals_a_loop(rng):
    embeddings, labels = clouds(rng, [5, 9, 1, 7])
    distance = distances(embeddings)
    kept = [c for c in np.unique(labels) if (labels == c).sum() > 1]
    pairs = {c: ([], []) for c in kept}
    for c in kept:
        members, others = np.flatnonzero(labels == c), np.flatnonzero(labels != c)
        pairs[c][0].extend(distance[a, b] for a, b in itertools.combinations(members, 2))
        pairs[c][1].extend(distance[a, b] for a in members for b in others)
    every = np.concatenate([different for _, different in pairs.values()])
    thresholds = np.linspace(*np.quantile(every, [1e-3, 1e-1]), 101)
    utilities = np.zeros((len(kept), 101))
    for row, (same, different) in enumerate(pairs.values()):
        for column, threshold in enumerate(thresholds):
            sensitivity = np.mean(np.array(same) <= threshold)
            specificity = np.mean(np.array(different) > threshold)
            if sensitivity + specificity:
                utilities[row, column] = 2 * sensitivity * specificity / (sensitivity + specificity)
    expected = np.mean((utilities - utilities.mean(axis=0)) ** 2)
    assert operating_point_inconsistency(embeddings, labels) == pytest.approx(expected, rel=1e-6)


def test_one_threshold_serves_like_classes_alike_and_unlike_ones_not(rng):
    labels = np.repeat(np.arange(8), 30)
    centers = 6 * np.eye(8)[labels]
    alike = centers + 0.6 * rng.normal(size=(240, 8))
    wide = np.where(labels < 4, 0.1, 1.8)[:, np.newaxis]
    unlike = centers + wide * rng.normal(size=(240, 8))
    assert operating_point_inconsistency(alike, labels) < 0.003
    assert operating_point_inconsistency(unlike, labels) > 0.02


# All together


def test_open_set_metrics_are_those_of_the_functions(rng):
    embeddings, labels = clouds(rng, [7] * 22 + [1, 1])
    calibration = Calibration(2.0, 1.0)
    found = open_set_metrics(embeddings, labels, calibration)
    assert (found["num_classes"], found["num_images"], found["single_images"]) == (24, 156, 2)
    assert list(found["one_shot"]) == [
        f"{ways}_way{suffix}" for ways in (5, 20, 24) for suffix in ("", "_ci95")
    ]
    assert list(found["five_shot"])[::2] == ["5_way", "20_way", "22_way"]
    share, interval = few_shot(embeddings, labels, ways=24, shots=1, seed=0)
    assert found["one_shot"]["24_way"] == share
    assert found["one_shot"]["24_way_ci95"] == interval
    assert found["opis"] == operating_point_inconsistency(embeddings, labels)
    classes = class_figures(embeddings, labels, calibration)
    assert found["sensitivity"] == pytest.approx(np.nanmean(classes["sensitivity"]))
    assert found["specificity_std"] == pytest.approx(np.std(classes["specificity"]))


def test_two_small_classes_have_what_they_can_have(rng):
    embeddings, labels = clouds(rng, [2, 1])
    found = open_set_metrics(embeddings, labels, Calibration(2.0, 1.0))
    assert list(found["one_shot"]) == ["2_way", "2_way_ci95"]
    assert found["five_shot"] == {}
    assert all(np.isfinite(found[name]) for name in ("opis", "sensitivity"))


def test_where_every_class_has_one_image_there_are_no_figures_of_same_pairs(rng):
    found = open_set_metrics(*clouds(rng, [1] * 8), Calibration(threshold=1.0, slope=2.0))
    assert found == {
        "num_classes": 8, "num_images": 8, "single_images": 8, "one_shot": {}, "five_shot": {}
    }  # fmt: skip


def test_of_very_many_classes_those_with_same_pairs_are_looked_at(rng):
    figures = class_figures(
        *clouds(rng, [1] * 3000 + [2] * 3), Calibration(threshold=1.0, slope=2.0)
    )
    assert len(figures["label"]) == 1000
    assert {3010, 3011, 3012} <= set(figures["label"])


def test_few_shot_ends_where_hardly_any_class_can_be_asked_about(rng, monkeypatch):
    monkeypatch.setattr("siamese_keras.evaluation.open_set._EPISODES", 4)
    embeddings, labels = clouds(rng, [1] * 500 + [2])
    with pytest.raises(ArgumentError, match="No class of 4 episodes has more than 1 images"):
        few_shot(embeddings, labels, ways=2, shots=1, seed=0)


def test_a_class_that_all_others_of_the_sample_are_of_has_no_specificity(rng, monkeypatch):
    monkeypatch.setattr(open_set, "_OTHERS", 1)
    embeddings, labels = rng.normal(size=(40, 3)), np.repeat([0, 1], 20)
    columns = class_figures(embeddings, labels, Calibration(1.0, 1.0))
    assert sum(map(np.isnan, columns["specificity"])) == 1
    found = open_set_metrics(embeddings, labels, Calibration(1.0, 1.0))
    assert np.isfinite([found["opis"], found["specificity"], found["sensitivity"]]).all()


def test_different_pairs_at_the_threshold_are_accepted():
    """Classes 0 and 1 are at a distance of 1, the only threshold; class 2 is far from both."""
    embeddings, labels = np.array([[0.0], [0], [1], [1], [9], [9]]), np.repeat([0, 1, 2], 2)
    # Specificity 1/2, 1/2 and 1 with a sensitivity of 1: utility 2/3, 2/3 and 1.
    expected = np.var([2 / 3, 2 / 3, 1])
    assert operating_point_inconsistency(embeddings, labels) == pytest.approx(expected)


def test_the_interval_is_of_the_classes_that_are_asked_about():
    """Two classes that are always right among 38 that only distract."""
    labels = np.append(np.repeat([0, 1], 5), np.arange(2, 40))
    found = few_shot(np.eye(40)[labels], labels, ways=40, shots=1, seed=0)
    assert found == (1.0, [1.0, 1.0])
