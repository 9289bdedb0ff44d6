"""Draw the architecture diagrams.

    python -m siamese_keras.diagrams [--preset NAME] [--output diagrams]

Writes `base-model.png` and `outer-model.png` with names and shapes, by Keras's `plot_model`.
Where Graphviz is not installed, the PyPI package `graphviz-pure` draws the same pictures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import keras

from siamese_keras.command_line import run_program
from siamese_keras.config import Config, add_config_options, config_from_options
from siamese_keras.models.base_model import build_base_model, build_outer_model
from siamese_keras.verifier import replacing

_OPTIONS = {"show_shapes": True, "show_layer_names": True}


def plot_model(model: keras.Model, path: Path) -> None:
    """Draw `model` into the PNG file `path`.

    Raises:
        ValueError: When neither Graphviz nor `graphviz-pure` is installed.
    """
    with replacing(path) as temporary:
        if shutil.which("dot"):
            keras.utils.plot_model(model, temporary, dpi=96, **_OPTIONS)
            return
        # pip puts the command beside the interpreter, which need not be on PATH.
        program = shutil.which("graphviz-pure") or shutil.which(
            "graphviz-pure", path=sysconfig.get_path("scripts")
        )
        if program is None:
            raise ValueError(
                "Drawing needs Graphviz (command `dot`) or `pip install graphviz-pure`."
            )
        graph = keras.utils.model_to_dot(model, dpi=96, **_OPTIONS)
        drawn = subprocess.run(
            [program, "-Tpng", "-o", temporary],
            input=graph.to_string().encode(),
            capture_output=True,
            check=False,
        )
        if drawn.returncode:
            raise ValueError(f"{program} failed: {drawn.stderr.decode(errors='replace')}")


def draw_diagrams(config: Config, image_shape: tuple[int, int, int], folder: Path) -> list[Path]:
    """Draw the base and the outer model of `config` into `folder` and return the two paths."""
    folder.mkdir(parents=True, exist_ok=True)
    base = build_base_model(image_shape, **config.base_model_options())
    paths = [folder / "base-model.png", folder / "outer-model.png"]
    for model, path in zip((base, build_outer_model(base)), paths, strict=True):
        plot_model(model, path)
    return paths


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m siamese_keras.diagrams",
        description="Draw the architecture diagrams of the base and the outer model.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("diagrams"), help="folder to write to")
    parser.add_argument(
        "--image-shape",
        type=int,
        nargs=3,
        default=(28, 28, 1),
        metavar=("HEIGHT", "WIDTH", "CHANNELS"),
        help="shape of the images (default: 28 28 1)",
    )
    add_config_options(parser)
    options = parser.parse_args(argv)
    config = config_from_options(parser, options)

    def program() -> None:
        for path in draw_diagrams(config, tuple(options.image_shape), options.output):
            print(f"drawn: {path}")

    return run_program(program)


if __name__ == "__main__":
    sys.exit(main())
