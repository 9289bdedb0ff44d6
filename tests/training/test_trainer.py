import dataclasses
import functools
import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.backbones import write_backbone
from helpers.splits import by_class
from helpers.tiny import TINY

from siamese_keras import PRESETS, Config, Dataset, SiameseKerasError, fit, load_verifier
from siamese_keras.data.splits import Split
from siamese_keras.errors import ArgumentError, DataError, ModelError, TrainingError
from siamese_keras.evaluation.protocol import calibrate
from siamese_keras.files import read_columns
from siamese_keras.models.backbone import build_backbone
from siamese_keras.training import trainer
from siamese_keras.training.checkpoints import newest_checkpoint

SHORT = dataclasses.replace(TINY, epochs=1)
TINY_MLP = dataclasses.replace(TINY, architecture="mlp")
STEPS = 5  # of an epoch of TINY: 500 train images, 50 left and 50 right ones in a batch


class Record(keras.callbacks.Callback):
    """Note whether a training begins, and the learning rate of each step."""

    def __init__(self):
        super().__init__()
        self.began = False
        self.rates = []

    def on_train_begin(self, logs=None):
        self.began = True
        self.optimizer = self.model.optimizer

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def own_model(shape=(28, 28, 1), *, scale=1 / 255, unit_length=False):
    keras.utils.set_random_seed(0)
    image = keras.Input(shape, name="x")
    x = keras.layers.Flatten()(keras.layers.Rescaling(scale)(image))
    x = keras.layers.Dense(4)(x)
    if unit_length:
        x = keras.layers.UnitNormalization()(x)
    return keras.Model(image, x, name="mine")


def sequential_model():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )


def own_messages(caplog):
    """Return what the package logged; TensorFlow warns of retracing, depending on earlier tests."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("siamese_keras")]


def weights(verifier):
    return np.concatenate([weight.ravel() for weight in verifier.base_model.get_weights()])


def test_loss_falls_and_pairs_are_told_apart(sample):
    # The mean over pairs that still cost something, as TINY has it, need not fall: as the model
    # learns, these become few and hard.
    history = fit(sample, dataclasses.replace(TINY, weighting="balanced"), verbose=0).history
    assert history["loss"][-1] < 0.75 * history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]


def test_the_run_is_complete(tiny, tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert {"config.json", "model.json", "base.keras", "outer.keras", "history.csv"} <= names
    assert not [name for name in names if name.startswith(".writing")]
    assert read_columns(tiny_run / "history.csv") == tiny.history
    assert {len(values) for values in tiny.history.values()} == {TINY.epochs}
    assert tiny.history["midpoint_accuracy"][-1] > 0.75
    assert tiny.history["val_midpoint_accuracy"][-1] > 0.7
    different, same = (tiny.history[f"val_{kind}_distance"][-1] for kind in ("different", "same"))
    assert different > 1.3 * same


def test_the_verifier_tells_what_it_was_trained_on(tiny, sample):
    assert tiny.config == TINY
    assert (tiny.name, tiny.class_names) == (sample.name, sample.class_names)
    assert tiny.training["data"] == sample.fingerprint
    assert tiny.training["images"] == {"train": 500, "validation": 100, "test": 200}
    assert tiny.training["epochs"] == TINY.epochs
    assert tiny.training["interrupted"] is False
    assert tiny.training["fit_seconds"] > 0
    assert tiny.training["own_base_model"] is False


def test_without_a_run_dir_nothing_is_written(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verifier = fit(sample, SHORT, base_model=own_model(), verbose=0)
    assert list(tmp_path.iterdir()) == []
    assert verifier.training["own_base_model"] is True
    assert verifier.calibration is not None
    assert verifier.embed(sample.test.images[0]).shape == (4,)


def test_run_dir_may_be_a_text(sample, tmp_path):
    run_dir = tmp_path / "new" / "run"
    verifier = fit(
        sample, SHORT, base_model=own_model(), run_dir=str(run_dir), tensorboard=True, verbose=0
    )
    again = load_verifier(run_dir)
    assert again.calibration == verifier.calibration
    assert again.history == verifier.history
    assert list((run_dir / "tensorboard").rglob("events.out.tfevents.*"))


def test_tensorboard_logs_need_a_run_dir(sample):
    with pytest.raises(ArgumentError, match="`tensorboard` needs a `run_dir`"):
        fit(sample, SHORT, tensorboard=True)


def test_callbacks_are_called(sample):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, logs["val_loss"]))

    verifier = fit(sample, SHORT, base_model=own_model(), callbacks=[Watch()], verbose=0)
    assert seen == [(0, pytest.approx(verifier.history["val_loss"][0]))]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_trains(preset, sample, backbone_file):
    config = dataclasses.replace(
        PRESETS[preset], dataset="idx", validation_size=100, epochs=1, min_steps=0, batch_size=64
    )
    if config.backbone:  # whose weights would have to be downloaded
        config = dataclasses.replace(config, backbone=str(backbone_file), backbone_stages=3)
    elif config.architecture != "mlp":
        config = dataclasses.replace(config, filters=tuple(n // 4 for n in config.filters))
    verifier = fit(sample, config, verbose=0)
    assert np.isfinite(verifier.history["val_loss"]).all()


def test_a_preset_is_trained_by_its_name(sample):
    named = fit(sample, "open-set", base_model=own_model(), verbose=0)
    assert named.config == dataclasses.replace(PRESETS["open-set"], **sample.settings)
    default = fit(sample, base_model=own_model(), verbose=0)
    assert default.config == Config(**sample.settings)
    assert PRESETS["fast"] == Config()
    assert default.training["epochs"] == Config().epochs


def test_an_unknown_preset_is_refused_with_the_known_ones(sample):
    with pytest.raises(ArgumentError) as refused:
        fit(sample, "quick")
    assert str(refused.value) == (
        "`config` must be a `Config` or one of fast, best, open-set, many-classes, pretrained, "
        "classic-mlp, classic-cnn. Received: 'quick'"
    )


def test_the_same_seed_trains_the_same_weights(sample):
    config = dataclasses.replace(SHORT, architecture="mlp")
    first = fit(sample, dataclasses.replace(config, seed=1), verbose=0)
    again = fit(sample, config, seed=1, verbose=0)
    other = fit(sample, config, seed=2, verbose=0)
    assert first.config == again.config == dataclasses.replace(config, seed=1)
    np.testing.assert_allclose(weights(first), weights(again), atol=1e-6)
    assert np.abs(weights(first) - weights(other)).max() > 1e-3


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(sample, seed):
    with pytest.raises(ArgumentError, match=rf"`seed` must be at .* Received: seed={seed}"):
        fit(sample, SHORT, seed=seed)


def test_the_schedule_spans_the_whole_training(sample):
    record = Record()
    config = dataclasses.replace(TINY, epochs=2, optimizer="adam", learning_rate=0.01)
    fit(sample, config, base_model=own_model(), callbacks=[record], verbose=0)
    assert type(record.optimizer) is keras.optimizers.Adam
    # 10 steps: two of warm-up, then a cosine over eight, the last of which begins at 7/8 of it.
    assert record.rates[:3] == pytest.approx([0.0004, 0.0052, 0.01])
    assert record.rates[-1] == pytest.approx(0.01 * (1 + math.cos(math.pi * 7 / 8)) / 2, rel=1e-4)


def test_pairs_and_optimizer_are_those_of_the_settings(sample):
    record = Record()
    config = dataclasses.replace(
        SHORT, pairs="classic", optimizer="rmsprop", schedule="constant", learning_rate=0.002
    )
    fit(sample, config, base_model=own_model(), callbacks=[record], verbose=0)
    assert type(record.optimizer) is keras.optimizers.RMSprop
    # The first 49 of the 50 images of each of ten classes, each in two pairs; batches of 50 pairs.
    assert record.rates == pytest.approx([0.002] * (10 * 49 * 2 // 50))


@pytest.fixture(scope="module")
def frozen(sample):
    """Train a model whose weights hardly move: what the history shows is due to the pairs."""

    @functools.cache
    def train(**settings):
        config = dataclasses.replace(SHORT, learning_rate=1e-12, margin=1.6, **settings)
        own = own_model(unit_length=config.loss != "contrastive")
        return fit(sample, config, base_model=own, verbose=0)

    return train


def test_training_images_are_augmented_and_validation_images_are_not(frozen):
    plain, augmented = frozen().history, frozen(augment="flip-shift").history
    assert augmented["contrastive_loss"] != pytest.approx(plain["contrastive_loss"], rel=1e-3)
    assert augmented["val_contrastive_loss"] == pytest.approx(plain["val_contrastive_loss"])


def test_validation_pairs_do_not_depend_on_the_seed(frozen):
    first, other = frozen(), frozen(seed=1)
    assert first.history["contrastive_loss"] != pytest.approx(
        other.history["contrastive_loss"], rel=1e-3
    )
    for name in ("val_loss", "val_contrastive_loss", "val_midpoint_accuracy"):
        assert first.history[name] == pytest.approx(other.history[name])
    assert first.calibration.threshold == pytest.approx(other.calibration.threshold, rel=1e-5)
    assert first.calibration.slope == pytest.approx(other.calibration.slope, rel=1e-5)


def test_the_loss_is_that_of_the_settings(frozen):
    uniform = frozen(weighting="uniform").history
    others = frozen(weighting="balanced").history, frozen().history  # nonzero
    assert uniform["val_loss"] == pytest.approx(uniform["val_contrastive_loss"], rel=1e-5)
    for history in others:
        assert history["val_contrastive_loss"] == pytest.approx(uniform["val_contrastive_loss"])
        assert history["val_loss"] != pytest.approx(uniform["val_loss"], rel=1e-2)


def test_few_images_are_passed_over_several_times(sample, caplog):
    """The steps, not the epochs, say how long a training is."""
    caplog.set_level("INFO", logger="siamese_keras")
    config = dataclasses.replace(SHORT, epochs=2, batch_size=50, min_steps=25)  # 5 steps a pass
    counted = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    steps: list[int] = []
    verifier = fit(sample, config, base_model=own_model(), callbacks=[counted], verbose=0)
    assert steps == [*range(15), *range(15)]
    assert len(verifier.history["loss"]) == 2
    assert "each of 2 epochs passes over them 3 times" in caplog.text


def test_no_pass_is_like_another(sample):
    """Two passes in one epoch train as two epochs of one pass each."""

    def weights(**settings):
        keras.utils.set_random_seed(0)
        config = dataclasses.replace(
            SHORT, augment="shift", batch_size=50, hard_epochs=(), **settings
        )
        base = fit(sample, config, base_model=own_model(), verbose=0).base_model
        return base.get_weights()

    once, twice = weights(epochs=2), weights(epochs=1, min_steps=10)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("min_steps", [0, 40])
def test_hard_epochs_are_those_of_the_settings(frozen, min_steps):
    """Their images are told apart less well; with more passes, every pass of such an epoch."""
    settings = {"epochs": 4, "augment": "none", "min_steps": min_steps}
    plain = frozen(hard_epochs=(), **settings).history
    hard = frozen(hard_epochs=(2, 4), **settings).history
    gap, expected = (
        np.subtract(history["different_distance"], history["same_distance"])
        for history in (hard, plain)
    )
    np.testing.assert_allclose(gap[[0, 2]], expected[[0, 2]], rtol=1e-5)
    assert (gap[[1, 3]] < 0.9 * expected.min()).all()


def test_a_high_temperature_makes_all_pairs_alike(frozen):
    """The loss of an anchor is then the logarithm of how many images it is compared with."""
    batch = frozen(loss="supervised-contrastive", temperature=1e6, batch_size=32).history
    assert batch["val_loss"] == pytest.approx([np.log(32)] * len(batch["val_loss"]), rel=1e-4)


def test_the_step_is_traced_once(sample):
    """Tracing takes longer than the steps of a small model."""
    calls = []

    class Counted(keras.layers.Layer):
        def call(self, x, training=None):
            if training:
                calls.append(x.shape)  # when traced, not at every step
            return x

    image = keras.Input((28, 28, 1))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(Counted()(image)))
    fit(sample, SHORT, base_model=keras.Model(image, x), verbose=0)
    assert len(calls) == 2  # left and right


@pytest.mark.usefixtures("without_files")
def test_a_base_model_of_the_users_own_is_trained_saved_and_exported(sample, tmp_path):
    own = own_model()
    before = own.get_weights()
    verifier = fit(sample, SHORT, base_model=own, run_dir=tmp_path / "run", verbose=0)
    assert verifier.base_model is own
    assert max(np.abs(a - b).max() for a, b in zip(before, own.get_weights(), strict=True)) > 1e-3
    x = sample.test.images[:20]
    embedded = verifier.embed(x)
    np.testing.assert_allclose(embedded, own.predict(x.astype(np.float32), verbose=0), atol=1e-5)
    for path in (tmp_path / "run", verifier.export(tmp_path / "models" / "own")):
        np.testing.assert_allclose(load_verifier(path).embed(x), embedded, atol=1e-5)


def test_flip_averaging_extends_a_sequential_model_of_the_users_own(sample, tmp_path):
    config = dataclasses.replace(SHORT, flip_averaging="yes")
    verifier = fit(
        sample, config, base_model=sequential_model(), run_dir=tmp_path / "run", verbose=0
    )
    x = sample.test.images[:20]
    embedded = verifier.embed(x)
    np.testing.assert_allclose(verifier.embed(x[:, :, ::-1].copy()), embedded, atol=1e-5)
    np.testing.assert_allclose(load_verifier(tmp_path / "run").embed(x), embedded, atol=1e-5)


@pytest.mark.parametrize("mirrored", [True, False])
def test_flips_are_averaged_where_validation_pairs_gain_by_it(rng, mirrored):
    """Two classes that are each other's mirror image, or each its own half of the time."""
    patterns = rng.integers(0, 200, (2, 8, 8, 1), np.uint8)
    if not mirrored:
        patterns[1] = patterns[0, :, ::-1]
    labels = np.arange(120) % 2
    images = patterns[labels] + rng.integers(0, 50, (120, 8, 8, 1), np.uint8)
    if mirrored:
        images[::3] = images[::3, :, ::-1]
    split = Split(images, labels)
    dataset = Dataset(split, split, split, ("a", "b"))
    config = dataclasses.replace(SHORT, flip_averaging="auto", learning_rate=1e-12)
    verifier = fit(dataset, config, base_model=own_model((8, 8, 1)), verbose=0)
    twins = np.abs(verifier.embed(images) - verifier.embed(images[:, :, ::-1].copy())).max()
    assert (twins < 1e-5) == mirrored


def two_images_to_embedding():
    images = [keras.Input((28, 28, 1)), keras.Input((28, 28, 1))]
    x = keras.layers.Flatten()(keras.layers.Concatenate()(images))
    return keras.Model(images, keras.layers.Dense(2)(x))


def unbuilt_model():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])


@pytest.mark.parametrize(
    "make",
    [lambda: own_model((14, 14, 1)), lambda: own_model((28, 28, 3)), two_images_to_embedding,
     unbuilt_model],
)  # fmt: skip
def test_a_base_model_of_other_images_is_refused(sample, make):
    record = Record()
    with pytest.raises(ArgumentError, match=r"`base_model` must .* \(28, 28, 1\).* Received: "):
        fit(sample, SHORT, base_model=make(), callbacks=[record], verbose=0)
    assert not record.began


def test_a_base_model_without_a_vector_per_image_is_refused(sample):
    image = keras.Input((28, 28, 1))
    record = Record()
    with pytest.raises(ModelError, match=r"to \[batch, embedding_dim\]. Received: "):
        fit(
            sample,
            SHORT,
            base_model=keras.Model(image, keras.layers.Conv2D(2, 3)(image)),
            callbacks=[record],
            verbose=0,
        )
    assert not record.began


def test_a_base_model_without_features_to_keep_is_refused_before_training(sample):
    record = Record()
    config = dataclasses.replace(SHORT, kept_features=0.5)
    with pytest.raises(ArgumentError, match="`kept_features` needs"):
        fit(sample, config, base_model=own_model(), callbacks=[record], verbose=0)
    assert not record.began


def test_a_run_with_extended_embeddings_is_saved_as_it_is(sample, tmp_path):
    config = dataclasses.replace(
        SHORT,
        architecture="resnet",
        kept_features=0.5,
        flip_averaging="yes",
    )
    verifier = fit(sample, config, run_dir=tmp_path / "run", verbose=0)
    x = sample.test.images[:20]
    embedded = verifier.embed(x)
    assert embedded.shape == (20, 2 * TINY.embedding_dim)
    np.testing.assert_allclose(embedded, verifier.embed(x[:, :, ::-1].copy()), atol=1e-5)
    np.testing.assert_allclose(load_verifier(tmp_path / "run").embed(x), embedded, atol=1e-6)


def test_a_run_dir_that_is_not_empty_is_refused_before_training(sample, tmp_path):
    (tmp_path / "precious").write_text("mine")
    record = Record()
    with pytest.raises(ArgumentError, match=r"`run_dir` must be a new or empty folder\. Received"):
        fit(sample, TINY, run_dir=tmp_path, callbacks=[record], verbose=0)
    assert not record.began
    assert (tmp_path / "precious").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_test_set_that_cannot_be_scored_is_refused_before_training(sample, tmp_path):
    _, first = np.unique(sample.test.labels, return_index=True)
    lonely = sample.test.take(first)
    dataset = dataclasses.replace(sample, test=lonely)
    record = Record()
    with pytest.raises(DataError, match="Every class has only one image"):
        fit(dataset, TINY, run_dir=tmp_path / "run", callbacks=[record], verbose=0)
    assert not record.began
    assert not (tmp_path / "run").exists()


def test_another_backend_of_keras_is_refused(sample, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(SiameseKerasError, match="KERAS_BACKEND is 'jax'"):
        fit(sample, SHORT)


def test_calibration_never_sees_test_pairs(sample, tiny):
    """Permute the test labels: the calibration, and all else that is trained, stays."""
    permuted = Split(sample.test.images, sample.test.labels[::-1].copy())
    dataset = Dataset(sample.train, sample.validation, permuted, sample.class_names)
    verifier = fit(dataset, TINY, verbose=0)
    np.testing.assert_allclose(weights(verifier), weights(tiny), atol=1e-5)
    assert verifier.calibration.threshold == pytest.approx(tiny.calibration.threshold, abs=1e-5)
    assert verifier.calibration.slope == pytest.approx(tiny.calibration.slope, rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "message", "epochs"),
    [(0.0, "collapsed in epoch 1", 1), (math.nan, "loss became nan in epoch 1, step 1", 0)],
)
def test_the_models_are_kept_when_the_training_fails(sample, tmp_path, scale, message, epochs):
    own = own_model(scale=scale)
    with pytest.raises(TrainingError, match=message):
        fit(sample, SHORT, run_dir=tmp_path, base_model=own, verbose=0)
    assert keras.models.load_model(tmp_path / "outer.keras").count_params() == own.count_params()
    assert Config.load(tmp_path / "config.json") == SHORT
    assert len(read_columns(tmp_path / "history.csv").get("loss", ())) == epochs
    with pytest.raises(ModelError, match=r"not the folder of a complete run: it has no model\.jso"):
        load_verifier(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        PRESETS["classic-mlp"],
        # Without batch normalization and dropout, distances are 0 in training as well.
        dataclasses.replace(TINY, architecture="mlp"),
    ],
    ids=["fast", "classic-mlp", "mlp"],
)
def test_equal_images_train_without_nan(sample, config):
    """Each class has one image many times over, and the first two classes have the same one."""
    first = [np.flatnonzero(sample.train.labels == label)[0] for label in (0, 0, *range(2, 10))]

    def repeated(number):
        images = sample.train.images[np.repeat(first, number)]
        return Split(images, np.repeat(np.arange(10), number))

    dataset = Dataset(repeated(20), repeated(10), repeated(5), sample.class_names)
    config = dataclasses.replace(config, epochs=2, batch_size=50)
    verifier = fit(dataset, config, verbose=0)
    assert np.isfinite(weights(verifier)).all()
    for values in verifier.history.values():
        assert np.isfinite(values).all()
    images = dataset.test.images
    found = verifier.compare(images[[0, 0]], images[[1, -1]])
    assert found.distance[0] == pytest.approx(0, abs=1e-4)
    assert np.isfinite(found.similarity).all()
    assert found.similarity[0] > 0.5


class Interrupt(keras.callbacks.Callback):
    """Press Ctrl-C `times` times in the training batch or the validation batch after `step`."""

    def __init__(self, step, *, times=1, in_validation=False):
        super().__init__()
        self.step, self.times, self.in_validation = step, times, in_validation
        self.pressed = False

    def on_train_batch_end(self, batch, logs=None):
        if not self.in_validation:
            self._press()

    def on_test_batch_end(self, batch, logs=None):
        if self.in_validation and batch == 0:
            self._press()

    def _press(self):
        if int(self.model.optimizer.iterations) == self.step:
            self.pressed = True
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests run in the background and ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_training_after_the_batch_and_keeps_the_model(sample, tmp_path):
    record = Record()
    verifier = fit(
        sample,
        TINY,
        base_model=own_model(),
        run_dir=tmp_path,
        callbacks=[Interrupt(STEPS + 3), record],
        verbose=0,
    )
    assert len(record.rates) == STEPS + 3
    assert verifier.training["interrupted"] is True
    assert verifier.training["epochs"] == 2  # the unfinished one is validated like a whole one
    assert len(verifier.history["val_loss"]) == 2
    loaded = load_verifier(tmp_path)
    assert loaded.training == verifier.training
    assert loaded.history == verifier.history
    x = sample.test.images[:10]
    np.testing.assert_allclose(loaded.embed(x), verifier.embed(x), atol=1e-6)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_saves_a_checkpoint_even_where_time_never_does(sample, tmp_path):
    fit(
        sample,
        TINY,
        base_model=own_model(),
        run_dir=tmp_path,
        callbacks=[Interrupt(STEPS + 3)],
        checkpoint_minutes=math.inf,
        verbose=0,
    )
    saved = newest_checkpoint(tmp_path / "checkpoints")
    assert (saved.epoch, saved.step) == (1, 3)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_during_validation_ends_the_training_without_another_batch(sample):
    record = Record()
    verifier = fit(
        sample,
        TINY,
        base_model=own_model(),
        callbacks=[Interrupt(STEPS, in_validation=True), record],
        verbose=0,
    )
    assert len(record.rates) == STEPS
    assert verifier.training["interrupted"] is True
    assert verifier.training["epochs"] == 1


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("in_validation", [False, True])
def test_an_interrupt_after_the_last_step_finds_the_training_finished(sample, in_validation):
    interrupt = Interrupt(2 * STEPS, in_validation=in_validation)
    config = dataclasses.replace(TINY, epochs=2)
    verifier = fit(sample, config, base_model=own_model(), callbacks=[interrupt], verbose=0)
    assert interrupt.pressed
    assert verifier.training["interrupted"] is False
    assert verifier.training["epochs"] == 2


def test_an_ignored_interrupt_stays_ignored(sample):
    interrupt = Interrupt(STEPS + 3)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        verifier = fit(sample, TINY, base_model=own_model(), callbacks=[interrupt], verbose=0)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert interrupt.pressed
    assert verifier.training["interrupted"] is False
    assert verifier.training["epochs"] == TINY.epochs


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_ends_at_once_and_the_history_is_whole(sample, tmp_path):
    interrupt = Interrupt(2 * STEPS + 3, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(
            sample, TINY, base_model=own_model(), run_dir=tmp_path, callbacks=[interrupt], verbose=0
        )
    assert not (tmp_path / "outer.keras").exists()
    history = read_columns(tmp_path / "history.csv")
    assert {"loss", "midpoint_accuracy", "val_loss", "val_midpoint_accuracy"} <= set(history)
    for values in history.values():
        assert len(values) == 2
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "loss", ["multi-similarity", "semi-hard-triplet", "supervised-contrastive"]
)
def test_every_loss_trains_a_model_that_tells_pairs_apart(sample, loss):
    config = dataclasses.replace(TINY, loss=loss, images_per_class=5)
    verifier = fit(sample, config, verbose=0)
    assert verifier.history["val_loss"][-1] < verifier.history["val_loss"][0]
    assert verifier.evaluate(sample).metrics["test"]["roc_auc"] > 0.85


@pytest.mark.parametrize(
    ("settings", "images_per_class", "steps"),
    [
        ({}, 1, 5),  # ten classes: 50 x 50 pairs hold 5 same ones of each image
        ({"batch_size": 10}, 4, 25),
        ({"images_per_class": 6}, 6, 5),
        ({"classes_per_batch": 10, "images_per_class": 4}, 4, 12),
        ({"classes_per_batch": 10}, 4, 12),
        ({"pairs": "random"}, 1, 10),
    ],
)
def test_batches_are_drawn_as_the_settings_say(sample, settings, images_per_class, steps):
    record = Record()
    config = dataclasses.replace(SHORT, **settings)
    verifier = fit(sample, config, base_model=own_model(), callbacks=[record], verbose=0)
    assert verifier.training["images_per_class"] == images_per_class
    assert len(record.rates) == steps


def test_with_many_classes_the_program_says_how_batches_are_drawn(sample, caplog):
    with caplog.at_level("INFO", logger="siamese_keras"):
        fit(sample, SHORT, base_model=own_model(), verbose=0)
        assert not own_messages(caplog)
        config = dataclasses.replace(SHORT, batch_size=10)
        fit(sample, config, base_model=own_model(), verbose=0)
    (message,) = own_messages(caplog)
    assert message == (
        "There are many classes for one batch: images are drawn 4 at a time from each class "
        "(images_per_class)."
    )


def test_validation_images_that_are_training_images_are_counted(sample, caplog):
    validation = Split(
        np.concatenate([sample.validation.images[:50], sample.train.images[:2]]),
        np.concatenate([sample.validation.labels[:50], sample.train.labels[:2]]),
    )
    leaking = dataclasses.replace(sample, validation=validation)
    fit(leaking, SHORT, base_model=own_model(), verbose=0)
    (message,) = own_messages(caplog)
    assert message.startswith("2 of 52 validation images are also training images")


def test_a_batch_too_small_for_four_images_of_a_class_has_different_pairs(sample):
    config = dataclasses.replace(SHORT, batch_size=2)
    verifier = fit(sample, config, base_model=own_model(), verbose=0)
    assert verifier.training["images_per_class"] == 2
    assert verifier.history["different_distance"][0] > 0


def test_paths_may_be_named_from_the_home_folder(sample, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(tf.io.encode_png(sample.test.images[0]).numpy())
    monkeypatch.setenv("HOME", str(tmp_path))
    verifier = fit(sample, SHORT, base_model=own_model(), run_dir="~/run", verbose=0)
    assert (tmp_path / "run" / "base.keras").is_file()
    assert load_verifier("~/run").threshold == verifier.threshold
    assert verifier.index(tmp_path, "~/index.npz").embedded == 1
    assert (tmp_path / "index.npz").is_file()


def test_validation_classes_decide_and_test_classes_are_not_shown(sample):
    dataset = by_class(sample)
    verifier = fit(dataset, TINY_MLP, verbose=0)
    assert verifier.calibration == calibrate(verifier.embed, dataset.validation)
    other = dataclasses.replace(dataset, test=dataset.test.take(np.arange(len(dataset.test))[::-1]))
    again = fit(other, TINY_MLP, verbose=0)
    np.testing.assert_allclose(weights(again), weights(verifier), atol=1e-5)
    assert verifier.evaluate(dataset).metrics["open_set"]["num_classes"] == 3


def test_classes_that_are_cut_already_are_not_held_out_in_another_way(sample):
    config = dataclasses.replace(TINY, unseen_classes=("50%",))
    with pytest.raises(
        ArgumentError, match=r"must be those that the dataset was loaded with.* 50%"
    ):
        fit(by_class(sample), config, verbose=0)


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone") / "network.keras")


def network_weights(model):
    """The weights of the backbone's own layers by kind: convolutions, batch normalization."""
    network = model.get_layer("backbone").get_layer("network")
    return {
        kind: [
            weight.numpy()
            for layer in network.layers
            if isinstance(layer, kind)
            for weight in layer.weights
        ]
        for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization)
    }


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize("fine_tune", [0, 2])
def test_a_head_is_trained_on_features_of_a_backbone(sample, backbone_file, tmp_path, fine_tune):
    config = dataclasses.replace(
        TINY,
        backbone=str(backbone_file),
        backbone_stages=2,
        embedding_dim=16,
        fine_tune=fine_tune,
        fine_tune_learning_rate=1e-3,
    )
    verifier = fit(sample, config, run_dir=tmp_path / "run", verbose=0)
    assert verifier.evaluate(sample).metrics["test"]["roc_auc"] > 0.75
    epochs = TINY.epochs + fine_tune
    assert verifier.training["epochs"] == epochs
    assert {len(values) for values in verifier.history.values()} == {epochs}
    assert read_columns(tmp_path / "run" / "history.csv") == verifier.history

    original = build_backbone(str(backbone_file), (28, 28, 1), stages=2)
    before = network_weights(keras.Sequential([original]))
    after = network_weights(verifier.base_model)
    convolution, normalization = keras.layers.Conv2D, keras.layers.BatchNormalization
    for old, new in zip(before[normalization], after[normalization], strict=True):
        np.testing.assert_array_equal(new, old)  # its statistics as well
    changed = [
        not np.array_equal(new, old)
        for old, new in zip(before[convolution], after[convolution], strict=True)
    ]
    assert all(changed) if fine_tune else not any(changed)

    again = load_verifier(tmp_path / "run")
    images = sample.test.images
    expected = verifier.distance(images[:20], images[20:40])
    np.testing.assert_allclose(again.distance(images[:20], images[20:40]), expected, atol=1e-5)
    exported = load_verifier(verifier.export(tmp_path / "models" / "pretrained"))
    np.testing.assert_allclose(exported.distance(images[:20], images[20:40]), expected, atol=1e-5)


def test_features_are_computed_in_parts(backbone_file, sample, monkeypatch):
    backbone = build_backbone(str(backbone_file), (28, 28, 1))
    seen = []
    predict = backbone.predict
    monkeypatch.setattr(
        backbone, "predict", lambda x, **options: seen.append(x) or predict(x, **options)
    )
    monkeypatch.setattr(trainer, "_FEATURE_PART", 80)
    images = sample.test.images
    features = trainer._features(backbone, images)
    np.testing.assert_allclose(features, predict(images, verbose=0), rtol=1e-4, atol=1e-5)
    assert [len(part) for part in seen] == [80, 80, 40]


def test_features_that_are_not_finite_are_refused(sample, tmp_path):
    image = keras.Input((28, 28, 3))
    logarithm = keras.ops.log(image)  # of black pixels too
    x = keras.layers.AveragePooling2D(7)(logarithm)
    keras.Model(image, keras.layers.Conv2D(4, 1)(x)).save(tmp_path / "network.keras")
    config = dataclasses.replace(SHORT, backbone=str(tmp_path / "network.keras"), hard_epochs=(1,))
    with pytest.raises(
        ModelError, match=r"`backbone` must give finite features\..* from `.*network\.keras`"
    ):
        fit(sample, config, verbose=0)


def test_what_does_not_go_with_a_backbone_is_refused(sample, backbone_file):
    config = dataclasses.replace(TINY, backbone=str(backbone_file), backbone_stages=9)
    with pytest.raises(ArgumentError, match="`backbone_stages` must be at most 3"):
        fit(sample, config, verbose=0)
    with pytest.raises(ArgumentError, match="`kept_features` needs the architecture cnn or resnet"):
        dataclasses.replace(config, kept_features=0.5)
    with pytest.raises(ArgumentError, match="`fine_tune` needs a `backbone`"):
        dataclasses.replace(TINY, fine_tune=2)


def test_a_run_records_what_the_images_were_loaded_by(sample):
    """Whatever the settings say: `evaluate` loads the same images by them."""
    wrong = dataclasses.replace(SHORT, dataset="kmnist")
    config = fit(sample, wrong, base_model=own_model(), verbose=0).config
    assert (config.dataset, config.validation_size) == ("idx", 100)
    own = Dataset(sample.train, sample.validation, sample.test, sample.class_names, name="mine")
    assert fit(own, SHORT, base_model=own_model(), verbose=0).config.dataset == "mine"


def test_a_model_of_your_own_must_have_the_length_that_a_loss_assumes(sample):
    with pytest.raises(ArgumentError, match="`base_model` must give embeddings of length 1"):
        fit(sample, "many-classes", base_model=own_model(), verbose=0)


@pytest.mark.parametrize("devices", [0, -1])
def test_fewer_than_one_device_is_refused(sample, devices):
    with pytest.raises(ArgumentError, match="`devices` must be an integer of at least 1"):
        fit(sample, TINY, devices=devices, verbose=0)
