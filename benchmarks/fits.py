"""What `compare.py` fits: our presets, and other people's recipes on the same images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from siamese_keras import PRESETS, Config, Dataset
from siamese_keras import fit as fit_verifier
from siamese_keras.data.pairs import balanced_pairs
from siamese_keras.data.pipeline import passes_per_epoch, steps_per_epoch
from siamese_keras.models.embedder import KerasEmbedder
from siamese_keras.presets import as_config

_SNAPSHOTS = 20  # of a fit, by default
_ADAM_RATE = 1.5e-2  # the best peak rate for Adam with the network of `fast`
# The best margins for a loss that is not squared: those of `fast` give a Recall@1 of 0.80.
_MARGINS = {"pos_margin": 0.4, "neg_margin": 1.2}
_ADAM_RATE_MULTI_SIMILARITY = 5e-3  # and for multi-similarity loss on many classes


@dataclasses.dataclass(frozen=True)
class Fit:
    """What came of one fit.

    Attributes:
        seconds: How long it took.
        images: Images that went through the network, repetitions counted.
        pairs: Pairs that the loss saw.
        snapshots: The weights after so many seconds; the last are those at the end.
        embed: Embeds uint8 images with such weights.
    """

    seconds: float
    images: int
    pairs: int
    snapshots: list[tuple[float, Any]]
    embed: Callable[[Any, np.ndarray], np.ndarray]


def _due(steps: int, count: int = _SNAPSHOTS) -> set[int]:
    """Steps after which to keep the weights: close together at first, then further apart."""
    return {round(steps * (k / count) ** 2) for k in range(1, count)}


class _Snapshots(keras.callbacks.Callback):
    """Keep the weights of the model within the model on the way, with the time."""

    def __init__(self, count: int = _SNAPSHOTS) -> None:
        super().__init__()
        self.count = count
        self.step = 0
        self.kept: list[tuple[float, Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.due = _due(self.params["steps"] * self.params["epochs"], self.count)
        self.base = next(layer for layer in self.model.layers if isinstance(layer, keras.Model))
        self.started = time.perf_counter()
        self._keep()

    def _keep(self) -> None:
        weights = self.base.get_weights()
        self.kept.append((time.perf_counter() - self.started, weights))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if self.step in self.due:
            self._keep()

    def on_train_end(self, logs: Any = None) -> None:
        self.ended = time.perf_counter() - self.started

    def fit(self, base: keras.Model, seconds: float, images: int, pairs: int) -> Fit:
        """Return the fit that took `seconds` in all, what comes before the first step included.

        `base` is what embeds; its layers are those of the fitted model.
        """
        before = seconds - self.ended
        snapshots = [(before + after, weights) for after, weights in self.kept]

        embedder = KerasEmbedder(base)

        def embed_with(weights: Any, batch: np.ndarray) -> np.ndarray:
            self.base.set_weights(weights)
            size = embedder.batch_size
            starts = range(0, len(batch), size)
            return np.concatenate([embedder.embed(batch[i : i + size]) for i in starts])

        snapshots.append((seconds, self.base.get_weights()))
        return Fit(seconds, images, pairs, snapshots, embed_with)


def fit_preset(
    preset: str | Config, dataset: Dataset, seed: int, *, snapshots: int = _SNAPSHOTS
) -> Fit:
    """Fit a preset of ours, or other settings, and keep its weights so many times."""
    config = dataclasses.replace(as_config(preset), seed=seed)
    kept = _Snapshots(snapshots)
    verifier = fit_verifier(dataset, config, callbacks=[kept], verbose=0)
    steps = steps_per_epoch(config.pairs, dataset.train.labels, config.batch_size)
    steps *= config.epochs * passes_per_epoch(steps, config.epochs, config.min_steps)
    pairs = config.batch_size ** (2 if config.pairs == "all" else 1)
    seconds = verifier.training["fit_seconds"]
    return kept.fit(verifier.base_model, seconds, steps * 2 * config.batch_size, steps * pairs)


def fit_keras_example(dataset: Dataset, seed: int) -> Fit:
    """Fit as Keras's example "Image similarity estimation using a Siamese Network" does.

    Its network, loss, optimizer, batch of 16, 10 epochs and two pairs for every image, half of all
    same, by Mehdi (2021), https://keras.io/examples/vision/siamese_contrastive/, as corrected in
    January 2026 (keras-io pull request 2261): the loss is of the distance itself, which went
    through a sigmoid before.
    """
    keras.utils.set_random_seed(seed)
    shape, batch_size, epochs = dataset.image_shape, 16, 10
    base = keras.Sequential(
        [
            keras.Input(shape),
            layers.BatchNormalization(),
            layers.Conv2D(4, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(10, activation="tanh"),
        ],
        name="base",
    )
    sides = [keras.Input(shape), keras.Input(shape)]
    distance = layers.Lambda(_example_distance, output_shape=(1,))([base(side) for side in sides])
    outer = keras.Model(sides, distance)
    outer.compile(optimizer="RMSprop", loss=_example_loss, metrics=["accuracy"])

    def two_pairs_of_each(split: Any, draw: int) -> tuple[list[np.ndarray], np.ndarray]:
        drawn = [
            balanced_pairs(split.labels, np.random.default_rng((seed, draw, k))) for k in (0, 1)
        ]
        left, right = (np.concatenate([getattr(p, s) for p in drawn]) for s in ("left", "right"))
        x = split.images.astype(np.float32)
        return [x[left], x[right]], np.concatenate([p.different for p in drawn])[:, np.newaxis]

    x, different = two_pairs_of_each(dataset.train, 0)
    snapshots = _Snapshots()
    started = time.perf_counter()
    outer.fit(
        x,
        different,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=two_pairs_of_each(dataset.validation, 1),
        callbacks=[snapshots],
        verbose=0,
    )
    seconds = time.perf_counter() - started
    return snapshots.fit(base, seconds, 2 * epochs * len(different), epochs * len(different))


def _example_distance(embeddings: Any) -> Any:
    left, right = embeddings
    return ops.sqrt(ops.maximum(ops.sum(ops.square(left - right), axis=1, keepdims=True), 1e-7))


def _example_loss(different: Any, distance: Any) -> Any:
    same_loss, different_loss = ops.square(distance), ops.square(ops.maximum(1 - distance, 0))
    return ops.mean((1 - different) * same_loss + different * different_loss)


def fit_metric_learning(dataset: Dataset, seed: int, *, like_fast: bool) -> Fit:
    """Fit preset `fast`'s network in PyTorch, with PyTorch Metric Learning's contrastive loss.

    The loss over all pairs of a batch, the unit-length embeddings and the mean over the pairs with
    nonzero loss are the library's own.

    Args:
        dataset: The images.
        seed: Seed of weights and batches.
        like_fast: Take schedule and epochs of preset `fast`, and the best margins and peak rate for
            the library's loss and Adam; otherwise the library's own margins, 0 and 1, Adam at its
            own rate of 1e-3, and 5 epochs.
    """
    import torch
    from pytorch_metric_learning.losses import ContrastiveLoss

    torch.manual_seed(seed)
    config = PRESETS["fast"]
    batch_size = 2 * config.batch_size
    passes = config.epochs if like_fast else 5
    network = torch_network(config, dataset.image_shape)
    loss, optimizer = ContrastiveLoss(), torch.optim.Adam(network.parameters(), 1e-3)
    schedule = None
    if like_fast:
        loss = ContrastiveLoss(**_MARGINS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            _ADAM_RATE,
            total_steps=len(dataset.train) // batch_size * passes,
            pct_start=0.25,
        )
    orders = (torch.randperm(len(dataset.train)) for _ in range(passes))
    return _fit_in_torch(network, dataset, passes, orders, batch_size, loss, optimizer, schedule)


def _fit_in_torch(
    network: Any,
    dataset: Dataset,
    passes: int,
    orders: Iterable[Any],
    batch_size: int,
    loss: Callable[[Any, Any], Any],
    optimizer: Any,
    schedule: Any = None,
    change: Callable[[Any], Any] = lambda pixels: pixels,
) -> Fit:
    """Fit a network with one order of the images for each pass, and keep its weights."""
    import torch

    torch.set_flush_denormal(True)  # as TensorFlow does: numbers near 0 take long otherwise
    x = torch.from_numpy(dataset.train.images).permute(0, 3, 1, 2)
    y = torch.from_numpy(dataset.train.labels.astype(np.int64))
    steps = len(x) // batch_size
    due = _due(steps * passes)
    snapshots: list[tuple[float, Any]] = []

    def keep() -> None:
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        snapshots.append((time.perf_counter() - started, weights))

    started = time.perf_counter()
    keep()
    for number, order in enumerate(orders):
        for step in range(steps):
            batch = order[step * batch_size : (step + 1) * batch_size]
            pixels = x[batch].to(torch.float32, memory_format=torch.channels_last) / 255
            optimizer.zero_grad()
            loss(network(change(pixels)), y[batch]).backward()
            optimizer.step()
            if schedule:
                schedule.step()
            if number * steps + step + 1 in due:
                keep()
    keep()
    seen = steps * passes * batch_size
    pairs = steps * passes * batch_size * (batch_size - 1) // 2
    return Fit(snapshots[-1][0], seen, pairs, snapshots, partial(embed_in_torch, network))


def torch_network(config: Config, image_shape: tuple[int, int, int]) -> Any:
    """Build the base model of architecture `cnn` or `resnet` in PyTorch, without unit length."""
    import torch

    def convolution(before: int, filters: int, *, pool: bool = False) -> Any:
        kernels = torch.nn.Conv2d(before, filters, 3, padding=1, bias=False)
        torch.nn.init.kaiming_normal_(kernels.weight, nonlinearity="relu")
        pooling = [torch.nn.MaxPool2d(2, ceil_mode=True)] if pool else []
        return torch.nn.Sequential(
            kernels, *pooling, torch.nn.BatchNorm2d(filters), torch.nn.ReLU()
        )

    class Residual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, filters: int):
            super().__init__()
            self.inner = torch.nn.Sequential(
                convolution(filters, filters), convolution(filters, filters)
            )

        def forward(self, x: Any) -> Any:
            return x + self.inner(x)

    height, width, channels = image_shape
    modules: list[torch.nn.Module] = []
    for before, filters in zip((channels, *config.filters), config.filters, strict=False):
        residual = config.architecture == "resnet" and len(modules) > 0
        modules.append(convolution(before, filters, pool=not residual))
        if residual:
            modules += [Residual(filters), torch.nn.MaxPool2d(2, ceil_mode=True)]
        height, width = -(-height // 2), -(-width // 2)
    features = height * width * config.filters[-1]
    modules += [torch.nn.Flatten(), torch.nn.Linear(features, config.embedding_dim)]
    return torch.nn.Sequential(*modules).to(memory_format=torch.channels_last)


def embed_in_torch(network: Any, weights: Any, images: np.ndarray) -> np.ndarray:
    """Embed uint8 images with a PyTorch network with such weights."""
    import torch

    network.load_state_dict(weights)
    network.eval()
    with torch.no_grad():
        parts = [
            torch.nn.functional.normalize(network(part.permute(0, 3, 1, 2) / 255))
            for part in torch.from_numpy(images.astype(np.float32)).split(500)
        ]
    return torch.cat(parts).numpy()


def fit_metric_learning_per_class(
    config: Config,
    dataset: Dataset,
    seed: int,
    *,
    kind: str = "multi-similarity",
    images_per_class: int = 4,
    rate: float = _ADAM_RATE_MULTI_SIMILARITY,
) -> Fit:
    """Fit a network in PyTorch Metric Learning with several images of each class in a batch.

    On the batches of its `MPerClassSampler`, with the network, the shifts, the batch size and the
    number of steps of `config`, Adam and PyTorch's `OneCycleLR`.

    Args:
        config: What it has in common with a preset of ours.
        dataset: The images.
        seed: Seed of weights and batches.
        kind: `"multi-similarity"`, its `MultiSimilarityLoss` and `MultiSimilarityMiner`, or
            `"semi-hard-triplet"`, its `TripletMarginLoss` and `TripletMarginMiner`.
        images_per_class: Images of a class in a batch.
        rate: Peak learning rate.
    """
    import torch
    from pytorch_metric_learning import losses, miners
    from pytorch_metric_learning.samplers import MPerClassSampler

    torch.manual_seed(seed)
    np.random.seed(seed)  # of the sampler
    network = torch_network(config, dataset.image_shape)
    labels, batch_size = dataset.train.labels, 2 * config.batch_size
    steps = len(labels) // batch_size
    passes = config.epochs * passes_per_epoch(steps, config.epochs, config.min_steps)
    mined_loss: Any = losses.MultiSimilarityLoss()
    miner: Any = miners.MultiSimilarityMiner()
    if kind == "semi-hard-triplet":
        mined_loss = losses.TripletMarginLoss()
        miner = miners.TripletMarginMiner(type_of_triplets="semihard")
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps * passes, pct_start=0.25
    )

    def orders() -> Iterator[Any]:
        for _ in range(passes):
            sampler = MPerClassSampler(
                labels, images_per_class, batch_size, length_before_new_iter=len(labels)
            )
            yield torch.tensor(list(sampler))

    def loss(embeddings: Any, classes: Any) -> Any:
        return mined_loss(embeddings, classes, miner(embeddings, classes))

    change = _shifted if config.augment == "shift" else lambda pixels: pixels
    return _fit_in_torch(
        network, dataset, passes, orders(), batch_size, loss, optimizer, schedule, change
    )


def _shifted(pixels: Any) -> Any:
    """Shift each image by up to 2 pixels each way, as `augment="shift"` does."""
    import torch

    _, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    row, column = torch.randint(0, 5, (2, len(pixels), 1))
    rows = (row + torch.arange(height))[:, None, :, None]
    columns = (column + torch.arange(width))[:, None, None, :]
    image = torch.arange(len(pixels))[:, None, None, None]
    channel = torch.arange(pixels.shape[1])[None, :, None, None]
    return padded[image, channel, rows, columns]
