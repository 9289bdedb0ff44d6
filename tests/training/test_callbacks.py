import signal
import threading
import warnings

import keras
import numpy as np
import pytest

from siamese_keras.files import read_columns
from siamese_keras.training.callbacks import CollapseMonitor, HistoryFile, StopOnInterrupt


def logs(same, different):
    return {"val_same_distance": same, "val_different_distance": different}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (logs(1.0, 0.6), r"labels look inverted \(mean distance 1\.000 of same pairs, 0\.600 of"),
        (logs(0.001, 0.002), "embedding collapses"),
        # Without validation the training pairs speak.
        ({"same_distance": 1.0, "different_distance": 0.6}, "labels look inverted"),
        # With it, they do not.
        ({"same_distance": 0.4, "different_distance": 1.0, **logs(1.0, 0.6)}, "labels look inve"),
    ],
)
def test_a_warning_comes_once(values, message):
    callback = CollapseMonitor(margin=1.0)
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(0, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_epoch_end(1, values)


def test_distances_are_small_or_large_against_the_margin():
    with pytest.warns(UserWarning, match="embedding collapses"):
        CollapseMonitor(margin=6.0).on_epoch_end(0, logs(0.1, 0.29))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CollapseMonitor(margin=1.0).on_epoch_end(0, logs(0.1, 0.29))


def test_no_warning_when_training_goes_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CollapseMonitor(margin=1.0).on_epoch_end(0, logs(0.4, 1.1))
        CollapseMonitor(margin=1.0).on_epoch_end(0, {"same_distance": 0.4, "different_distance": 1})


def test_history_file_is_whole_after_every_epoch(tmp_path):
    callback = HistoryFile(tmp_path / "history.csv")
    callback.on_epoch_end(0, {"loss": np.float32(0.1), "val_loss": 1 / 3})
    assert read_columns(tmp_path / "history.csv") == {
        "loss": [float(np.float32(0.1))], "val_loss": [1 / 3]
    }  # fmt: skip
    callback.on_epoch_end(1, {"loss": 2e-7, "val_loss": 0.0})
    columns = read_columns(tmp_path / "history.csv")
    assert columns == {"loss": [float(np.float32(0.1)), 2e-7], "val_loss": [1 / 3, 0.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests run in the background and ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_the_first_interrupt_is_noted_and_the_second_acts_as_usual():
    with pytest.raises(KeyboardInterrupt), StopOnInterrupt() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_after_the_block_interrupts_act_as_before():
    with StopOnInterrupt() as stop:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not stop.requested


@pytest.mark.usefixtures("interruptible")
def test_an_error_in_the_block_leaves_interrupts_as_they_were():
    with pytest.raises(RuntimeError), StopOnInterrupt():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_interrupts_stay_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnInterrupt() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, previous)


def test_nothing_changes_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopOnInterrupt() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.usefixtures("interruptible")
def test_any_model_stops_after_the_batch():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                signal.raise_signal(signal.SIGINT)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with StopOnInterrupt() as stop:
        model.fit(
            np.ones((8, 1)), np.ones(8), batch_size=1, verbose=0, callbacks=[Interrupt(), stop]
        )
    assert stop.requested
    assert int(model.optimizer.iterations) == 3
