"""A training that is killed and resumed ends as one that was not, bit for bit."""

import dataclasses
import functools
import shutil

import keras
import numpy as np
import pytest
from helpers.backbones import write_backbone
from helpers.tiny import TINY

from siamese_keras import Config, build_base_model, fit, load_verifier
from siamese_keras.errors import ArgumentError, DataError, ModelError, TrainingError
from siamese_keras.evaluation.protocol import validation_auc
from siamese_keras.files import read_columns
from siamese_keras.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint

# Dropout and augmentation draw random numbers, batch normalization counts, Muon has momentum.
CONFIG = dataclasses.replace(
    TINY, filters=(4,), units=(16,), dropout=0.5, augment="flip-shift", min_steps=30, epochs=3
)
STEPS = 10  # of an epoch: two passes of 5


class KilledError(Exception):
    pass


class At(keras.callbacks.Callback):
    """Do something after a number of steps, or in the validation after it."""

    def __init__(self, step, act, *, in_validation=False):
        super().__init__()
        self.step, self.act, self.in_validation = step, act, in_validation

    def on_train_batch_end(self, batch, logs=None):
        if not self.in_validation:
            self.do()

    def on_test_batch_end(self, batch, logs=None):
        if self.in_validation:
            self.do()

    def do(self):
        if int(self.model.optimizer.iterations) == self.step:
            self.act()


def end():
    """End a training as a crash would."""
    raise KilledError


def train(sample, folder, config=CONFIG, **options):
    return fit(sample, config, run_dir=folder, verbose=0, **options)


def killed(sample, folder, step, config=CONFIG, **options):
    with pytest.raises(KilledError):
        train(sample, folder, config, callbacks=[At(step, end)], **options)


def assert_equal(verifier, expected):
    for found, weight in zip(
        verifier.outer_model.get_weights(), expected.outer_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, weight)
    assert verifier.history == expected.history
    assert verifier.calibration == expected.calibration
    differing = {"fit_seconds"}
    assert verifier.training.keys() == expected.training.keys()
    for name in verifier.training.keys() - differing:
        assert verifier.training[name] == expected.training[name]


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory):
    return train(sample, tmp_path_factory.mktemp("whole"))


MOMENTS = [  # step, whether in the validation after it, minutes between checkpoints
    (1, False, 10),  # before anything was saved but the beginning
    (STEPS + 4, False, 10),  # from the end of an epoch
    (2 * STEPS + 1, False, 10),
    (STEPS + 8, False, 1e-9),  # within an epoch, in the second pass over the images
    (2 * STEPS, True, 1e-9),  # in validation, after the last step but one that was saved
    (3 * STEPS, False, 1e-9),
]


@pytest.fixture(scope="module")
def stopped(sample, tmp_path_factory):
    """What the folder of a training holds at some moments, as if it were killed then."""
    copy = functools.partial(shutil.copytree, dirs_exist_ok=True)
    folders = {moment: tmp_path_factory.mktemp("stopped") / "run" for moment in MOMENTS}
    for minutes in (10, 1e-9):
        run = tmp_path_factory.mktemp("run")
        copies = [
            At(step, functools.partial(copy, run, folder), in_validation=in_validation)
            for (step, in_validation, of_run), folder in folders.items()
            if of_run == minutes
        ]
        train(sample, run, callbacks=copies, checkpoint_minutes=minutes)
    return folders


@pytest.fixture(scope="module")
def stopped_run(stopped):
    """One of these folders, for tests that leave it as it is."""
    return stopped[STEPS + 8, False, 1e-9]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_resumed_training_ends_with_the_same_weights(sample, whole, stopped, tmp_path, moment):
    run = shutil.copytree(stopped[moment], tmp_path / "run")
    verifier = train(sample, run, resume=True)
    assert_equal(verifier, whole)
    assert read_columns(run / "history.csv") == whole.history
    assert_equal(load_verifier(run), whole)


def test_a_training_may_be_killed_again_and_again(sample, whole, tmp_path):
    minutes = {"checkpoint_minutes": 1e-9}
    killed(sample, tmp_path, 3, **minutes)
    for step in (STEPS, STEPS + 4):
        killed(sample, tmp_path, step, resume=True, **minutes)
    assert_equal(train(sample, tmp_path, resume=True), whole)


def test_a_finished_training_is_finished(sample, whole, tmp_path):
    train(sample, tmp_path)
    before = (tmp_path / "history.csv").read_bytes()
    assert_equal(train(sample, tmp_path, resume=True), whole)
    assert (tmp_path / "history.csv").read_bytes() == before


def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(sample, whole, stopped, tmp_path, caplog):
    run = shutil.copytree(stopped[2 * STEPS + 1, False, 10], tmp_path / "run")
    *_, newest = sorted((run / "checkpoints").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert_equal(train(sample, run, resume=True), whole)
    assert f"`{newest}` is damaged" in caplog.text


def test_a_training_without_a_checkpoint_begins_again(sample, whole, tmp_path):
    CONFIG.save(tmp_path / "config.json")  # killed before the first one
    assert_equal(train(sample, tmp_path, resume=True), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 1.5}, r"A resumed run keeps its settings\. Received: margin=1\.5, before 1\.4"),
        ({"seed": 1}, r"Received: seed=1, before 0"),
        ({"epochs": 5}, r"`epochs` can be changed only where the learning rate does not depend"),
    ],
)
def test_other_settings_are_refused(sample, stopped_run, change, message):
    before = {path: path.read_bytes() for path in stopped_run.rglob("*") if path.is_file()}
    with pytest.raises(ArgumentError, match=message):
        train(sample, stopped_run, dataclasses.replace(CONFIG, **change), resume=True)
    assert {path: path.read_bytes() for path in stopped_run.rglob("*") if path.is_file()} == before


def test_another_dataset_is_refused(sample, stopped_run):
    other = dataclasses.replace(sample, train=sample.validation, validation=sample.train)
    with pytest.raises(ArgumentError, match="dataset must be the one that the training began with"):
        train(other, stopped_run, resume=True)


def test_another_model_is_refused(sample, tmp_path):
    def own(units):
        image = keras.Input((28, 28, 1))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
        return keras.Model(image, keras.layers.Dense(units)(x))

    killed(sample, tmp_path, STEPS + 1, base_model=own(4))
    with pytest.raises(DataError, match="are of another model: the shapes of its model differ"):
        train(sample, tmp_path, resume=True, base_model=own(5))


@pytest.mark.parametrize(
    ("facts", "arrays"),
    [
        ({"config": {"margin": "wide"}}, {}),
        ({"config": 3}, {}),
        ({"history": {"loss": ["low"]}}, {}),
        ({"history": None}, {}),
        ({"best_auc": "high"}, {}),
        ({"seconds": None}, {}),
        ({"steps_per_epoch": 3}, {}),
        ({"steps_per_epoch": []}, {}),
        ({"steps_per_epoch": float("inf")}, {}),
        ({}, {"model": [np.zeros(3)]}),
        ({}, {"optimizer": []}),
        ({}, {"metrics": []}),
        ({}, {"best": [np.zeros(3, np.float32)]}),
    ],
)
def test_a_crafted_checkpoint_is_one_line(sample, stopped_run, tmp_path, facts, arrays):
    checkpoint = newest_checkpoint(stopped_run / "checkpoints")
    crafted = Checkpoint(
        checkpoint.epoch, checkpoint.step,
        {**checkpoint.facts, **facts}, {**checkpoint.arrays, **arrays},
    )  # fmt: skip
    write_checkpoint(tmp_path / "checkpoints", crafted)
    with pytest.raises(DataError, match=r"The checkpoints in `.*` are (damaged|of another model):"):
        train(sample, tmp_path, resume=True)


def test_a_constant_learning_rate_lets_a_finished_training_go_on(sample, tmp_path):
    config = dataclasses.replace(CONFIG, schedule="constant", learning_rate=1e-3, min_steps=0)
    longer = dataclasses.replace(config, epochs=5)
    train(sample, tmp_path / "short", config)
    extended = train(sample, tmp_path / "short", longer, resume=True)
    assert_equal(extended, train(sample, tmp_path / "long", longer))
    assert Config.load(tmp_path / "short" / "config.json") == longer
    with pytest.raises(
        ArgumentError, match="`epochs` must be at least 5, the number of epochs begun"
    ):
        train(sample, tmp_path / "short", config, resume=True)


def test_more_epochs_must_not_be_shorter_ones(sample, tmp_path):
    config = dataclasses.replace(CONFIG, schedule="constant", learning_rate=1e-3)
    killed(sample, tmp_path, STEPS + 1, config)
    with pytest.raises(
        ArgumentError, match=r"keep its number of steps per epoch.*: 10\. Received: 5"
    ):
        train(sample, tmp_path, dataclasses.replace(config, epochs=6), resume=True)


def test_a_refusal_leaves_a_finished_run_as_it_was(sample, tmp_path):
    config = dataclasses.replace(CONFIG, schedule="constant", learning_rate=1e-3)
    expected = train(sample, tmp_path, config)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert {"config.json", "model.json"} <= set(before)
    with pytest.raises(ArgumentError, match=r"keep its number of steps per epoch"):
        train(sample, tmp_path, dataclasses.replace(config, epochs=6), resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    assert_equal(load_verifier(tmp_path), expected)


def test_a_backbone_that_is_gone_leaves_a_finished_run_as_it_was(sample, with_backbone, tmp_path):
    network = write_backbone(tmp_path / "network.keras")
    config = dataclasses.replace(with_backbone[0], backbone=str(network), fine_tune=0)
    run = tmp_path / "run"
    train(sample, run, config)
    before = {path.name: path.read_bytes() for path in run.glob("*.json")}
    network.unlink()
    with pytest.raises(ModelError, match=r"network\.keras` is missing"):
        train(sample, run, config, resume=True)
    assert {path.name: path.read_bytes() for path in run.glob("*.json")} == before


def test_resume_needs_a_folder(sample, tmp_path):
    with pytest.raises(ArgumentError, match="`resume` needs the `run_dir`"):
        fit(sample, CONFIG, resume=True)
    with pytest.raises(ArgumentError, match="There is no run to resume in"):
        train(sample, tmp_path / "missing", resume=True)
    assert not (tmp_path / "missing").exists()
    with pytest.raises(ArgumentError, match="`checkpoint_minutes` must be greater than 0"):
        train(sample, tmp_path, checkpoint_minutes=0)


@pytest.fixture(scope="module")
def with_backbone(sample, tmp_path_factory):
    """Settings with which a head is trained for 2 epochs, and then both for 2, and the outcome."""
    folder = tmp_path_factory.mktemp("backbone")
    config = dataclasses.replace(
        TINY,
        backbone=str(write_backbone(folder / "network.keras")),
        backbone_stages=2,
        embedding_dim=16,
        epochs=2,
        fine_tune=2,
        fine_tune_learning_rate=1e-3,
    )
    return config, train(sample, folder / "run", config)


@pytest.mark.parametrize("tuned", [False, True], ids=["head", "fine-tuning"])
def test_a_backbone_and_its_head_are_resumed(sample, with_backbone, tmp_path, tuned):
    config, expected = with_backbone
    kill = At(8, end)
    if tuned:  # the second optimizer counts from 0 again
        kill.on_epoch_begin = lambda epoch, logs=None: setattr(kill, "step", 8 if epoch > 1 else -1)
    with pytest.raises(KilledError):
        train(sample, tmp_path, config, callbacks=[kill], checkpoint_minutes=1e-9)
    assert_equal(train(sample, tmp_path, config, resume=True), expected)


def test_a_fine_tuning_that_fails_leaves_the_trained_head(sample, with_backbone, tmp_path):
    config = dataclasses.replace(with_backbone[0], fine_tune_learning_rate=1e30)
    with pytest.raises(TrainingError):
        train(sample, tmp_path, config)
    weights = keras.models.load_model(tmp_path / "outer.keras").get_weights()
    assert all(np.isfinite(values).all() for values in weights)


def test_training_stops_early_and_keeps_the_best_weights(sample, tmp_path):
    """After the third epoch and later ones, the weights are those from before the training."""

    class Spoil(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.untrained = self.model.get_weights()

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_test_end(self, logs=None):
            if self.epoch >= 2:
                self.model.set_weights(self.untrained)

    config = dataclasses.replace(TINY, epochs=8, early_stopping=2, keep="best")
    verifier = train(sample, tmp_path, config, callbacks=[Spoil()])
    auc = verifier.history["val_roc_auc"]
    assert len(auc) == 4
    assert np.argmax(auc) == 1
    assert validation_auc(verifier.embed, sample.validation) == pytest.approx(auc[1], abs=1e-3)
    again = train(sample, tmp_path, config, resume=True)  # and does not go on
    assert_equal(again, verifier)


def test_a_base_model_of_the_users_own_must_be_given_again(sample, tmp_path):
    """Another network with variables of the same shapes would train in its place."""
    options = {**TINY.base_model_options(), "embedding_activation": "tanh"}
    own = build_base_model(sample.image_shape, **options)
    fit(sample, TINY, base_model=own, run_dir=tmp_path, verbose=0)
    (tmp_path / "model.json").unlink()
    before = (tmp_path / "outer.keras").read_bytes()
    with pytest.raises(ArgumentError, match=r"`base_model` must be given .* Received: no"):
        fit(sample, TINY, run_dir=tmp_path, resume=True, verbose=0)
    assert (tmp_path / "outer.keras").read_bytes() == before
    fit(sample, TINY, base_model=own, run_dir=tmp_path, resume=True, verbose=0)
