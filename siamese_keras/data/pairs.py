"""How images become pairs: lists of pairs for evaluation and `tf.data` pipelines for training.

The one home of the label: `different` is 1.0 when the two images are of different classes and
0.0 when they are of the same class, as in Hadsell, Chopra & LeCun, "Dimensionality Reduction by
Learning an Invariant Mapping" (2006).

Pairs are indices into the images, never copies of them, so memory grows with the images alone.
Whatever is drawn is a function of (seed, epoch): two processes given both draw the same pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from siamese_keras.data.augmentation import augment_images

_THRESHOLD_DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A list of pairs of images.

    Attributes:
        left: int64 `[n]`, indices of the left images.
        right: int64 `[n]`, indices of the right images.
        different: float32 `[n]`, 1.0 = different classes, 0.0 = same class.
    """

    left: np.ndarray
    right: np.ndarray
    different: np.ndarray

    def __len__(self) -> int:
        return len(self.left)


def _pairs(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> Pairs:
    return Pairs(left, right, (labels[left] != labels[right]).astype(np.float32))


class _Classes:
    """The images of each class, for drawing a partner of many images at once.

    `order[start[c] + k]` is the k-th image of the c-th class present; image i is number
    `rank[i]` of class `of[i]`.
    """

    def __init__(self, labels: np.ndarray, class_names: Sequence[str] | None):
        present, self.of, self.count = np.unique(labels, return_inverse=True, return_counts=True)
        if len(present) < 2:
            raise ValueError(f"`labels` must hold at least two classes. Received: {len(present)}")
        if self.count.min() < 2:
            label = present[self.count.argmin()]
            name = class_names[label] if class_names else label
            raise ValueError(f"Class {name!r} has one image; a same pair needs two.")
        self.order = np.argsort(self.of, kind="stable")
        self.start = np.cumsum(self.count) - self.count
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(labels)) - np.repeat(self.start, self.count)

    def same(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each image another one of its class, all equally likely."""
        own = self.of[images]
        step = rng.integers(1, self.count[own])
        return self.order[self.start[own] + (self.rank[images] + step) % self.count[own]]

    def other(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each image one of another class: first the class, then the image."""
        classes = len(self.count)
        other = (self.of[images] + rng.integers(1, classes, len(images))) % classes
        return self.order[self.start[other] + rng.integers(0, self.count[other])]


def check_labels(labels: np.ndarray, class_names: Sequence[str] | None = None) -> None:
    """Raise the errors of `random_pairs` without drawing pairs."""
    _Classes(labels, class_names)


def random_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair every image with any other one: with ten even classes 1 in 10 pairs is the same.

    Args:
        labels: int `[n]`, the images' classes.
        rng: Source of randomness.
        class_names: Names for error messages.

    Returns:
        `n` pairs; no image is paired with itself.

    Raises:
        ValueError: When there are fewer than two classes or a class has one image.
    """
    check_labels(labels, class_names)
    left = rng.permutation(len(labels))
    right = (left + rng.integers(1, len(labels), len(labels))) % len(labels)
    return _pairs(labels, left, right)


def balanced_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair every image once, half of them with one of their class, half with one of another.

    Args, Returns and Raises: as `random_pairs`.
    """
    classes = _Classes(labels, class_names)
    left = rng.permutation(len(labels))
    same, different = np.array_split(left, 2)
    right = np.concatenate([classes.same(same, rng), classes.other(different, rng)])
    shuffle = rng.permutation(len(labels))
    return _pairs(labels, left[shuffle], right[shuffle])


def lab_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Pair images as the classic exercise does.

    With n the size of the smallest class less one, the first n images i of each class are paired
    with image i + 1 of their class, and with image i of another class: 19,980 pairs for the
    10 x 1000 test images of Fashion-MNIST.

    Args and Raises: as `random_pairs`.

    Returns:
        `2 * n * classes` pairs, same and different in turn.
    """
    classes = _Classes(labels, class_names)
    count = len(classes.count)
    rank, own = (a.ravel() for a in np.indices((classes.count.min() - 1, count)))
    other = (own + rng.integers(1, count, len(own))) % count
    left = classes.order[classes.start[own] + rank]
    same = classes.order[classes.start[own] + rank + 1]
    different = classes.order[classes.start[other] + rank]
    return _pairs(labels, np.repeat(left, 2), np.stack([same, different], axis=1).ravel())


def hard_pairs(labels: np.ndarray, confusable: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Like `balanced_pairs`, but different pairs come from the classes most easily confused.

    Args:
        labels: int `[n]`, the images' classes.
        confusable: int `[k]`, for class c the class that it is most easily confused with.
        rng: Source of randomness.

    Returns:
        `n` pairs, half same and half different.
    """
    classes = _Classes(labels, None)
    left = rng.permutation(len(labels))
    same, different = np.array_split(left, 2)
    rival = np.searchsorted(np.unique(labels), confusable[labels[different]])
    drawn = classes.order[classes.start[rival] + rng.integers(0, classes.count[rival])]
    return _pairs(labels, left, np.concatenate([classes.same(same, rng), drawn]))


_DRAW: dict[str, Callable[..., Pairs]] = {
    "random": random_pairs,
    "balanced": balanced_pairs,
    "lab": lab_pairs,
}


def _rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch))


def evaluation_pairs(
    kind: str, labels: np.ndarray, *, seed: int, class_names: Sequence[str] | None = None
) -> Pairs:
    """Draw a fixed list of `"random"`, `"balanced"` or `"lab"` pairs: `seed` decides it."""
    return _DRAW[kind](labels, _rng(seed, 0), class_names)


def threshold_pairs(labels: np.ndarray, *, seed: int) -> Pairs:
    """Draw the pairs of validation images that threshold and scale are fitted on.

    Returns:
        Half same and half different, ten times as many pairs as images: every two classes occur.
    """
    draws = [balanced_pairs(labels, _rng(seed, draw)) for draw in range(_THRESHOLD_DRAWS)]
    fields = [field.name for field in dataclasses.fields(Pairs)]
    return Pairs(*(np.concatenate([getattr(draw, name) for draw in draws]) for name in fields))


def _epoch_indices(
    kind: str, labels: np.ndarray, *, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and right images of an epoch, in order."""
    rng = _rng(seed, epoch)
    if kind == "all":  # every image once: one half left, the other right
        left, right = np.split(rng.permutation(len(labels))[: len(labels) // 2 * 2], 2)
        return left, right
    if kind == "lab":  # the same list in every epoch, as in the exercise; only its order changes
        pairs = lab_pairs(labels, _rng(seed, 0))
        order = rng.permutation(len(pairs))
        return pairs.left[order], pairs.right[order]
    pairs = _DRAW[kind](labels, rng)
    return pairs.left, pairs.right


def steps_per_epoch(kind: str, labels: np.ndarray, batch_size: int) -> int:
    """Number of full batches in an epoch of `pair_pipeline`, at least 1."""
    left, _ = _epoch_indices(kind, labels, seed=0, epoch=0)
    return max(len(left) // batch_size, 1)


def pair_pipeline(
    kind: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epochs: int = 1,
    first_epoch: int = 0,
    augment: str = "none",
    class_names: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Make the pairs for `model.fit(..., steps_per_epoch=steps_per_epoch(...))`.

    Args:
        kind: `"random"`, `"balanced"`, `"lab"`, or `"all"`: every left image of a batch with
            every right image, which needs the all-pairs outer model.
        images: uint8 `[n, height, width, channels]`.
        labels: int `[n]`.
        batch_size: Left images of a batch; there are as many right images. The last batch is
            left out when it is not full, unless it is the only one.
        seed: Seed of all that is drawn.
        epochs: The epoch to stop before.
        first_epoch: The epoch to begin with: a resumed training gives the one it has reached.
        augment: How images are changed at random, as `augment_images` has it.
        class_names: Names for error messages.

    Returns:
        Dataset of known cardinality of `({"left": uint8 [b, height, width, channels], "right":
        the same}, different)`, `different` float32 `[b]`, or `[b, b]` for `"all"`.

    Raises:
        ValueError: When there are fewer than two classes or a class has one image.
    """
    check_labels(labels, class_names)  # here and not in a background thread
    steps = steps_per_epoch(kind, labels, batch_size)

    def index_batches() -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
        for epoch in range(first_epoch, epochs):
            left, right = _epoch_indices(kind, labels, seed=seed, epoch=epoch)
            for step in range(steps):
                batch = slice(step * batch_size, (step + 1) * batch_size)
                yield left[batch], right[batch], (seed, epoch * steps + step)

    # The tensors are made here, once; made inside `gather` they would be copied into its graph.
    image_tensor, label_tensor = tf.constant(images), tf.constant(labels)

    def gather(
        left: tf.Tensor, right: tf.Tensor, batch_seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs = {"left": tf.gather(image_tensor, left), "right": tf.gather(image_tensor, right)}
        seeds = tf.unstack(tf.random.split(batch_seed, 2))
        inputs = {
            side: augment_images(inputs[side], side_seed, augment)
            for side, side_seed in zip(("left", "right"), seeds, strict=True)
        }
        left_labels, right_labels = tf.gather(label_tensor, left), tf.gather(label_tensor, right)
        if kind == "all":
            left_labels = left_labels[:, tf.newaxis]
        return inputs, tf.cast(left_labels != right_labels, tf.float32)

    indices, seeds = tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.int64)
    # tf.data's tuner sleeps longer and longer between its rounds, and the end of `fit` has to wait
    # for it: up to a minute. There is nothing here to tune.
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        tf.data.Dataset.from_generator(index_batches, output_signature=(indices, indices, seeds))
        .apply(tf.data.experimental.assert_cardinality(steps * (epochs - first_epoch)))
        .map(gather, num_parallel_calls=2)
        .prefetch(2)
        .with_options(options)
    )
