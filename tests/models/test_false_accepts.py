"""The table of false accepts: counted by plain loops, and what it answers."""

import numpy as np
import pytest
from scipy.stats import binomtest

from siamese_keras.errors import ArgumentError, DataError, ModelError
from siamese_keras.files import write_columns
from siamese_keras.models import false_accepts
from siamese_keras.models.false_accepts import (
    FalseAccepts,
    count_false_accepts,
    read_false_accepts,
    write_false_accepts,
)


def different_distances(embeddings, labels):
    """Distances of all different pairs, by plain loops."""
    return np.array(
        [
            np.linalg.norm(embeddings[i] - embeddings[j])
            for i in range(len(labels))
            for j in range(i)
            if labels[i] != labels[j]
        ]
    )


@pytest.fixture
def embeddings(rng):
    return rng.normal(size=(60, 3)).astype(np.float32)


@pytest.mark.parametrize("block", [7, 500])
def test_pairs_are_counted_as_by_a_loop(embeddings, rng, block, monkeypatch):
    monkeypatch.setattr(false_accepts, "_BLOCK", block)
    labels = rng.integers(0, 4, 60)
    expected = np.sort(different_distances(embeddings, labels))
    table = count_false_accepts(embeddings, labels)
    assert table.different_pairs == len(expected)
    np.testing.assert_allclose(table.distance, expected[np.array(table.accepted) - 1], atol=1e-5)
    assert table.accepted[:50] == tuple(range(1, 51))


@pytest.mark.parametrize("far", [0.5, 0.1, 0.03, 0.01])
def test_the_rate_of_a_threshold_is_at_most_and_nearly_what_was_asked_for(embeddings, rng, far):
    labels = rng.integers(0, 4, 60)
    expected = different_distances(embeddings, labels)
    point = count_false_accepts(embeddings, labels).at(far)
    rate = (expected <= point.threshold + 1e-6).mean()
    assert point.rate == pytest.approx(rate)
    assert 0.9 * far < rate <= far
    assert point.different_pairs == len(expected)
    assert point.rate_ci95[0] < rate < point.rate_ci95[1]
    interval = binomtest(round(rate * len(expected)), len(expected)).proportion_ci(0.95, "exact")
    # Pairs that share images tell less than as many that do not.
    assert point.rate_ci95[0] <= interval.low * 1.001
    assert point.rate_ci95[1] >= interval.high * 0.999


def test_an_interval_holds_the_rate_of_other_images_19_times_of_20(rng):
    """With 80 images of eight classes, whose embeddings are drawn anew each time."""
    many = rng.normal(size=(4000, 2, 2))
    distances = np.sort(np.linalg.norm(many[:, 0] - many[:, 1], axis=1))
    held = []
    for _ in range(200):
        table = count_false_accepts(rng.normal(size=(80, 2)), np.arange(80) % 8)
        point = table.at(0.1)
        rate = np.searchsorted(distances, point.threshold) / len(distances)
        held.append(point.rate_ci95[0] <= rate <= point.rate_ci95[1])
    assert np.mean(held) > 0.9


def test_the_listed_rates_are_met_exactly():
    table = count_false_accepts(np.arange(2000.0)[:, np.newaxis] ** 1.5, np.arange(2000))
    assert table.different_pairs == 1_999_000
    summary = table.summary()
    assert summary["different_pairs"] == 1_999_000
    for row, far in zip(summary["thresholds"], (1e-1, 1e-2, 1e-3, 1e-4), strict=True):
        assert row["far"] == far
        assert row["rate"] == pytest.approx(far, rel=0.005)
        assert row["rate_ci95"][0] < far < row["rate_ci95"][1]
    assert [row["threshold"] for row in summary["thresholds"]] == sorted(
        (row["threshold"] for row in summary["thresholds"]), reverse=True
    )


def test_too_few_pairs_for_a_rate_are_refused_and_listed_as_none(embeddings):
    table = count_false_accepts(embeddings, np.arange(60))
    assert table.different_pairs == 1770
    with pytest.raises(ModelError) as refused:
        table.at(1e-3)
    assert str(refused.value) == (
        "`far` of 0.001 needs at least 10,000 different validation pairs. Received: 1,770 pairs, "
        "which allow 0.0056 or more"
    )
    assert table.at(10 / 1770).rate == pytest.approx(10 / 1770)
    rows = {row["far"]: row["threshold"] for row in table.summary()["thresholds"]}
    assert rows[1e-1] > rows[1e-2] > 0
    assert (rows[1e-3], rows[1e-4]) == (None, None)


def test_many_pairs_at_one_distance_have_no_threshold_below():
    table = FalseAccepts((500, 1000), (0.0, 1.0), (1000, 1000))
    with pytest.raises(ModelError, match=r"`far` of 0.1 cannot be reached: 500 of 1,000 different"):
        table.at(0.1)
    assert table.at(0.6).threshold == 0.0


@pytest.mark.parametrize("far", [0, 1, -0.1, 2, float("nan")])
def test_a_rate_out_of_range_is_refused(far):
    with pytest.raises(ArgumentError, match=f"`far` must be greater than 0 .*Received: {far}"):
        FalseAccepts((500, 1000), (0.0, 1.0), (1000, 1000)).at(far)


def test_one_class_has_no_different_pairs(embeddings):
    with pytest.raises(ArgumentError, match="at least two classes"):
        count_false_accepts(embeddings, np.zeros(60, int))


def test_of_many_images_some_are_taken(embeddings, monkeypatch):
    monkeypatch.setattr(false_accepts, "_MOST_IMAGES", 20)
    assert count_false_accepts(embeddings, np.arange(60)).different_pairs == 190


def test_a_table_is_written_and_read(embeddings, tmp_path):
    table = count_false_accepts(embeddings, np.arange(60))
    write_false_accepts(tmp_path, table)
    assert read_false_accepts(tmp_path) == table
    write_false_accepts(tmp_path, None)
    assert read_false_accepts(tmp_path) is None


@pytest.mark.parametrize(
    "columns",
    [
        {"accepted": [1, 2]},
        {"accepted": [1, 2], "distance": [0.1, 0.2]},
        {"accepted": [2, 1], "distance": [0.1, 0.2], "effective_pairs": [1, 1]},
        {"accepted": [0, 1], "distance": [0.1, 0.2], "effective_pairs": [1, 1]},
        {"accepted": [1, 2], "distance": [0.2, 0.1], "effective_pairs": [1, 2]},
        {"accepted": [1, 2], "distance": [0.1, float("nan")], "effective_pairs": [1, 2]},
        {"accepted": [1, 2], "distance": [0.1, 0.2], "effective_pairs": [0, 2]},
        {"accepted": [1, 2], "distance": [0.1, 0.2], "effective_pairs": [1, 3]},
        {"accepted": [], "distance": [], "effective_pairs": []},
    ],
)
def test_a_damaged_table_is_named(columns, tmp_path):
    write_columns(tmp_path / "false_accepts.csv", columns)
    with pytest.raises(DataError, match=r"false_accepts\.csv` is damaged"):
        read_false_accepts(tmp_path)


def test_effective_pairs_are_those_of_a_loop_over_pairs_that_share_an_image(rng):
    embeddings = rng.integers(0, 3, (12, 2)).astype(np.float32)  # many pairs at one distance
    labels = np.arange(12) % 3
    pairs = [(i, j) for i in range(12) for j in range(i) if labels[i] != labels[j]]
    distance = np.array([np.linalg.norm(embeddings[i] - embeddings[j]) for i, j in pairs])
    share = np.array([[bool({*a} & {*b}) for b in pairs] for a in pairs])
    table = count_false_accepts(embeddings, labels)
    assert len(table.distance) == 6
    for threshold, found in zip(table.distance[:-1], table.effective_pairs[:-1], strict=True):
        accepted = distance <= threshold + 1e-6
        deviation = accepted - accepted.mean()
        variance = max(deviation @ share @ deviation, deviation @ deviation)
        assert found == pytest.approx(len(pairs) * (deviation @ deviation) / variance)
