"""Architecture diagrams by Keras's `plot_model`, with or without Graphviz."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import keras

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError, SiameseKerasError
from siamese_keras.files import atomic_path
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.outer_model import build_outer_model


def plot_model(
    model: keras.Model, path: str | os.PathLike[str], *, expand_nested: bool = False
) -> None:
    """Draw `model` into the PNG file `path`.

    Args:
        model: The model.
        path: The file.
        expand_nested: Draw the layers of models within the model.

    Raises:
        SiameseKerasError: When neither Graphviz nor `graphviz-pure` is installed.
    """
    options = {"show_shapes": True, "show_layer_names": True, "expand_nested": expand_nested}
    with atomic_path(path) as temporary:
        if shutil.which("dot"):
            keras.utils.plot_model(model, temporary, dpi=96, **options)
            return
        # pip puts the command beside the interpreter, which need not be on PATH.
        program = shutil.which("graphviz-pure") or shutil.which(
            "graphviz-pure", path=sysconfig.get_path("scripts")
        )
        if program is None:
            raise SiameseKerasError(
                "Drawing needs Graphviz (command `dot`) or `pip install graphviz-pure`."
            )
        graph = keras.utils.model_to_dot(model, dpi=96, **options)
        drawn = subprocess.run(
            [program, "-Tpng", "-o", temporary],
            input=graph.to_string().encode(),
            capture_output=True,
            check=False,
        )
        if drawn.returncode:
            raise SiameseKerasError(f"{program} failed: {drawn.stderr.decode(errors='replace')}")


def draw_diagrams(
    config: Config, image_shape: tuple[int, int, int], folder: str | os.PathLike[str]
) -> list[Path]:
    """Draw the base and the outer model of `config` into `folder` and return the two paths.

    Raises:
        ArgumentError: When a size in `image_shape` is not positive, or `config` has a `backbone`.
        SiameseKerasError: As `plot_model`.
    """
    if min(image_shape) < 1:
        raise ArgumentError(f"`image_shape` must be positive. Received: image_shape={image_shape}")
    if config.backbone:
        raise ArgumentError(
            "`backbone` must be empty: a pretrained network is too large to draw. Received: "
            f"backbone={config.backbone!r}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = build_base_model(image_shape, **config.base_model_options())
    paths = [folder / "base-model.png", folder / "outer-model.png"]
    plot_model(base, paths[0], expand_nested=True)
    plot_model(build_outer_model(base), paths[1])
    return paths
