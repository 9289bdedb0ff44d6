import itertools
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_curve

from siamese_keras.data.pairs import Pairs, balanced_pairs, evaluation_pairs
from siamese_keras.errors import ArgumentError
from siamese_keras.evaluation import metrics
from siamese_keras.models.calibration import Calibration


@pytest.fixture
def clouds(rng):
    """Embeddings of four overlapping classes."""
    labels = np.repeat(np.arange(4), [15, 20, 25, 30])
    embeddings = rng.normal(size=(4, 5))[labels] * 1.2 + rng.normal(size=(len(labels), 5))
    return embeddings.astype(np.float32), labels


@pytest.fixture
def scored(clouds, rng):
    embeddings, labels = clouds
    pairs = balanced_pairs(labels, rng)
    return pairs, metrics.pair_distances(embeddings, pairs)


def test_pair_distances_equal_a_loop(clouds):
    embeddings, labels = clouds
    pairs = evaluation_pairs(labels)
    expected = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(embeddings[i], embeddings[j], strict=True))
        ** 0.5
        for i, j in zip(pairs.left, pairs.right, strict=True)
    ]
    np.testing.assert_allclose(metrics.pair_distances(embeddings, pairs), expected, atol=1e-6)


@pytest.mark.parametrize("gathered", [1, 1_000, 4_000_000])
def test_pair_distances_of_many_pairs_keep_their_order(clouds, rng, gathered, monkeypatch):
    monkeypatch.setattr(metrics, "_GATHERED", gathered)
    embeddings, labels = clouds
    left, right = rng.integers(0, len(labels), (2, 10_000))
    found = metrics.pair_distances(embeddings, Pairs(left, right, np.zeros(10_000, np.float32)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(
        found, np.linalg.norm(embeddings[left] - embeddings[right], axis=1), atol=1e-5
    )


def test_verification_equals_plain_loops(scored):
    pairs, distance = scored
    report = metrics.verification(pairs, distance, Calibration(threshold=2.5, slope=1.5))
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
    assert (report["threshold"], report["slope"], report["midpoint"]) == (2.5, 1.5, 2.5)
    low, high = report["accuracy_ci95"]
    assert low < report["accuracy"] < high
    assert set(report) == {
        "accuracy", "accuracy_ci95", "accuracy_at_0.5_distance", "roc_auc", "average_precision",
        "eer", "tar_at_far_1e-2", "tar_at_far_1e-3", "d_prime", "brier", "ece", "threshold",
        "slope", "midpoint", "num_pairs",
    }  # fmt: skip


def test_verification_of_pairs_that_separate_perfectly(clouds):
    _, labels = clouds
    pairs = evaluation_pairs(labels)
    report = metrics.verification(pairs, pairs.different * 1.0, Calibration(0.5, 9.0))
    assert report["accuracy"] == report["roc_auc"] == report["average_precision"] == 1.0
    assert report["tar_at_far_1e-3"] == 1.0
    assert report["eer"] == pytest.approx(0, abs=1e-9)
    assert report["accuracy_ci95"] == [1.0, 1.0]
    assert np.isfinite(report["d_prime"])


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


def test_calibration_error_by_hand():
    # Bin 0: two pairs of similarity 0.05, one of them same: a gap of |0.1 - 1|.
    # Bin 14: similarities 1.0 and 0.98, one of them same: a gap of |1.98 - 1|. Over 4 pairs.
    same = np.array([True, False, False, True])
    similarity = np.array([0.05, 0.05, 1.0, 0.98])
    assert metrics.expected_calibration_error(same, similarity) == pytest.approx(1.88 / 4)


def test_interval_is_wider_when_pairs_share_images(rng):
    correct = rng.random(400) < 0.8
    apart = Pairs(np.arange(400), np.arange(400, 800), np.zeros(400, np.float32))
    low, high = metrics.accuracy_interval(apart, correct, seed=0)
    # Independent pairs: sqrt(0.8 * 0.2 / 400) = 0.02, and resampling both images widens it.
    assert low < correct.mean() < high
    assert 0.06 < high - low < 0.2
    # All pairs share one of four left images, which alone decide: the interval must grow.
    shared = Pairs(np.arange(400) % 4, np.arange(400, 800), np.zeros(400, np.float32))
    low, high = metrics.accuracy_interval(shared, np.arange(400) % 4 > 0, seed=0)
    assert high - low > 0.5


def test_interval_over_classes_is_as_wide_as_classes_differ():
    """40 classes of 10 same pairs; all pairs of a class are right, or all are wrong."""
    classes = np.repeat(np.arange(40), 20)
    pairs = Pairs(np.arange(0, 800, 2), np.arange(1, 800, 2), np.zeros(400, np.float32))
    correct = classes[pairs.left] % 5 > 0
    low, high = metrics.accuracy_interval(pairs, correct, seed=0, classes=classes)
    # As 40 draws: 4 * sqrt(0.8 * 0.2 / 40) = 0.25, where images alone give 0.11 or so.
    assert 0.2 < high - low < 0.3
    narrow = metrics.accuracy_interval(pairs, correct, seed=0)
    assert narrow[1] - narrow[0] < 0.2


def test_interval_over_classes_counts_a_different_pair_by_both_classes():
    """Classes 0 and 1: without either of them only one same pair is left, which is right."""
    pairs = Pairs(np.array([0, 0, 2]), np.array([1, 2, 3]), np.array([0, 1, 0], np.float32))
    classes = np.array([0, 0, 1, 1])
    low, high = metrics.accuracy_interval(
        pairs, np.array([True, False, True]), seed=0, classes=classes
    )
    # Of the four draws of two classes, two are the same class twice: the different pair counts 0.
    assert (low, high) == (pytest.approx(2 / 3), 1.0)


def test_interval_of_few_images_leaves_out_draws_without_pairs():
    pairs = Pairs(np.array([0, 2]), np.array([1, 3]), np.array([0, 1], np.float32))
    assert metrics.accuracy_interval(pairs, np.array([True, True]), seed=0) == [1.0, 1.0]


def test_interval_is_the_same_for_the_same_seed(scored):
    pairs, distance = scored
    first, again, other = (
        metrics.accuracy_interval(pairs, distance < 2.5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def plain_figures(hits):
    """Return the figures of a query from whether each rank is of its class."""
    precision = [sum(hits[: i + 1]) / (i + 1) * hits[i] for i in range(len(hits))]
    return {
        "recall_at_1": hits[0],
        "recall_at_2": any(hits[:2]),
        "recall_at_5": any(hits[:5]),
        "map_at_r": sum(precision[: sum(hits)]) / sum(hits),
        "ap_at_10": sum(precision[:10]) / 10,
        "map": sum(precision) / sum(hits),
    }


def plain_retrieval(embeddings, labels, queries=None):
    figures = []
    for query in range(len(labels)) if queries is None else np.flatnonzero(queries):
        others = [
            i for i in range(len(labels)) if i != query and not (queries is not None and queries[i])
        ]
        others.sort(key=lambda i: np.linalg.norm(embeddings[i] - embeddings[query]))
        hits = [labels[i] == labels[query] for i in others]
        if any(hits):
            figures.append(plain_figures(hits))
    return {name: np.mean([found[name] for found in figures]) for name in figures[0]}


def test_queries_are_searched_for_in_the_gallery_alone(clouds, rng):
    embeddings, labels = clouds
    queries = rng.random(len(labels)) < 0.3
    assert metrics.retrieval(embeddings, labels, queries) == pytest.approx(
        plain_retrieval(embeddings, labels, queries), abs=1e-9
    )


def test_map_is_that_of_scikit_learn(clouds):
    embeddings, labels = clouds
    distance = np.linalg.norm(embeddings[:, np.newaxis] - embeddings, axis=2)
    expected = []
    for query in range(len(labels)):
        others = np.arange(len(labels)) != query
        relevant = labels[others] == labels[query]
        if relevant.any():
            expected.append(average_precision_score(relevant, -distance[query, others]))
    assert metrics.retrieval(embeddings, labels)["map"] == pytest.approx(np.mean(expected))


def test_clustering_finds_classes_that_are_far_apart(rng):
    labels = np.repeat(np.arange(5), 20)
    embeddings = 6 * np.eye(5)[labels] + 0.1 * rng.normal(size=(100, 5))
    assert metrics.clustering_nmi(embeddings, labels) > 0.85
    assert metrics.clustering_nmi(rng.normal(size=(100, 5)), labels) < 0.3
    assert metrics.clustering_nmi(np.eye(5)[labels], labels) == pytest.approx(1)
    many = np.arange(100_000)
    assert metrics.clustering_nmi(np.ones((100_000, 1)), many) is None  # would take minutes


def test_a_query_without_an_image_of_its_class_in_the_gallery_does_not_count():
    labels = np.array([0, 0, 1, 2, 2])
    embeddings = np.array([[0.0], [0.1], [0.2], [5.0], [9.0]], np.float32)
    queries = np.array([True, False, True, False, False])
    assert metrics.retrieval(embeddings, labels, queries)["recall_at_1"] == 1.0
    with pytest.raises(ArgumentError, match="at least two images"):
        metrics.retrieval(embeddings, labels, np.array([False, False, True, False, False]))


def test_retrieval_equals_a_plain_loop(clouds):
    embeddings, labels = clouds
    assert metrics.retrieval(embeddings, labels) == pytest.approx(
        plain_retrieval(embeddings, labels), abs=1e-9
    )


def test_retrieval_does_not_depend_on_the_origin_of_the_embeddings(clouds):
    embeddings, labels = clouds
    assert metrics.retrieval(embeddings + np.float32(1000), labels) == pytest.approx(
        plain_retrieval((embeddings + np.float32(1000)).astype(np.float64), labels), abs=1e-9
    )


def test_retrieval_does_not_depend_on_the_order_of_the_images(clouds, rng):
    embeddings, labels = clouds
    order = rng.permutation(len(labels))
    assert metrics.retrieval(embeddings[order], labels[order]) == pytest.approx(
        metrics.retrieval(embeddings, labels), abs=1e-9
    )


def test_retrieval_does_not_query_images_alone_in_their_class():
    embeddings = np.array([[0.0], [1.0], [5.0]])
    assert metrics.retrieval(embeddings, np.array([0, 0, 1]))["recall_at_1"] == 1.0
    with pytest.raises(ArgumentError, match="at least two images"):
        metrics.retrieval(embeddings, np.array([0, 1, 2]))


def test_equally_near_images_are_ranked_by_index():
    # Seen from image 1, at 0, images 0 and 2 are equally near, and so are 3 and 4.
    embeddings = np.array([[-1.0], [0.0], [1.0], [2.0], [-2.0]])
    queries = np.array([0, 1, 1, 2, 3])  # image 1 looks for image 2: rank 2
    assert metrics.retrieval(embeddings, queries)["recall_at_1"] == 0.5  # image 2 finds image 1
    assert metrics.retrieval(embeddings, np.array([1, 1, 0, 2, 3]))["recall_at_1"] == 1.0
    # Identical embeddings: the ranking is the index. By hand, labels 0 1 0 1:
    # image 0 ranks 1 2 3, 1 ranks 0 2 3, 2 ranks 0 1 3, 3 ranks 0 1 2; R is 1.
    collapsed = metrics.retrieval(np.ones((4, 2)), np.array([0, 1, 0, 1]))
    assert [collapsed[f"recall_at_{k}"] for k in (1, 2, 5)] == [0.25, 0.75, 1.0]
    assert collapsed["map_at_r"] == 0.25
    assert collapsed["map"] == pytest.approx(1 / 3)  # after all others that are as near


def test_retrieval_among_thousands_with_ties_equals_a_full_sort(rng):
    # 64 different points: most images have hundreds at the same distance. Small whole numbers, so
    # that their distances are exact.
    n = 2500
    embeddings, labels = rng.integers(0, 4, (n, 3)).astype(np.float32), rng.integers(0, 7, n)
    squared = np.square(embeddings[:, np.newaxis] - embeddings).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    hits = labels[squared.argsort(axis=1, kind="stable")] == labels[:, np.newaxis]
    relevant_images = np.bincount(labels)[labels][:, np.newaxis] - 1
    precision = hits.cumsum(axis=1) / np.arange(1, n + 1)
    relevant = hits & (np.arange(n) < relevant_images)
    # Of images at one distance, those of the class come last.
    last = np.lexsort((labels == labels[:, np.newaxis], squared))
    hits_last = labels[last] == labels[:, np.newaxis]
    at_end = squared[np.arange(n)[:, np.newaxis], last]
    plain_map = 0.0
    for row in range(n):
        found = np.flatnonzero(hits_last[row] & np.isfinite(at_end[row]))
        plain_map += np.mean(np.arange(1, len(found) + 1) / (found + 1)) / n
    assert metrics.retrieval(embeddings, labels) == pytest.approx(
        {
            "recall_at_1": hits[:, 0].mean(),
            "recall_at_2": hits[:, :2].any(axis=1).mean(),
            "recall_at_5": hits[:, :5].any(axis=1).mean(),
            "map_at_r": ((precision * relevant) / relevant_images).sum(axis=1).mean(),
            "ap_at_10": (precision * hits)[:, :10].sum(axis=1).mean() / 10,
            "map": plain_map,
        },
        abs=1e-9,
    )


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


def test_knn_accuracy_of_thousands_equals_a_full_sort(rng):
    gallery, queries = (rng.integers(0, 4, (n, 3)).astype(np.float32) for n in (2000, 3000))
    gallery_labels, labels = rng.integers(0, 3, 2000), rng.integers(0, 3, 3000)
    squared = np.square(queries[:, np.newaxis] - gallery).sum(axis=2)
    nearest = gallery_labels[squared.argsort(axis=1, kind="stable")[:, :5]]
    voted = [np.bincount(votes).argmax() for votes in nearest]
    found = metrics.knn_accuracy(gallery, gallery_labels, queries, labels)
    assert found == pytest.approx(np.mean(voted == labels))


def test_among_equal_votes_the_smallest_label_wins():
    gallery, gallery_labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([2, 1, 2, 1])
    vote = {"gallery": gallery, "gallery_labels": gallery_labels, "queries": np.array([[0.4]])}
    assert metrics.knn_accuracy(**vote, labels=np.array([1]), neighbors=4) == 1.0
    assert metrics.knn_accuracy(**vote, labels=np.array([2]), neighbors=3) == 1.0
    assert metrics.knn_accuracy(**vote, labels=np.array([1])) == 1.0  # fewer than five: all four


def test_one_shot_is_perfect_on_separate_classes_and_chance_on_noise(rng):
    labels = np.repeat(np.arange(10), 8)
    separate = np.eye(10)[labels] * 9 + rng.normal(size=(80, 10)) * 0.1
    assert metrics.one_shot(separate, labels, ways=10, seed=0) == (1.0, [1.0, 1.0])
    share, (low, high) = metrics.one_shot(rng.normal(size=(80, 10)), labels, ways=5, seed=0)
    assert share == pytest.approx(0.2, abs=0.04)
    assert low < share < high
    with pytest.raises(ArgumentError, match=r"11-way trials need 11 classes. Received: 10"):
        metrics.one_shot(separate, labels, ways=11, seed=0)


def test_one_shot_approaches_the_share_of_all_possible_trials(rng):
    # Classes of different sizes; the last has one image and takes no part.
    labels = np.repeat([0, 1, 2, 3], [2, 3, 4, 1])
    embeddings = rng.normal(size=(10, 2))
    members = [np.flatnonzero(labels == label) for label in range(3)]
    by_classes = []
    for own, other in itertools.permutations(range(3), 2):
        won = [
            np.linalg.norm(embeddings[query] - embeddings[support])
            < np.linalg.norm(embeddings[query] - embeddings[rival])
            for query, support in itertools.permutations(members[own], 2)
            for rival in members[other]
        ]
        by_classes.append(np.mean(won))
    share, _ = metrics.one_shot(embeddings, labels, ways=2, seed=0, trials=40_000)
    assert share == pytest.approx(np.mean(by_classes), abs=0.01)


def test_one_shot_of_a_collapsed_embedding_wins_nothing():
    labels = np.repeat(np.arange(5), 4)
    assert metrics.one_shot(np.ones((20, 3)), labels, ways=5, seed=0)[0] == 0.0


def test_one_shot_interval_counts_images_and_not_trials(rng):
    labels = np.repeat(np.arange(5), 6)
    embeddings = np.eye(5)[labels] + rng.normal(size=(30, 5)) * 0.6
    widths = []
    for trials in (500, 50_000):
        share, (low, high) = metrics.one_shot(embeddings, labels, ways=5, seed=0, trials=trials)
        assert low < share < high
        widths.append(high - low)
    # Independent trials would narrow it to a tenth.
    assert widths[1] > 0.7 * widths[0]


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


def test_the_most_confused_class_is_that_of_the_highest_error_rate(rng):
    labels = rng.integers(0, 6, 40)
    labels[labels == 4] = 5  # a class without images
    pairs = Pairs(rng.integers(0, 40, 60), rng.integers(0, 40, 60), np.zeros(60))
    wrong = rng.random(60) < 0.5
    rates = np.nan_to_num(metrics.class_error_rates(pairs, labels, wrong, 6), nan=-1)
    np.fill_diagonal(rates, -2)
    rates[:, [2, 4]] = -3
    found = metrics.most_confused(pairs, labels, wrong, np.array([0, 1, 3, 5]), 6)
    assert found.tolist() == rates.argmax(axis=1).tolist()


def test_without_pairs_the_first_other_class_is_the_most_confused():
    none = Pairs(*np.zeros((2, 0), int), np.zeros(0))
    found = metrics.most_confused(none, np.zeros(0, int), np.zeros(0, bool), np.array([1, 3]), 4)
    assert found.tolist() == [1, 3, 1, 1]


def test_many_classes_take_little_memory(rng):
    """A table of every two of the classes, or of every image and class, would take gigabytes."""
    labels = np.repeat(np.arange(20_000), 2)
    embeddings = rng.normal(size=(len(labels), 2)).astype(np.float32)
    pairs = balanced_pairs(labels, rng)
    wrong = pairs.different > 0.5
    tracemalloc.start()
    metrics.most_confused(pairs, labels, wrong, np.unique(labels), 20_000)
    metrics.knn_accuracy(embeddings, labels, embeddings[:50], labels[:50])
    metrics.one_shot(embeddings, labels, ways=5, seed=0, trials=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_one_shot_trials_of_many_classes_are_those_of_few_at_a_time(rng, monkeypatch):
    labels = np.repeat(np.arange(6), 3)
    embeddings = rng.normal(size=(18, 2))
    expected = metrics.one_shot(embeddings, labels, ways=5, seed=0, trials=50)
    monkeypatch.setattr(metrics, "_BLOCK", 20)
    assert metrics.one_shot(embeddings, labels, ways=5, seed=0, trials=50) == expected


def test_accuracy_at_distance_0_5_takes_pairs_up_to_there_for_same():
    pairs = Pairs(np.arange(4), np.arange(4, 8), np.array([0, 0, 1, 1], np.float32))
    report = metrics.verification(pairs, np.array([0.1, 0.5, 0.4, 0.9]), Calibration(0.3, 1.0))
    assert report["accuracy_at_0.5_distance"] == 0.75


def test_a_query_of_the_last_class_without_an_image_in_the_gallery_does_not_count():
    embeddings = np.array([[0.0], [0.1], [0.2]], np.float32)
    queries = np.array([True, False, True])
    assert metrics.retrieval(embeddings, np.array([0, 0, 1]), queries)["recall_at_1"] == 1.0
