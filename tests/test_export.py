"""The program `export`: where the next version goes, and every error in one line."""

import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from siamese_keras import load_verifier
from siamese_keras.export import main
from siamese_keras.serving import exporter
from siamese_keras.serving.client import read_model_json


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Write a graph that does nothing, and trust it, in an empty folder."""

    def signatures(outer, calibration):
        return {"nothing": (lambda x: {"x": x}, [tf.TensorSpec([], tf.float32, "x")])}

    monkeypatch.setattr(exporter, "build_signatures", signatures)
    monkeypatch.setattr(exporter, "verify", lambda *_: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tiny, tiny_run):
    return str(tiny_run)


def refused(capsys, *arguments):
    assert main(list(map(str, arguments))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_a_run_is_exported_to_the_folder_that_is_named(run, tmp_path, capsys):
    assert main([run, "--output", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == f"exported: {tmp_path / 'm' / '1'}\n"
    assert main(["--output", str(tmp_path / "m"), run]) == 0
    assert capsys.readouterr().out == f"exported: {tmp_path / 'm' / '2'}\n"
    assert (tmp_path / "m" / "2" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("options", "name"), [([], "fashion-mnist-sample"), (["--name", "clothes"], "clothes")]
)
def test_a_run_is_exported_under_the_name_of_its_data_or_another(run, capsys, options, name):
    assert main([run, *options]) == 0
    version = Path("saved_models") / name / "1"
    assert capsys.readouterr().out == f"exported: {version}\n"
    assert read_model_json(version)["name"] == name


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ([], "saved_models/clothes-litert"),
        (["--quantize", "int8"], "saved_models/clothes-litert"),
        (["--output", "phone"], "phone"),
    ],
)
def test_other_formats_go_to_folders_of_their_own(run, capsys, monkeypatch, options, folder):
    asked = []

    def write(signatures, path, form, quantize):
        asked.append((form, quantize))
        path.write_bytes(b"a model")

    monkeypatch.setattr(exporter, "_write_portable", write)
    name = [] if "--output" in options else ["--name", "clothes"]
    assert main([run, "--format", "litert", *name, *options]) == 0
    assert capsys.readouterr().out == f"exported: {Path(folder) / '1'}\n"
    assert asked == [("litert", "int8" if "--quantize" in options else None)]


def test_only_litert_is_quantized(run, capsys):
    for arguments in (["--format", "onnx"], []):
        with pytest.raises(SystemExit) as stopped:
            main([run, "--quantize", "int8", *arguments])
        assert stopped.value.code == 2
        assert "error: argument --quantize: needs --format litert" in capsys.readouterr().err


def test_another_project_cannot_become_the_next_version(run, tmp_path, capsys):
    assert main([run, "--name", "clothes"]) == 0
    path = Path("saved_models") / "clothes" / "1" / "assets.extra" / "model.json"
    path.write_text(path.read_text().replace('"0"', '"cat"'))
    capsys.readouterr()
    line = refused(capsys, run, "--name", "clothes")
    assert line.startswith("error: `saved_models/clothes/1` is a model of other images, ")
    assert "Its classes: cat, 1, 2, 3, 4, 5, 6, 7, .... Received: 0, 1, 2, 3, " in line
    assert line.endswith("Export under another name.")
    assert [path.name for path in Path("saved_models/clothes").iterdir()] == ["1"]


@pytest.mark.parametrize("name", ["../outside", "a/b", ".", "..", ""])
def test_a_name_is_that_of_one_folder(run, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        main([run, "--name", name])
    assert stopped.value.code == 2
    assert (
        f"argument --name: expected the name of a folder, not {name!r}" in capsys.readouterr().err
    )
    assert not Path("saved_models").exists()


def test_name_and_output_exclude_each_other(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([run, "--name", "clothes", "--output", "m"])
    assert stopped.value.code == 2
    assert "--output: not allowed with argument --name" in capsys.readouterr().err


def test_what_is_not_a_run_is_refused(run, tmp_path, exported, capsys):
    line = refused(capsys, tmp_path / "none", "--output", tmp_path / "m")
    assert line.startswith(f"error: `{tmp_path / 'none'}` must be the folder of a run")
    line = refused(capsys, exported, "--output", tmp_path / "m")
    assert line == "error: An exported model cannot be exported again: load its run instead."
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(Path(run) / "config.json", half)
    line = refused(capsys, half, "--output", tmp_path / "m")
    assert line == f"error: `{half}` is not the folder of a complete run: it has no model.json."
    assert not (tmp_path / "m").exists()


def test_a_failure_is_one_line_and_leaves_no_version(run, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(exporter, "verify", full)
    assert refused(capsys, run, "--output", tmp_path / "m") == "error: No space left on device"
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "0.25"], ""),
        (["--far", "0.01"], "different validation pairs."),
        (["--prior", "0.2"], "for a prior of 0.2."),
    ],
)
def test_the_threshold_is_exported(run, tiny, capsys, options, said):
    assert main([run, "--name", "strict", *options]) == 0
    assert said in capsys.readouterr().err
    name, value = options[0][2:], float(options[1])
    expected = tiny.with_threshold(**{name: value}).calibration
    version = Path("saved_models/strict/1")
    facts = read_model_json(version)
    assert [facts[key] for key in ("threshold", "slope", "midpoint")] == [
        expected.threshold,
        expected.slope,
        tiny.calibration.threshold,
    ]
    assert load_verifier(version).calibration == expected


def test_a_rate_that_too_few_pairs_support_is_refused(run, capsys):
    line = refused(capsys, run, "--far", "0.0001")
    assert line.startswith("error: `far` of 0.0001 needs at least 100,000 different validation")
    assert not Path("saved_models").exists()
