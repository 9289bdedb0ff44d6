"""Training on several devices, and by several processes on the loopback interface."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from siamese_keras import fit, load_verifier
from siamese_keras.data.pipeline import pairs_of
from siamese_keras.errors import ArgumentError
from siamese_keras.files import read_columns
from siamese_keras.training.distribution import connect_workers, replicas_for

HELPERS = Path(__file__).parents[1] / "helpers"
SECONDS = 240  # that a process may take, on a machine that is busy


def config_of(index, addresses=("a:1", "b:2"), kind="worker"):
    task = {"type": kind, "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


def free_addresses(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


@contextlib.contextmanager
def workers(folder, number, *arguments):
    """Start so many workers, and kill those that are left in the end.

    An argument may be a function of the number of the worker.
    """
    addresses = free_addresses(number)
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-u",
                HELPERS / "worker.py",
                folder,
                *(str(a(index) if callable(a) else a) for a in arguments),
            ],
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TF_CONFIG": config_of(index, addresses),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(number)
    ]
    watchdogs = [threading.Timer(SECONDS, process.kill) for process in started]
    for watchdog in watchdogs:
        watchdog.start()
    try:
        yield started
    finally:
        for process, watchdog in zip(started, watchdogs, strict=True):
            watchdog.cancel()
            process.kill()
            process.communicate()


def weights(path):
    with np.load(path) as content:
        return [content[name] for name in content.files]


def assert_equal(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_workers_train_one_model_and_go_on_as_more_when_one_dies(tmp_path):
    """Two workers train until one is killed; three go on where they were."""
    with workers(tmp_path, 2, 1000) as (chief, other):
        for line in chief.stdout:
            if line.startswith("Epoch 3/"):
                break
        other.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        _, err = chief.communicate()
        assert time.monotonic() - killed_at < 60
    assert chief.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("Another worker has ended or cannot be reached: ")
    assert last.endswith("Resume the training on all of them.")
    done = len(read_columns(tmp_path / "run" / "history.csv")["loss"])
    assert done >= 2
    assert not (tmp_path / "run" / "outer.keras").exists()

    with workers(tmp_path, 3, done + 2, "resume") as started:
        for process in started:
            _, err = process.communicate()
            assert process.returncode == 0, err
    assert_equal(tmp_path / "weights-0.npz", tmp_path / "weights-1.npz")
    assert_equal(tmp_path / "weights-0.npz", tmp_path / "weights-2.npz")
    verifier = load_verifier(tmp_path / "run")
    for found, expected in zip(
        verifier.base_model.get_weights(), weights(tmp_path / "weights-0.npz"), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert verifier.training["replicas"] == 3
    assert verifier.training["epochs"] == done + 2
    assert verifier.history["val_roc_auc"][-1] > 0.8
    assert {path.name for path in tmp_path.iterdir()} == {
        "run", "weights-0.npz", "weights-1.npz", "weights-2.npz"
    }  # fmt: skip


def test_workers_that_differ_are_refused_on_all_of_them(tmp_path):
    """The second worker is asked for another number of epochs."""
    with workers(tmp_path, 2, lambda index: 2 + index) as started:
        for process in started:
            _, err = process.communicate()
            assert process.returncode == 1
            assert "All workers must train with the same settings and data" in err
    assert not (tmp_path / "run" / "model.json").exists()


def test_two_devices_train_one_model_and_are_resumed_bit_for_bit(tmp_path):
    subprocess.run(
        [sys.executable, HELPERS / "mirrored.py", tmp_path],
        check=True, timeout=SECONDS, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert_equal(tmp_path / "two.npz", tmp_path / "killed.npz")
    two = load_verifier(tmp_path / "two")
    assert two.training["replicas"] == 2
    assert two.history["val_roc_auc"][-1] > 0.75
    found = read_columns(tmp_path / "killed" / "history.csv")
    assert found.keys() == two.history.keys()
    for name, values in found.items():  # sums over devices, in another order within the epoch
        np.testing.assert_allclose(values, two.history[name], rtol=1e-6)


@pytest.mark.parametrize("kind", ["all", "balanced"])
def test_the_parts_of_a_batch_are_disjoint_and_whole(kind):
    labels = np.arange(60) % 3
    values = np.arange(60, dtype=np.float32)[:, np.newaxis]

    def batches(**parts):
        pipeline = pairs_of(values, labels, kind=kind, batch_size=10, seed=3, epochs=2, **parts)
        return [(x["left"][:, 0], x["right"][:, 0], y) for x, y in pipeline.as_numpy_iterator()]

    whole = batches()
    apart = [batches(parts=[part], num_parts=3) for part in range(3)]
    together = batches(parts=range(3), num_parts=3)
    assert len(together) == 3 * len(whole)
    for step, (left, right, _) in enumerate(whole):
        of_step = [part[step] for part in apart]
        for found, expected in zip(together[3 * step : 3 * step + 3], of_step, strict=True):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.concatenate([part[0] for part in of_step]), left)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in of_step]), right)
        for part_left, part_right, different in of_step:
            a, b = labels[part_left.astype(int)], labels[part_right.astype(int)]
            expected = a[:, np.newaxis] != b if kind == "all" else a != b
            np.testing.assert_array_equal(different, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG must be like"),
        ("[]", "TF_CONFIG must be like"),
        ("[" * 100_000, "TF_CONFIG must be like"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', r"TF_CONFIG must be like .* \(KeyError\('task"),
        (config_of(0, kind="ps"), "TF_CONFIG must be like"),
        (config_of(2), "task index must be 0 to 1. Received: 2"),
        (config_of(-1), "task index must be 0 to 1. Received: -1"),
        (config_of("0"), "task index must be 0 to 1. Received: '0'"),
        (config_of(0, ["a:1", "a:1"]), r"different addresses, HOST:PORT. Received: \['a:1', 'a:1'"),
        (config_of(0, ["a:1", "b"]), r"different addresses, HOST:PORT. Received: \['a:1', 'b'"),
        (config_of(0, ["a:1", 3]), "different addresses"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type":"worker","index":0}}',
            "only a chief and workers. Received: ps",
        ),
        (config_of(0), "`connect_workers` must be called before TensorFlow runs anything"),
    ],
)
def test_a_wrong_configuration_is_one_line(monkeypatch, sample, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    connect_workers.cache_clear()
    try:
        with pytest.raises(ArgumentError, match=message) as refused:
            fit(sample, verbose=0)
        assert "\n" not in str(refused.value)
    finally:
        connect_workers.cache_clear()


@pytest.mark.parametrize("text", ["", " ", config_of(0, ["a:1"])])
def test_one_machine_needs_no_strategy(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    connect_workers.cache_clear()
    assert connect_workers() is None
    assert replicas_for(None).number == 1
    assert replicas_for(1).number == 1
    with pytest.raises(ArgumentError, match=r"`devices` must be at most 1.* Received: 2"):
        replicas_for(2)
    connect_workers.cache_clear()
