import dataclasses

import pytest
from helpers.tiny import TINY
from tensorflow.python.util import _pywrap_util_port as build

from siamese_keras import fit
from siamese_keras.training.onednn import warn_without_onednn

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize(
    ("variable", "enabled", "warned"),
    [("1", False, True), ("1", True, False), ("0", False, False), (None, False, False)],
)
def test_it_warns_where_tensorflow_was_imported_too_early(
    variable, enabled, warned, monkeypatch, caplog
):
    monkeypatch.setattr(build, "IsMklEnabled", lambda: enabled)
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(VARIABLE, variable)
    warn_without_onednn()
    messages = [record.message for record in caplog.records]
    assert [message.partition(",")[0] for message in messages] == ["oneDNN is off"] * warned


def test_fit_warns(monkeypatch, caplog, sample):
    monkeypatch.setattr(build, "IsMklEnabled", lambda: False)
    monkeypatch.setenv(VARIABLE, "1")
    fit(sample, dataclasses.replace(TINY, architecture="mlp", epochs=1), verbose=0)
    assert "oneDNN is off" in caplog.text
