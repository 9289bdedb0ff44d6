"""The folder of a run: what it holds, and what is said about one that is damaged."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from siamese_keras import __version__, load_verifier
from siamese_keras.errors import ArgumentError, DataError, ModelError, SiameseKerasError
from siamese_keras.runs import load_run, save_models

FILES = {
    "config.json", "model.json", "base.keras", "outer.keras", "history.csv", "false_accepts.csv",
}  # fmt: skip


@pytest.fixture
def run(tiny, tiny_run, tmp_path):
    """A copy of the run, without what a report may have added to it."""
    for name in FILES:
        shutil.copy(tiny_run / name, tmp_path / name)
    return tmp_path


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_run_holds(tiny, run, sample):
    content = json.loads((run / "model.json").read_text())
    assert content == {
        "siamese_keras": __version__,
        "name": "fashion-mnist-sample",
        "class_names": list(tiny.class_names),
        "training": tiny.training,
        "threshold": tiny.calibration.threshold,
        "slope": tiny.calibration.slope,
        "midpoint": tiny.calibration.threshold,
        "false_accepts": tiny.false_accepts.summary(),
    }
    assert content["training"]["data"] == sample.fingerprint
    assert content["training"]["images"] == {"train": 500, "validation": 100, "test": 200}
    assert json.loads((run / "config.json").read_text())["filters"] == [4, 8]


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_run_is_loaded_as_it_was_saved(tiny, run, sample, as_type):
    loaded = load_verifier(as_type(run))
    names = ("config", "calibration", "class_names", "name", "training", "history", "false_accepts")
    for name in names:
        assert getattr(loaded, name) == getattr(tiny, name), name
    assert loaded.metrics is None
    assert loaded.invert is False
    images = sample.test.images
    np.testing.assert_allclose(loaded.embed(images), tiny.embed(images), atol=1e-6)
    base = keras.models.load_model(run / "base.keras")
    np.testing.assert_allclose(base.predict(images, verbose=0), tiny.embed(images), atol=1e-6)
    pair = {"left": images[:9], "right": images[9:18]}
    np.testing.assert_allclose(
        loaded.outer_model.predict(pair, verbose=0), tiny.distance(*pair.values()), atol=1e-6
    )


@pytest.mark.parametrize("as_type", [str, Path])
def test_saving_makes_the_folder_and_replaces_the_files_of_another_run(tiny, tmp_path, as_type):
    folder = tmp_path / "new" / "run"
    tiny.save(as_type(folder))
    assert listing(folder) == FILES
    (folder / "model.json").write_text("of another run")
    (folder / "notes.txt").write_text("mine")
    tiny.save(as_type(folder))
    assert load_verifier(folder).calibration == tiny.calibration
    assert listing(folder) == {*FILES, "notes.txt"}


def test_the_metrics_of_a_scored_run_are_loaded(run):
    (run / "metrics.json").write_text('{"test": {"accuracy": 0.9}}')
    assert load_verifier(run).metrics == {"test": {"accuracy": 0.9}}


def test_a_run_without_its_history_is_loaded(run):
    (run / "history.csv").unlink()
    assert load_verifier(run).history == {}


@pytest.mark.parametrize("name", ["config.json", "model.json", "outer.keras"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(ModelError) as refused:
        load_run(run)
    assert str(refused.value) == (f"`{run}` is not the folder of a complete run: it has no {name}.")


@pytest.mark.parametrize("name", ["model.json", "config.json"])
def test_an_incomplete_run_is_not_taken_for_an_exported_model(run, name):
    (run / name).unlink()
    with pytest.raises(ModelError, match=f"is not the folder of a complete run: it has no {name}"):
        load_verifier(run)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("config.json", ArgumentError, "must hold the settings of a run"),
        ("model.json", ModelError, "is damaged"),
        ("outer.keras", ModelError, "cannot be loaded"),
        ("metrics.json", ModelError, "is damaged"),
        ("history.csv", DataError, "must hold columns of numbers"),
        ("false_accepts.csv", DataError, ""),
    ],
)
@pytest.mark.parametrize("content", [b"", b"damaged\nfile", b"\xff\xfe\x00"], ids=repr)
def test_a_damaged_file_is_named_in_one_line(run, name, error, message, content):
    (run / name).write_bytes(content)
    with pytest.raises(error) as refused:
        load_verifier(run)
    assert f"`{run / name}` {message}" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, SiameseKerasError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": "0.5"}, "`threshold` must be a finite number. Received: '0.5'"),
        ({"threshold": None}, "`threshold` must be a finite number"),
        ({"threshold": True}, "`threshold` must be a finite number"),
        ({"slope": float("nan")}, "`slope` must be a finite number. Received: nan"),
        ({"slope": -1.0}, "`slope` must be positive"),
        ({"class_names": None}, "NoneType"),
        ({"training": [1, 2]}, "sequence"),
    ],
)
def test_facts_of_the_wrong_type_are_refused(run, changes, message):
    content = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises(ModelError) as refused:
        load_verifier(run)
    assert str(refused.value).startswith(f"`{run / 'model.json'}` is damaged: ")
    assert message in str(refused.value)


@pytest.mark.parametrize("key", ["threshold", "slope", "class_names", "name", "training"])
def test_a_missing_fact_is_named(run, key):
    content = json.loads((run / "model.json").read_text())
    del content[key]
    (run / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=f"is damaged: KeyError.*{key}"):
        load_verifier(run)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_facts_that_are_not_an_object_are_refused(run, text):
    (run / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json` is damaged"):
        load_verifier(run)


def test_another_model_is_not_an_outer_model(run):
    shutil.copy(run / "base.keras", run / "outer.keras")
    with pytest.raises(ModelError, match=r"outer\.keras` cannot be loaded. An outer model must"):
        load_verifier(run)


def test_models_without_a_calibration_are_not_yet_a_run(tiny, tmp_path):
    """As `fit` leaves them when there is no threshold to fit."""
    config = dataclasses.replace(tiny.config, seed=3)
    save_models(tmp_path, config, tiny.outer_model)
    assert listing(tmp_path) == {"config.json", "base.keras", "outer.keras"}
    assert keras.models.load_model(tmp_path / "outer.keras").count_params() > 0
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        load_verifier(tmp_path)


def test_a_failed_save_keeps_the_good_file(tiny, run, monkeypatch):
    before = (run / "outer.keras").read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="No space"):
        tiny.save(run)
    assert (run / "outer.keras").read_bytes() == before
    assert listing(run) == FILES


def test_a_run_that_is_replaced_leaves_nothing_of_its_report(tiny, run):
    for name in ("metrics.json", "classes.csv", "embeddings.npz", "report.html"):
        (run / name).write_text("{}")
    (run / "figures").mkdir()
    tiny.save(run)
    assert listing(run) == FILES
    assert load_verifier(run).metrics is None


def test_an_interrupted_save_leaves_no_mixture_of_two_runs(tiny, run, monkeypatch):
    replaced = Path.replace

    def interrupted(self, target):
        if Path(target) == run / "outer.keras":
            raise KeyboardInterrupt
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.save(run)
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        load_verifier(run)
