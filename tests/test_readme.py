"""README is executable: its Python runs, its commands parse, its pictures and tables are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import TINY

import siamese_keras
from siamese_keras.training import trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    before_serving = README.partition("\n## Serving\n")[0]  # whose blocks test_serving runs
    return re.findall(rf"```{language}\n(.*?)```", before_serving, re.DOTALL)


def test_python_blocks_run_in_order(sample, server, tmp_path, monkeypatch, capsys):
    """From the dataset to the answers of an exported model and of a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(siamese_keras, "load_dataset", lambda name: sample, raising=False)
    monkeypatch.setattr(trainer, "as_config", lambda name: {"fast": TINY}[name])
    for name, image in zip(("left.png", "right.png"), sample.test.images, strict=False):
        (tmp_path / name).write_bytes(tf.io.encode_png(image).numpy())
    names = {}
    example, *others = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 10
    for block in (example, *others):
        exec(re.sub(r"http://localhost:8501[\w/]*", server.url, block), names)
    verifier, left, right = names["verifier"], names["left"], names["right"]
    assert str(verifier.evaluate(sample)) in capsys.readouterr().out
    np.testing.assert_allclose(
        names["exported"].distance(left, right), verifier.distance(left, right), atol=1e-5
    )
    assert names["outer"].count_params() == verifier.outer_model.count_params()


def test_the_example_of_the_losses_runs():
    text = (ROOT / "docs" / "losses.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, names := {})
    assert len(names["model"].history.history["loss"]) == 1


def commands():
    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("siamese_keras"):
                yield words[2], words[3:]


@pytest.mark.parametrize(("module", "arguments"), list(commands()))
def test_commands_name_programs_and_options_that_exist(module, arguments, monkeypatch, capsys):
    program = __import__(module, fromlist=["main"])
    monkeypatch.setattr(program, "run_program", lambda *_, **__: 0)  # parse, and stop there
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
