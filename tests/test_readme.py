"""README is executable: its Python runs, its commands parse, its pictures and figures are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from helpers.tiny import TINY

from siamese_keras import config
from siamese_keras.data import datasets as data

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    before_serving = README.partition("\n## Serving\n")[0]  # whose blocks test_serving runs
    return re.findall(rf"```{language}\n(.*?)```", before_serving, re.DOTALL)


def test_python_blocks_run_in_order(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load_dataset", lambda name: sample)
    monkeypatch.setattr(config, "PRESETS", {"fast": TINY})
    names = {}
    assert len(blocks("python")) >= 2
    for block in blocks("python"):
        exec(block, names)
    assert names["embeddings"].shape == (200, TINY.embedding_dim)
    assert ((names["similarity"] > 0) & (names["similarity"] < 1)).all()


def commands():
    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("siamese_keras"):
                yield words[2], words[3:]


@pytest.mark.parametrize(("module", "arguments"), list(commands()))
def test_commands_name_programs_and_options_that_exist(module, arguments, monkeypatch, capsys):
    program = __import__(module, fromlist=["main"])
    monkeypatch.setattr(program, "run_program", lambda program: 0)  # parse, and stop there
    assert program.main(arguments) == 0, capsys.readouterr().err


def test_pictures_and_files_that_it_names_are_there():
    for target in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / target).is_file(), target


@pytest.fixture(scope="module")
def results():
    path = ROOT / "benchmarks" / "results.py"
    spec = importlib.util.spec_from_file_location("results", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_accuracy_is_reached_on_the_line_between_two_points(results):
    curve = [[1.0, 0.7], [2.0, 0.8], [4.0, 0.75], [5.0, 0.95]]
    assert results.seconds_to(0.6, curve) == 1.0  # not before the first point
    assert results.seconds_to(0.75, curve) == pytest.approx(1.5)
    assert results.seconds_to(0.85, curve) == pytest.approx(4.5)
    assert results.seconds_to(0.96, curve) is None


def test_results_are_those_of_the_committed_files(results):
    assert results.updated(README) == README, "run `python benchmarks/results.py`"
