"""Build the wheel and the source distribution, and use each outside the checkout.

    python tools/check_package.py

The wheel is installed with the oldest Python that the package supports and the source distribution
with the newest one, each in a new virtual environment: there `siamese-keras` trains, scores,
exports and predicts. Pythons are found by name, such as `python3.13`, or where pyenv keeps them. A
Python that is not on the machine is named, and the one that runs this program takes its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "helpers" / "fashion-mnist-sample"
OLDEST, NEWEST = "3.11", "3.13"


def find_python(version: str) -> str:
    """Return a Python of this version, or the one that runs this program."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    for candidate in filter(None, candidates):
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(candidate)
    print(f"Python {version} is not on this machine: using {sys.version.split()[0]}", flush=True)
    return sys.executable


def check(python: str, distribution: Path, folder: Path) -> None:
    """Install a distribution and use it in an empty folder."""
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    binaries = folder / "venv" / "bin"
    pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    subprocess.run([*pip, distribution], check=True)
    shutil.copytree(SAMPLE, folder / "data")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: object) -> str:
        words = list(map(str, command))
        done = subprocess.run(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    installed = run(
        binaries / "python", "-c", "import siamese_keras; print(siamese_keras.__file__)"
    )
    if not Path(installed.strip()).is_relative_to(folder / "venv"):
        raise SystemExit(f"error: the package was imported from {installed.strip()}")
    code = (
        "from PIL import Image; from siamese_keras import load_dataset; "
        "images = load_dataset('idx', 'data').test.images; "
        "[Image.fromarray(images[i, :, :, 0]).save(f'{i}.png') for i in range(2)]"
    )
    run(binaries / "python", "-c", code)
    program = binaries / "siamese-keras"
    run(
        program, "train", "--quiet", "--dataset", "idx", "--data-dir", "data",
        "--validation-size", "100", "--filters", "4,8", "--epochs", "2", "--min-steps", "0",
        "--run-dir", "run", "--export-dir", "saved_models", "--name", "sample",
    )  # fmt: skip
    for path in ("run/report.html", "saved_models/sample/1/assets.extra/model_card.md"):
        if not (folder / path).is_file():
            raise SystemExit(f"error: {path} was not written")
    answer = run(program, "predict", "0.png", "1.png")
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    print(f"{version.stdout.strip()}, {distribution.name}: {answer.strip()}", flush=True)


def main() -> None:
    """Check both distributions."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = (folder / "dist").glob("*.whl")
        (source,) = (folder / "dist").glob("*.tar.gz")
        for version, distribution in ((OLDEST, wheel), (NEWEST, source)):
            (folder / version).mkdir()
            check(find_python(version), distribution, folder / version)


if __name__ == "__main__":
    main()
