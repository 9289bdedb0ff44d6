"""The program `train`: what it prints and writes, and every error in one line."""

import concurrent.futures
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import SAMPLE, TINY

from siamese_keras import evaluate, export, load_verifier, predict, train
from siamese_keras.errors import ArgumentError, DataError, TrainingError
from siamese_keras.evaluation import report, report_page
from siamese_keras.files import locked_run, write_json
from siamese_keras.train import main
from siamese_keras.train_command import Command
from siamese_keras.training import trainer

DATA = ["--dataset", "idx", "--data-dir", str(SAMPLE), "--validation-size", "100"]
OPTIONS = [*DATA, "--batch-size", "50", "--filters", "4,8", "--embedding-dim", "8"]
OPTIONS += ["--min-steps", "0"]


def start(folder, *arguments):
    """Start the program as a user does, in a process of its own."""
    # This process has set the first; the last is what some people have, and is not installed.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["KERAS_BACKEND"] = "jax"
    # In the background Ctrl-C is ignored, which programs inherit. A `preexec_fn` that changed it
    # would run beside the threads of gRPC, which end a forked process now and then.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "siamese_keras.train", *OPTIONS, *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Trainings at once, since each takes seconds to start: a whole one, and others to end."""
    if os.name != "posix":
        pytest.skip("signals")
    folder = tmp_path_factory.mktemp("processes")
    exported = ("--export-dir", folder / "models")
    started = [
        start(folder, "--epochs", 1, "--run-dir", folder / "whole", *exported),
        start(folder, "--epochs", 2000, "--run-dir", folder / "interrupted"),
        start(folder, "--epochs", 2000, "--run-dir", folder / "terminated"),
    ]
    watchdogs = [threading.Timer(240, process.kill) for process in started]
    for watchdog in watchdogs:
        watchdog.start()
    whole, interrupted, terminated = started
    with concurrent.futures.ThreadPoolExecutor() as pool:  # so that none trains on until its test
        yield SimpleNamespace(
            folder=folder,
            whole=pool.submit(ended, whole),
            interrupted=pool.submit(send_in_epoch, interrupted, 3, signal.SIGINT),
            terminated=pool.submit(send_in_epoch, terminated, 3, signal.SIGTERM),
        )
        for process, watchdog in zip(started, watchdogs, strict=True):
            watchdog.cancel()
            process.kill()
            process.wait()


def ended(process):
    """Return the exit status of a process, and the rest of what it prints."""
    out, err = process.communicate()
    return process.returncode, out, err


def send_in_epoch(process, epoch, number):
    for line in process.stdout:
        if line.startswith(f"epoch {epoch - 1}/"):
            process.send_signal(number)
            break
    return ended(process)


def test_ctrl_c_on_the_command_line_ends_with_a_run_and_status_130(processes):
    status, out, err = processes.interrupted.result()
    assert status == 130, err
    assert err == ""
    run = processes.folder / "interrupted"
    assert f"of 2000; the model is kept in {run}\n" in out
    training = load_verifier(run).training
    assert training["interrupted"]
    assert f"interrupted in epoch {training['epochs']} of 2000" in out
    assert out.endswith(f"resume:   python -m siamese_keras.train --resume {run}\n")


def test_sigterm_on_the_command_line_saves_and_says_how_to_resume(processes):
    status, _, err = processes.terminated.result()
    assert status == 143
    run = processes.folder / "terminated"
    assert err == f"\nresume: python -m siamese_keras.train --resume {run}\n"
    *_, newest = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert newest >= "epoch-000002"
    assert not (run / "outer.keras").exists()


def test_the_command_line_trains_scores_and_exports(processes, sample):
    status, out, err = processes.whole.result()
    assert status == 0, err
    assert err == ""  # no start-up noise
    run = processes.folder / "whole"
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['accuracy']:.4f}" in out
    assert f"training on fashion-mnist-sample into {run}\n" in out
    assert f"run:      {run}\n" in out
    version = processes.folder / "models" / "fashion-mnist-sample" / "1"
    assert out.endswith(f"exported: {version}\n")
    assert (version / "saved_model.pb").is_file()
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"history.png", "test-pairs.png", "worst-mistakes.png", "roc-and-det.png"} <= figures
    assert (run / "embeddings.npz").is_file()
    assert f"{metrics['test']['accuracy']:.4f}" in (run / "report.html").read_text()
    repeated = load_verifier(run).evaluate(sample).metrics
    assert repeated["test"]["roc_auc"] == pytest.approx(metrics["test"]["roc_auc"], abs=1e-6)


class FakeVerifier:
    """What the program asks of a verifier, without a model."""

    name = "sample"

    def __init__(self, config, run_dir, *, interrupted):
        self.training = {"interrupted": interrupted, "epochs": 2, "fit_seconds": 3.2}
        accuracy = 0.9 + config.seed / 100
        self.metrics = {"test": {"accuracy": accuracy, "roc_auc": 0.95, "eer": 0.1, "ece": 0.01}}
        Path(run_dir).mkdir(parents=True, exist_ok=True)

    def __str__(self):
        return f"accuracy {self.metrics['test']['accuracy']}"

    def evaluate(self, dataset, *, baselines, progress):
        self.metrics["baselines"] = {"all": int(baselines)}
        return self

    def save(self, folder):
        write_json(folder / "metrics.json", self.metrics)

    def export(self, folder):
        return folder / "1"


@pytest.fixture
def fits(monkeypatch, tmp_path):
    """Calls of `fit`, which trains nothing; the program runs in an empty folder."""
    fits = SimpleNamespace(calls=[], interrupted=False, error=None)

    def fit(dataset, config, *, run_dir, **options):
        fits.calls.append(
            SimpleNamespace(dataset=dataset, config=config, run_dir=run_dir, **options)
        )
        if fits.error is not None:
            raise fits.error
        return FakeVerifier(config, run_dir, interrupted=fits.interrupted)

    monkeypatch.setattr(trainer, "fit", fit)
    monkeypatch.setattr(report_page, "write_run_page", lambda folder: folder / "report.html")
    monkeypatch.setattr(report_page, "write_comparison_page", lambda folders, path: path)
    monkeypatch.chdir(tmp_path)
    return fits


def run(*arguments):
    return main([*OPTIONS, *map(str, arguments)])


@pytest.mark.usefixtures("capsys")
def test_options_are_the_settings_of_the_training(fits, sample):
    assert run("--epochs", 3, "--run-dir", "run", "--tensorboard") == 0
    (call,) = fits.calls
    assert call.config == TINY
    assert call.dataset.fingerprint == sample.fingerprint
    assert call.run_dir == Path("run")
    assert call.tensorboard is True
    assert call.verbose == 0  # the lines of epochs are our own
    assert [type(callback).__name__ for callback in call.callbacks] == ["EpochLines"]


def test_quiet_prints_the_result_alone(fits, capsys):
    assert run("--run-dir", "run", "--quiet") == 0
    (call,) = fits.calls
    assert call.callbacks == []
    out = capsys.readouterr().out
    assert "training on" not in out
    assert "accuracy 0.9\n" in out


def test_a_run_is_repeated_from_its_settings(fits, tmp_path):
    dataclasses.replace(TINY, seed=3).save(tmp_path / "config.json")
    data = ("--config", str(tmp_path / "config.json"), "--data-dir", str(SAMPLE))
    assert main([*data]) == 0
    assert main([*data, "--epochs", "1"]) == 0
    assert [call.config for call in fits.calls] == [
        dataclasses.replace(TINY, seed=3),
        dataclasses.replace(TINY, seed=3, epochs=1),
    ]
    name = f"{tmp_path.name}-[0-9]{{8}}-[0-9]{{6}}(-2)?"
    assert all(re.fullmatch(name, call.run_dir.name) for call in fits.calls)


def test_all_baselines_are_scored_when_asked_for(fits, tmp_path):
    for options in ((), ("--baselines",)):
        assert run("--run-dir", tmp_path / f"run{len(options)}", *options) == 0
    scored = [json.loads((tmp_path / f"run{i}" / "metrics.json").read_text()) for i in (0, 1)]
    assert [metrics["baselines"]["all"] for metrics in scored] == [0, 1]


def test_runs_that_start_within_a_second_get_a_folder_each(fits, tmp_path):
    for preset in ("fast", "fast", "fast", "best"):
        assert run("--preset", preset) == 0
    folders = [call.run_dir for call in fits.calls]
    assert len(set(folders)) == 4
    assert {path.resolve() for path in folders} == set((tmp_path / "runs").iterdir())
    for folder, preset in zip(folders, ("fast", "fast", "fast", "best"), strict=True):
        assert re.fullmatch(rf"{preset}-\d{{8}}-\d{{6}}(-\d)?", folder.name)


def test_the_next_command_can_be_copied_into_a_shell(fits, capsys):
    assert run("--run-dir", "my runs/a b", "--name", "cats & dogs") == 0
    out = capsys.readouterr().out
    assert "accuracy 0.9\n" in out
    assert "fit in 3 s" in out
    assert "run:      my runs/a b\n" in out
    last = out.splitlines()[-1]
    assert last.startswith("next:     ")
    assert shlex.split(last)[1:] == [
        "python", "-m", "siamese_keras.export", "my runs/a b", "--name", "cats & dogs",
    ]  # fmt: skip


def test_after_an_interrupt_the_command_that_scores_can_be_copied(fits, capsys, tmp_path):
    fits.interrupted = True
    (tmp_path / "my data").symlink_to(SAMPLE)
    assert run("--run-dir", "a b", "--data-dir", "my data", "--epochs", 3) == 130
    *_, said, command, resume = capsys.readouterr().out.splitlines()
    assert said == "interrupted in epoch 2 of 3; the model is kept in a b"
    assert resume == "resume:   python -m siamese_keras.train --resume 'a b'"
    assert command.startswith("score it: ")
    assert shlex.split(command)[2:] == [
        "python", "-m", "siamese_keras.evaluate", "a b", "--data-dir", "my data",
    ]  # fmt: skip
    assert not (tmp_path / "a b" / "metrics.json").exists()


@pytest.mark.parametrize(("options", "name"), [([], "sample"), (["--name", "cats"], "cats")])
def test_a_model_is_exported_under_the_name_of_its_dataset_or_another(fits, capsys, options, name):
    assert run("--export-dir", "models", *options) == 0
    assert capsys.readouterr().out.endswith(f"exported: {Path('models') / name / '1'}\n")


def test_several_seeds_are_trained_and_summarized(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "report_figures", lambda *_: {})  # which take half of the time
    assert run("--epochs", 1, "--seeds", "3, 5", "--run-dir", tmp_path / "seeds") == 0
    folders = [tmp_path / "seeds" / f"seed-{seed}" for seed in (3, 5)]
    assert [load_verifier(folder).config for folder in folders] == [
        dataclasses.replace(TINY, epochs=1, seed=seed) for seed in (3, 5)
    ]
    summary = json.loads((tmp_path / "seeds" / "summary.json").read_text())
    assert summary["seeds"] == [3, 5]
    reports = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    out = capsys.readouterr().out
    assert "mean and standard deviation over the seeds 3, 5\n" in out
    for key in ("accuracy", "roc_auc", "eer", "ece"):
        values = [metrics["test"][key] for metrics in reports]
        mean, std = np.mean(values), np.std(values, ddof=1)
        assert summary["test"][key] == {"mean": pytest.approx(mean), "std": pytest.approx(std)}
        assert re.search(rf"^test {key} +{mean:.4f} \+- {std:.4f}$", out, re.M)
    assert re.search(r"^retrieval recall_at_1 +0\.\d{4} \+- 0\.\d{4}$", out, re.M)
    assert "unseen" not in out
    page = tmp_path / "seeds" / "report.html"
    assert out.endswith(f"written: {tmp_path / 'seeds' / 'summary.json'}, {page}\n")
    assert all(folder.name in page.read_text() for folder in folders)


def test_an_interrupt_ends_the_training_of_all_seeds(fits, tmp_path):
    fits.interrupted = True
    assert run("--seeds", "3,5", "--run-dir", tmp_path / "seeds") == 130
    assert len(fits.calls) == 1
    assert not (tmp_path / "seeds" / "summary.json").exists()


def refused(capfd, *arguments):
    """Return the status and the error, which is one line apart from the usage."""
    try:
        status = main(list(map(str, arguments)))
    except SystemExit as stopped:
        status = stopped.code
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    *usage, line = err.splitlines()
    assert all(other.startswith("usage: ") for other in usage)
    assert status in (1, 2)
    assert line.startswith("error: " if status == 1 else "python -m siamese_keras.train: error: ")
    assert "metrics" not in out
    return status, line


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--margin", "-1"], 2, "`margin` must be greater than 0. Received: margin=-1.0"),
        (["--seeds", "0,9999999999"], 2, "`seed` must be at most 2147483647"),
        (["--seeds", "1"], 2, "argument --seeds: expected two or more different seeds, not '1'"),
        (["--seeds", "0,x"], 2, "--seeds: expected two or more different seeds, not '0,x'"),
        (["--seeds", "0,1,x"], 2, "--seeds: expected two or more different seeds, not '0,1,x'"),
        (["--seeds", "1,01"], 2, "--seeds: expected two or more different seeds, not '1,01'"),
        (["--seeds", "-1,1"], 2, "argument --seeds: expected"),
        (["--seeds", ""], 2, "argument --seeds: expected two or more different seeds, not ''"),
        (["--seeds", "0,1", "--seed", "3"], 2, "argument --seeds: not allowed with --seed"),
        (["--seeds", "0,1", "--export-dir", "m"], 2, "not allowed with --seed or --export-dir"),
        (["--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["--config", "none.json"], 2, "none.json: No such file or directory"),
        (["--data-dir", "missing", "--dataset", "idx"], 1, "`missing` does not exist"),
        (["--dataset", "idx"], 1, "needs the folder of its files: name it with --data-dir"),
        ([*OPTIONS, "--unseen-classes", "hat"], 1, "Received: 'hat'"),
        ([*OPTIONS, "--run-dir", "/dev/null/run"], 1, "Not a directory"),
    ],
)
def test_an_error_is_one_clear_line(capfd, monkeypatch, tmp_path, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    found, line = refused(capfd, *arguments)
    assert message in line
    assert found == status


def test_tensorboard_is_asked_for_where_it_is_missing(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, line = refused(capfd, *OPTIONS, "--tensorboard")
    assert status == 2
    assert line.endswith("argument --tensorboard: needs `pip install tensorboard`")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_before_the_data_are_read(capfd, tmp_path):
    (tmp_path / "precious").write_text("mine")
    options = ("--dataset", "idx", "--data-dir", "missing", "--run-dir", tmp_path)
    for seeds in ((), ("--seeds", "0,1")):
        status, line = refused(capfd, *options, *seeds)
        assert status == 1
        assert line == f"error: `run_dir` must be a new or empty folder. Received: `{tmp_path}`"
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("run_dir", [(), ("--run-dir", "runs/1"), ("--run-dir", ".")])
def test_a_run_is_not_made_a_class_of_the_images(capfd, monkeypatch, tmp_path, run_dir):
    (tmp_path / "cat").mkdir()
    monkeypatch.chdir(tmp_path)
    status, line = refused(capfd, "--dataset", "folder", "--data-dir", ".", *run_dir)
    assert status == 1
    assert line.startswith("error: `run_dir` must not be inside the folder of images, ")
    assert [path.name for path in tmp_path.iterdir()] == ["cat"]


def test_an_export_is_not_made_a_class_of_the_images(capfd, tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    options = ("--dataset", "folder", "--data-dir", tmp_path / "photos")
    status, line = refused(capfd, *options, "--export-dir", tmp_path / "photos")
    assert status == 1
    assert line.startswith("error: `export_dir` must not be inside the folder of images, ")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat"]


def test_a_training_that_fails_is_one_line_or_a_traceback(fits, capfd):
    fits.error = TrainingError("The distances are not finite: the training diverged.")
    status, line = refused(capfd, *OPTIONS)
    assert status == 1
    assert line == "error: The distances are not finite: the training diverged."
    with pytest.raises(TrainingError):
        run("--traceback")
    fits.error = TypeError("a bug")
    with pytest.raises(TypeError):
        run()
    with pytest.raises(DataError):
        main(["--dataset", "idx", "--traceback"])


def test_many_classes_of_few_photos_need_no_option_but_folder_and_size(
    tmp_path, rng, capsys, monkeypatch
):
    """Train, evaluate, export and predict on 120 patterns with 4 noisy images each."""
    monkeypatch.setattr(report, "report_figures", lambda *_: {})  # which take seconds to draw
    for label in range(120):
        pattern = rng.integers(0, 2, (8, 8, 1), np.uint8) * 200
        folder = tmp_path / "patterns" / f"pattern {label}"
        folder.mkdir(parents=True)
        for number in range(4 if label else 1):
            noisy = pattern + rng.integers(0, 56, (8, 8, 1), np.uint8)
            (folder / f"{number}.png").write_bytes(tf.io.encode_png(noisy).numpy())
    data = ["--dataset", "folder", "--data-dir", str(tmp_path / "patterns"), "--image-size", "8"]
    run = tmp_path / "run"
    assert train.main([*data, "--run-dir", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "20% of the classes are held out instead" in err
    assert "There are many classes" in err
    assert "24 unseen classes" in out
    assert "24-way" in out
    assert evaluate.main([str(run)]) == 0
    classes = (run / "classes.csv").read_text().splitlines()
    assert classes[0] == "class,label,images,sensitivity,specificity"
    assert len(classes) == 25
    model = tmp_path / "saved_models" / "patterns"
    assert export.main([str(run), "--output", str(model)]) == 0
    capsys.readouterr()
    pair = [str(tmp_path / "patterns" / "pattern 3" / f"{number}.png") for number in range(2)]
    assert predict.main([*pair, "--model", str(model)]) == 0
    assert "same" in capsys.readouterr().out


def test_a_folder_needs_no_options_and_the_run_records_what_was_chosen(
    tmp_path, sample, capsys, monkeypatch
):
    """Size and channels come from the images; a broken one is skipped, or refused."""
    monkeypatch.setattr(report, "report_figures", lambda *_: {})
    for label, name in enumerate(("boot", "bag")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(sample.train.images[sample.train.labels == label][:20]):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    (tmp_path / "photos" / "bag" / "broken.png").write_bytes(b"oh")
    options = ["--dataset", "folder", "--data-dir", str(tmp_path / "photos"), "--epochs", "1"]
    options += ["--min-steps", "0"]
    options += ["--filters", "4", "--embedding-dim", "4", "--run-dir", str(tmp_path / "run")]
    assert main([*options, "--strict"]) == 1
    assert "error: 1 of 41 images cannot be read. `" in capsys.readouterr().err
    assert main(options) == 0
    assert "Skipping 1 of 41 images: `" in capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["image_size"], config["color_mode"]) == (28, "grayscale")
    assert evaluate.main([str(tmp_path / "run"), "--data-dir", str(tmp_path / "photos")]) == 0


def saved_command(folder, **others):
    """Write what a training that was killed at once leaves behind, and return its folder."""
    command = Command(TINY, data_dir=SAMPLE, name="mine", baselines=True)
    run = folder / "run"
    run.mkdir()
    command.save(run)
    content = json.loads((run / "command.json").read_text())
    write_json(run / "command.json", {**content, **others})
    return run


@pytest.mark.usefixtures("capsys")
def test_a_resumed_training_has_the_options_that_it_was_started_with(fits, tmp_path):
    assert run("--epochs", 3, "--run-dir", "run", "--baselines", "--checkpoint-minutes", 2) == 0
    assert main(["--resume", "run"]) == 0
    first, resumed = fits.calls
    assert (first.resume, resumed.resume) == (False, True)
    assert resumed.config == first.config == TINY
    assert resumed.dataset.fingerprint == first.dataset.fingerprint
    assert resumed.checkpoint_minutes == 2.0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["baselines"] == {"all": 1}


def test_a_training_of_several_seeds_is_resumed(fits, tmp_path, capsys):
    fits.interrupted = True
    assert run("--seeds", "3,5", "--run-dir", tmp_path / "seeds") == 130
    (tmp_path / "seeds" / "seed-3" / "history.csv").write_text("")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"resume:   python -m siamese_keras.train --resume {tmp_path / 'seeds'}"
    fits.interrupted = False
    fits.error = ArgumentError("`epochs` can be changed only with a constant learning rate.")
    before = (tmp_path / "seeds" / "command.json").read_bytes()
    assert main(["--resume", str(tmp_path / "seeds"), "--epochs", "9"]) == 1
    assert (tmp_path / "seeds" / "command.json").read_bytes() == before  # what is refused, too
    fits.error = None
    fits.calls.pop()
    assert main(["--resume", str(tmp_path / "seeds")]) == 0
    assert [(call.config.seed, call.resume) for call in fits.calls] == [
        (3, False), (3, True), (5, False)
    ]  # fmt: skip
    assert (tmp_path / "seeds" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--margin", "2"], 1, "keeps its settings. Received: --margin 2.0, before 1.4"),
        (["--filters", "8", "--seed", "1"], 1, "--filters (8,), before (4, 8); --seed 1, before 0"),
        (["--preset", "best"], 2, "argument --preset: not allowed with --resume"),
        (["--seeds", "1,2"], 2, "argument --seeds: not allowed with --resume"),
        (["--run-dir", "other"], 2, "argument --run-dir: not allowed with --resume"),
        (["--checkpoint-minutes", "0"], 2, "expected a number greater than 0, not '0'"),
        (["--checkpoint-minutes", "inf"], 2, "expected a number greater than 0, not 'inf'"),
        (["--checkpoint-minutes", "x"], 2, "expected a number greater than 0, not 'x'"),
        (
            ["--devices", "0"],
            2,
            "argument --devices: expected a whole number of at least 1, not '0'",
        ),
    ],
)
def test_options_that_contradict_the_run_are_named(capfd, tmp_path, options, status, message):
    folder = saved_command(tmp_path)
    before = (folder / "command.json").read_bytes()
    found, line = refused(capfd, "--resume", folder, *options)
    assert message in line
    assert found == status
    assert (folder / "command.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        {"config": None},
        {"config": {"margin": "wide"}},
        {"config": {"__class__": 3}},
        {"data_dir": 3},
        {"seeds": [0.5]},
        {"seeds": 3},
        {"baselines": "yes"},
        {"shell": "rm -rf /"},
        {"checkpoint_minutes": None},
    ],
)
def test_a_crafted_command_is_one_line(capfd, tmp_path, content):
    _, line = refused(capfd, "--resume", saved_command(tmp_path, **content))
    assert "must" in line or "`command.json` is damaged" in line or "command.json` is dam" in line


@pytest.mark.parametrize("content", ["", "[]", "[" * 100000, '{"config": '])
def test_a_command_that_is_no_json_object_is_one_line(capfd, tmp_path, content):
    (saved_command(tmp_path) / "command.json").write_text(content)
    _, line = refused(capfd, "--resume", tmp_path / "run")
    assert "command.json` is damaged" in line


def test_a_refused_start_leaves_the_files_of_the_other_training(capfd, tmp_path):
    run = saved_command(tmp_path)
    with locked_run(run):
        # Another thread, as the lock is this one's.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(main, [*OPTIONS, "--run-dir", str(run)]).result() == 1
        assert capfd.readouterr().err == f"error: Another training run is writing to `{run}`.\n"
        assert (run / "command.json").is_file()


def test_a_finished_run_is_scored_without_the_other_workers(fits, tmp_path, monkeypatch):
    """The chief of a cluster failed after the training: the others have ended."""
    run_dir = saved_command(tmp_path, baselines=False)
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / f"epoch-{TINY.epochs:06d}-step-000000000.npz").write_text("")
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    for index, calls in ((1, 0), (0, 1)):
        task = {"type": "worker", "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert main(["--resume", str(run_dir)]) == 0
        assert len(fits.calls) == calls


def test_there_must_be_something_to_resume(capfd, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "missing"):
        status, line = refused(capfd, "--resume", folder)
        assert status == 1
        assert line == (f"error: There is no run to resume in `{folder}`: it has no checkpoints.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]
