"""The command `siamese-keras`, and what holds for the command lines of all programs."""

import json
import re
import subprocess
import sys

import pytest

from siamese_keras.__main__ import PROGRAMS, main

# All in one process, for its sake: which modules are loaded in the end.
HELP = """
import contextlib, importlib, io, json, sys
from siamese_keras.__main__ import PROGRAMS, main

calls = {"siamese-keras": main}
for name in PROGRAMS:
    calls[f"siamese-keras {name}"] = lambda arguments, name=name: main([name, *arguments])
    program = importlib.import_module(f"siamese_keras.{name}")
    calls[f"python -m siamese_keras.{name}"] = program.main
texts = {}
for name, call in calls.items():
    for option in ("--help", "--version"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                call([option])
            except SystemExit as end:
                assert end.code == 0, (name, option)
        texts[f"{name} {option}"] = out.getvalue()
loaded = {"tensorflow", "keras", "numpy"} & set(sys.modules)
print(json.dumps([texts, sorted(loaded)]))
"""


@pytest.fixture(scope="module")
def helps():
    finished = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""
    return json.loads(finished.stdout)


def test_help_and_version_do_not_load_tensorflow(helps):
    texts, loaded = helps
    assert loaded == []
    version = texts["siamese-keras --version"]
    assert re.fullmatch(r"siamese-keras \d+\.\d+\.\d+\S*\n", version)
    assert {text for call, text in texts.items() if call.endswith("--version")} == {version}


def test_help_lists_the_commands_and_each_command_its_options(helps):
    texts, _ = helps
    for name, description in PROGRAMS.items():
        assert re.search(rf"^  {name} +{description}$", texts["siamese-keras --help"], re.M)
    options = {
        "train": ["--data-dir", "--run-dir", "--export-dir", "--seeds", "--preset", "--margin"],
        "evaluate": ["RUN", "--data-dir", "--baselines"],
        "export": ["RUN", "--name", "--output", "--threshold", "--far", "--prior"],
        "predict": [
            "LEFT RIGHT",
            "--gallery",
            "--index",
            "--pairs",
            "--all-pairs",
            "--output",
            "--model",
            "--url",
            "--invert",
            "--json",
            "--threshold",
            "--far",
            "--prior",
        ],
        "demo": ["MODEL", "--gallery", "--index", "--invert", "--host", "--port", "--no-browser"],
        "index": ["FOLDER", "--output", "--model", "--url", "--invert"],
        "embed": ["FOLDER", "--output", "--model", "--url", "--invert"],
        "report": ["RUN", "--output"],
        "diagrams": ["--output", "--image-shape", "--preset", "--filters"],
    }
    assert set(options) == set(PROGRAMS)
    for name, expected in options.items():
        for call in (f"siamese-keras {name}", f"python -m siamese_keras.{name}"):
            text = texts[f"{call} --help"]
            assert text.startswith(f"usage: {call} ")
            for option in [*expected, "--traceback", "--version"]:
                assert option in text, (call, option)


def stopped(capsys, *arguments):
    """Return the status and the last line of the error."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert out == ""
    return end.value.code, err.splitlines()[-1]


def test_an_unknown_command_ends_with_status_2_and_lists_those_that_there_are(capsys):
    status, line = stopped(capsys, "fit", "--epochs", "3")
    assert status == 2
    assert "siamese-keras: error: argument COMMAND: invalid choice: 'fit'" in line
    assert all(name in line for name in PROGRAMS)
    status, line = stopped(capsys)
    assert status == 2
    assert "arguments are required: COMMAND" in line
    assert stopped(capsys, "--nonsense")[0] == 2


def test_options_and_status_are_those_of_the_command(capsys, tmp_path):
    status, line = stopped(capsys, "predict", "a.png")
    assert status == 2
    assert line.startswith("siamese-keras predict: error: expected LEFT and RIGHT, QUERY and ")
    assert main(["evaluate", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


ADDRESS = "gs://bucket/models/cats"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["--data-dir", ADDRESS]),
        ("train", ["--run-dir", ADDRESS]),
        ("train", ["--export-dir", ADDRESS]),
        ("train", ["--config", ADDRESS]),
        ("evaluate", [ADDRESS]),
        ("evaluate", ["run", "--data-dir", ADDRESS]),
        ("export", [ADDRESS]),
        ("export", ["run", "--output", ADDRESS]),
        ("predict", [ADDRESS, "right.png"]),
        ("predict", ["left.png", "--gallery", ADDRESS]),
        ("predict", ["left.png", "right.png", "--model", ADDRESS]),
        ("predict", ["left.png", "--index", ADDRESS]),
        ("predict", ["--pairs", ADDRESS, "--output", "out.csv"]),
        ("predict", ["--pairs", "pairs.csv", "--output", ADDRESS]),
        ("predict", ["--all-pairs", ADDRESS]),
        ("demo", [ADDRESS]),
        ("demo", ["--gallery", ADDRESS]),
        ("demo", ["--index", ADDRESS]),
        ("index", [ADDRESS, "--output", "gallery.npz"]),
        ("index", ["photos", "--output", ADDRESS]),
        ("embed", ["photos", "--output", ADDRESS]),
        ("diagrams", ["--output", ADDRESS]),
        ("diagrams", ["--config", ADDRESS]),
    ],
)
def test_an_address_is_not_taken_for_a_path(command, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, line = stopped(capsys, command, *arguments)
    assert status == 2
    assert line.endswith(f": expected a path on this machine, not '{ADDRESS}'")
    assert list(tmp_path.iterdir()) == []
