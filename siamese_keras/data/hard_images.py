"""Hard images: those that a linear classifier separates least clearly from other classes."""

from __future__ import annotations

import numpy as np
import scipy.linalg

_FITTED = 10_000  # images to fit the classifier to; more make no better one
_PIXELS = 1024  # at most, or features
_SHRINKAGE = 0.1  # enough for a few hundred images, where less would fit every label
_PART = 2048  # images read at a time
_HARDEST = 0.7  # share of the hardest images among those drawn


def difficulty(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Measure how hard it is to tell each image from those of other classes.

    A linear classifier of the pixels, fitted by ridge regression, stands in for a network that has
    not been trained yet.

    Args:
        values: `[n, ...]`, of each image: its pixels, or features.
        labels: int `[n]`, their classes, at least two.

    Returns:
        float64 `[n]`, the score of the best other class minus that of the own one: above 0 where
        the classifier is wrong.

    Reference:
        Coleman et al., "Selection via Proxy: Efficient Data Selection for Deep Learning" (2020),
        for choosing training examples by a cheaper model.
    """
    count = len(values)
    table = values.reshape(count, -1)
    places = np.unique(np.linspace(0, table.shape[1] - 1, _PIXELS).astype(int))

    def pixels(rows: np.ndarray) -> np.ndarray:
        return np.asarray(table[rows[:, np.newaxis], places], np.float64)

    fitted = np.sort(np.random.default_rng(0).permutation(count)[:_FITTED])
    inputs = pixels(fitted)
    shrinkage = _SHRINKAGE * (float(np.square(inputs).mean()) or 1.0) * len(fitted)
    mean = inputs.mean(axis=0)
    inputs -= mean
    # Ridge regression of one target for each class, of which only sums over the class are needed.
    classes, own, sizes = np.unique(labels[fitted], return_inverse=True, return_counts=True)
    sums = np.zeros((len(classes), len(places)))
    np.add.at(sums, own, inputs)
    gram = inputs.T @ inputs
    gram[np.diag_indices_from(gram)] += shrinkage
    weights = scipy.linalg.solve(gram, sums.T, assume_a="pos")
    result = np.empty(count)
    for start in range(0, count, _PART):
        part = np.arange(start, min(start + _PART, count))
        scores = (pixels(part) - mean) @ weights + sizes / len(fitted)
        column = np.searchsorted(classes, labels[part]).clip(max=len(classes) - 1)
        known = np.flatnonzero(classes[column] == labels[part])  # the class was fitted
        own_score = np.zeros(len(part))
        own_score[known] = scores[known, column[known]]
        scores[known, column[known]] = -np.inf
        result[part] = scores.max(axis=1) - own_score
    return result


def draw_hard_half(
    difficulty: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw half of the images, mostly hard ones.

    Args:
        difficulty: `[n]`, of each image, as `difficulty` measures it.
        labels: int `[n]`, their classes.
        rng: Source of randomness.

    Returns:
        int64 `[(n + 1) // 2]`, indices: the hardest images, and three in ten at random from the
        others. All images where no pairs could be drawn of so few.
    """
    half = (len(labels) + 1) // 2
    order = np.argsort(-difficulty, kind="stable")
    hardest, others = np.split(order, [round(_HARDEST * half)])
    chosen = np.concatenate([hardest, rng.permutation(others)[: half - len(hardest)]])
    counts = np.unique(labels[chosen], return_counts=True)[1]
    return chosen if len(counts) > 1 and counts.max() > 1 else order
