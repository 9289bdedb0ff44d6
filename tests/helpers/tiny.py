"""A small real sample of Fashion-MNIST and the settings of a training of seconds on it."""

from pathlib import Path

from siamese_keras.config import Config

SAMPLE = Path(__file__).parent / "fashion-mnist-sample"
TINY = Config(
    dataset="idx",
    validation_size=100,
    batch_size=50,
    filters=(4, 8),
    embedding_dim=8,
    epochs=3,
    min_steps=0,
)
