"""The notebooks run from top to bottom, and are committed with the outputs of such a run."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.$])/(?:tmp|root|home|work|usr|opt|var|mnt|Users)/|[A-Z]:\\")


@pytest.fixture(scope="module")
def run_notebooks():
    path = ROOT / "tools" / "run_notebooks.py"
    spec = importlib.util.spec_from_file_location("run_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def check_run_in_order_without_noise(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert [o.text for o in outputs(notebook) if o.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, run_notebooks):
    """Every cell of a copy with the small setting; a cell that raises fails the test."""
    check_run_in_order_without_noise(run_notebooks.execute(path, SIAMESE_KERAS_QUICK="1"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_with_the_outputs_of_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    check_run_in_order_without_noise(notebook)
    found = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in found) >= 5
    assert {output.output_type for output in found} == {"stream", "execute_result", "display_data"}
    text = "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in found)
    assert MACHINE_PATH.search(text) is None
    assert "\r" not in text and "\b" not in text  # progress bars as a terminal leaves them
    assert path.stat().st_size < 1_500_000


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["own_images", "siamese_fashion_mnist"]


def test_a_cell_that_raises_ends_the_command_and_leaves_the_notebook(
    run_notebooks, tmp_path, capsys
):
    path = tmp_path / "broken.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0", id="a")]), path
    )
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().err
