import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from helpers.tiny import SAMPLE, TINY

from siamese_keras import train as training
from siamese_keras.config import PRESETS
from siamese_keras.data.datasets import Dataset, Split
from siamese_keras.errors import DataError
from siamese_keras.evaluate import load_run_dataset
from siamese_keras.train import main, train
from siamese_keras.training.optimizer import build_optimizer
from siamese_keras.verifier import Run, embed, read_history, replacing

TINY_OPTIONS = [
    "--dataset", "idx", "--data-dir", str(SAMPLE), "--validation-size", "100", "--batch-size", "50",
    "--filters", "4,8", "--embedding-dim", "8",
]  # fmt: skip


def program(module, *arguments):
    """Run a program of the package as a user does."""
    # This process has set the variable; a user has not.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", f"siamese_keras.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment,
    )


def test_loss_falls_and_the_run_is_complete(tiny_run):
    names = {path.name for path in tiny_run.path.iterdir()}
    assert {"config.json", "model.json", "base.keras", "outer.keras", "history.csv"} <= names
    history = read_history(tiny_run.path / "history.csv")
    assert len(history["loss"]) == TINY.epochs == tiny_run.training["epochs"]
    # The mean over the pairs that still cost something falls less than the one over all.
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["pair_accuracy"][-1] > 0.6
    assert history["val_different_distance"][-1] > 1.3 * history["val_same_distance"][-1]
    assert not [name for name in names if name.startswith(".")]


def test_a_run_is_loaded_as_it_was_saved(tiny_run, sample):
    loaded = Run.load(tiny_run.path)
    assert loaded.config == tiny_run.config
    assert loaded.classifier == tiny_run.classifier
    assert loaded.class_names == tiny_run.class_names
    np.testing.assert_allclose(
        embed(loaded.base, sample.test.images), embed(tiny_run.base, sample.test.images), atol=1e-6
    )
    base = keras.models.load_model(tiny_run.path / "base.keras")
    np.testing.assert_allclose(
        embed(base, sample.test.images), embed(tiny_run.base, sample.test.images), atol=1e-6
    )


def test_the_same_seed_trains_the_same_weights(sample, tmp_path):
    config = dataclasses.replace(TINY, epochs=1)
    first, again, other = (
        train(dataclasses.replace(config, seed=seed), tmp_path / name, sample, verbose=0)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    weights = [
        np.concatenate([w.ravel() for w in r.base.get_weights()]) for r in (first, again, other)
    ]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert np.abs(weights[0] - weights[2]).max() > 1e-3


def test_the_step_is_traced_once(sample, tmp_path, monkeypatch):
    traced = []
    step = keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda model, data: traced.append(model) or step(model, data)
    )
    train(dataclasses.replace(TINY, epochs=1), tmp_path / "run", sample, verbose=0)
    assert len(traced) == 1


# After so few steps the averages that batch normalisation keeps are far from those of the images.
@pytest.mark.filterwarnings("ignore:The embedding collapses")
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_trains(preset, sample, tmp_path):
    config = dataclasses.replace(
        PRESETS[preset], dataset="idx", validation_size=100, epochs=1, batch_size=64
    )
    run = train(config, tmp_path / "run", sample, verbose=0)
    assert np.isfinite(read_history(run.path / "history.csv")["val_loss"]).all()


class Interrupt(keras.callbacks.Callback):
    """Press Ctrl-C in the second epoch, `times` times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 8:  # epochs have 5 steps
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests run in the background and ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_was_learnt(sample, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "TrainingWarnings", lambda margin: Interrupt(times=1))
    report = training.train_and_evaluate(TINY, tmp_path / "run", sample, data_dir=SAMPLE)
    assert report is None
    run = Run.load(tmp_path / "run")
    assert run.training["interrupted"]
    assert run.training["epochs"] == 2
    out = capsys.readouterr().out
    assert "interrupted in epoch 2 of 3; what was learnt is kept in" in out
    assert f"python -m siamese_keras.evaluate {run.path} --data-dir {SAMPLE}" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TrainingWarnings", lambda margin: Interrupt(times=1))
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = train(TINY, tmp_path / "run", sample, verbose=0)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert not run.training["interrupted"]
    assert run.training["epochs"] == TINY.epochs


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_ends_at_once(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TrainingWarnings", lambda margin: Interrupt(times=2))
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "run", sample, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_threshold_never_sees_test_pairs(sample, tiny_run, tmp_path):
    """Permute the test labels: the classifier, and all else that is trained, stays."""
    permuted = Split(sample.test.images, sample.test.labels[::-1].copy())
    dataset = Dataset(sample.train, sample.validation, permuted, sample.class_names)
    run = train(TINY, tmp_path / "run", dataset, verbose=0)
    assert run.classifier.threshold == pytest.approx(tiny_run.classifier.threshold, abs=1e-5)
    assert run.classifier.scale == pytest.approx(tiny_run.classifier.scale, rel=1e-4)


def test_the_command_line_trains_scores_and_exports(tmp_path):
    done = program(
        "train", *TINY_OPTIONS, "--epochs", "1", "--run-dir", tmp_path / "run", "--export-dir",
        tmp_path / "models",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no start-up noise
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{report['test']['accuracy']:.4f}" in done.stdout
    assert (tmp_path / "models" / "idx" / "1" / "saved_model.pb").is_file()
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert {"history.png", "test-pairs.png", "worst-mistakes.png", "roc-and-det.png"} <= figures
    again = program("evaluate", tmp_path / "run", "--data-dir", SAMPLE)
    assert again.returncode == 0, again.stderr
    repeated = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert repeated["test"]["roc_auc"] == pytest.approx(report["test"]["roc_auc"], abs=1e-6)


def test_tensorboard_logs_are_written_when_asked(sample, tmp_path):
    run = train(dataclasses.replace(TINY, epochs=1), tmp_path, sample, tensorboard=True, verbose=0)
    assert list((run.path / "tensorboard").rglob("events.out.tfevents.*"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_on_the_command_line_ends_with_a_run_and_status_130(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable, "-u", "-m", "siamese_keras.train", *TINY_OPTIONS, "--epochs", "2000",
            "--run-dir", str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if line.startswith("Epoch 3/"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate()
    finally:
        watchdog.cancel()
        process.kill()
    assert process.returncode == 130, err
    assert "what was learnt is kept in" in out
    assert Run.load(tmp_path / "run").training["interrupted"]


def test_several_seeds_are_trained_and_summarised(tmp_path):
    done = program("train", *TINY_OPTIONS, "--epochs", "1", "--seeds", "3,5", "--run-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seeds"] == [3, 5]
    reports = [json.loads((tmp_path / f"seed-{s}" / "metrics.json").read_text()) for s in (3, 5)]
    accuracies = [report["test"]["accuracy"] for report in reports]
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert [Run.load(tmp_path / f"seed-{s}").config.seed for s in (3, 5)] == [3, 5]


def test_settings_reach_optimizer_and_pipeline(sample, tmp_path, monkeypatch):
    asked = []
    pipeline = training.pair_pipeline

    def recorded(kind, *arguments, **options):
        asked.append((kind, options["batch_size"], options["augment"]))
        return pipeline(kind, *arguments, **options)

    built = []

    def built_optimizer(*arguments, **options):
        built.append((arguments, options))
        return build_optimizer(*arguments, **options)

    monkeypatch.setattr(training, "pair_pipeline", recorded)
    monkeypatch.setattr(training, "build_optimizer", built_optimizer)
    train(dataclasses.replace(TINY, epochs=1, augment="shift"), tmp_path / "run", sample, verbose=0)
    assert asked == [
        ("all", 50, "shift"),
        ("all", 50, "none"),
    ]  # validation images stay as they are
    assert built == [(("adam", TINY.learning_rate), {"schedule": "one-cycle", "steps": 5})]


def test_run_with_extended_embeddings_is_saved_as_it_was_scored(sample, tmp_path):
    config = dataclasses.replace(
        TINY,
        epochs=1,
        architecture="residual",
        augment="shift-erase",
        features=0.5,
        mirror=True,
    )
    run = train(config, tmp_path / "run", sample, verbose=0)
    x = sample.test.images[:20]
    embedded = embed(run.base, x)
    assert embedded.shape == (20, 2 * TINY.embedding_dim)
    np.testing.assert_allclose(embedded, embed(run.base, x[:, :, ::-1].copy()), atol=1e-5)
    np.testing.assert_allclose(embed(Run.load(tmp_path / "run").base, x), embedded, atol=1e-6)


def test_optimizers_follow_their_schedule():
    constant = build_optimizer("rmsprop", 0.01, schedule="constant", steps=400)
    assert isinstance(constant, keras.optimizers.RMSprop)
    assert float(constant.learning_rate) == pytest.approx(0.01)
    rate = build_optimizer("adam", 0.01, schedule="one-cycle", steps=400)._learning_rate
    assert float(rate(0)) == pytest.approx(0.01 / 25)
    assert float(rate(100)) == pytest.approx(0.01)
    assert float(rate(400)) == pytest.approx(0, abs=1e-6)


def test_models_are_kept_when_there_is_no_threshold_to_fit(sample, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no threshold")

    monkeypatch.setattr(training, "fit_run_classifier", fail)
    with pytest.raises(ValueError, match="no threshold"):
        train(dataclasses.replace(TINY, epochs=1), tmp_path / "run", sample, verbose=0)
    assert keras.models.load_model(tmp_path / "run" / "outer.keras").count_params() > 0


def test_a_test_set_that_cannot_be_scored_is_refused_before_training(sample, tmp_path):
    one = np.flatnonzero(sample.test.labels == 4)[:1]
    lonely = sample.test.take(np.append(np.flatnonzero(sample.test.labels != 4), one))
    dataset = dataclasses.replace(sample, test=lonely)
    with pytest.raises(ValueError, match="Class '4' has one image"):
        train(TINY, tmp_path / "run", dataset, verbose=0)
    assert not (tmp_path / "run" / "history.csv").exists()


def test_run_dir_must_be_new_or_empty(tmp_path, sample):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ValueError, match=r"`run_dir` must be a new or empty folder\. Received: "):
        train(TINY, tmp_path, sample, verbose=0)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--margin", "-1"], 2, "`margin` must be greater than 0. Received: margin=-1.0"),
        (["--seeds", "0,9999999999"], 2, "`seed` must be at most 2147483647"),
        (["--seeds", "1"], 2, "argument --seeds: expected two or more different seeds"),
        (["--seeds", "0,1", "--seed", "3"], 2, "argument --seeds: not allowed with --seed"),
        (["--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["--data-dir", "missing", "--dataset", "idx"], 1, "`missing` is not a folder"),
        ([*TINY_OPTIONS, "--unseen-classes", "hat"], 1, "Received: 'hat'"),
        ([*TINY_OPTIONS, "--run-dir", "/dev/null/run"], 1, "Not a directory"),
    ],
)
def test_an_error_is_one_clear_line(capfd, arguments, status, message):
    try:
        returned = main(arguments)
    except SystemExit as stopped:
        returned = stopped.code
    assert returned == status
    error = capfd.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not any("Traceback" in line for line in error)


def test_a_failed_write_leaves_the_good_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("good")
    with pytest.raises(OSError, match="disk full"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("name", ["config.json", "model.json", "outer.keras"])
def test_a_damaged_run_is_named_in_the_error(tiny_run, tmp_path, name):
    for path in tiny_run.path.glob("*.*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        Run.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"is not the folder of a run: it has no {name}"):
        Run.load(tmp_path)


def test_load_run_dataset_takes_the_cut_from_the_run(sample):
    loaded = load_run_dataset(TINY, SAMPLE)
    np.testing.assert_array_equal(loaded.validation.images, sample.validation.images)
    with pytest.raises(DataError):
        load_run_dataset(TINY, None)
