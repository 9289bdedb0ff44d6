"""Training on several devices, and on several machines that TF_CONFIG names.

All workarounds for Keras 3.13 to 3.15 are in this module. With
`MultiWorkerMirroredStrategy`, `fit` fails in its symbolic build and when it reduces the logs of a
step, which are scalars; and the averages of batch normalization differ between replicas.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from siamese_keras.errors import ArgumentError, TrainingError, check_count, plain_reason

# What TensorFlow raises when it waits for a worker that does not answer.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Replicas:
    """The replicas of a model that are trained together, and which of them are here.

    Attributes:
        strategy: How they are kept equal; None for a single device.
        is_chief: Whether this process writes what the training writes.
        has_others: Whether there are replicas on other machines.
    """

    strategy: tf.distribute.Strategy | None = None
    is_chief: bool = True
    has_others: bool = False

    @property
    def number(self) -> int:
        """How many replicas there are on all machines."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync

    def model(self, outer: keras.Model) -> keras.Model:
        """Return a model with the weights of `outer` that `fit` trains on all replicas.

        Each of them gets its own part of a batch, and compares and normalizes the images of its
        part alone: with all pairs, a batch of 128 left and right images has 128 x 128 pairs on one
        device and twice 64 x 64 on two. The gradients are averaged.
        """
        if self.strategy is None:
            return outer
        with self.strategy.scope(), tf.variable_creator_scope(_averaged):
            copy = keras.models.clone_model(outer)
            kind = _MultiWorkerModel if self.has_others else _DistributedModel
            model = kind(copy.inputs, copy.outputs, name=outer.name)
            model.set_weights(outer.get_weights())
        return model

    def gathered(self, value: float) -> np.ndarray:
        """Return the values that all processes give here, the same array in each of them."""
        if self.strategy is None or not self.has_others:
            return np.array([value])
        here = self.strategy.run(lambda: tf.constant([value], tf.float64))
        return self.strategy.gather(here, axis=0).numpy()

    def check_equal(self, facts: Any) -> None:
        """Raise unless all processes give the same facts: a list or dictionary for JSON.

        Raises:
            ArgumentError: In all of them.
        """
        digest = hashlib.sha256(json.dumps(facts).encode()).digest()
        if len(set(self.gathered(int.from_bytes(digest[:6], "big")).tolist())) > 1:
            raise ArgumentError(
                "All workers must train with the same settings and data, and read the same "
                "checkpoint. Received: different ones"
            )

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which variables are made that all replicas share."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def dataset(self, make: Callable[..., tf.data.Dataset]) -> Any:
        """Return the dataset that `make(parts=..., num_parts=...)` makes for the replicas here."""
        if self.strategy is None:
            return make()
        number = self.number

        def make_here(context: tf.distribute.InputContext) -> tf.data.Dataset:
            here = number // context.num_input_pipelines
            first = context.input_pipeline_id * here
            return make(parts=range(first, first + here), num_parts=number)

        return self.strategy.distribute_datasets_from_function(make_here)


def _averaged(next_creator: Callable[..., Any], **options: Any) -> Any:
    """Make a variable; the averages of batch normalization are those over all replicas.

    Keras lets each replica keep its own, so that the workers end with different ones.
    """
    if str(options.get("name")).startswith("moving_"):
        options["aggregation"] = tf.VariableAggregation.MEAN
    return next_creator(**options)


class _DistributedModel(keras.Model):
    """A functional model that `fit` can train on several devices."""

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing: model and optimizer are built."""


class _MultiWorkerModel(_DistributedModel):
    """A functional model that `fit` can train on several machines."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        return _vectors(super().train_step(data))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        return _vectors(super().test_step(data))


def _vectors(logs: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Return scalars as vectors of length 1, which a strategy can reduce along their only axis."""
    return {name: tf.reshape(tf.convert_to_tensor(value), [1]) for name, value in logs.items()}


def is_chief() -> bool:
    """Return whether this machine writes the run: it is the first one that TF_CONFIG names.

    Raises:
        ArgumentError: When TF_CONFIG is wrong.
    """
    return _parsed(os.environ["TF_CONFIG"])[1]


def replicas_for(devices: int | None) -> Replicas:
    """Return the replicas for a training.

    Args:
        devices: How many devices of this machine to use: GPUs, or where there are none (logical)
            CPU devices. None takes all GPUs if there are several, otherwise one device. Machines
            that TF_CONFIG names decide for themselves, and use all of their GPUs.

    Raises:
        ArgumentError: When there are not as many devices, or TF_CONFIG is wrong.
    """
    workers = connect_workers()
    if workers is not None:
        if devices is not None:
            raise ArgumentError(
                "`devices` must not be given with TF_CONFIG: each worker uses all of its GPUs. "
                f"Received: {devices}"
            )
        return workers
    gpus = tf.config.list_logical_devices("GPU")
    found = gpus or tf.config.list_logical_devices("CPU")
    if devices is None:
        devices = len(gpus)
    else:
        check_count("devices", devices, least=1)
    if devices > len(found):
        raise ArgumentError(
            f"`devices` must be at most {len(found)}, the number of devices. Received: {devices}"
        )
    if devices < 2:
        return Replicas()
    names = [device.name for device in found[:devices]]
    return Replicas(tf.distribute.MirroredStrategy(names))


@functools.cache
def connect_workers() -> Replicas | None:
    """Connect with the machines that TF_CONFIG names; waits until all of them have started.

    TensorFlow can do that only before it has run anything: a program that sets TF_CONFIG calls this
    function first, and `fit` later.

    Returns:
        The replicas on all of them; None without TF_CONFIG, or if it names one machine.

    Raises:
        ArgumentError: When TF_CONFIG is wrong, or it is too late.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    workers, first = _parsed(text)
    if len(workers) < 2:
        return None
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ArgumentError(
            "With TF_CONFIG, `connect_workers` must be called before TensorFlow runs anything. "
            f"{str(error).partition(chr(10))[0]}"
        ) from None
    except tf.errors.OpError as error:
        raise ArgumentError(
            f"The workers of TF_CONFIG cannot be connected. {plain_reason(error.message)}"
        ) from None
    return Replicas(strategy, first, has_others=True)


def _parsed(text: str) -> tuple[Sequence[str], bool]:
    """Return the addresses of all workers, and whether this one is the chief."""
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        kind, index = task["type"], task["index"]
        others = set(cluster) - {"chief", "worker"}
        addresses = [address for kind in ("chief", "worker") for address in cluster.get(kind, [])]
        known = cluster[kind]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}}. Received: {text[:200]} ({error!r})'
        ) from None
    if others:
        raise ArgumentError(
            f"TF_CONFIG may name only a chief and workers. Received: {', '.join(sorted(others))}"
        )
    wrong = [a for a in addresses if not (isinstance(a, str) and a.rpartition(":")[2].isdecimal())]
    if wrong or len(set(addresses)) < len(addresses):
        raise ArgumentError(
            f"TF_CONFIG must name different addresses, HOST:PORT. Received: {addresses}"
        )
    if not isinstance(index, int) or not 0 <= index < len(known):
        raise ArgumentError(
            f"TF_CONFIG's task index must be 0 to {len(known) - 1}. Received: {index!r}"
        )
    first = "chief" if cluster.get("chief") else "worker"
    return addresses, (kind, index) == (first, 0)


@contextlib.contextmanager
def lost_worker(replicas: Replicas) -> Iterator[None]:
    """Say in one line that another worker is gone, when TensorFlow says so within the block.

    Raises:
        TrainingError: In place of TensorFlow's error.
    """
    try:
        yield
    except _LOST as error:
        if not replicas.has_others:
            raise
        # TensorFlow's threads are in the frames of the error, and complain when they go last.
        traceback.clear_frames(error.__traceback__)
        raise TrainingError(
            f"Another worker has ended or cannot be reached: {plain_reason(error.message)} Resume "
            "the training on all of them."
        ) from None
