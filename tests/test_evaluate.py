import collections
import dataclasses
import json

import numpy as np
import pytest
from conftest import TINY
from matplotlib.image import imread

from siamese_keras import controls
from siamese_keras import evaluate as evaluation
from siamese_keras.data import Dataset, Split
from siamese_keras.evaluate import evaluate, table
from siamese_keras.pairs import evaluation_pairs
from siamese_keras.runs import Run, embed
from siamese_keras.train import train

VERIFICATION = {
    "accuracy", "accuracy_ci95", "accuracy_at_0.5_distance", "roc_auc", "average_precision", "eer",
    "tar_at_far_1e-2", "tar_at_far_1e-3", "d_prime", "brier", "ece", "threshold", "scale",
    "num_pairs",
}  # fmt: skip
CONTROLS = {"raw_pixels", "unit_pixels", "unit_blocks", "silhouette_blocks", "untrained_base"}


@pytest.fixture(scope="module")
def scored(tiny_run, sample):
    return evaluate(tiny_run, sample)


@pytest.fixture(scope="module")
def unseen_run(sample, tmp_path_factory) -> Run:
    config = dataclasses.replace(
        TINY, unseen_classes=("3", "6", "7", "8"), validation_size=100, epochs=1
    )
    return train(config, tmp_path_factory.mktemp("unseen") / "run", sample, verbose=0)


def test_report_has_every_key_and_is_the_file(scored, tiny_run):
    assert set(scored) == {
        "test", "test_hard", "test_deduplicated", "retrieval", "one_shot", "controls", "training",
    }  # fmt: skip
    assert set(scored["test"]) == set(scored["test_hard"]) == VERIFICATION
    assert set(scored["test_deduplicated"]) == VERIFICATION | {"removed_images"}
    assert set(scored["retrieval"]) == {"recall_at_1", "recall_at_5", "map_at_r", "knn_accuracy"}
    assert set(scored["one_shot"]) == {"5_way", "5_way_ci95", "10_way", "10_way_ci95"}
    assert set(scored["controls"]) == CONTROLS
    assert json.loads((tiny_run.path / "metrics.json").read_text()) == scored


def test_report_agrees_with_the_saved_embeddings(scored, tiny_run, sample):
    """Every figure again, from the file beside the report, by other means."""
    saved = np.load(tiny_run.path / "embeddings.npz")
    x, labels = saved["test"].astype(float), saved["test_labels"]
    np.testing.assert_array_equal(labels, sample.test.labels)
    pairs = evaluation_pairs("lab", labels, seed=TINY.seed)
    distance = np.sqrt(((x[pairs.left] - x[pairs.right]) ** 2).sum(axis=1))
    same = labels[pairs.left] == labels[pairs.right]
    report = scored["test"]
    right = (distance <= report["threshold"]) == same
    similarity = 1 / (1 + np.exp(-report["scale"] * (report["threshold"] - distance)))
    cuts = np.unique(distance)
    far = np.array([(distance[~same] <= cut).mean() for cut in cuts])
    tar = np.array([(distance[same] <= cut).mean() for cut in cuts])
    # The first cut at which different pairs accepted outnumber same pairs rejected, and how far
    # along the line from the one before it the two are equal.
    k = np.flatnonzero(far >= 1 - tar)[0]
    along = (1 - tar[k - 1] - far[k - 1]) / (tar[k] - tar[k - 1] + far[k] - far[k - 1])
    accuracies = []
    draws = np.random.default_rng(TINY.seed)
    images = sorted({*pairs.left.tolist(), *pairs.right.tolist()})
    for _ in range(500):
        count = collections.Counter(draws.integers(0, len(images), len(images)).tolist())
        weights = [
            count[images.index(i)] * count[images.index(j)]
            for i, j in zip(pairs.left, pairs.right, strict=True)
        ]
        accuracies.append(np.average(right, weights=weights))
    expected = {
        "num_pairs": len(distance),
        "eer": far[k - 1] + along * (far[k] - far[k - 1]),
        "accuracy": right.mean(),
        "accuracy_at_0.5_distance": ((distance <= 0.5) == same).mean(),
        "roc_auc": np.mean(
            [
                (a < distance[~same]).mean() + (a == distance[~same]).mean() / 2
                for a in distance[same]
            ]
        ),
        "average_precision": np.mean([same[distance <= a].mean() for a in distance[same]]),
        "tar_at_far_1e-2": max(tar[far <= 1e-2], default=0),
        "tar_at_far_1e-3": max(tar[far <= 1e-3], default=0),
        "brier": ((similarity - same) ** 2).mean(),
        "d_prime": (distance[~same].mean() - distance[same].mean())
        / np.sqrt((distance[~same].var() + distance[same].var()) / 2),
        "ece": sum(
            abs((similarity - same)[bin_].sum())
            for i in range(15)
            for bin_ in [(similarity * 15 >= i) & (similarity * 15 < i + 1)]
        )
        / len(same),
    }
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert report["accuracy_ci95"] == pytest.approx(
        np.quantile(accuracies, [0.025, 0.975]), abs=1e-6
    )
    distances = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    nearest = labels[distances.argsort(axis=1)] == labels[:, None]
    relevant = nearest[:, :19]
    precision = relevant.cumsum(axis=1) / np.arange(1, 20)
    assert scored["retrieval"] == pytest.approx(
        {
            "recall_at_1": nearest[:, 0].mean(),
            "recall_at_5": nearest[:, :5].any(axis=1).mean(),
            "map_at_r": ((precision * relevant).sum(axis=1) / 19).mean(),
            "knn_accuracy": _knn_accuracy(
                embed(tiny_run.base, sample.train.images), sample.train.labels, x, labels
            ),
        },
        abs=1e-6,
    )


def _knn_accuracy(gallery, gallery_labels, queries, labels):
    hits = 0
    for query, label in zip(queries, labels, strict=True):
        nearest = np.linalg.norm(gallery - query, axis=1).argsort()[:5]
        hits += np.bincount(gallery_labels[nearest]).argmax() == label
    return hits / len(labels)


def test_saved_embeddings_and_classifier_are_those_of_the_saved_model(scored, tiny_run, sample):
    run = Run.load(tiny_run.path)
    saved = np.load(tiny_run.path / "embeddings.npz")
    left, right = saved["test"][:40], saved["test"][40:80]
    distance = run.outer.predict_on_batch(
        {"left": sample.test.images[:40], "right": sample.test.images[40:80]}
    )
    np.testing.assert_allclose(np.linalg.norm(left - right, axis=1), distance, atol=1e-5)
    assert scored["test"]["threshold"] == run.classifier.threshold
    assert scored["test"]["scale"] == run.classifier.scale


def test_threshold_and_scale_come_from_the_validation_images(tiny_run, sample):
    again = evaluation.fit_run_classifier(
        lambda images: embed(tiny_run.base, images), sample.validation, seed=TINY.seed
    )
    assert again == pytest.approx(tiny_run.classifier) or (
        again.threshold == pytest.approx(tiny_run.classifier.threshold, abs=1e-6)
        and again.scale == pytest.approx(tiny_run.classifier.scale, rel=1e-5)
    )


def test_knn_accuracy_of_the_controls_is_reported_when_asked(tiny_run, sample, tmp_path):
    run = dataclasses.replace(tiny_run, path=tmp_path)
    report = evaluate(run, sample, knn_controls=True)["controls"]
    assert all("knn_accuracy" in report[name]["retrieval"] for name in CONTROLS)
    gallery, queries = (
        s.images.reshape(len(s.images), -1) / 255 for s in (sample.train, sample.test)
    )
    expected = _knn_accuracy(gallery, sample.train.labels, queries, sample.test.labels)
    found = report["raw_pixels"]["retrieval"]["knn_accuracy"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_images_that_stand_in_train_again_are_removed(tiny_run, sample, tmp_path):
    images = sample.test.images.copy()
    images[:7] = sample.train.images[:7]
    images[7] = sample.validation.images[3]
    dataset = Dataset(
        sample.train, sample.validation, Split(images, sample.test.labels), sample.class_names
    )
    run = dataclasses.replace(tiny_run, path=tmp_path)
    report = evaluate(run, dataset)
    assert report["test_deduplicated"]["removed_images"] == 8
    pairs = evaluation_pairs("lab", dataset.test.labels, seed=TINY.seed)
    kept = ((pairs.left > 7) & (pairs.right > 7)).sum()
    assert report["test_deduplicated"]["num_pairs"] == kept < report["test"]["num_pairs"]


def test_one_shot_agrees_with_other_trials_on_the_saved_embeddings(scored, tiny_run, rng):
    saved = np.load(tiny_run.path / "embeddings.npz")
    x, labels = saved["test"], saved["test_labels"]
    for ways in (5, 10):
        won = 0
        for _ in range(4000):
            classes = rng.permutation(10)[:ways]
            support = [rng.choice(np.flatnonzero(labels == c)) for c in classes]
            others = np.flatnonzero(labels == classes[0])
            query = rng.choice(others[others != support[0]])
            won += int(np.linalg.norm(x[support] - x[query], axis=1).argmin()) == 0
        low, high = scored["one_shot"][f"{ways}_way_ci95"]
        assert low - 0.025 < won / 4000 < high + 0.025
        assert low < scored["one_shot"][f"{ways}_way"] < high


def test_hard_pairs_are_harder(scored):
    assert scored["test_hard"]["roc_auc"] < scored["test"]["roc_auc"]


def test_confusable_classes_come_from_validation_pairs(tiny_run, sample):
    embedded = embed(tiny_run.base, sample.validation.images)
    rivals = evaluation._confusable(tiny_run, sample.validation, embedded, np.arange(10))
    assert rivals.shape == (10,)
    assert (rivals != np.arange(10)).all()
    # Without a test image a class is nobody's rival.
    absent = rivals[0]
    left = np.delete(np.arange(10), absent)
    assert absent not in evaluation._confusable(tiny_run, sample.validation, embedded, left)


def test_hard_pairs_are_chosen_by_validation_images(tiny_run, sample, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        evaluation,
        "_confusable",
        lambda run, validation, embedded, test_labels: (
            seen.append((validation, embedded)) or np.roll(np.arange(10), 1)
        ),
    )
    evaluate(dataclasses.replace(tiny_run, path=tmp_path), sample)
    ((validation, embedded),) = seen
    assert validation is sample.validation
    np.testing.assert_allclose(embedded, embed(tiny_run.base, validation.images), atol=1e-6)


def test_unseen_classes_are_trained_without_and_reported(unseen_run, sample):
    report = evaluate(unseen_run, sample)
    assert set(report["unseen"]) == VERIFICATION | {"recall_at_1", "recall_at_5", "map_at_r"}
    assert report["unseen"]["threshold"] == report["test"]["threshold"]  # of the seen classes
    assert report["unseen"]["num_pairs"] == 2 * 19 * 4
    assert report["test"]["num_pairs"] == 2 * 19 * 6
    assert set(report["one_shot"]) == {"5_way", "5_way_ci95"}  # six classes make no 10-way trials
    assert all(set(c) == {"test", "retrieval", "unseen"} for c in report["controls"].values())
    assert "unseen classes" in table(report)
    saved = np.load(unseen_run.path / "embeddings.npz")
    assert set(saved["unseen_labels"]) == {3, 6, 7, 8}
    assert not set(saved["test_labels"]) & {3, 6, 7, 8}


def test_controls_by_hand():
    images = np.zeros((1, 8, 12, 1), np.uint8)
    images[0, :4, :4] = 255
    images[0, 4, 0] = 12  # below 0.05 * 255 = 12.75
    images[0, 7, 11] = 13  # above
    np.testing.assert_allclose(controls.silhouette_blocks(images), [[1, 0, 0, 0, 0, 1 / 16]])
    pixels = controls.raw_pixels(images)
    assert pixels.shape == (1, 96)
    assert pixels[0, 0] == 1
    np.testing.assert_allclose(controls.unit_pixels(images)[0, 0], 1 / np.linalg.norm(pixels))
    blocks = np.array([1, 0, 0, 12 / 255 / 16, 0, 13 / 255 / 16])
    np.testing.assert_allclose(
        controls.unit_blocks(images)[0], blocks / np.linalg.norm(blocks), rtol=1e-5
    )
    # Neither smaller than a block nor a multiple of it; three channels.
    assert controls.silhouette_blocks(np.ones((2, 3, 30, 3), np.uint8)).shape == (2, 21)


def test_images_without_any_black_are_scored_all_the_same(sample, tmp_path):
    """Photos on a light ground: their silhouette is the whole picture and tells nothing."""

    def bright(split):
        return Split(np.maximum(split.images, 100), split.labels)

    dataset = Dataset(
        *(bright(s) for s in (sample.train, sample.validation, sample.test)), sample.class_names
    )
    run = train(dataclasses.replace(TINY, epochs=1), tmp_path / "run", dataset, verbose=0)
    report = evaluate(run, dataset)
    assert set(report["controls"]) == CONTROLS - {"silhouette_blocks"}
    assert "best control" in table(report)


def test_other_data_than_the_run_was_trained_on_are_refused(tiny_run, sample, tmp_path):
    run = dataclasses.replace(tiny_run, path=tmp_path)
    fewer = Dataset(
        sample.train, sample.validation, sample.test.take(np.arange(199)), sample.class_names
    )
    with pytest.raises(
        ValueError, match=r"number of images: \(500, 100, 200\). Received: \(500, 100, 199\)"
    ):
        evaluate(run, fewer)
    renamed = dataclasses.replace(sample, class_names=tuple("abcdefghij"))
    with pytest.raises(ValueError, match="Its classes"):
        evaluate(run, renamed)


def test_figures_are_pictures(scored, tiny_run):
    names = {
        "class-errors", "distances", "embedding", "reliability", "roc-and-det", "test-pairs",
        "worst-mistakes",
    }  # fmt: skip
    for name in names:
        picture = imread(tiny_run.path / "figures" / f"{name}.png")
        assert min(picture.shape[:2]) > 300
        assert picture[..., :3].std() > 0.02
