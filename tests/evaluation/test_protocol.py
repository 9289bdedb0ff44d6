import dataclasses

import numpy as np
import pytest
from helpers.splits import by_class

from siamese_keras.data.open_set import hold_out_classes
from siamese_keras.data.pairs import calibration_pairs, evaluation_pairs
from siamese_keras.data.splits import Split
from siamese_keras.errors import TrainingError
from siamese_keras.evaluation import metrics
from siamese_keras.evaluation.open_set import open_set_metrics
from siamese_keras.evaluation.protocol import calibrate, score
from siamese_keras.models.calibration import Calibration, fit_calibration


def pixels(images):
    return images.reshape(len(images), -1) / 255


class Recorder:
    """Embeds as `pixels` does, and remembers which images it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, images):
        self.given.append(images)
        return pixels(images)


def calibrated(split):
    pairs = calibration_pairs(split.labels)
    return fit_calibration(pairs.different, metrics.pair_distances(pixels(split.images), pairs))


def verified(split, calibration, classes=None):
    pairs = evaluation_pairs(split.labels)
    distance = metrics.pair_distances(pixels(split.images), pairs)
    return metrics.verification(pairs, distance, calibration, classes=classes)


def test_any_function_of_images_is_scored(sample):
    scores = score(lambda images: images.reshape(len(images), -1) / 255, sample)
    calibration = calibrated(sample.validation)
    test, train = pixels(sample.test.images), pixels(sample.train.images)
    assert scores.calibration == calibration
    assert scores.metrics == {
        "test": verified(sample.test, calibration),
        "retrieval": {
            **metrics.retrieval(test, sample.test.labels),
            "knn_accuracy": metrics.knn_accuracy(
                train, sample.train.labels, test, sample.test.labels
            ),
        },
    }
    assert 0.6 < scores.metrics["test"]["accuracy"] < 0.9  # more than chance, less than a network
    pairs = evaluation_pairs(sample.test.labels)
    for field in ("left", "right", "different"):
        np.testing.assert_array_equal(getattr(scores.pairs, field), getattr(pairs, field))
    np.testing.assert_array_equal(scores.distance, metrics.pair_distances(test, pairs))
    assert set(scores.embeddings) == {"validation", "test"}
    np.testing.assert_array_equal(scores.embeddings["test"], test)
    np.testing.assert_array_equal(scores.embeddings["validation"], pixels(sample.validation.images))


def test_every_split_is_embedded_once(sample):
    embed = Recorder()
    scores = score(embed, sample)
    splits = (sample.validation, sample.test, sample.train)
    assert [any(images is s.images for images in embed.given) for s in splits] == [True] * 3
    assert len(embed.given) == 3
    embed = Recorder()
    found = score(embed, sample, knn=False).metrics
    assert [len(images) for images in embed.given] == [100, 200]  # validation and test alone
    del scores.metrics["retrieval"]["knn_accuracy"]
    assert found == scores.metrics


def test_the_threshold_comes_from_the_validation_images_alone(sample):
    def inverted(split):
        return Split(255 - split.images // 2, split.labels)

    calibration = score(pixels, sample, knn=False).calibration
    assert calibrate(pixels, sample.validation) == calibration
    other = dataclasses.replace(sample, train=inverted(sample.train), test=inverted(sample.test))
    assert score(pixels, other).calibration == calibration
    other = dataclasses.replace(sample, validation=inverted(sample.validation))
    assert score(pixels, other, knn=False).calibration != calibration


def test_a_calibration_that_is_given_decides(sample):
    given = Calibration(threshold=9.0, slope=2.0)
    scores = score(pixels, sample, calibration=given, knn=False)
    assert scores.calibration is given
    assert scores.metrics["test"] == verified(sample.test, given)


def test_unseen_classes_are_decided_by_the_threshold_of_seen_ones(sample):
    seen, unseen = hold_out_classes(sample, ("0", "1", "2"))
    scores = score(pixels, seen, unseen, knn=False)
    calibration = calibrated(seen.validation)
    assert scores.metrics == {
        "test": verified(seen.test, calibration),
        "retrieval": metrics.retrieval(pixels(seen.test.images), seen.test.labels),
        "unseen": {
            **verified(unseen, calibration, classes=unseen.labels),
            **metrics.retrieval(pixels(unseen.images), unseen.labels),
        },
        "open_set": open_set_metrics(pixels(unseen.images), unseen.labels, calibration),
    }
    np.testing.assert_array_equal(scores.embeddings["unseen"], pixels(unseen.images))


def test_all_representations_are_scored_on_the_same_pairs(sample):
    mine = score(pixels, sample, knn=False)
    other = score(lambda images: pixels(images)[:, ::7] * 2, sample, knn=False)
    np.testing.assert_array_equal(mine.pairs.left, other.pairs.left)
    np.testing.assert_array_equal(mine.pairs.right, other.pairs.right)


@pytest.mark.parametrize("knn", [True, False])
def test_a_representation_that_does_not_separate_pairs_is_refused(sample, knn):
    def collapsed(images):
        return np.zeros((len(images), 2))

    with pytest.raises(TrainingError, match="collapsed"):
        score(collapsed, sample, knn=knn)
    with pytest.raises(TrainingError, match="collapsed"):
        calibrate(collapsed, sample.validation)


def test_the_open_set_protocol_scores_the_test_classes_and_no_seen_ones(sample):
    """Cut by class: the report is of unseen classes, its interval of classes, not of images."""
    dataset = by_class(sample)
    scores = score(pixels, dataset, knn=True)
    test, calibration = dataset.test, calibrated(dataset.validation)
    pairs = evaluation_pairs(test.labels)
    distance = metrics.pair_distances(pixels(test.images), pairs)
    over_classes = metrics.verification(pairs, distance, calibration, classes=test.labels)
    assert scores.metrics == {
        "test": over_classes,
        "retrieval": metrics.retrieval(pixels(test.images), test.labels),
        "open_set": open_set_metrics(pixels(test.images), test.labels, calibration),
    }
    assert over_classes["accuracy_ci95"] != verified(test, calibration)["accuracy_ci95"]
