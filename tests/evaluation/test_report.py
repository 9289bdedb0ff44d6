import copy
import dataclasses
import json
import logging

import numpy as np
import pytest
from helpers.splits import by_class
from helpers.tiny import TINY
from matplotlib.image import imread

from siamese_keras import Dataset, Verifier, fit, load_verifier
from siamese_keras.data.open_set import hold_out_classes
from siamese_keras.data.pairs import calibration_pairs, evaluation_pairs
from siamese_keras.data.splits import Split
from siamese_keras.errors import DataError, ModelError
from siamese_keras.evaluation.baselines import BASELINES
from siamese_keras.evaluation.open_set import open_set_metrics
from siamese_keras.evaluation.report import Report, _score_baselines, evaluate, summarize
from siamese_keras.evaluation.table import report_table
from siamese_keras.models.calibration import Calibration

VERIFICATION = {
    "accuracy", "accuracy_ci95", "accuracy_at_0.5_distance", "roc_auc", "average_precision", "eer",
    "tar_at_far_1e-2", "tar_at_far_1e-3", "d_prime", "brier", "ece", "threshold", "slope",
    "midpoint", "num_pairs",
}  # fmt: skip
RETRIEVAL = {"recall_at_1", "recall_at_2", "recall_at_5", "map_at_r", "ap_at_10", "map"}
UNSEEN = ("3", "6", "7", "8")
FIGURES = {
    "class-errors", "distances", "embedding", "history", "reliability", "roc-and-det",
    "test-pairs", "worst-mistakes",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tiny, sample) -> Report:
    return tiny.evaluate(sample)


@pytest.fixture(scope="module")
def with_baselines(tiny, sample) -> Report:
    return tiny.evaluate(sample, baselines=True)


@pytest.fixture(scope="module")
def unseen_verifier(sample) -> Verifier:
    """A verifier of another seed that has not seen four of the classes."""
    config = dataclasses.replace(TINY, unseen_classes=UNSEEN, epochs=1)
    return fit(sample, config, seed=3, verbose=0)


@pytest.fixture(scope="module")
def unseen_report(unseen_verifier, sample) -> Report:
    return unseen_verifier.evaluate(sample)


def distances(x, pairs):
    return np.sqrt(((x[pairs.left].astype(float) - x[pairs.right]) ** 2).sum(axis=1))


def check_verification(found, x, labels, pairs):
    """Compute accuracy and area again, from embeddings and pairs."""
    distance, same = distances(x, pairs), labels[pairs.left] == labels[pairs.right]
    wins = [
        (d < distance[~same]).mean() + (d == distance[~same]).mean() / 2 for d in distance[same]
    ]
    assert found["num_pairs"] == len(distance)
    assert found["accuracy"] == pytest.approx(((distance <= found["threshold"]) == same).mean())
    assert found["roc_auc"] == pytest.approx(np.mean(wins), abs=1e-6)


def check_retrieval(found, x, labels):
    """Compute Recall@1 and MAP@R again; every class has equally many images.

    In float64, so that one query may find a nearly equal distance on the other side.
    """
    squared = ((x[:, np.newaxis].astype(float) - x) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    hits = labels[squared.argsort(axis=1, kind="stable")] == labels[:, np.newaxis]
    r = np.bincount(labels).max() - 1
    precision = hits.cumsum(axis=1) / np.arange(1, len(x) + 1)
    assert found["recall_at_1"] == pytest.approx(hits[:, 0].mean(), abs=1.01 / len(x))
    average_precisions = (precision * hits)[:, :r].sum(axis=1) / r
    assert found["map_at_r"] == pytest.approx(average_precisions.mean(), abs=1e-3)


def check_knn(found, x, labels, gallery, gallery_labels):
    hits = 0
    for query, label in zip(x, labels, strict=True):
        nearest = ((gallery.astype(float) - query) ** 2).sum(axis=1).argsort(kind="stable")[:5]
        hits += np.bincount(gallery_labels[nearest]).argmax() == label
    assert found["knn_accuracy"] == pytest.approx(hits / len(x), abs=1.01 / len(x))


def check_calibration(found, x, labels):
    """Fit threshold and slope again, by Newton's method on the likelihood of Platt's targets."""
    pairs = calibration_pairs(labels)
    columns = np.stack([distances(x, pairs), np.ones(len(pairs))], axis=1)
    n_different = pairs.different.sum()
    n_same = len(pairs) - n_different
    target = np.where(pairs.different, (n_different + 1) / (n_different + 2), 1 / (n_same + 2))
    weights = np.zeros(2)
    for _ in range(50):
        probability = 1 / (1 + np.exp(-columns @ weights))
        slope = columns.T @ (probability - target)
        curvature = (columns * (probability * (1 - probability))[:, None]).T @ columns
        weights -= np.linalg.solve(curvature, slope)
    assert found["slope"] == pytest.approx(weights[0], rel=1e-5)
    assert found["threshold"] == pytest.approx(-weights[1] / weights[0], abs=1e-6)


# What the report holds


def test_report_has_every_group(report, with_baselines):
    found = report.metrics
    assert set(found) == {
        "test", "test_hard", "test_deduplicated", "retrieval", "one_shot", "baselines", "training",
        "seconds",
    }  # fmt: skip
    assert set(found["test"]) == set(found["test_hard"]) == VERIFICATION
    assert set(found["test_deduplicated"]) == VERIFICATION | {"removed_images"}
    assert set(found["retrieval"]) == RETRIEVAL | {"nmi"}
    assert set(with_baselines.metrics["retrieval"]) == RETRIEVAL | {"nmi", "knn_accuracy"}
    assert set(found["one_shot"]) == {"5_way", "5_way_ci95", "10_way", "10_way_ci95"}
    assert set(found["seconds"]) == {"model", "baselines"}
    assert set(with_baselines.metrics) == set(found)


def test_main_figures_agree_with_the_embeddings(with_baselines, tiny, sample):
    found, x = with_baselines.metrics, with_baselines.embeddings
    labels = sample.test.labels
    check_verification(found["test"], x["test"], labels, evaluation_pairs(labels))
    check_retrieval(found["retrieval"], x["test"], labels)
    train = tiny.embed(sample.train.images)
    check_knn(found["retrieval"], x["test"], labels, train, sample.train.labels)
    check_calibration(found["test"], x["validation"], sample.validation.labels)
    assert found["test_deduplicated"] == {"removed_images": 0, **found["test"]}


def test_embeddings_are_those_of_the_model(report, tiny, sample):
    assert set(report.embeddings) == {"validation", "validation_labels", "test", "test_labels"}
    for name in ("validation", "test"):
        split = sample.splits[name]
        np.testing.assert_array_equal(report.embeddings[f"{name}_labels"], split.labels)
        np.testing.assert_allclose(report.embeddings[name], tiny.embed(split.images), atol=1e-6)
    left, right = report.embeddings["test"][:40], report.embeddings["test"][40:80]
    distance = tiny.outer_model.predict_on_batch(
        {"left": sample.test.images[:40], "right": sample.test.images[40:80]}
    )
    np.testing.assert_allclose(np.linalg.norm(left - right, axis=1), distance, atol=1e-5)


def test_the_calibration_of_the_verifier_decides(report, tiny, sample):
    for group in ("test", "test_hard", "test_deduplicated"):
        assert report.metrics[group]["threshold"] == tiny.calibration.threshold
        assert report.metrics[group]["slope"] == tiny.calibration.slope
    strict = Calibration(threshold=0.0, slope=1.0)  # accepts only identical embeddings
    found = evaluate(tiny.embed, strict, sample).metrics["test"]
    assert (found["accuracy"], found["threshold"]) == (0.5, 0.0)


def test_facts_of_the_training_are_kept(report, tiny):
    assert report.metrics["training"] == tiny.training
    assert report.metrics["training"]["images"] == {"train": 500, "validation": 100, "test": 200}
    assert all(seconds >= 0 for seconds in report.metrics["seconds"].values())


def test_the_verifier_keeps_the_metrics(tiny, sample):
    report = tiny.evaluate(sample)
    assert tiny.metrics is report.metrics


# Which pairs


def test_the_seed_of_the_training_does_not_matter(report, tiny, sample):
    facts = {"config": dataclasses.replace(tiny.config, seed=7), "training": tiny.training}
    other = Verifier.of_model(tiny.outer_model, tiny.calibration, **facts)
    found = other.evaluate(sample).metrics
    assert {**found, "seconds": 0} == {**report.metrics, "seconds": 0}


def test_verifiers_of_different_seeds_are_scored_on_the_same_pairs(report, tiny, sample):
    other = fit(sample, dataclasses.replace(TINY, epochs=1), seed=5, verbose=0)
    found = other.evaluate(sample)
    assert found.metrics["baselines"] == report.metrics["baselines"]
    assert not np.allclose(found.embeddings["test"], report.embeddings["test"])
    pairs = evaluation_pairs(sample.test.labels)
    for scored in (found, report):
        check_verification(
            scored.metrics["test"], scored.embeddings["test"], sample.test.labels, pairs
        )
        check_calibration(
            scored.metrics["test"], scored.embeddings["validation"], sample.validation.labels
        )


def points(*splits):
    """Make a dataset of images of two pixels, which are their own embeddings.

    Each split gives the two pixels of its classes. A class has four images, one gray level apart.
    """
    made = []
    for places in splits:
        images = [np.array([x + i % 2, y + i // 2]) for x, y in places.values() for i in range(4)]
        labels = np.repeat(list(places), 4)
        made.append(Split(np.array(images, np.uint8).reshape(-1, 1, 2, 1), labels))
    return Dataset(*made, class_names=tuple("abcde"))


def as_points(images):
    return images.reshape(len(images), 2).astype(np.float32)


FAR = {0: (0, 0), 1: (0, 200), 2: (200, 0), 3: (200, 200)}
NEAR_01_AND_23 = {0: (0, 0), 1: (0, 8), 2: (200, 0), 3: (200, 8)}
NEAR_02_AND_13 = {0: (0, 0), 1: (0, 200), 2: (8, 0), 3: (8, 200)}
WIDE = Calibration(threshold=20.0, slope=1.0)


@pytest.mark.parametrize(
    ("validation", "test", "accuracy"),
    [
        # The classes that validation images confuse are confused in the test as well: every
        # different pair is accepted.
        (NEAR_01_AND_23, NEAR_01_AND_23, 0.5),
        # Test images confuse other classes, and these pairs do not occur.
        (NEAR_01_AND_23, NEAR_02_AND_13, 1.0),
        (NEAR_02_AND_13, NEAR_01_AND_23, 1.0),
    ],
)
def test_hard_pairs_are_chosen_by_validation_images(validation, test, accuracy):
    found = evaluate(as_points, WIDE, points(FAR, validation, test)).metrics
    assert found["test_hard"]["accuracy"] == accuracy
    assert found["test_hard"]["num_pairs"] == 16
    assert 0.5 < found["test"]["accuracy"] < 1.0


def test_hard_pairs_need_test_images():
    # Validation images confuse 0 with 2 always and with 1 half the time, but no test image is of 2:
    # the rival of 0 is 1. All pairs of rivals are accepted in the test.
    validation = {0: (0, 0), 2: (0, 2), 1: (20, 0), 3: (200, 200), 4: (200, 202)}
    test = {0: (0, 0), 1: (0, 8), 3: (200, 200), 4: (200, 208)}
    found = evaluate(as_points, WIDE, points(FAR, validation, test)).metrics
    assert found["test_hard"]["accuracy"] == 0.5


def test_a_class_without_validation_images_is_not_its_own_rival():
    validation = {1: (50, 50), 3: (200, 200), 4: (120, 120)}
    found = evaluate(as_points, WIDE, points(FAR, validation, validation | {0: (0, 0)})).metrics
    assert found["test_hard"]["accuracy"] == 1


def test_hard_pairs_are_harder(report):
    assert report.metrics["test_hard"]["roc_auc"] < report.metrics["test"]["roc_auc"]


@pytest.fixture(scope="module")
def with_duplicates(tiny, sample) -> Report:
    """Of a test set whose first eight images are also in train or validation."""
    images = sample.test.images.copy()
    images[:7] = sample.train.images[:7]
    images[7] = sample.validation.images[3]
    dataset = dataclasses.replace(sample, test=Split(images, sample.test.labels))
    return evaluate(tiny.embed, tiny.calibration, dataset)


def test_test_images_that_are_also_in_train_or_validation_are_removed(with_duplicates, sample):
    found = with_duplicates.metrics["test_deduplicated"]
    assert found["removed_images"] == 8
    pairs = evaluation_pairs(sample.test.labels)
    kept = pairs.take((pairs.left > 7) & (pairs.right > 7))
    assert found["num_pairs"] < with_duplicates.metrics["test"]["num_pairs"] == len(pairs)
    check_verification(found, with_duplicates.embeddings["test"], sample.test.labels, kept)


# Unseen classes


def test_main_figures_of_unseen_classes_agree_with_the_embeddings(
    unseen_report, unseen_verifier, sample
):
    seen, unseen = hold_out_classes(sample, UNSEEN)
    found, x = unseen_report.metrics, unseen_report.embeddings
    np.testing.assert_array_equal(x["test_labels"], seen.test.labels)
    np.testing.assert_array_equal(x["unseen_labels"], unseen.labels)
    np.testing.assert_allclose(x["unseen"], unseen_verifier.embed(unseen.images), atol=1e-6)
    for name, split, ranking in (
        ("test", seen.test, found["retrieval"]),
        ("unseen", unseen, found["unseen"]),
    ):
        check_verification(found[name], x[name], split.labels, evaluation_pairs(split.labels))
        check_retrieval(ranking, x[name], split.labels)
    check_calibration(found["test"], x["validation"], seen.validation.labels)
    assert found["unseen"]["threshold"] == found["test"]["threshold"]


def test_unseen_classes_are_reported_beside_the_others(unseen_report):
    found = unseen_report.metrics
    assert set(found["unseen"]) == VERIFICATION | RETRIEVAL | {"nmi"}
    assert found["unseen"]["num_pairs"] == 2 * 19 * 4
    assert found["test"]["num_pairs"] == 2 * 19 * 6
    assert set(found["one_shot"]) == {"5_way", "5_way_ci95"}  # six classes make no 10-way trials
    assert {int(c) for c in UNSEEN} == set(unseen_report.embeddings["unseen_labels"])
    assert set(found["baselines"]["raw_pixels"]) == {"test", "retrieval", "unseen", "open_set"}
    assert found["open_set"]["num_classes"] == 4


def test_the_report_of_unseen_classes_alone(sample, tiny):
    dataset = by_class(sample)
    report = evaluate(tiny.embed, tiny.calibration, dataset, baselines={})
    found = report.metrics
    assert "unseen" not in found
    assert "test_hard" not in found  # the classes most easily confused are those of validation
    assert found["test_deduplicated"] == {"removed_images": 0, **found["test"]}
    assert found["open_set"]["num_classes"] == 3
    assert found["open_set"] == open_set_metrics(
        report.embeddings["test"], dataset.test.labels, tiny.calibration
    )
    assert "knn_accuracy" not in found["retrieval"]  # of classes that are trained on
    assert all("open_set" in baseline for baseline in found["baselines"].values())
    table = rows(report)
    assert table["open set"] == "60 images of 3 unseen classes"
    assert table["one-shot"] == f"{found['open_set']['one_shot']['3_way']:.4f} 3-way"
    assert table["mAP"] == f"{found['retrieval']['map']:.4f}"
    assert "hard pairs" not in table
    assert set(report.figures) == set(FIGURES) - {"history"}


# Baselines


def test_by_default_raw_pixels_are_the_only_baseline(report, sample):
    assert set(report.metrics["baselines"]) == {"raw_pixels"}
    found = report.metrics["baselines"]["raw_pixels"]
    assert set(found) == {"test", "retrieval"}
    assert set(found["retrieval"]) == RETRIEVAL  # no knn_accuracy
    pixels = sample.test.images.reshape(200, -1) / 255
    labels = sample.test.labels
    check_verification(found["test"], pixels, labels, evaluation_pairs(labels))
    check_retrieval(found["retrieval"], pixels, labels)
    validation = sample.validation.images.reshape(100, -1) / 255
    check_calibration(found["test"], validation, sample.validation.labels)


def test_all_baselines_are_scored_on_the_same_pairs(with_baselines, sample):
    found = with_baselines.metrics["baselines"]
    assert set(found) == {*BASELINES, "random_base_model"}
    labels = sample.test.labels
    for name, embed in BASELINES.items():
        x = {part: embed(split.images) for part, split in sample.splits.items()}
        check_verification(found[name]["test"], x["test"], labels, evaluation_pairs(labels))
        check_calibration(found[name]["test"], x["validation"], sample.validation.labels)
        check_retrieval(found[name]["retrieval"], x["test"], labels)
        check_knn(found[name]["retrieval"], x["test"], labels, x["train"], sample.train.labels)


def test_the_random_base_model_is_untrained_and_the_same_every_time(with_baselines, tiny, sample):
    found = with_baselines.metrics["baselines"]["random_base_model"]
    again = tiny.evaluate(sample, baselines=True).metrics["baselines"]["random_base_model"]
    assert again == found
    assert set(found["retrieval"]) == RETRIEVAL | {"knn_accuracy"}
    assert found["test"]["roc_auc"] < with_baselines.metrics["test"]["roc_auc"]


def test_baselines_change_nothing_else(report, with_baselines):
    retrieval = dict(with_baselines.metrics["retrieval"])
    del retrieval["knn_accuracy"]
    assert report.metrics["retrieval"] == retrieval
    for group in set(report.metrics) - {"baselines", "seconds", "retrieval"}:
        assert report.metrics[group] == with_baselines.metrics[group]


def test_a_model_of_ones_own_is_compared(tiny, sample):
    report = evaluate(
        tiny.embed,
        tiny.calibration,
        sample,
        baselines={"left_half": lambda images: images[:, :, :14].reshape(len(images), -1) / 255},
    )
    assert set(report.metrics["baselines"]) == {*BASELINES, "left_half"}
    half = sample.test.images[:, :, :14].reshape(200, -1) / 255
    labels = sample.test.labels
    check_verification(
        report.metrics["baselines"]["left_half"]["test"], half, labels, evaluation_pairs(labels)
    )


def test_baselines_that_do_not_separate_pairs_are_left_out(tiny, sample):
    """Photos on a light ground: their silhouette is the whole picture and tells nothing."""
    bright = {
        part: Split(np.maximum(split.images, 100), split.labels)
        for part, split in sample.splits.items()
    }
    dataset = dataclasses.replace(sample, **bright)
    report = evaluate(tiny.embed, tiny.calibration, dataset, baselines={})
    assert set(report.metrics["baselines"]) == set(BASELINES) - {"silhouette_block_means"}
    assert "best baseline" in str(report)


def test_a_report_may_have_no_baseline_at_all():
    # Two images of each class: a black and a white one, but for a trace of the class. Images of
    # one class are further apart than others, in pixels.
    def split(n):
        images = np.array([(level, c) for c in range(4) for level in (0, 250)] * n, np.uint8)
        return Split(images.reshape(-1, 1, 2, 1), np.tile(np.repeat(np.arange(4), 2), n))

    dataset = Dataset(split(2), split(1), split(2), tuple("abcd"))
    report = evaluate(lambda x: x[:, 0, 1].astype(np.float32), Calibration(0.5, 4.0), dataset)
    assert report.metrics["test"]["accuracy"] == 1.0
    assert report.metrics["baselines"] == {}
    assert "baseline" not in str(report)


# As text


def rows(report):
    """Return the table's rows by name."""
    return {line[:19].strip(): line[19:].strip() for line in str(report).splitlines()}


def test_the_table_tells_a_threshold_that_was_chosen(tiny, sample, report):
    threshold = report.metrics["test"]["threshold"]
    chosen = tiny.with_threshold(0.1).evaluate(sample)
    assert rows(chosen)["threshold"] == f"0.1000  (chosen; {threshold:.4f} from validation pairs)"


def test_table(report):
    found = report.metrics
    test, hard, low_high = found["test"], found["test_hard"], found["test"]["accuracy_ci95"]
    pixels = found["baselines"]["raw_pixels"]["test"]
    assert rows(report) == {
        "pair accuracy": f"{test['accuracy']:.4f}  (95 % interval {low_high[0]:.4f} to "
        f"{low_high[1]:.4f}; 380 test pairs)",
        "ROC-AUC": f"{test['roc_auc']:.4f}",
        "equal error rate": f"{test['eer']:.4f}",
        "TAR at FAR 1 %": f"{test['tar_at_far_1e-2']:.4f}",
        "calibration error": f"{test['ece']:.4f}",
        "threshold": f"{test['threshold']:.4f}  (from validation pairs)",
        "hard pairs": f"{hard['accuracy']:.4f} accuracy, {hard['roc_auc']:.4f} AUC",
        "Recall@1": f"{found['retrieval']['recall_at_1']:.4f}",
        "MAP@R": f"{found['retrieval']['map_at_r']:.4f}",
        "mAP": f"{found['retrieval']['map']:.4f}",
        "baseline": f"{pixels['accuracy']:.4f} accuracy, {pixels['roc_auc']:.4f} AUC  "
        "(raw pixels, test pairs)",
    }


def test_table_with_unseen_classes(unseen_report):
    unseen = unseen_report.metrics["unseen"]
    pixels = unseen_report.metrics["baselines"]["raw_pixels"]["unseen"]
    found = rows(unseen_report)
    assert found["unseen classes"] == (
        f"{unseen['accuracy']:.4f} accuracy, {unseen['roc_auc']:.4f} AUC, {unseen['map']:.4f} mAP"
    )
    assert found["baseline"] == (
        f"{pixels['accuracy']:.4f} accuracy, {pixels['roc_auc']:.4f} AUC  (raw pixels, unseen pairs"
        f"{'; better than the model' if pixels['roc_auc'] > unseen['roc_auc'] else ''})"
    )


@pytest.mark.parametrize(("auc", "note"), [(1.0, ""), (0.0, "; better than the model")])
def test_table_names_the_best_baseline_and_says_when_it_is_better(with_baselines, auc, note):
    metrics = copy.deepcopy(with_baselines.metrics)
    metrics["test"]["roc_auc"] = auc
    groups = {name: b["test"] for name, b in metrics["baselines"].items()}
    best = max(groups, key=lambda name: groups[name]["roc_auc"])
    assert f"best baseline        {groups[best]['accuracy']:.4f} accuracy, " in report_table(
        metrics
    )
    assert report_table(metrics).endswith(
        f"{groups[best]['roc_auc']:.4f} AUC  ({best.replace('_', ' ')}, test pairs{note})"
    )


def test_table_with_duplicates(with_duplicates, tiny, sample):
    left = with_duplicates.metrics["test_deduplicated"]
    assert rows(with_duplicates)["without duplicates"] == (
        f"{left['accuracy']:.4f} accuracy, {left['roc_auc']:.4f} AUC  "
        "(8 test images are also in training data)"
    )
    images = np.concatenate([sample.train.images[:199], sample.test.images[199:]])
    copied = dataclasses.replace(sample, test=Split(images, sample.test.labels))
    report = evaluate(tiny.embed, tiny.calibration, copied)
    assert report.metrics["test_deduplicated"] == {"removed_images": 199}
    assert rows(report)["without duplicates"] == (
        "too few are left to score  (199 test images are also in training data)"
    )


def test_repr_is_short(report):
    accuracy = report.metrics["test"]["accuracy"]
    assert repr(report) == f"<Report: accuracy {accuracy:.4f} on 380 test pairs>"


# As files


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_save_writes_metrics_embeddings_and_figures_and_nothing_else(report, tmp_path):
    folder = tmp_path / "new" / "report"
    report.save(str(folder))
    assert files(tmp_path) == {
        f"new/report/{name}"
        for name in (
            "metrics.json",
            "classes.csv",
            "embeddings.npz",
            *(f"figures/{f}.png" for f in FIGURES),
        )
    }
    assert json.loads((folder / "metrics.json").read_text()) == report.metrics
    with np.load(folder / "embeddings.npz") as saved:
        assert set(saved) == set(report.embeddings)
        for name, values in report.embeddings.items():
            np.testing.assert_array_equal(saved[name], values)
    for name in FIGURES:
        picture = imread(folder / "figures" / f"{name}.png")
        assert min(picture.shape[:2]) > 300


def test_metrics_are_json_without_nan(report, unseen_report, with_baselines):
    for found in (report, unseen_report, with_baselines):
        text = json.dumps(found.metrics, allow_nan=False)
        assert json.loads(text) == found.metrics


def test_evaluating_writes_nothing_and_prints_nothing(
    tiny, tiny_run, sample, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    before = files(tiny_run)
    tiny.evaluate(sample)
    assert files(tiny_run) == before
    assert files(tmp_path) == set()
    assert capfd.readouterr() == ("", "")


def test_a_saved_report_is_read_with_its_run(report, tiny, tmp_path):
    tiny.save(tmp_path)
    assert load_verifier(tmp_path).metrics is None
    report.save(tmp_path)
    assert load_verifier(tmp_path).metrics == report.metrics


def test_figures_are_drawn_once(report):
    assert report.figures is report.figures


# Which dataset


def test_another_order_of_the_images_is_accepted(report, tiny, sample, rng):
    shuffled = {
        part: split.take(rng.permutation(len(split))) for part, split in sample.splits.items()
    }
    found = tiny.evaluate(dataclasses.replace(sample, **shuffled)).metrics["retrieval"]
    nmi = found.pop("nmi")  # k-means starts with other images
    expected = {name: value for name, value in report.metrics["retrieval"].items() if name != "nmi"}
    assert found == pytest.approx(expected, abs=0.006)
    assert nmi == pytest.approx(report.metrics["retrieval"]["nmi"], abs=0.1)


def other_pixel(sample):
    images = sample.test.images.copy()
    images[5, 14, 14] ^= 1
    return {"test": Split(images, sample.test.labels)}


def other_label(sample):
    labels = sample.validation.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    return {"validation": Split(sample.validation.images, labels)}


def swapped_splits(sample):
    return {"train": sample.test, "test": sample.train}


def swapped_images(sample):
    """Swap one train image for a test image of its class: counts and classes stay."""
    label = sample.train.labels[0]
    there = np.flatnonzero(sample.test.labels == label)[0]
    train, test = sample.train.images.copy(), sample.test.images.copy()
    train[0], test[there] = sample.test.images[there], sample.train.images[0]
    return {"train": Split(train, sample.train.labels), "test": Split(test, sample.test.labels)}


def fewer_images(sample):
    return {"test": sample.test.take(np.arange(199))}


def other_names(sample):
    return {"class_names": tuple("abcdefghij")}


@pytest.mark.parametrize(
    "change",
    [other_pixel, other_label, swapped_splits, swapped_images, fewer_images, other_names],
)
def test_another_dataset_is_refused(tiny, sample, change):
    other = dataclasses.replace(sample, **change(sample))
    with pytest.raises(DataError, match="must be the one that the model was trained on") as raised:
        tiny.evaluate(other)
    assert repr(other) in str(raised.value)
    assert tiny.training["data"][:12] in str(raised.value)
    assert other.fingerprint[:12] in str(raised.value)


# Which model


def test_an_exported_model_is_evaluated_as_well(report, exported, sample):
    found = load_verifier(exported).evaluate(sample, baselines=True)
    np.testing.assert_allclose(found.embeddings["test"], report.embeddings["test"], atol=1e-5)
    assert found.metrics["test"]["accuracy"] == pytest.approx(
        report.metrics["test"]["accuracy"], abs=0.01
    )
    assert set(found.metrics["baselines"]) == set(BASELINES)  # its weights cannot be drawn anew


def test_a_model_without_its_calibration_is_not_evaluated(tiny, sample):
    with pytest.raises(ModelError, match="does not report its calibration"):
        Verifier.of_model(tiny.outer_model, None, config=tiny.config).evaluate(sample)


# Several seeds


def test_summary_has_mean_and_sample_deviation():
    reports = [{"test": {"accuracy": a, "ci": [0, 1]}, "done": True} for a in (0.9, 0.92, 0.97)]
    summary = summarize(reports)
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(0.93)
    assert summary["test"]["accuracy"]["std"] == pytest.approx(0.036056, abs=1e-6)
    assert set(summary) == {"test"}  # truth values have no mean
    assert "ci" not in summary["test"]
    assert "only_here" not in summarize([{"only_here": 1.0}, {}])
    assert summarize([{"n": 3}]) == {"n": {"mean": 3.0, "std": 0.0}}


def test_summary_of_reports(report, unseen_report):
    summary = summarize([report.metrics, unseen_report.metrics])
    accuracies = [r.metrics["test"]["accuracy"] for r in (report, unseen_report)]
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert "unseen" not in summary
    assert "10_way" not in summary["one_shot"]
    assert set(summary["retrieval"]) == RETRIEVAL | {"nmi"}
    json.dumps(summary, allow_nan=False)


def test_test_classes_of_one_image_are_not_asked_about_in_one_shot_trials(rng):
    images = rng.integers(0, 256, (260, 6, 6, 1), np.uint8)
    labels = np.repeat(np.arange(26), 10)
    test = np.concatenate([np.arange(200, 241), [250]])  # 4 classes of 10 images, 2 of one
    dataset = Dataset(
        Split(images[:100], labels[:100]), Split(images[100:200], labels[100:200]),
        Split(images[test], labels[test]), tuple(map(str, range(26))),
    )  # fmt: skip
    metrics = evaluate(lambda x: x.reshape(len(x), -1) / 255.0, WIDE, dataset).metrics
    assert "5_way" not in metrics["one_shot"]


def test_baselines_are_left_out_where_they_would_fill_the_memory(sample, caplog, monkeypatch):
    monkeypatch.setattr("siamese_keras.evaluation.report._BASELINE_VALUES", 1000)
    with caplog.at_level(logging.INFO, logger="siamese_keras"):
        found = _score_baselines(None, sample, None, None)
    assert found == {}
    # 100 validation and 200 test images.
    assert "Skipping the baselines: 235,200 pixel values are too many." in caplog.text


def test_nearest_neighbors_are_left_out_where_train_images_would_fill_the_memory(
    sample, caplog, monkeypatch
):
    chosen = {"pixels": lambda images: images.reshape(len(images), -1) / 255.0}
    monkeypatch.setattr("siamese_keras.evaluation.report._BASELINE_VALUES", 300_000)
    with caplog.at_level(logging.INFO, logger="siamese_keras"):
        found = _score_baselines(chosen, sample, None, None)
    assert "nearest neighbors of the baselines: 392,000 pixel values of training" in caplog.text
    assert "roc_auc" in found["pixels"]["test"]
    assert "knn_accuracy" not in found["pixels"]["retrieval"]
    monkeypatch.undo()
    assert "knn_accuracy" in _score_baselines(chosen, sample, None, None)["pixels"]["retrieval"]
