import dataclasses

import keras
import pytest
import tensorflow as tf
from helpers.tiny import TINY

from siamese_keras import fit
from siamese_keras.training import mixed_precision
from siamese_keras.training.mixed_precision import bfloat16_convolutions, has_bfloat16

KEY = "auto_mixed_precision_onednn_bfloat16"


def rewriter_is_on():
    return tf.config.optimizer.get_experimental_options().get(KEY, False)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 vaes", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16x", False),
        ("bugs\t\t: avx512_bf16", False),
        ("", False),
    ],
)
def test_the_processor_is_asked(tmp_path, flags, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{flags}\n")
    assert has_bfloat16(path) is expected


def test_a_system_without_such_a_list_computes_in_float32(tmp_path):
    assert not has_bfloat16(tmp_path / "none")


@pytest.mark.parametrize("possible", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_rewriter_is_on_within_the_block_alone(monkeypatch, wanted, possible):
    monkeypatch.setattr(mixed_precision, "has_bfloat16", lambda: possible)
    with pytest.raises(RuntimeError), bfloat16_convolutions(wanted) as done:
        assert done is (wanted and possible)
        assert rewriter_is_on() is done
        raise RuntimeError
    assert not rewriter_is_on()


@pytest.mark.parametrize("wanted", [True, False])
def test_training_computes_as_the_settings_say_and_notes_it(sample, wanted):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(rewriter_is_on())

    config = dataclasses.replace(TINY, architecture="mlp", epochs=1, bfloat16=wanted)
    verifier = fit(sample, config, callbacks=[Watch()], verbose=0)
    done = wanted and has_bfloat16()
    assert verifier.training["bfloat16"] is done
    assert set(seen) == {done}
    assert not rewriter_is_on()
