import numpy as np
import pytest
from sklearn.metrics import roc_curve

from siamese_keras.data.pairs import Pairs, evaluation_pairs
from siamese_keras.evaluation import metrics
from siamese_keras.models.calibration import Classifier, fit_classifier


@pytest.fixture
def clouds(rng):
    """Embeddings of four overlapping classes."""
    labels = np.repeat(np.arange(4), [15, 20, 25, 30])
    embeddings = rng.normal(size=(4, 5))[labels] * 1.2 + rng.normal(size=(len(labels), 5))
    return embeddings.astype(np.float32), labels


@pytest.fixture
def scored(clouds):
    embeddings, labels = clouds
    pairs = evaluation_pairs("balanced", labels, seed=1)
    return pairs, metrics.pair_distances(embeddings, pairs)


def test_pair_distances_equal_a_loop(clouds):
    embeddings, labels = clouds
    pairs = evaluation_pairs("lab", labels, seed=0)
    expected = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(embeddings[i], embeddings[j], strict=True))
        ** 0.5
        for i, j in zip(pairs.left, pairs.right, strict=True)
    ]
    np.testing.assert_allclose(metrics.pair_distances(embeddings, pairs), expected, atol=1e-6)


def test_verification_equals_plain_loops(scored):
    pairs, distance = scored
    classifier = Classifier(threshold=2.5, scale=1.5)
    report = metrics.verification(pairs, distance, classifier)
    same = pairs.different == 0
    n_same, n_different = same.sum(), (~same).sum()
    assert report["num_pairs"] == len(distance) == n_same + n_different
    assert report["accuracy"] == pytest.approx(
        np.mean([(d <= 2.5) == s for d, s in zip(distance, same, strict=True)])
    )
    assert report["accuracy_at_0.5_distance"] == pytest.approx(np.mean((distance <= 0.5) == same))
    # AUC: how often a same pair is nearer than a different one.
    wins = sum((a < b) + 0.5 * (a == b) for a in distance[same] for b in distance[~same])
    assert report["roc_auc"] == pytest.approx(wins / (n_same * n_different), abs=1e-9)
    # Average precision: the mean, over same pairs, of the precision down to each.
    nearer = [(distance <= d) for d in distance[same]]
    assert report["average_precision"] == pytest.approx(np.mean([same[m].mean() for m in nearer]))
    for far_limit in (1e-2, 1e-3):
        best = max(
            (distance[same] <= t).mean()
            for t in (-1, *distance)
            if (distance[~same] <= t).mean() <= far_limit
        )
        assert report[f"tar_at_far_{far_limit:.0e}".replace("e-0", "e-")] == pytest.approx(best)
    similarity = 1 / (1 + np.exp(-1.5 * (2.5 - distance)))
    assert report["brier"] == pytest.approx(np.mean((similarity - same) ** 2))
    gap = 0.0
    for low in np.arange(15) / 15:
        inside = (similarity >= low) & (similarity < low + 1 / 15)
        if inside.any():
            gap += inside.mean() * abs(similarity[inside].mean() - same[inside].mean())
    assert report["ece"] == pytest.approx(gap, abs=1e-9)
    pooled = ((distance[same].var() + distance[~same].var()) / 2) ** 0.5
    assert report["d_prime"] == pytest.approx(
        (distance[~same].mean() - distance[same].mean()) / pooled
    )
    assert (report["threshold"], report["scale"]) == (2.5, 1.5)


def test_equal_error_rate_lies_where_both_errors_meet(scored):
    pairs, distance = scored
    same = pairs.different == 0
    far, tar, _ = roc_curve(same, -distance)
    eer = metrics.equal_error_rate(far, tar)
    gaps = [
        (
            abs((distance[~same] <= t).mean() - (distance[same] > t).mean()),
            (distance[~same] <= t).mean(),
        )
        for t in distance
    ]
    assert eer == pytest.approx(min(gaps)[1], abs=1 / same.sum())
    # By hand: one of four same pairs and one of four different pairs on the wrong side.
    assert metrics.equal_error_rate(
        np.array([0, 0.25, 1]), np.array([0, 0.75, 1])
    ) == pytest.approx(0.25)


def test_interval_is_wider_when_pairs_share_images(rng):
    right = rng.random(400) < 0.8
    apart = Pairs(np.arange(400), np.arange(400, 800), np.zeros(400, np.float32))
    low, high = metrics.accuracy_interval(apart, right, seed=0)
    # Independent pairs: sqrt(0.8 * 0.2 / 400) = 0.02, and resampling both images widens it.
    assert low < right.mean() < high
    assert 0.06 < high - low < 0.2
    # All pairs share one of four left images, which alone decide: the interval must grow.
    shared = Pairs(np.arange(400) % 4, np.arange(400, 800), np.zeros(400, np.float32))
    low, high = metrics.accuracy_interval(shared, np.arange(400) % 4 > 0, seed=0)
    assert high - low > 0.5


def test_retrieval_equals_a_plain_loop(clouds):
    embeddings, labels = clouds
    recall_1, recall_5, map_at_r = [], [], []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        others.sort(key=lambda i: np.linalg.norm(embeddings[i] - embeddings[query]))
        hits = [labels[i] == labels[query] for i in others]
        r = sum(hits)
        recall_1.append(hits[0])
        recall_5.append(any(hits[:5]))
        map_at_r.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]) / r)
    found = metrics.retrieval(embeddings, labels)
    assert found["recall_at_1"] == pytest.approx(np.mean(recall_1), abs=1e-9)
    assert found["recall_at_5"] == pytest.approx(np.mean(recall_5), abs=1e-9)
    assert found["map_at_r"] == pytest.approx(np.mean(map_at_r), abs=1e-9)


def test_retrieval_leaves_out_images_alone_in_their_class():
    embeddings = np.array([[0.0], [1.0], [5.0]])
    assert metrics.retrieval(embeddings, np.array([0, 0, 1]))["recall_at_1"] == 1.0
    with pytest.raises(ValueError, match="at least two images"):
        metrics.retrieval(embeddings, np.array([0, 1, 2]))


def test_knn_accuracy_equals_a_plain_loop(clouds):
    embeddings, labels = clouds
    gallery, queries = slice(0, None, 2), slice(1, None, 2)
    hits = []
    for x, label in zip(embeddings[queries], labels[queries], strict=True):
        order = np.argsort(np.linalg.norm(embeddings[gallery] - x, axis=1))[:5]
        hits.append(np.bincount(labels[gallery][order]).argmax() == label)
    found = metrics.knn_accuracy(
        embeddings[gallery], labels[gallery], embeddings[queries], labels[queries]
    )
    assert found == pytest.approx(np.mean(hits))


def test_one_shot_is_perfect_on_separate_classes_and_chance_on_noise(rng):
    labels = np.repeat(np.arange(10), 8)
    separate = np.eye(10)[labels] * 9 + rng.normal(size=(80, 10)) * 0.1
    assert metrics.one_shot(separate, labels, ways=10, seed=0)[0] == 1.0
    share, (low, high) = metrics.one_shot(rng.normal(size=(80, 10)), labels, ways=5, seed=0)
    assert share == pytest.approx(0.2, abs=0.04)
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 10_000) ** 0.5)
    with pytest.raises(ValueError, match=r"11-way trials need 11 classes. Received: 10"):
        metrics.one_shot(separate, labels, ways=11, seed=0)


def test_similarity_is_a_half_at_the_threshold_and_falls_with_distance():
    classifier = Classifier(threshold=0.7, scale=9.0)
    distance = np.array([0.0, 0.7, 1.4, 1e6])
    similarity = classifier.similarity(distance)
    np.testing.assert_allclose(similarity[:3], [1 / (1 + np.exp(-6.3)), 0.5, 1 / (1 + np.exp(6.3))])
    assert similarity[3] == 0.0
    np.testing.assert_array_equal(classifier.same(distance), [True, True, False, False])


def test_classifier_recovers_the_logistic_curve_that_made_the_data(rng):
    distance = rng.uniform(0, 2, 20_000)
    different = rng.random(20_000) < 1 / (1 + np.exp(-6 * (distance - 0.8)))
    found = fit_classifier(different, distance)
    assert found.threshold == pytest.approx(0.8, abs=0.02)
    assert found.scale == pytest.approx(6, abs=0.3)


def test_distances_that_are_no_numbers_have_no_threshold():
    with pytest.raises(ValueError, match="the training diverged"):
        fit_classifier(np.array([0, 1]), np.array([0.5, np.nan]))


def test_a_model_that_learnt_the_reverse_has_no_threshold():
    with pytest.raises(ValueError, match="no further apart"):
        fit_classifier(np.array([0, 0, 1, 1]), np.array([2.0, 1.5, 0.5, 1.0]))


def test_class_error_rates_equal_a_plain_loop(rng):
    labels = rng.integers(0, 3, 20)
    pairs = Pairs(rng.integers(0, 20, 50), rng.integers(0, 20, 50), np.zeros(50))
    wrong = rng.random(50) < 0.4
    found = metrics.class_error_rates(pairs, labels, wrong, 4)
    for a in range(4):
        for b in range(4):
            hits = [
                w
                for i, j, w in zip(pairs.left, pairs.right, wrong, strict=True)
                if {labels[i], labels[j]} == {a, b}
            ]
            if hits:
                assert found[a, b] == pytest.approx(np.mean(hits))
            else:
                assert np.isnan(found[a, b])


def test_summary_has_mean_and_sample_deviation():
    reports = [{"test": {"accuracy": a, "ci": [0, 1]}, "done": True} for a in (0.9, 0.92, 0.97)]
    summary = metrics.summarise(reports)
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(0.93)
    assert summary["test"]["accuracy"]["std"] == pytest.approx(0.036056, abs=1e-6)
    assert "ci" not in summary["test"]
    assert "only_here" not in metrics.summarise([{"only_here": 1.0}, {}])
