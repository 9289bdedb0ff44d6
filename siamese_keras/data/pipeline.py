"""Training pairs as `tf.data` pipelines: indices -> batch -> gather -> augment -> prefetch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Sequence

import numpy as np
import tensorflow as tf

from siamese_keras.config import Augmentation, PairKind
from siamese_keras.data.augmentation import augment_images
from siamese_keras.data.hard_images import draw_hard_half
from siamese_keras.data.pairs import (
    Pairs,
    balanced_pairs,
    check_labels,
    classic_pairs,
    epoch_rng,
    grouped_order,
    random_pairs,
)
from siamese_keras.data.splits import Split
from siamese_keras.errors import check_choice, check_count

IMAGES_PER_CLASS = 4  # where images of a class stand together and nobody says how many
_SAMPLERS: dict[str, Callable[..., Pairs]] = {"random": random_pairs, "balanced": balanced_pairs}


def _pass_indices(
    kind: str,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    seed: int,
    images_per_class: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and right images of one pass over the images, in order."""
    if kind == "all" and images_per_class > 1:  # neighbors of one class on either side
        order = grouped_order(labels, rng, images_per_class)[: len(labels) // 2 * 2]
        return order[::2], order[1::2]
    if kind == "all":  # every image once: one half left, the other right
        left, right = np.split(rng.permutation(len(labels))[: len(labels) // 2 * 2], 2)
        return left, right
    if kind == "classic":  # the same list in every epoch, as in the exercise; its order changes
        pairs = classic_pairs(labels, epoch_rng(seed, 0))
        order = rng.permutation(len(pairs))
        return pairs.left[order], pairs.right[order]
    pairs = _SAMPLERS[kind](labels, rng)
    return pairs.left, pairs.right


def _pairs_per_epoch(kind: str, labels: np.ndarray) -> int:
    if kind == "all":
        return len(labels) // 2
    if kind == "classic":
        return 2 * (len(labels) - len(np.unique(labels)))
    return len(labels)


def choose_images_per_class(labels: np.ndarray, batch_size: int) -> int:
    """Return how many images of a class a batch of all pairs should hold together.

    Args:
        labels: int `[n]`, the images' classes.
        batch_size: Left images of a batch.

    Returns:
        1, images drawn at random, where an image then meets at least two others of its class on the
        other side of the batch, on average; 4 where it does not, since there are many classes or
        small batches, but no more than leave room for a second class.
    """
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return 1 if batch_size * np.square(share).sum() >= 2 else min(IMAGES_PER_CLASS, batch_size)


def steps_per_epoch(kind: PairKind, labels: np.ndarray, batch_size: int) -> int:
    """Return the number of full batches in an epoch of `pair_pipeline`, at least 1.

    Raises:
        ArgumentError: When `kind` is unknown.
    """
    check_choice("kind", kind, PairKind)
    return max(_pairs_per_epoch(kind, labels) // batch_size, 1)


def passes_per_epoch(steps: int, epochs: int, min_steps: int) -> int:
    """Return how often each epoch passes over the images.

    Args:
        steps: Steps of one pass.
        epochs: Number of epochs.
        min_steps: Steps to take in all epochs, at least.
    """
    return max(-(-min_steps // (epochs * steps)), 1)


def pair_pipeline(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    kind: PairKind = "all",
    batch_size: int = 128,
    seed: int = 0,
    epochs: int = 1,
    first_step: int = 0,
    augment: Augmentation = "none",
    images_per_class: int = 1,
) -> tf.data.Dataset:
    """Make the pairs for `model.fit(..., steps_per_epoch=steps_per_epoch(...))`.

    Args:
        images: uint8 `[n, height, width, channels]`.
        labels: int `[n]`.
        kind: `"random"`, `"balanced"`, `"classic"`, or `"all"`: every left image of a batch with
            every right image, which needs the all-pairs outer model.
        batch_size: Left images of a batch; there are as many right images. The last batch is
            dropped when it is not full, unless it is the only one.
        seed: Seed of all that is drawn.
        epochs: The epoch to stop before.
        first_step: The step of all epochs to begin with: a training that is resumed gives the
            number of steps that it has taken.
        augment: How images are changed at random, as `augment_images` has it.
        images_per_class: For `"all"`: how many images of a class stand together in a batch, half of
            them left and half right, as `grouped_order` has it; 1 draws images at random.

    Returns:
        Dataset of known cardinality of `({"left": uint8 [b, height, width, channels], "right":
        the same}, different)`, `different` float32 `[b]`, or `[b, b]` for `"all"`.

    Raises:
        ArgumentError: When `kind` or `augment` is unknown, `batch_size` is less than 1, or `seed`
            is less than 0.
        DataError: When `images` is not uint8, `labels` are not as many integers, there are fewer
            than two classes or none has two images.
    """
    split = Split(images, labels)  # checked here and not in a background thread
    check_choice("augment", augment, Augmentation)
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        check_count(name, value, least=least)
    return pairs_of(
        split.images,
        split.labels,
        kind=kind,
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
        first_step=first_step,
        augment=augment,
        images_per_class=images_per_class,
    )


def pairs_of(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    kind: PairKind,
    batch_size: int,
    seed: int,
    epochs: int = 1,
    first_step: int = 0,
    augment: Augmentation = "none",
    images_per_class: int = 1,
    difficulty: np.ndarray | None = None,
    hard_epochs: Container[int] = (),
    parts: Sequence[int] = (0,),
    num_parts: int = 1,
) -> tf.data.Dataset:
    """Make the pairs of images, or of what stands for them, such as features.

    Args:
        values: `[n, ...]`, of each image; images when `augment` is not `"none"`.
        labels: int `[n]`.
        kind: As in `pair_pipeline`, like all others.
        batch_size: As in `pair_pipeline`.
        seed: As in `pair_pipeline`.
        epochs: As in `pair_pipeline`.
        first_step: As in `pair_pipeline`.
        augment: As in `pair_pipeline`.
        images_per_class: As in `pair_pipeline`.
        difficulty: `[n]`, how hard each image is; needed for `hard_epochs`.
        hard_epochs: Epochs, counted from 0, that pass about twice over half of the images, as
            `draw_hard_half` draws it; they have as many pairs as others.
        parts: Numbers of the parts of each batch to make, one after the other, where several
            devices share a batch. A part has its own left and right images.
        num_parts: How many parts of nearly equal size a batch is cut into.

    Returns:
        As `pair_pipeline`, with the values in place of images.
    """
    check_labels(labels)
    pairs = _pairs_per_epoch(kind, labels)
    steps = steps_per_epoch(kind, labels, batch_size)

    @functools.lru_cache(maxsize=1)
    def epoch_indices(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = epoch_rng(seed, epoch)
        one_pass = functools.partial(
            _pass_indices, kind, rng=rng, seed=seed, images_per_class=images_per_class
        )
        if difficulty is None or epoch not in hard_epochs:
            return one_pass(labels)
        chosen = draw_hard_half(difficulty, labels, rng)
        sides = np.empty((2, 0), np.int64)
        while sides.shape[1] < pairs:
            sides = np.hstack([sides, chosen[np.stack(one_pass(labels[chosen]))]])
        left, right = sides[:, :pairs]
        return left, right

    def batch_indices(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        step, which = divmod(int(number), len(parts))
        part = parts[which]
        left, right = epoch_indices(step // steps)
        start = step % steps * batch_size
        size = min(batch_size, len(left) - start)
        batch = slice(*(start + size * i // num_parts for i in (part, part + 1)))
        return left[batch], right[batch], np.array([seed, step * num_parts + part])

    def draw(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        left, right, batch_seed = tf.numpy_function(batch_indices, [number], [tf.int64] * 3)
        return tf.ensure_shape(left, [None]), tf.ensure_shape(right, [None]), batch_seed

    take = _gatherer(values)
    label_tensor = tf.constant(labels)

    def gather(
        left: tf.Tensor, right: tf.Tensor, batch_seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs = {"left": take(left), "right": take(right)}
        seeds = tf.unstack(tf.random.split(batch_seed, 2))
        inputs = {
            side: augment_images(inputs[side], side_seed, augment)
            for side, side_seed in zip(("left", "right"), seeds, strict=True)
        }
        left_labels, right_labels = tf.gather(label_tensor, left), tf.gather(label_tensor, right)
        if kind == "all":
            left_labels = left_labels[:, tf.newaxis]
        return inputs, tf.cast(left_labels != right_labels, tf.float32)

    # The autotuner of tf.data sleeps longer and longer between its rounds, and the end of `fit`
    # waits for it, up to a minute. There is nothing to tune here.
    options = tf.data.Options()
    options.autotune.enabled = False
    as_it_is = tf.autograph.experimental.do_not_convert  # converting takes longer than tracing
    # Not from a generator: in TensorFlow 2.21 one makes the whole process hand memory back to the
    # system after each use, and a step then takes up to 1.8 times as long (docs/experiments.md).
    return (
        tf.data.Dataset.range(len(parts) * first_step, len(parts) * steps * epochs)
        .map(as_it_is(draw))
        .map(as_it_is(gather), num_parallel_calls=2)
        .prefetch(2)
        .with_options(options)
    )


def _gatherer(values: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `values[indices]` as a function of tensors."""
    if not isinstance(values, np.memmap):
        tensor = tf.constant(values)  # made inside the function it would be copied into graphs
        return lambda indices: tf.gather(tensor, indices)

    def take(indices: tf.Tensor) -> tf.Tensor:
        rows = tf.numpy_function(lambda i: np.asarray(values[i]), [indices], values.dtype)
        return tf.ensure_shape(rows, [None, *values.shape[1:]])

    return take
