import math
import signal
import threading
import warnings

import keras
import numpy as np
import pytest

from siamese_keras.errors import TrainingError
from siamese_keras.files import read_columns
from siamese_keras.training.callbacks import EpochLines, Guard, History, StopOnSignal


def logs(same, different):
    """Return the figures of an epoch, the same ones in training and in validation."""
    train = {"same_distance": same, "different_distance": different}
    return {**train, **{f"val_{name}": value for name, value in train.items()}}


def guard(margin=1.0):
    """Return a guard of a model with one weight, which is 0."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1))])
    callback = Guard(margin)
    callback.set_model(model)
    return callback


@pytest.mark.parametrize(
    "values",
    [
        logs(1.0, 0.6),
        # Without validation the training pairs speak.
        {"same_distance": 1.0, "different_distance": 0.6},
        # With it, they do not.
        {**logs(1.0, 0.6), "same_distance": 0.4, "different_distance": 1.0},
    ],
)
def test_a_warning_of_inverted_labels_comes_once(values):
    message = r"labels look inverted \(mean distance 1\.000 of same pairs, 0\.600 of"
    callback = guard()
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(0, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_epoch_end(1, values)


def test_no_warning_when_training_goes_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard().on_epoch_end(0, logs(0.4, 1.1))
        guard().on_epoch_end(0, {"same_distance": 0.4, "different_distance": 1})
        guard().on_epoch_end(0, logs(0.1, 0.29))
        # The averages of batch normalization are not those of the images yet.
        guard().on_epoch_end(
            0, {**logs(0.4, 1.1), **{"val_same_distance": 0.001, "val_different_distance": 0.002}}
        )


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (lambda c: c.on_train_batch_end(6, {"loss": math.nan}), "loss became nan in epoch 3, step"),
        (lambda c: c.on_train_batch_end(6, {"loss": math.inf}), "loss became inf in epoch 3, step"),
        (lambda c: c.on_epoch_end(2, logs(0.001, 0.002)), "The embedding collapsed in epoch 3"),
        (lambda c: c.on_epoch_end(2, logs(math.nan, 1)), "no longer numbers after epoch 3"),
    ],
)
def test_a_training_that_cannot_go_on_ends_with_the_weights_of_the_last_good_epoch(fail, message):
    callback = guard()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, logs(0.4, 1.1))
    callback.model.set_weights([np.full((1, 1), np.nan)])
    callback.on_epoch_begin(2)
    with pytest.raises(TrainingError, match=message) as ended:
        fail(callback)
    assert str(ended.value).endswith("The last good weights are kept.")
    assert callback.model.get_weights() == [0.0]


def test_without_a_good_epoch_the_weights_stay():
    callback = guard(margin=6.0)  # against which 0.29 is small
    with pytest.raises(TrainingError, match=r"collapsed.*There are no good weights from before\."):
        callback.on_epoch_end(0, logs(0.1, 0.29))


def test_the_history_file_is_whole_after_every_epoch(tmp_path):
    columns = {}
    callback = History(columns, tmp_path / "history.csv")
    callback.on_epoch_end(0, {"loss": np.float32(0.1), "val_loss": 1 / 3})
    assert read_columns(tmp_path / "history.csv") == {
        "loss": [float(np.float32(0.1))], "val_loss": [1 / 3]
    }  # fmt: skip
    callback.on_epoch_end(1, {"loss": 2e-7, "val_loss": 0.0})
    assert columns == {"loss": [float(np.float32(0.1)), 2e-7], "val_loss": [1 / 3, 0.0]}
    assert read_columns(tmp_path / "history.csv") == columns
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_a_figure_that_is_logged_now_and_then_has_gaps(tmp_path):
    history = History({}, tmp_path / "history.csv")
    for epoch, figures in enumerate([{"loss": 3.0}, {"loss": 2.0, "own": 0.5}, {"loss": 1.0}]):
        history.on_epoch_end(epoch, figures)
    found = read_columns(tmp_path / "history.csv")
    assert found["loss"] == [3.0, 2.0, 1.0]
    np.testing.assert_array_equal(found["own"], [np.nan, 0.5, np.nan])


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests run in the background and ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_the_first_interrupt_is_noted_and_the_second_acts_as_usual():
    with pytest.raises(KeyboardInterrupt), StopOnSignal() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_after_the_block_interrupts_act_as_before():
    with StopOnSignal() as stop:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not stop.requested


@pytest.mark.usefixtures("interruptible")
def test_an_error_in_the_block_leaves_interrupts_as_they_were():
    with pytest.raises(RuntimeError), StopOnSignal():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_interrupts_stay_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnSignal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, previous)


def test_nothing_changes_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopOnSignal() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


@pytest.mark.usefixtures("interruptible")
def test_any_model_stops_after_the_batch():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                signal.raise_signal(signal.SIGINT)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with StopOnSignal() as stop:
        model.fit(
            np.ones((8, 1)), np.ones(8), batch_size=1, verbose=0, callbacks=[Interrupt(), stop]
        )
    assert stop.requested
    assert int(model.optimizer.iterations) == 3


@pytest.mark.usefixtures("interruptible")
def test_sigterm_acts_as_usual_but_after_the_batch():
    class Terminate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                signal.raise_signal(signal.SIGTERM)

    class TerminatedError(BaseException):
        pass

    def usual(number, frame):
        raise TerminatedError

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    previous = signal.signal(signal.SIGTERM, usual)
    try:
        with pytest.raises(TerminatedError), StopOnSignal([signal.SIGTERM]) as stop:
            callbacks = [Terminate(), stop]
            model.fit(np.ones((8, 1)), np.ones(8), batch_size=1, verbose=0, callbacks=callbacks)
        assert signal.getsignal(signal.SIGTERM) is usual
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert int(model.optimizer.iterations) == 3


def test_the_line_of_an_epoch_is_short(capsys):
    lines = EpochLines(12)
    lines.set_params({"steps": 2000})
    lines.on_epoch_begin(9)
    lines.on_train_batch_end(0, {"loss": 1.0})
    lines.on_epoch_end(9, {"loss": 0.123456, "val_loss": 0.2, "val_roc_auc": 0.98765, "same": 1.0})
    out, err = capsys.readouterr()
    assert out == "epoch 10/12  loss 0.1235  validation: loss 0.2000, ROC-AUC 0.9877  0 s\n"
    assert err == ""


def fallen(epoch_figures):
    """Return the figures of an epoch whose validation images lie close to one point."""
    return {**epoch_figures, "val_same_distance": 0.001, "val_different_distance": 0.002}


def test_a_collapse_that_dropout_hides_in_training_ends_the_training():
    callback = guard()
    callback.on_epoch_end(0, logs(0.4, 1.1))
    callback.model.set_weights([np.ones((1, 1))])
    with pytest.raises(
        TrainingError, match=r"collapsed in epoch 2.*The last good weights are kept"
    ):
        callback.on_epoch_end(1, fallen(logs(0.4, 1.1)))
    assert callback.model.get_weights() == [0.0]


@pytest.mark.parametrize(("auc", "collapsed"), [(0.503, True), (0.8, False)])
def test_a_training_that_never_leaves_its_first_collapse_ends_with_an_error(auc, collapsed):
    callback = guard()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {**fallen(logs(0.4, 1.1)), "val_roc_auc": auc})
    if not collapsed:
        callback.on_train_end()
        return
    with pytest.raises(TrainingError, match=r"The embedding collapsed: .*no good weights"):
        callback.on_train_end()


def test_weights_that_are_not_finite_are_never_the_last_good_ones():
    """A ReLU may hide them from the distances."""
    callback = guard()
    callback.on_epoch_end(0, logs(0.4, 1.1))
    callback.model.set_weights([np.full((1, 1), np.nan)])
    with pytest.raises(TrainingError, match=r"weights are no longer numbers after epoch 2"):
        callback.on_epoch_end(1, logs(0.4, 1.1))
    assert callback.model.get_weights() == [0.0]
