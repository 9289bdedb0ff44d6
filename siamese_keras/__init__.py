"""Siamese networks in Keras: do two images show the same class?

    dataset = load_dataset("fashion_mnist")
    verifier = fit(dataset, "fast")
    verifier.similarity(left, right)

The names below are loaded when they are first used: importing the package loads neither TensorFlow
nor Keras. It turns on oneDNN in TensorFlow, unless TF_ENABLE_ONEDNN_OPTS is set.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from siamese_keras._version import __version__ as __version__

if TYPE_CHECKING:
    from siamese_keras.config import Config
    from siamese_keras.data.datasets import load_dataset
    from siamese_keras.data.pipeline import pair_pipeline
    from siamese_keras.data.splits import Dataset, Split
    from siamese_keras.errors import SiameseKerasError
    from siamese_keras.models.base_model import build_base_model
    from siamese_keras.models.outer_model import build_outer_model
    from siamese_keras.presets import PRESETS
    from siamese_keras.training.batch_losses import (
        MultiSimilarityLoss,
        SupervisedContrastiveLoss,
        TripletSemiHardLoss,
    )
    from siamese_keras.training.distribution import connect_workers
    from siamese_keras.training.losses import ContrastiveLoss, contrastive_loss
    from siamese_keras.training.trainer import fit
    from siamese_keras.verifier import Verifier, load_verifier

# TensorFlow reads this when it is loaded. By default it uses oneDNN only on processors with VNNI
# instructions; on others a training takes two thirds of the time with it.
if sys.platform == "linux" and platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOMES = {
    "Config": "config",
    "PRESETS": "presets",
    "load_dataset": "data.datasets",
    "pair_pipeline": "data.pipeline",
    "Dataset": "data.splits",
    "Split": "data.splits",
    "SiameseKerasError": "errors",
    "build_base_model": "models.base_model",
    "build_outer_model": "models.outer_model",
    "MultiSimilarityLoss": "training.batch_losses",
    "SupervisedContrastiveLoss": "training.batch_losses",
    "TripletSemiHardLoss": "training.batch_losses",
    "ContrastiveLoss": "training.losses",
    "contrastive_loss": "training.losses",
    "connect_workers": "training.distribution",
    "fit": "training.trainer",
    "Verifier": "verifier",
    "load_verifier": "verifier",
}

__all__ = [
    "PRESETS",
    "Config",
    "ContrastiveLoss",
    "Dataset",
    "MultiSimilarityLoss",
    "SiameseKerasError",
    "Split",
    "SupervisedContrastiveLoss",
    "TripletSemiHardLoss",
    "Verifier",
    "build_base_model",
    "build_outer_model",
    "connect_workers",
    "contrastive_loss",
    "fit",
    "load_dataset",
    "load_verifier",
    "pair_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
