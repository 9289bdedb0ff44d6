import collections
import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from helpers.tiny import TINY
from matplotlib.image import imread

from siamese_keras import evaluate as evaluation
from siamese_keras.data.datasets import Dataset, Split, split_unseen
from siamese_keras.data.pairs import Pairs, evaluation_pairs, hard_pairs, threshold_pairs
from siamese_keras.evaluate import evaluate, table
from siamese_keras.evaluation import baselines as controls
from siamese_keras.models.base_model import build_base_model
from siamese_keras.train import train
from siamese_keras.verifier import Run, embed

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
        "seconds",
    }  # fmt: skip
    assert set(scored["test"]) == set(scored["test_hard"]) == VERIFICATION
    assert set(scored["test_deduplicated"]) == VERIFICATION | {"removed_images"}
    assert set(scored["retrieval"]) == {"recall_at_1", "recall_at_5", "map_at_r", "knn_accuracy"}
    assert set(scored["one_shot"]) == {"5_way", "5_way_ci95", "10_way", "10_way_ci95"}
    assert set(scored["controls"]) == CONTROLS
    assert json.loads((tiny_run.path / "metrics.json").read_text()) == scored


def check_verification(report, x, labels, pairs):
    """Compute every figure again from embeddings and pairs, by other means."""
    x = x.astype(float)
    distance = np.sqrt(((x[pairs.left] - x[pairs.right]) ** 2).sum(axis=1))
    same = labels[pairs.left] == labels[pairs.right]
    right = (distance <= report["threshold"]) == same
    similarity = 1 / (1 + np.exp(-report["scale"] * (report["threshold"] - distance)))
    cuts = np.concatenate([[-1], np.unique(distance)])
    far = np.array([(distance[~same] <= cut).mean() for cut in cuts])
    tar = np.array([(distance[same] <= cut).mean() for cut in cuts])
    # The first cut at which different pairs accepted outnumber same pairs rejected, and how far
    # along the line from the one before it the two are equal.
    k = np.flatnonzero(far >= 1 - tar)[0]
    along = (1 - tar[k - 1] - far[k - 1]) / (tar[k] - tar[k - 1] + far[k] - far[k - 1])
    accuracies = []
    draws = np.random.default_rng(TINY.seed)
    place = {image: i for i, image in enumerate(sorted({*pairs.left, *pairs.right}))}
    left, right_image = ([place[i] for i in side] for side in (pairs.left, pairs.right))
    for _ in range(500):
        count = collections.Counter(draws.integers(0, len(place), len(place)).tolist())
        weights = [count[i] * count[j] for i, j in zip(left, right_image, strict=True)]
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
        "tar_at_far_1e-2": max(tar[far <= 1e-2]),
        "tar_at_far_1e-3": max(tar[far <= 1e-3]),
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
    assert set(expected) == VERIFICATION - {"accuracy_ci95", "threshold", "scale"}
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert report["accuracy_ci95"] == pytest.approx(
        np.quantile(accuracies, [0.025, 0.975]), abs=1e-6
    )


def check_classifier(report, x, pairs):
    """Fit threshold and scale again, by Newton's method on the likelihood."""
    distance = np.linalg.norm(x[pairs.left].astype(float) - x[pairs.right], axis=1)
    columns = np.stack([distance, np.ones_like(distance)], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        probability = 1 / (1 + np.exp(-columns @ weights))
        slope = columns.T @ (probability - pairs.different)
        curvature = (columns * (probability * (1 - probability))[:, None]).T @ columns
        weights -= np.linalg.solve(curvature, slope)
    assert report["scale"] == pytest.approx(weights[0], rel=1e-6)
    assert report["threshold"] == pytest.approx(-weights[1] / weights[0], abs=1e-6)


def check_retrieval(report, x, labels, gallery=None, gallery_labels=None):
    x = x.astype(float)
    distances = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    nearest = labels[distances.argsort(axis=1, kind="stable")] == labels[:, None]
    relevant = nearest[:, :19]
    precision = relevant.cumsum(axis=1) / np.arange(1, 20)
    expected = {
        "recall_at_1": nearest[:, 0].mean(),
        "recall_at_5": nearest[:, :5].any(axis=1).mean(),
        "map_at_r": ((precision * relevant).sum(axis=1) / 19).mean(),
    }
    if gallery is not None:
        expected["knn_accuracy"] = _knn_accuracy(gallery, gallery_labels, x, labels)
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def check_one_shot(report, x, labels, ways):
    """Play the same trials one by one."""
    rng = np.random.default_rng((TINY.seed, ways))
    present = sorted(set(labels))
    order = rng.permuted(np.tile(np.arange(len(present)), (10_000, 1)), axis=1)[:, :ways]
    support = rng.integers(0, np.full(order.shape, 20))
    step = rng.integers(1, np.full(10_000, 20))
    of = [np.flatnonzero(labels == label) for label in present]
    won = 0
    for classes, chosen, further in zip(order, support, step, strict=True):
        query = x[of[classes[0]][(chosen[0] + further) % 20]]
        gaps = [np.linalg.norm(x[of[c][i]] - query) for c, i in zip(classes, chosen, strict=True)]
        won += int(np.argmin(gaps)) == 0
    share = won / 10_000
    assert report[f"{ways}_way"] == pytest.approx(share, abs=1e-6)
    width = 1.96 * np.sqrt(share * (1 - share) / 10_000)
    assert report[f"{ways}_way_ci95"] == pytest.approx([share - width, share + width], abs=1e-6)


def representations(run, split):
    """Embeddings that were never trained, by hand: what the controls must be scored on."""
    pixels = split.images[..., 0] / 255
    n = len(pixels)
    blocks = pixels.reshape(n, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(n, 49)
    outline = (split.images[..., 0] > 12).reshape(n, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(n, 49)
    pixels = pixels.reshape(n, -1)
    keras.utils.set_random_seed(run.config.seed)
    untrained = build_base_model((28, 28, 1), **run.config.base_model_options())
    return {
        "raw_pixels": pixels,
        "unit_pixels": pixels / np.linalg.norm(pixels, axis=1, keepdims=True),
        "unit_blocks": blocks / np.linalg.norm(blocks, axis=1, keepdims=True),
        "silhouette_blocks": outline,
        "untrained_base": untrained(split.images, training=False).numpy(),
    }


def check_report(report, run, dataset, unseen=None):
    """Compute every figure of a report again, from the embeddings saved beside it."""
    saved = np.load(run.path / "embeddings.npz")
    x, labels = saved["test"], saved["test_labels"]
    np.testing.assert_array_equal(labels, dataset.test.labels)
    train = embed(run.base, dataset.train.images)
    pairs = evaluation_pairs("lab", labels, seed=TINY.seed)
    check_verification(report["test"], x, labels, pairs)
    check_retrieval(report["retrieval"], x, labels, train, dataset.train.labels)
    for ways in (5, 10):
        if ways <= len(set(labels)):
            check_one_shot(report["one_shot"], x, labels, ways)

    # Hard pairs: of each class with the one that validation pairs take for it most often.
    judged = threshold_pairs(saved["validation_labels"], seed=TINY.seed)
    check_classifier(report["test"], saved["validation"], judged)
    near = (
        np.linalg.norm(saved["validation"][judged.left] - saved["validation"][judged.right], axis=1)
        <= report["test"]["threshold"]
    )
    shares = np.full((10, 10), -1.0)
    of_left, of_right = (saved["validation_labels"][side] for side in (judged.left, judged.right))
    for a, b in itertools.permutations(sorted(set(labels)), 2):
        both = ((of_left == a) & (of_right == b)) | ((of_left == b) & (of_right == a))
        shares[a, b] = near[both].mean()
    hard = hard_pairs(labels, shares.argmax(axis=1), np.random.default_rng(TINY.seed))
    check_verification(report["test_hard"], x, labels, hard)

    known = [image for s in (dataset.train, dataset.validation) for image in s.images]
    again = np.array([any(np.array_equal(i, k) for k in known) for i in dataset.test.images])
    assert report["test_deduplicated"]["removed_images"] == again.sum()
    kept = ~(again[pairs.left] | again[pairs.right])
    check_verification(
        report["test_deduplicated"],
        x,
        labels,
        Pairs(pairs.left[kept], pairs.right[kept], pairs.different[kept]),
    )

    splits = {"test": dataset.test, "train": dataset.train, "validation": dataset.validation}
    if unseen is not None:
        splits["unseen"] = unseen
        others = evaluation_pairs("lab", saved["unseen_labels"], seed=TINY.seed)
        np.testing.assert_array_equal(saved["unseen_labels"], unseen.labels)
        check_verification(report["unseen"], saved["unseen"], unseen.labels, others)
        check_retrieval(report["unseen"], saved["unseen"], unseen.labels)
    embedded = {name: representations(run, split) for name, split in splits.items()}
    assert set(report["controls"]) == CONTROLS
    for name, control in report["controls"].items():
        check_verification(control["test"], embedded["test"][name], labels, pairs)
        check_classifier(control["test"], embedded["validation"][name], judged)
        check_retrieval(
            control["retrieval"],
            embedded["test"][name],
            labels,
            embedded["train"][name],
            dataset.train.labels,
        )
        if unseen is not None:
            check_verification(control["unseen"], embedded["unseen"][name], unseen.labels, others)
            check_retrieval(control["unseen"], embedded["unseen"][name], unseen.labels)
            assert control["unseen"]["threshold"] == control["test"]["threshold"]


def test_every_figure_agrees_with_the_saved_embeddings(scored, tiny_run, sample):
    check_report(scored, tiny_run, sample)


def test_every_figure_with_unseen_classes_agrees_with_the_saved_embeddings(unseen_run, sample):
    report = evaluate(unseen_run, sample)
    check_report(report, unseen_run, *split_unseen(sample, ("3", "6", "7", "8")))


def _knn_accuracy(gallery, gallery_labels, queries, labels):
    hits = 0
    for query, label in zip(queries, labels, strict=True):
        nearest = np.linalg.norm(gallery - query, axis=1).argsort(kind="stable")[:5]
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
