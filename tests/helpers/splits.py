"""Images to cut, for the tests of splits."""

import dataclasses

import numpy as np

from siamese_keras.data.cut import cut_dataset
from siamese_keras.data.splits import Source, Split

NAMES = ("hat", "scarf", "glove", "belt", "sock")
COUNTS = (60, 25, 100, 12, 43)


def noise(rng, count, shape=(4, 4, 1)):
    return rng.integers(0, 256, (count, *shape), np.uint8)


def clothes(rng):
    """240 different images of five uneven classes, shuffled."""
    return Split(noise(rng, sum(COUNTS)), rng.permutation(np.repeat(range(5), COUNTS)))


def cut(train, test=None, validation=None, *, names=NAMES, validation_size=30):
    source = Source(train, test, names, validation)
    return cut_dataset(source, name="clothes", validation_size=validation_size, test_share=1 / 6)


def content(*splits):
    """The images with their labels, as a sorted list."""
    return sorted(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def by_class(dataset):
    """Five classes for the training, two for validation, three for the test."""
    classes = {"train": (0, 1, 2, 3, 4), "validation": (5, 6), "test": (7, 8, 9)}
    parts = {
        part: split.take(np.isin(split.labels, classes[part]))
        for part, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, **parts)
