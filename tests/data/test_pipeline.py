import functools
import subprocess
import sys

import numpy as np
import pytest

from siamese_keras.data.pipeline import (
    choose_images_per_class,
    pair_pipeline,
    pairs_of,
    passes_per_epoch,
    steps_per_epoch,
)
from siamese_keras.errors import ArgumentError, DataError

KINDS = ["random", "balanced", "classic", "all"]


@pytest.fixture
def labels(rng):
    """Three uneven classes, 5, 9 and 31 images, with a gap in the numbering."""
    return rng.permutation(np.repeat([0, 2, 7], [5, 9, 31])).astype(np.int32)


def picture_of(labels):
    """Images whose every pixel is the image's own index."""
    return np.broadcast_to(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 2, 1)
    )


@pytest.mark.parametrize(
    ("steps", "epochs", "min_steps", "expected"),
    [(5, 4, 0, 1), (5, 4, 20, 1), (5, 4, 21, 2), (1, 4, 600, 150), (20, 10, 600, 3)],
)
def test_passes_are_as_few_as_give_the_steps(steps, epochs, min_steps, expected):
    assert passes_per_epoch(steps, epochs, min_steps) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_pipeline_gives_the_images_of_its_pairs_with_their_labels(kind, labels):
    steps = steps_per_epoch(kind, labels, 4)
    pipeline = pair_pipeline(picture_of(labels), labels, kind=kind, batch_size=4, seed=0, epochs=2)
    assert pipeline.cardinality() == 2 * steps
    batches = list(pipeline.as_numpy_iterator())
    assert len(batches) == 2 * steps
    for inputs, different in batches:
        left, right = inputs["left"], inputs["right"]
        assert left.shape == right.shape == (4, 2, 2, 1)
        assert left.dtype == np.uint8
        a, b = labels[left[:, 0, 0, 0]], labels[right[:, 0, 0, 0]]
        expected = a[:, None] != b[None, :] if kind == "all" else a != b
        np.testing.assert_array_equal(different, expected)
        assert different.dtype == np.float32
        assert not np.array_equal(left, right)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_memory_is_used_again_after_a_pipeline_and_not_handed_back_to_the_system():
    # Pages that the system hands out anew must be cleared first: a step took 1.8 times as long.
    code = """
import resource

import numpy as np

from siamese_keras.data.pipeline import pair_pipeline

images, labels = np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2
for _ in pair_pipeline(images, labels, batch_size=2):
    pass
for time in range(22):
    if time == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert int(finished.stdout) < 1000  # 20 arrays have 40,000 pages


@pytest.mark.parametrize("batch_size", [1, 7, 22, 45, 46, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_per_epoch_is_the_number_of_batches(kind, batch_size, labels):
    pipeline = pair_pipeline(picture_of(labels), labels, kind=kind, batch_size=batch_size)
    count = sum(1 for _ in pipeline)
    assert steps_per_epoch(kind, labels, batch_size) == count == pipeline.cardinality()
    # Pairs of an epoch: 45 // 2, 45, or 2 * (45 - 3).
    pairs = {"all": 22, "classic": 84}.get(kind, 45)
    assert count == max(pairs // batch_size, 1)


def test_the_defaults_are_one_epoch_of_all_pairs(rng):
    labels = np.repeat(np.arange(3), 100)
    ((inputs, different),) = pair_pipeline(picture_of(labels), labels)
    assert inputs["left"].shape == (128, 2, 2, 1)
    assert different.shape == (128, 128)


def test_all_pairs_show_every_image_at_most_once_an_epoch(labels):
    pipeline = pair_pipeline(picture_of(labels), labels, kind="all", batch_size=4, seed=0)
    seen = [
        i for x, _ in pipeline.as_numpy_iterator() for side in x.values() for i in side[:, 0, 0, 0]
    ]
    assert len(seen) == len(set(seen)) == 40  # 45 images: 5 full batches of 4 + 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_and_step(kind, labels):
    def batches(first_step, seed=0):
        pipeline = pair_pipeline(
            picture_of(labels),
            labels,
            kind=kind,
            batch_size=8,
            seed=seed,
            epochs=3,
            first_step=first_step,
        )
        assert pipeline.cardinality() == 3 * steps - first_step
        return [
            np.concatenate([x["left"], x["right"]])[:, 0, 0, 0]
            for x, _ in pipeline.as_numpy_iterator()
        ]

    steps = steps_per_epoch(kind, labels, 8)
    whole = batches(0)
    for first in (1, steps, 2 * steps + 1, 3 * steps - 1):
        np.testing.assert_array_equal(whole[first:], batches(first))
    assert not np.array_equal(whole[:steps], whole[2 * steps :])
    assert not np.array_equal(whole, batches(0, seed=1))


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
@pytest.mark.parametrize("images_per_class", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hard_epoch_shows_the_harder_images_in_as_many_pairs(
    kind, images_per_class, batch_size, labels
):
    difficulty = np.arange(45) % 9  # hardest: 8, 17, 26, ...
    pipeline = functools.partial(
        pairs_of,
        np.arange(45),
        labels,
        kind=kind,
        batch_size=batch_size,
        seed=0,
        epochs=3,
        images_per_class=images_per_class,
    )
    steps = steps_per_epoch(kind, labels, batch_size)
    plain, hard = (
        list(pipeline(difficulty=difficulty, hard_epochs=epochs).as_numpy_iterator())
        for epochs in ((), (1,))
    )
    assert len(hard) == len(plain) == 3 * steps
    for step, ((expected, _), (batch, different)) in enumerate(zip(plain, hard, strict=True)):
        assert batch["left"].shape == batch["right"].shape == expected["left"].shape
        left, right = labels[batch["left"]], labels[batch["right"]]
        left = left[:, None] if kind == "all" else left
        np.testing.assert_array_equal(different, left != right)
        if step // steps != 1:  # the other epochs are as without hard ones
            np.testing.assert_array_equal(batch["left"], expected["left"])
            np.testing.assert_array_equal(batch["right"], expected["right"])
    shown = np.concatenate([x[side] for x, _ in hard[steps : 2 * steps] for side in x])
    assert len(set(shown)) <= 23
    assert difficulty[shown].mean() > 4.9  # of all images: 4
    if kind == "all" and batch_size == 1:
        assert np.unique(shown, return_counts=True)[1].max() == 2
    resumed = pipeline(difficulty=difficulty, hard_epochs=(1,), first_step=steps + steps // 2)
    for (batch, _), (expected, _) in zip(
        resumed.as_numpy_iterator(), hard[steps + steps // 2 :], strict=True
    ):
        np.testing.assert_array_equal(batch["left"], expected["left"])


def test_classic_pipeline_shows_the_same_pairs_in_every_epoch(labels):
    def pairs(epoch):
        pipeline = pair_pipeline(
            picture_of(labels),
            labels,
            kind="classic",
            batch_size=1,
            seed=0,
            epochs=epoch + 1,
            first_step=epoch * steps_per_epoch("classic", labels, 1),
        )
        return [
            (int(x["left"].max()), int(x["right"].max())) for x, _ in pipeline.as_numpy_iterator()
        ]

    assert pairs(0) != pairs(1)
    assert sorted(pairs(0)) == sorted(pairs(1))


def test_a_batch_larger_than_the_data_is_one_smaller_batch(labels):
    pipeline = pair_pipeline(picture_of(labels), labels, kind="all", batch_size=1000, seed=0)
    ((inputs, different),) = pipeline.as_numpy_iterator()
    assert inputs["left"].shape[0] == 22
    assert different.shape == (22, 22)


def test_batches_of_classes_and_images_have_same_pairs_across_the_sides():
    """64 classes of 4 images: batches of 8 classes, of each 2 images left and 2 right."""
    labels = np.repeat(np.arange(64), 4)[np.random.default_rng(1).permutation(256)]
    images = picture_of(labels)
    seen = []
    for epoch in range(2):
        pipeline = pair_pipeline(
            images, labels, batch_size=16, images_per_class=4, epochs=epoch + 1,
            first_step=8 * epoch,
        )  # fmt: skip
        for inputs, different in pipeline.as_numpy_iterator():
            left, right = (inputs[side][:, 0, 0, 0] for side in ("left", "right"))
            np.testing.assert_array_equal(different, labels[left][:, None] != labels[right])
            np.testing.assert_array_equal((different == 0).sum(axis=1), np.full(16, 2))
            assert len(np.unique(labels[left])) == 8
            assert not set(left) & set(right)  # no image meets itself
            seen += [*left, *right]
    np.testing.assert_array_equal(np.sort(seen), np.repeat(np.arange(256), 2))


def test_images_per_class_are_chosen_by_the_data():
    def chosen(classes, images, batch_size=128):
        return choose_images_per_class(np.repeat(np.arange(classes), images), batch_size)

    assert chosen(10, 5500) == 1  # Fashion-MNIST: an image meets 13 of its class
    assert chosen(64, 50) == 1
    assert chosen(65, 50) == 4
    assert chosen(1852, 4) == 4
    assert [chosen(4, 12, batch_size) for batch_size in (1, 2, 3, 5, 8)] == [1, 2, 3, 4, 1]
    uneven = np.append(np.zeros(1000, int), np.arange(1, 500))  # most pairs are of class 0
    assert choose_images_per_class(uneven, 128) == 1


@pytest.mark.parametrize("images_per_class", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_class_with_one_image_takes_part(kind, images_per_class):
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    shown = set()
    pipeline = pair_pipeline(
        picture_of(labels),
        labels,
        kind=kind,
        batch_size=2,
        epochs=20,
        images_per_class=images_per_class,
    )
    for inputs, _ in pipeline.as_numpy_iterator():
        shown |= {*inputs["left"][:, 0, 0, 0].tolist(), *inputs["right"][:, 0, 0, 0].tolist()}
    assert shown == set(range(8))


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_makes_no_different_pairs(kind):
    with pytest.raises(DataError, match=r"at least two classes\. Received: 1"):
        pair_pipeline(picture_of(range(5)), np.zeros(5, int), kind=kind)


@pytest.mark.parametrize("kind", ["labs", "lab", "", None])
def test_an_unknown_kind_is_refused_with_the_choices(kind, labels):
    expected = (
        r"`kind` must be one of 'all', 'balanced', 'classic', 'random'\. "
        rf"Received: kind={kind!r}$"
    )
    with pytest.raises(ArgumentError, match=expected):
        pair_pipeline(picture_of(labels), labels, kind=kind)
    with pytest.raises(ArgumentError, match=expected):
        steps_per_epoch(kind, labels, 4)


@pytest.mark.parametrize("augment", ["flip", False, None])
def test_an_unknown_augmentation_is_refused_with_the_choices(augment, labels):
    """When the pipeline is made, and not by an error of TensorFlow at the first batch."""
    expected = (
        r"`augment` must be one of 'none', 'shift', 'shift-erase', .*'flip-shift-erase'\. "
        rf"Received: augment={augment!r}$"
    )
    with pytest.raises(ArgumentError, match=expected):
        pair_pipeline(picture_of(labels), labels, augment=augment)


def test_images_that_are_not_bytes_are_refused(labels):
    images = picture_of(labels)
    with pytest.raises(DataError, match=r"do not divide by 255.* Received: float32 of shape \(45,"):
        pair_pipeline(images.astype(np.float32) / 255, labels)
    with pytest.raises(DataError, match=r"shape \[n, height, width, channels\]"):
        pair_pipeline(images[..., 0], labels)


def test_labels_that_do_not_fit_the_images_are_refused(labels):
    """Keras hands out the labels of CIFAR-10 as a column."""
    for wrong in (labels[:, np.newaxis], labels[1:], np.append(labels, 0), labels / 1):
        with pytest.raises(DataError, match=r"`labels` must be 45 integers, one for each image"):
            pair_pipeline(picture_of(labels), wrong)
    ((_, different),) = pair_pipeline(picture_of(labels), labels.tolist(), batch_size=22)
    assert different.shape == (22, 22)


@pytest.mark.parametrize("kind", KINDS)
def test_augmented_images_change_from_batch_to_batch_but_not_from_run_to_run(kind):
    labels = np.arange(64) % 2
    images = np.zeros((64, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200  # a dot in the middle
    images[:, 4, 5] = 100  # and a paler one to its right, to the left when flipped

    def batches(**options):
        pipeline = pair_pipeline(
            images, labels, kind=kind, batch_size=16, augment="flip-shift", **options
        )
        return [np.stack([x["left"], x["right"]]) for x, _ in pipeline.as_numpy_iterator()]

    epochs = batches(seed=0, epochs=4)
    for first in (1, len(epochs) - 2):
        resumed = batches(seed=0, epochs=4, first_step=first)
        np.testing.assert_array_equal(epochs[first:], resumed)
    np.testing.assert_array_equal(epochs, batches(seed=0, epochs=4))
    assert len({batch.tobytes() for batch in epochs}) == len(epochs)
    assert not np.array_equal(epochs, batches(seed=1, epochs=4))
    assert not np.array_equal(epochs[0][0], epochs[0][1])  # left and right each for itself


def test_every_pair_shows_its_own_augmented_images():
    labels = np.arange(64) % 2
    images = np.zeros((64, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200
    images[:, 4, 5] = 100
    pipeline = pair_pipeline(
        images, labels, kind="balanced", batch_size=64, augment="flip-shift", epochs=4
    )
    found = set()
    for inputs, _ in pipeline.as_numpy_iterator():
        for image in np.concatenate([inputs["left"], inputs["right"]])[..., 0]:
            (y,), (x,) = np.nonzero(image == 200)
            (_,), (pale,) = np.nonzero(image == 100)
            found.add((int(y), int(x), int(pale - x)))
    assert len(found) == 50  # 5 x 5 places, flipped or not


def test_images_are_the_datasets_own_without_augmentation(sample):
    pipeline = pair_pipeline(sample.train.images, sample.train.labels, batch_size=50)
    known = {image.tobytes() for image in sample.train.images}
    for inputs, _ in pipeline.as_numpy_iterator():
        for side in inputs.values():
            assert {image.tobytes() for image in side} <= known


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("batch_size", 1.5), ("seed", -1)])
def test_numbers_out_of_range_are_refused(sample, name, value):
    with pytest.raises(ArgumentError, match=f"`{name}` must be an integer of at least"):
        pair_pipeline(sample.train.images, sample.train.labels, **{name: value})
