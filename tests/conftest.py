"""A small real sample of Fashion-MNIST, and a tiny run trained on it once for the whole session."""

from pathlib import Path

import numpy as np
import pytest

from siamese_keras.config import Config
from siamese_keras.data import Dataset, load_dataset
from siamese_keras.runs import Run
from siamese_keras.train import train

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-sample"
TINY = Config(
    dataset="idx", validation_size=100, batch_size=50, filters=(4, 8), embedding_dim=8, epochs=3
)


@pytest.fixture(scope="session")
def sample() -> Dataset:
    """500 train, 100 validation and 200 test images of all ten classes."""
    return load_dataset("idx", SAMPLE, validation_size=100)


@pytest.fixture(scope="session")
def tiny_run(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that saw the sample for three epochs: weak, but trained, saved and complete."""
    return train(TINY, tmp_path_factory.mktemp("tiny") / "run", sample, verbose=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
