"""Execute the notebooks from top to bottom and store their outputs.

    python tools/run_notebooks.py [NOTEBOOK ...]

Rewrites `notebooks/*.ipynb`, or the notebooks that are named, with the outputs of a run at full
setting. A notebook whose cells raise stays as it was, and its traceback is shown.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

# A line of TensorFlow's C++ libraries about the machine, which they print while they are loaded.
_NATIVE_LINE = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")


def execute(path: Path, **environment: str) -> nbformat.NotebookNode:
    """Execute a notebook in an empty folder and return it with its outputs.

    Args:
        path: The notebook, which is not changed.
        environment: Environment variables for the kernel.

    Raises:
        CellExecutionError: When a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=None,
            record_timing=False,
            coalesce_streams=True,  # progress bars as a terminal shows them at the end
            resources={"metadata": {"path": folder}},
        )
        client.execute(env={**os.environ, **environment})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_native_log(output)]
    notebook.metadata.language_info = {"name": "python"}  # without its version
    return notebook


def _is_native_log(output: nbformat.NotebookNode) -> bool:
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return all(_NATIVE_LINE.match(line) for line in output.text.splitlines())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Execute notebooks and store their outputs.")
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all of notebooks/")
    for path in parser.parse_args(argv).notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        try:
            notebook = execute(path)
        except (OSError, nbformat.reader.NotJSONError, CellExecutionError) as error:
            print(f"error: `{path}`: {error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, path)
        print(f"written: {path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
