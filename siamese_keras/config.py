"""The settings of one training, the named presets, and their command-line options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


def _knob(
    default: Any,
    description: str,
    *,
    choices: Sequence[str] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declare a field of `Config`: its default, what it does and the values it may take."""
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    return dataclasses.field(default=default, metadata={"help": description, **limits})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a training depends on. The defaults are the preset `fast`.

    Raises:
        ValueError: When a value is outside its range; the message names the field.
    """

    # Where the images come from.
    dataset: str = _knob(
        "fashion_mnist",
        "fashion_mnist, 'folder' (of images by class), 'idx' (IDX files), or a TFDS dataset",
    )
    validation_size: int = _knob(5000, "images cut off train to fit the threshold", at_least=2)
    unseen_classes: tuple[str, ...] = _knob(
        (), "classes, by name or number, to train without and to report on as unseen"
    )
    image_size: int = _knob(
        0, "resize to this height and width; 0 keeps the size; needed for folder", at_least=0
    )

    # How images become pairs.
    pairs: str = _knob(
        "all", "how training pairs are made", choices=("all", "balanced", "lab", "random")
    )
    batch_size: int = _knob(128, "left images of a step, and as many right images", at_least=1)

    augment: str = _knob(
        "none",
        "change training images: mirror by chance and shift by 2 pixels; also erase rectangles",
        choices=("none", "shift", "shift-erase"),
    )

    # The base model: image -> embedding.
    architecture: str = _knob(
        "cnn", "kind of base model", choices=("cnn", "residual", "mlp", "outline")
    )
    filters: tuple[int, ...] = _knob(
        (32, 64, 128), "cnn, residual: filters of each block", at_least=1
    )
    pooling: str = _knob(
        "flatten",
        "cnn, residual: what follows the last block",
        choices=("flatten", "average", "max"),
    )
    units: tuple[int, ...] = _knob((), "units of the dense layers before the embedding", at_least=1)
    dropout: float = _knob(0.0, "rate of dropout after each dense layer", at_least=0, at_most=0.95)
    embedding_dim: int = _knob(64, "length of the embedding", at_least=1)
    embedding_activation: str = _knob(
        "linear", "activation of the embedding layer", choices=("linear", "relu", "tanh")
    )
    unit_length: bool = _knob(True, "scale embeddings to length 1, distances to [0, 2]")
    features: float = _knob(
        0.0, "cnn, residual: length of the features kept beside the embedding", at_least=0
    )
    mirror: bool = _knob(False, "embed images as the mean of the image and its mirror image")

    # Contrastive loss.
    margin: float = _knob(1.2, "distance beyond which different pairs cost nothing", above=0)
    positive_margin: float = _knob(
        0.4, "distance below which same pairs cost nothing; less than the margin", at_least=0
    )
    weighting: str = _knob(
        "active", "pairs that count in a batch's loss", choices=("uniform", "balanced", "active")
    )

    # Optimisation.
    epochs: int = _knob(4, "passes over the training images", at_least=1)
    optimizer: str = _knob("adam", "optimizer", choices=("adam", "rmsprop"))
    learning_rate: float = _knob(1.5e-2, "learning rate, the peak of it in a one-cycle", above=0)
    schedule: str = _knob(
        "one-cycle", "course of the learning rate", choices=("constant", "one-cycle")
    )
    bfloat16: bool = _knob(True, "train with convolutions in bfloat16, on processors that have it")
    seed: int = _knob(0, "seed of splits, pairs and weights", at_least=0, at_most=2**31 - 1)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                _check(field.name, item, field.metadata)
        if self.positive_margin >= self.margin:
            raise ValueError(
                "`positive_margin` must be less than `margin`. Received: "
                f"positive_margin={self.positive_margin}, margin={self.margin}"
            )
        if self.unit_length and self.margin > 2:
            raise ValueError(
                "`margin` must be at most 2, the largest distance of unit-length embeddings. "
                f"Received: margin={self.margin}"
            )

        if self.features and self.architecture not in ("cnn", "residual"):
            raise ValueError(
                "`features` must be 0 but for the architectures cnn and residual. Received: "
                f"features={self.features}, architecture={self.architecture}"
            )

    def base_model_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `build_base_model`."""
        names = (
            "architecture",
            "filters",
            "pooling",
            "units",
            "dropout",
            "embedding_dim",
            "embedding_activation",
            "unit_length",
            "features",
            "mirror",
        )
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        """Write the settings to `path` as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read what `save` wrote.

        Raises:
            ValueError: When the file is not such a JSON object; the message names it.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            values |= {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"`{path}` must hold the settings of a run. {error}") from None


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if limits["choices"] is not None and value not in limits["choices"]:
        expected = "one of " + ", ".join(limits["choices"])
    elif limits["at_least"] is not None and not value >= limits["at_least"]:
        expected = f"at least {limits['at_least']}"
    elif limits["above"] is not None and not limits["above"] < value < float("inf"):
        expected = f"greater than {limits['above']}"
    elif limits["at_most"] is not None and not value <= limits["at_most"]:
        expected = f"at most {limits['at_most']}"
    else:
        return
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value}")


PRESETS: Mapping[str, Config] = types.MappingProxyType(
    {
        # The default: all pairs of a batch, a small CNN, unit-length embeddings.
        "fast": Config(),
        # The most accurate: a residual CNN and augmented images, for longer.
        "best": Config(
            augment="shift-erase",
            architecture="residual",
            filters=(32, 64, 128),
            embedding_dim=128,
            features=0.5,
            mirror=True,
            learning_rate=1e-2,
            epochs=30,
            bfloat16=False,
        ),
        # For classes that training does not show. Silhouette and edges stay in the embedding, one
        # linear layer adds what parts the classes that are seen, and one epoch is enough of it:
        # more of either makes the network forget what its classes do not need.
        "open-set": Config(
            augment="shift",
            architecture="outline",
            unit_length=False,
            margin=6.0,
            positive_margin=3.0,
            weighting="balanced",
            epochs=1,
            learning_rate=1e-3,
            bfloat16=False,
        ),
        # The classic exercise with a multi-layer perceptron, as six public notebooks have it:
        # 0.9136 to 0.9154 pair accuracy at distance 0.5.
        "classic-mlp": Config(
            pairs="lab",
            architecture="mlp",
            units=(128, 128),
            dropout=0.1,
            embedding_dim=128,
            embedding_activation="relu",
            unit_length=False,
            margin=1.0,
            positive_margin=0.0,
            weighting="uniform",
            epochs=20,
            optimizer="rmsprop",
            learning_rate=1e-3,
            schedule="constant",
            bfloat16=False,
        ),
        # The exercise with a convolutional network: random second image, margin 2.
        "classic-cnn": Config(
            pairs="random",
            filters=(32, 64),
            units=(256,),
            embedding_dim=16,
            unit_length=False,
            margin=2.0,
            positive_margin=0.0,
            weighting="uniform",
            epochs=5,
            learning_rate=1e-3,
            schedule="constant",
            bfloat16=False,
        ),
    }
)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--preset` and one option for every field of `Config`."""
    parser.add_argument(
        "--preset", choices=PRESETS, default="fast", help="settings to start from (default: fast)"
    )
    group = parser.add_argument_group("settings", "each overrides the preset")
    hints = get_type_hints(Config)
    for field in dataclasses.fields(Config):
        keywords: dict[str, Any] = {
            "help": f"{field.metadata['help']} (fast: {_shown(field.default)})".replace("%", "%%"),
            "default": argparse.SUPPRESS,
        }
        if hints[field.name] is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        else:
            keywords["type"] = _parser_of(hints[field.name])
            keywords["metavar"] = field.name.upper()
            if field.metadata["choices"]:
                keywords["choices"] = field.metadata["choices"]
                del keywords["metavar"]
        group.add_argument("--" + field.name.replace("_", "-"), **keywords)


def config_from_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Config:
    """Make the `Config` that the options of `add_config_options` describe.

    A value outside its range ends the program as argparse does: one line and exit status 2.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    chosen = {name: value for name, value in vars(options).items() if name in names}
    try:
        return dataclasses.replace(PRESETS[options.preset], **chosen)
    except ValueError as error:
        parser.error(str(error))


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _parser_of(hint: Any) -> Any:
    if get_origin(hint) is not tuple:
        return hint
    item = get_args(hint)[0]

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"list of {item.__name__}"  # argparse shows it in its error message
    return parse
