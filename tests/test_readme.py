"""README and docs are executable: Python runs, commands parse, links and tables are right."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny import TINY

import siamese_keras
from siamese_keras.training import trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PICTURE_OR_LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(sample, tiny, tiny_run, tmp_path, monkeypatch):
    """A folder with what the pages name: example images, a run, and Fashion-MNIST to train on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(siamese_keras, "load_dataset", lambda name: sample, raising=False)
    monkeypatch.setattr(trainer, "as_config", lambda name: {"fast": TINY}[name])
    (tmp_path / "examples").mkdir()
    for name, image in zip(("left.png", "right.png"), sample.test.images, strict=False):
        (tmp_path / "examples" / name).write_bytes(tf.io.encode_png(image).numpy())
    shutil.copytree(tiny_run, tmp_path / "runs" / "example")
    return tmp_path


def run_python(page, server):
    """Execute the Python blocks of a page in their order, and return the names they define."""
    names = {}
    for block in blocks(page, "python"):
        block = re.sub(r"http://localhost:8501[\w/]*", server.url, block)
        exec(block.replace("localhost:8500", server.grpc_address), names)
    return names


def test_python_of_readme_runs(sample, server, clone, capsys):
    """From the dataset to the answers of an exported model."""
    shutil.rmtree(clone / "runs")
    (example,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in example.splitlines() if line]) <= 10
    names = run_python(ROOT / "README.md", server)
    verifier, left, right = names["verifier"], names["left"], names["right"]
    assert str(verifier.evaluate(sample)) in capsys.readouterr().out
    np.testing.assert_allclose(
        names["exported"].distance(left, right), verifier.distance(left, right), atol=1e-5
    )


@pytest.mark.parametrize(
    "page", [page for page in PAGES[1:] if blocks(page, "python")], ids=name_of
)
def test_python_of_docs_runs_in_order(page, server, clone, tiny, capsys):
    names = run_python(page, server)
    if page.stem == "training":
        assert names["outer"].count_params() == tiny.outer_model.count_params()
    if page.stem == "losses":
        assert len(names["model"].history.history["loss"]) == 1
    if page.stem == "troubleshooting":
        printed = capsys.readouterr().out
        for said in re.findall(r"\)  # (.*)$", page.read_text(), re.MULTILINE):
            assert said in printed


def commands():
    """Yield each `python -m siamese_keras...` of the pages, but what tests/serving runs."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", "").splitlines():
                words = shlex.split(line, comments=True)
                if words[1:2] == ["-m"] and words[2].startswith("siamese_keras"):
                    yield pytest.param(words[2], words[3:], id=f"{name_of(page)}: {line}")


@pytest.mark.parametrize(("module", "arguments"), list(commands()))
def test_commands_name_programs_and_options_that_exist(module, arguments, monkeypatch, capsys):
    program = __import__(module, fromlist=["main"])
    monkeypatch.setattr(program, "run_program", lambda *_, **__: 0)  # parse, and stop there
    assert program.main(arguments) == 0, capsys.readouterr().err


def test_programs_that_the_text_names_exist():
    for page in PAGES:
        for module in re.findall(r"python -m (siamese_keras[\w.]*)", page.read_text()):
            assert importlib.util.find_spec(module), f"{name_of(page)}: {module}"


def test_the_answer_about_the_example_images_is_that_of_the_shipped_model(monkeypatch, capsys):
    from siamese_keras import predict

    monkeypatch.chdir(ROOT)
    (answer,) = re.findall(r"The shipped model answers:\n\n```text\n(.*?)```", README, re.DOTALL)
    arguments = ["examples/left.png", "examples/right.png", "--model", "saved_models/fashion_mnist"]
    assert predict.main(arguments) == 0
    assert capsys.readouterr().out == answer


def heading_ids(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_to_files_and_headings(page):
    for target in PICTURE_OR_LINK.findall(page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert not heading or heading in heading_ids(file), target


def test_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_every_page_is_in_the_navigation_and_every_public_name_in_the_reference():
    navigation = (ROOT / "mkdocs.yml").read_text()
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    for page in PAGES[1:]:
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation
    for name, home in siamese_keras._HOMES.items():
        assert f"::: siamese_keras.{home}.{name}\n" in reference


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
    marks = {
        name
        for page in results.PAGES
        for name in re.findall(r"<!-- end of ([\w ]+) -->", page.read_text())
    }
    assert marks == {"report", "summary", "results", "published", "unseen classes", "many classes"}
    for page in results.PAGES:
        text = page.read_text()
        assert results.updated(text) == text, "run `python benchmarks/results.py`"
