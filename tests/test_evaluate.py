"""The program `evaluate`: what it prints and writes, and every error in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import SAMPLE, TINY

from siamese_keras import load_verifier
from siamese_keras.errors import ModelError
from siamese_keras.evaluate import main
from siamese_keras.evaluation import report
from siamese_keras.train_command import Command, data_of_run


@pytest.fixture
def run(tiny, tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "my run"))


def refused(capsys, *arguments):
    assert main(list(map(str, arguments))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_run_is_scored(run, sample, capsys):
    assert main([str(run), "--data-dir", str(SAMPLE)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    metrics = json.loads((run / "metrics.json").read_text())
    loaded = load_verifier(run)
    assert loaded.metrics == metrics
    report = loaded.evaluate(sample)
    for name, value in report.metrics["test"].items():
        assert metrics["test"][name] == pytest.approx(value), name
    assert out == f"{report}\nwritten: {run / 'metrics.json'}, {run / 'report.html'}\n"
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"history.png", "test-pairs.png", "worst-mistakes.png", "roc-and-det.png"} <= figures
    with np.load(run / "embeddings.npz") as embeddings:
        np.testing.assert_allclose(embeddings["test"], loaded.embed(sample.test.images), atol=1e-6)
    assert set(metrics["baselines"]) == {"raw_pixels"}


def test_other_data_than_those_of_the_training_are_refused(run, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for path in SAMPLE.iterdir():
        part = "train" if path.name.startswith("t10k") else "t10k"
        shutil.copy(path, other / f"{part}-{path.name.partition('-')[2]}")
    line = refused(capsys, run, "--data-dir", other)
    assert "The dataset must be the one that the model was trained on" in line
    assert not (run / "metrics.json").exists()
    with pytest.raises(ModelError):
        main([str(tmp_path), "--traceback"])


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(report, "report_figures", lambda *_: {})  # they take seconds to draw


@pytest.mark.usefixtures("without_figures")
def test_without_data_dir_the_data_are_those_that_the_run_was_trained_on(run, tmp_path, capsys):
    Command(TINY, data_dir=SAMPLE).save(run)
    assert main([str(run)]) == 0
    capsys.readouterr()
    Command(TINY, data_dir=tmp_path / "moved").save(run)
    assert f"{tmp_path / 'moved'}" in refused(capsys, run)
    assert main([str(run), "--data-dir", str(SAMPLE)]) == 0


def test_runs_of_several_seeds_have_one_command(tmp_path, monkeypatch):
    folders = tmp_path / "seeds" / "seed-0", tmp_path / "photos" / "run"
    for folder in folders:
        folder.mkdir(parents=True)
    Command(TINY, seeds=(0, 1), data_dir=SAMPLE, cache_dir=tmp_path).save(folders[0].parent)
    Command(TINY, data_dir=SAMPLE).save(folders[1].parent)
    assert [data_of_run(folder) for folder in folders] == [(SAMPLE, tmp_path), (None, None)]
    monkeypatch.chdir(folders[0])
    assert data_of_run(Path()) == (SAMPLE, tmp_path)


def test_a_run_of_own_files_that_has_no_command_needs_their_folder(run, capsys):
    assert "name it with --data-dir" in refused(capsys, run)


def test_what_is_not_a_run_is_refused(run, exported, tmp_path, capsys):
    for folder in (exported, exported.parent):
        line = refused(capsys, folder, "--data-dir", SAMPLE)
        assert line == f"error: `{folder}` is not the folder of a run."
    none = tmp_path / "none"
    assert f"`{none}` must be the folder of a run" in refused(capsys, none, "--data-dir", SAMPLE)
    (run / "model.json").unlink()
    line = refused(capsys, run, "--data-dir", SAMPLE)
    assert line == (
        f"error: `{run}` is not the folder of a complete run: it has no model.json. Its training "
        f"is incomplete: continue with `siamese-keras train --resume {run}`."
    )


@pytest.mark.usefixtures("without_figures")
def test_test_pairs_of_a_protocol_of_its_own(run, sample, tmp_path, capsys):
    """Some of them with an image that was trained on: that is told."""
    images = [*sample.test.images[:5], sample.train.images[0]]
    labels = [*sample.test.labels[:5].tolist(), int(sample.train.labels[0])]
    lines = ["left,right,same"]
    for i, image in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
        lines += [f"{i}.png,{j}.png,{int(labels[i] == labels[j])}" for j in range(i)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    arguments = [str(run), "--data-dir", str(SAMPLE), "--pairs", str(tmp_path / "pairs.csv")]
    assert main(arguments) == 0
    found = json.loads((run / "metrics.json").read_text())["given_pairs"]
    assert (found["num_pairs"], found["trained_images"]) == (15, 1)
    left, right = np.tril_indices(6, -1)
    verifier = load_verifier(run)
    correct = verifier.same(np.array(images)[left], np.array(images)[right]) == (
        np.array(labels)[left] == np.array(labels)[right]
    )
    assert found["accuracy"] == pytest.approx(correct.mean())
    out, _ = capsys.readouterr()
    assert "(15 pairs; 1 of their images are also in training data)" in out
    (tmp_path / "pairs.csv").write_text("left,right,same\n0.png,9.png,1\n")
    assert "must have same and different pairs" in refused(capsys, *arguments)
