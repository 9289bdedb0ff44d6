"""The settings of one training."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from siamese_keras.errors import ArgumentError, check_choice
from siamese_keras.files import write_json

# The one list of each setting's choices: read here, by the command line and by the library.
ColorMode = Literal["auto", "rgb", "grayscale"]
PairKind = Literal["all", "balanced", "classic", "random"]
Augmentation = Literal["none", "shift", "shift-erase", "flip-shift", "flip-shift-erase"]
AugmentationChoice = Literal["auto", Augmentation]
Architecture = Literal["cnn", "resnet", "mlp"]
Pooling = Literal["flatten", "average", "max"]
FlipAveraging = Literal["no", "yes", "auto"]
ShiftAveraging = Literal["no", "left", "all"]
Activation = Literal["linear", "relu", "tanh"]
LossKind = Literal["contrastive", "multi-similarity", "semi-hard-triplet", "supervised-contrastive"]
Weighting = Literal["uniform", "balanced", "nonzero"]
Optimizer = Literal["adam", "muon", "rmsprop"]
Schedule = Literal["constant", "warmup-cosine"]
Keep = Literal["last", "best"]


def _option(
    default: Any,
    group: str,
    description: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declare a field of `Config`: its default, its group in `--help`, and its range."""
    limits = {"at_least": at_least, "above": above, "at_most": at_most}
    metadata = {"group": group, "help": description, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a training. The defaults are the preset `fast`.

    Lists are accepted where tuples are declared.

    Raises:
        ArgumentError: When a value has the wrong type or is out of range; the message names it.
    """

    dataset: str = _option(
        "fashion_mnist",
        "data",
        "fashion_mnist, folder (of images by class), csv, npz, idx, or the name of a "
        "dataset of TensorFlow Datasets (TFDS)",
    )
    validation_size: int = _option(
        0,
        "data",
        "number of training images held out for validation and calibration; 0 = a twelfth, or for "
        "fewer than 6,000 images a fifth, but at most 500",
        at_least=0,
    )
    unseen_classes: tuple[str, ...] = _option(
        (),
        "data",
        "classes, by name, number or share such as 20%, to hold out of training and to report on",
    )
    image_size: int = _option(
        0,
        "data",
        "height and width to resize images to; 0 = the median of the smaller sides, at most 64, "
        "for image files; other images keep their size",
        at_least=0,
    )
    color_mode: ColorMode = _option(
        "auto", "data", "channels of image files; auto = grayscale if all images are gray"
    )
    strict: bool = _option(
        False, "data", "refuse image files that cannot be read instead of skipping them"
    )

    pairs: PairKind = _option(
        "all",
        "pairs",
        "how training pairs are drawn; all = every left image of a batch with every right one, "
        "balanced = half same and half different, classic = the pairs of the classic exercise, "
        "random = a random second image",
    )
    batch_size: int = _option(
        128, "pairs", "left images per step, and as many right images", at_least=1
    )
    classes_per_batch: int = _option(
        0,
        "pairs",
        "with pairs all: classes per step, each with images_per_class images; replaces batch_size",
        at_least=0,
    )
    images_per_class: int = _option(
        0,
        "pairs",
        "with pairs all: images of each class drawn together in a batch; 1 = drawn at random, "
        "0 = 4 with many classes or with classes_per_batch, otherwise 1",
        at_least=0,
    )
    hard_epochs: tuple[int, ...] = _option(
        (2,),
        "pairs",
        "epochs, by number from 1, that show half of the images twice, mostly hard ones: those "
        "that a linear classifier confuses; none = all epochs show all images",
        at_least=1,
    )
    augment: AugmentationChoice = _option(
        "auto",
        "pairs",
        "random changes of training images; auto = shift-erase where epochs pass over few images "
        "several times, otherwise none",
    )

    architecture: Architecture = _option("cnn", "base model", "kind of base model")
    filters: tuple[int, ...] = _option(
        (32, 64, 96, 128), "base model", "cnn, resnet: filters of each block", at_least=1
    )
    pooling: Pooling = _option(
        "flatten", "base model", "cnn, resnet: what follows the last block of convolutions"
    )
    units: tuple[int, ...] = _option(
        (), "base model", "units of the dense layers before the embedding", at_least=1
    )
    dropout: float = _option(
        0.0,
        "base model",
        "dropout rate after each dense layer of units; with a backbone, of its features too",
        at_least=0,
        at_most=0.95,
    )
    embedding_dim: int = _option(
        64, "base model", "number of dimensions of the embedding", at_least=1
    )
    embedding_activation: Activation = _option(
        "linear", "base model", "activation of the embedding layer"
    )
    unit_length: bool = _option(
        True, "base model", "scale embeddings to length 1, so that distances lie in [0, 2]"
    )
    kept_features: float = _option(
        0.0,
        "base model",
        "cnn, resnet: append the features of the last block to the embedding, scaled to this norm; "
        "0 = do not",
        at_least=0,
    )
    flip_averaging: FlipAveraging = _option(
        "no",
        "base model",
        "average the embeddings of an image and its mirror image; auto = where that separates "
        "validation pairs better",
    )
    shift_averaging: ShiftAveraging = _option(
        "no",
        "base model",
        "average the embeddings of an image and of copies shifted by a pixel, left or all four "
        "ways; embedding then takes two or five times as long",
    )

    backbone: str = _option(
        "",
        "pretrained backbone",
        "keras.applications model, such as efficientnet_v2_b0, or a .keras file; its features "
        "replace those of the architecture",
    )
    weights: str = _option(
        "imagenet",
        "pretrained backbone",
        "imagenet (Keras downloads them), a file of weights, or none; a .keras file has its own",
    )
    backbone_stages: int = _option(
        1,
        "pretrained backbone",
        "number of final stages to take features from; layers of one resolution form a stage",
        at_least=1,
    )
    fine_tune: int = _option(
        0,
        "pretrained backbone",
        "extra epochs that also train the backbone, once the layers on top are trained",
        at_least=0,
    )
    fine_tune_learning_rate: float = _option(
        1e-5, "pretrained backbone", "learning rate of the --fine-tune epochs", above=0
    )

    loss: LossKind = _option(
        "contrastive", "loss", "loss function; all except contrastive need pairs all"
    )
    margin: float = _option(
        1.4, "loss", "contrastive: distance beyond which different pairs cost nothing", above=0
    )
    positive_margin: float = _option(
        0.8, "loss", "contrastive: distance below which same pairs cost nothing", at_least=0
    )
    weighting: Weighting = _option(
        "nonzero",
        "loss",
        "contrastive: how the losses of the pairs of a batch are averaged; uniform = over all, "
        "balanced = over same and different pairs in equal parts, nonzero = the same, over pairs "
        "with a loss above 0",
    )

    temperature: float = _option(
        0.1, "loss", "supervised-contrastive: divisor of the similarities", above=0
    )

    epochs: int = _option(4, "optimization", "passes over the training images", at_least=1)
    min_steps: int = _option(
        100,
        "optimization",
        "minimum number of steps; with few images, each epoch passes over them several times",
        at_least=0,
    )
    early_stopping: int = _option(
        0,
        "optimization",
        "stop after this many epochs without a higher ROC-AUC of validation pairs; 0 = never",
        at_least=0,
    )
    keep: Keep = _option(
        "last",
        "optimization",
        "weights to keep: of the last epoch, or of the epoch with the best "
        "ROC-AUC of validation pairs",
    )
    optimizer: Optimizer = _option("muon", "optimization", "optimizer")
    learning_rate: float = _option(
        4e-2, "optimization", "learning rate; the peak with warmup-cosine", above=0
    )
    schedule: Schedule = _option("warmup-cosine", "optimization", "learning rate schedule")
    bfloat16: bool = _option(
        True, "optimization", "compute convolutions in bfloat16 on processors that support it"
    )
    seed: int = _option(
        0, "optimization", "seed of weights, pairs and augmentation", at_least=0, at_most=2**31 - 1
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(Config)
        for field in dataclasses.fields(self):
            value = _typed(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            for item in value if isinstance(value, tuple) else (value,):
                _check_limits(field.name, item, field.metadata["limits"])
        if self.positive_margin >= self.margin:
            raise ArgumentError(
                "`positive_margin` must be less than `margin`. Received: "
                f"positive_margin={self.positive_margin}, margin={self.margin}"
            )
        if self.unit_length and self.margin > 2:
            raise ArgumentError(
                "`margin` must be at most 2, the largest distance of unit-length embeddings. "
                f"Received: margin={self.margin}"
            )
        if self.loss != "contrastive" and (self.pairs != "all" or not self.unit_length):
            raise ArgumentError(
                f"`loss` {self.loss!r} needs pairs 'all' and embeddings of unit length. Received: "
                f"pairs={self.pairs!r}, unit_length={self.unit_length}"
            )
        for name in ("classes_per_batch", "images_per_class"):
            if self.pairs != "all" and getattr(self, name):
                raise ArgumentError(
                    f"`{name}` needs pairs 'all'. Received: {name}={getattr(self, name)}, "
                    f"pairs={self.pairs!r}"
                )
        if self.classes_per_batch == 1:
            raise ArgumentError(
                "`classes_per_batch` must be 0 or at least 2: one class has no different pairs. "
                "Received: classes_per_batch=1"
            )
        if self.images_per_class > self.batch_size and not self.classes_per_batch:
            raise ArgumentError(
                "`images_per_class` must be at most `batch_size`, so that a batch has two classes. "
                f"Received: images_per_class={self.images_per_class}, "
                f"batch_size={self.batch_size}"
            )
        if self.classes_per_batch * self.images_per_class % 2:
            raise ArgumentError(
                "`classes_per_batch` times `images_per_class` must be even: half of the images are "
                f"left ones. Received: classes_per_batch={self.classes_per_batch}, "
                f"images_per_class={self.images_per_class}"
            )
        if self.kept_features and (self.backbone or self.architecture not in ("cnn", "resnet")):
            raise ArgumentError(
                "`kept_features` needs the architecture cnn or resnet. Received: "
                f"kept_features={self.kept_features}, architecture={self.architecture!r}, "
                f"backbone={self.backbone!r}"
            )
        if self.dropout and not self.units and not self.backbone:
            raise ArgumentError(
                "`dropout` needs `units` or a `backbone`. Received: "
                f"dropout={self.dropout}, units=()"
            )
        if self.augment not in ("auto", "none") and self.backbone and not self.fine_tune:
            raise ArgumentError(
                "`augment` needs `fine_tune` with a backbone, whose features are computed once. "
                f"Received: augment={self.augment!r}, fine_tune=0"
            )
        if self.backbone.endswith(".keras") and self.weights != "imagenet":
            raise ArgumentError(
                "`weights` cannot be set for a .keras backbone, which has its own. Received: "
                f"weights={self.weights!r}, backbone={self.backbone!r}"
            )
        for name in ("weights", "backbone_stages", "fine_tune", "fine_tune_learning_rate"):
            value = getattr(self, name)
            if not self.backbone and value != getattr(Config, name):
                raise ArgumentError(f"`{name}` needs a `backbone`. Received: {name}={value!r}")

    def base_model_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `build_base_model`."""
        fields = (f for f in dataclasses.fields(self) if f.metadata["group"] == "base model")
        options = {field.name: getattr(self, field.name) for field in fields}
        return {**options, "flip_averaging": self.flip_averaging == "yes"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the settings to `path` as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Read settings that `save` wrote.

        Raises:
            ArgumentError: When the file is not a JSON object of settings; the message names it.
            OSError: When the file cannot be read.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ArgumentError(f"`{path}` must hold the settings of a run. {error}") from None


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint`, or raise."""
    if get_origin(hint) is Literal:
        check_choice(name, value, hint)
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ArgumentError(f"`{name}` must be a list. Received: {name}={value!r}")
        return tuple(_typed(name, item, get_args(hint)[0]) for item in value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and is_number and math.isfinite(value):
        return float(value)
    if hint is float or type(value) is not hint:
        expected = {bool: "true or false", int: "a whole number", float: "a finite number"}
        wanted = expected.get(hint, "a string")
        raise ArgumentError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    return value


def _check_limits(name: str, value: Any, limits: Mapping[str, float | None]) -> None:
    at_least, above, at_most = limits["at_least"], limits["above"], limits["at_most"]
    if at_least is not None and value < at_least:
        expected = f"at least {at_least}"
    elif above is not None and value <= above:
        expected = f"greater than {above}"
    elif at_most is not None and value > at_most:
        expected = f"at most {at_most}"
    else:
        return
    raise ArgumentError(f"`{name}` must be {expected}. Received: {name}={value}")
