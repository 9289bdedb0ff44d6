"""The named presets: settings that go together."""

from __future__ import annotations

import types
from collections.abc import Mapping

from siamese_keras.config import Config
from siamese_keras.errors import ArgumentError

PRESETS: Mapping[str, Config] = types.MappingProxyType(
    {
        # The default: all pairs of a batch, a small CNN, unit-length embeddings.
        "fast": Config(),
        # The most accurate: a residual CNN and augmented images, for longer.
        "best": Config(
            hard_epochs=(),
            augment="flip-shift",
            architecture="resnet",
            filters=(32, 64, 128),
            embedding_dim=128,
            kept_features=0.5,
            flip_averaging="yes",
            shift_averaging="left",
            margin=1.2,
            positive_margin=0.4,
            epochs=30,
        ),
        # For unseen classes where there are few to learn from. A linear map of the pixels and one
        # epoch: a larger network or more epochs forget more of what its classes do not need.
        "open-set": Config(
            hard_epochs=(),
            augment="flip-shift",
            architecture="mlp",
            embedding_dim=128,
            margin=1.2,
            positive_margin=0.4,
            epochs=1,
            min_steps=0,
            optimizer="adam",
            learning_rate=1e-3,
            bfloat16=False,
        ),
        # For many classes with few images each, and for unseen classes.
        "many-classes": Config(
            hard_epochs=(),
            augment="shift",
            architecture="resnet",
            filters=(32, 64, 128),
            embedding_dim=256,
            flip_averaging="auto",
            shift_averaging="all",
            loss="supervised-contrastive",
            temperature=0.07,
            epochs=10,
            min_steps=700,
        ),
        # The same on features of a network that was trained on ImageNet.
        "pretrained": Config(
            hard_epochs=(),
            backbone="efficientnet_v2_b0",
            backbone_stages=5,
            dropout=0.3,
            embedding_dim=512,
            loss="multi-similarity",
            epochs=30,
            min_steps=0,
            optimizer="adam",
            learning_rate=2e-3,
        ),
        # The classic exercise with a multi-layer perceptron, as six public notebooks have it:
        # 0.9136 to 0.9154 pair accuracy at distance 0.5.
        "classic-mlp": Config(
            pairs="classic",
            hard_epochs=(),
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
            min_steps=0,
            optimizer="rmsprop",
            learning_rate=1e-3,
            schedule="constant",
            bfloat16=False,
        ),
        # The exercise with a convolutional network: random second image, margin 2.
        "classic-cnn": Config(
            pairs="random",
            hard_epochs=(),
            filters=(32, 64),
            units=(256,),
            embedding_dim=16,
            unit_length=False,
            margin=2.0,
            positive_margin=0.0,
            weighting="uniform",
            epochs=5,
            min_steps=0,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            bfloat16=False,
        ),
    }
)
"""The presets by name: `fast`, `best`, `classic-mlp`, `classic-cnn`, `open-set`, `many-classes` and
`pretrained`, each a `Config`."""


def as_config(config: Config | str) -> Config:
    """Return settings, given as such or as the name of a preset.

    Raises:
        ArgumentError: When it is neither.
    """
    if isinstance(config, Config):
        return config
    if not isinstance(config, str) or config not in PRESETS:
        known = ", ".join(PRESETS)
        raise ArgumentError(f"`config` must be a `Config` or one of {known}. Received: {config!r}")
    return PRESETS[config]
