"""Trainings that are killed, or run out of disk, at any moment: nothing is damaged or lost."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from helpers.tiny import SAMPLE, TINY

from siamese_keras import fit, load_verifier
from siamese_keras.evaluation import report
from siamese_keras.train import main

OPTIONS = ["--dataset", "idx", "--data-dir", str(SAMPLE), "--validation-size", "100"]
OPTIONS += ["--batch-size", "50", "--filters", "4,8", "--embedding-dim", "8", "--min-steps", "0"]
OPTIONS += ["--epochs", "2"]
# What appears in the folder of the test when a phase begins.
PHASES = {
    "the first step": "run/checkpoints/epoch-000000-*.npz",
    "evaluation": "run/model.json",
    "export": "models/*/.writing-*",
}


def start(folder):
    """Start a training as a user does, which writes to `folder`/run and exports to models."""
    arguments = [*OPTIONS, "--run-dir", folder / "run", "--export-dir", folder / "models"]
    return subprocess.Popen(
        [sys.executable, "-m", "siamese_keras.train", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def stop_when(process, folder, pattern):
    """Stop the process when a file of that name is there."""
    while not any(folder.glob(pattern)):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Copies of a run by the phase in which its training was stopped; in the last it was killed."""
    if os.name != "posix":
        pytest.skip("signals")
    folders = {name: tmp_path_factory.mktemp("faults") for name in PHASES}
    *_, last = folders.values()
    process = start(last)
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    for name, folder in folders.items():
        stop_when(process, last, PHASES[name])
        if folder != last:
            shutil.copytree(last, folder, dirs_exist_ok=True)
            process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    watchdog.cancel()
    return folders


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of a training that is not killed, in this process."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "report_figures", lambda *_: {})
        assert main([*OPTIONS, "--run-dir", str(run)]) == 0
    return run


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize("phase", PHASES)
def test_a_training_that_is_killed_in_any_phase_ends_as_the_whole_one(
    folders, whole, phase, monkeypatch
):
    monkeypatch.setattr(report, "report_figures", lambda *_: {})  # they take seconds to draw
    folder = folders[phase]
    assert not list(folder.glob("models/*/1"))
    # A copy knows where the training was to export to, which is where it was copied from.
    export = [] if phase == "export" else ["--export-dir", str(folder / "models")]
    assert main(["--resume", str(folder / "run"), *export]) == 0
    if phase == "the first step":  # the options that a training goes on with are those of its run
        command = json.loads((folder / "run" / "command.json").read_text())
        assert command["export_dir"] == str(folder / "models")
    for name in ("history.csv", "classes.csv", "false_accepts.csv"):
        assert (folder / "run" / name).read_bytes() == (whole / name).read_bytes()
    found, expected = (
        json.loads((run / "metrics.json").read_text()) for run in (folder / "run", whole)
    )
    assert found["test"] == expected["test"]
    assert found["retrieval"] == expected["retrieval"]
    (version,) = folder.glob("models/*/1")
    pair = (np.zeros((28, 28, 1), np.uint8), np.full((28, 28, 1), 9, np.uint8))
    distance = load_verifier(version).distance(*pair)
    assert distance == pytest.approx(load_verifier(whole).distance(*pair), abs=1e-5)


class AtEpochEnd(keras.callbacks.Callback):
    def __init__(self, number, act):
        super().__init__()
        self.number, self.act = number, act

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.number:
            self.act()


@pytest.fixture
def file_limit():
    """A function that limits the size of files, as a full disk does; the limit goes afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(
    sample, tiny, tmp_path, file_limit
):
    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    full = AtEpochEnd(1, lambda: file_limit(4000))
    with pytest.raises(OSError, match="File too large"):
        fit(sample, TINY, run_dir=run, callbacks=[full], verbose=0)
    file_limit(before)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [f"epoch-00000{epoch}-step-000000000.npz" for epoch in (0, 1)]
    resumed = fit(sample, TINY, run_dir=run, resume=True, verbose=0)
    for found, expected in zip(
        resumed.base_model.get_weights(), tiny.base_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_full_disk_after_the_training_leaves_nothing_half_written(sample, tmp_path, file_limit):
    config = dataclasses.replace(TINY, epochs=1)
    fit(sample, config, run_dir=tmp_path, verbose=0)
    for name in ("base.keras", "outer.keras", "model.json"):
        (tmp_path / name).unlink()
    file_limit(4000)
    with pytest.raises(OSError, match="File too large"):
        fit(sample, config, run_dir=tmp_path, resume=True, verbose=0)
    assert not {"base.keras", "model.json"} & {path.name for path in tmp_path.iterdir()}


def test_a_folder_that_vanishes_is_an_error_that_names_it(sample, tmp_path):
    run = tmp_path / "run"
    vanish = AtEpochEnd(1, lambda: shutil.rmtree(run))
    with pytest.raises(FileNotFoundError, match=str(run)):
        fit(sample, TINY, run_dir=run, callbacks=[vanish], verbose=0)


def test_a_signal_outside_of_the_fit_says_how_to_resume(tmp_path, capsys, monkeypatch):
    """SIGTERM in the evaluation: there is nothing to save, and the run can be resumed."""

    def terminated(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("siamese_keras.verifier.Verifier.evaluate", terminated)
    with pytest.raises(SystemExit) as ended:
        main([*OPTIONS, "--epochs", "1", "--run-dir", str(tmp_path / "run")])
    assert ended.value.code == 143
    expected = f"\nresume: python -m siamese_keras.train --resume {tmp_path / 'run'}\n"
    assert capsys.readouterr().err.endswith(expected)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
