"""A run: the folder of one training, with all that came of it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from siamese_keras import __version__
from siamese_keras.config import Config
from siamese_keras.models import base_model as _registers_the_distances  # noqa: F401
from siamese_keras.models.calibration import Classifier


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it to `path` when the block has succeeded.

    A file that was at `path` stays as it was until then, and when the block fails.
    """
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        with contextlib.suppress(OSError):
            (folder / path.name).unlink(missing_ok=True)
            folder.rmdir()


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as JSON; a file that was there is replaced whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def save_models(path: Path, config: Config, outer: keras.Model) -> None:
    """Write `config.json`, `base.keras` and `outer.keras` into the folder `path`."""
    with replacing(path / "config.json") as temporary:
        config.save(temporary)
    for name, model in (("base", outer.get_layer("base")), ("outer", outer)):
        with replacing(path / f"{name}.keras") as temporary:
            model.save(temporary)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training made.

    Attributes:
        path: The run's folder.
        config: Its settings.
        outer: The trained outer model, (left, right) -> distance.
        classifier: Threshold and scale, fitted on validation pairs.
        class_names: Names of the dataset's classes, unseen ones too, by label.
        training: Facts of the training: `fit_seconds`, `epochs`, `interrupted`, `bfloat16`, whether
            it was computed so, and `images`, how many for training, validation and test.
    """

    path: Path
    config: Config
    outer: keras.Model
    classifier: Classifier
    class_names: tuple[str, ...]
    training: dict[str, Any]

    @property
    def base(self) -> keras.Model:
        """The base model, image -> embedding, that the outer model applies twice."""
        return self.outer.get_layer("base")

    def save(self) -> None:
        """Write `model.json`, which makes a run of the folder that `save_models` wrote to."""
        write_json(
            self.path / "model.json",
            {
                "siamese_keras": __version__,
                "class_names": self.class_names,
                **dataclasses.asdict(self.classifier),
                "training": self.training,
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Read a run that was saved.

        Raises:
            ValueError: When the folder is not a complete run; the message names what is wrong.
        """
        path = Path(path)
        for name in ("config.json", "model.json", "outer.keras"):
            if not (path / name).is_file():
                raise ValueError(f"`{path}` is not the folder of a run: it has no {name}.")
        config = Config.load(path / "config.json")
        try:
            facts = json.loads((path / "model.json").read_text())
            classifier = Classifier(facts["threshold"], facts["scale"])
            class_names, training = tuple(facts["class_names"]), facts["training"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"`{path / 'model.json'}` is damaged: {error!r}") from None
        try:
            outer = keras.models.load_model(path / "outer.keras", compile=False)
        except Exception as error:  # Keras raises many kinds for a damaged archive
            first_line = str(error).partition("\n")[0]
            raise ValueError(f"`{path / 'outer.keras'}` cannot be loaded. {first_line}") from None
        return cls(path, config, outer, classifier, class_names, training)


def read_history(path: Path) -> dict[str, list[float]]:
    """Read `history.csv`: each column's values, epoch by epoch; empty before the first epoch."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def embed(base: keras.Model, images: np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    """Compute the embeddings of images.

    Args:
        base: The base model.
        images: uint8 `[n, height, width, channels]`.
        batch_size: Images embedded at once.

    Returns:
        float32 `[n, embedding_dim]`.
    """

    def embed_batch(batch: np.ndarray) -> np.ndarray:
        if len(batch) == batch_size:
            return base.predict_on_batch(batch)
        # What does not fill a batch is not worth compiling for its size.
        return keras.ops.convert_to_numpy(base(batch, training=False))

    starts = range(0, max(len(images), 1), batch_size)
    return np.concatenate([embed_batch(images[i : i + batch_size]) for i in starts])
