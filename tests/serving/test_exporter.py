"""Exporting: what a version's folder holds, and that it appears whole or not at all."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as _registers_int64_value  # noqa: F401
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from siamese_keras import __version__
from siamese_keras import export as export_module
from siamese_keras.export import export, main, verify
from siamese_keras.models.base_model import build_base_model, build_outer_model
from siamese_keras.models.calibration import Classifier
from siamese_keras.serving.client import newest_version, versions
from siamese_keras.serving.signatures import build_signatures, example_requests
from siamese_keras.serving.warmup import WARMUP_FILE, prediction_log
from siamese_keras.verifier import Run

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_variable_is_stored_once(exported, tiny_run):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    shapes = [shape for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sum(int(np.prod(shape)) for shape in shapes) == tiny_run.base.count_params()


def test_signatures_have_named_inputs_and_outputs(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    pixels, files = ((None, 28, 28, 1), "uint8"), ((None,), "string")
    answer = {
        "distance": ((None,), "float32"),
        "similarity": ((None,), "float32"),
        "same": ((None,), "bool"),
    }

    def described(specs):
        return {name: (tuple(spec.shape), spec.dtype.name) for name, spec in specs.items()}

    found = {
        name: (
            described(function.structured_input_signature[1]),
            described(function.structured_outputs),
        )
        for name, function in signatures.items()
    }
    embedding = {"embedding": ((None, 8), "float32")}
    assert found == {
        "serving_default": ({"left": pixels, "right": pixels}, answer),
        "compare_bytes": ({"left": files, "right": files}, answer),
        "embed": ({"images": pixels}, embedding),
        "embed_bytes": ({"images": files}, embedding),
    }


def test_model_json(exported, tiny_run):
    content = json.loads((exported / "assets.extra" / "model.json").read_text())
    del content["metrics"]  # see the next test
    assert content == {
        "name": "tiny",
        "siamese_keras": __version__,
        "class_names": list(tiny_run.class_names),
        "image_shape": [28, 28, 1],
        "threshold": tiny_run.classifier.threshold,
        "scale": tiny_run.classifier.scale,
        "config": json.loads((tiny_run.path / "config.json").read_text()),
    }


def test_metrics_of_a_scored_run_go_along(tiny_run, tmp_path):
    (tmp_path / "metrics.json").write_text('{"test": {"accuracy": 0.9}}')
    version = export(dataclasses.replace(tiny_run, path=tmp_path), tmp_path / "models")
    content = json.loads((version / "assets.extra" / "model.json").read_text())
    assert content["metrics"] == {"test": {"accuracy": 0.9}}


def test_warmup_requests_are_what_the_real_messages_say(exported):
    records = list(tf.data.TFRecordDataset(str(exported / WARMUP_FILE)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    expected = []
    for signature, inputs in example_requests((28, 28, 1), batch_size=1).items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tiny"
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        predict_log = prediction_log_pb2.PredictLog(request=request)
        expected.append(prediction_log_pb2.PredictionLog(predict_log=predict_log))
    assert logs == expected


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 3_000_000])
def test_lengths_of_every_number_of_bytes_are_encoded(size):
    encoded = prediction_log("m", "s", {"x": np.zeros(size, np.uint8)})
    log = prediction_log_pb2.PredictionLog.FromString(encoded)
    assert tf.make_ndarray(log.predict_log.request.inputs["x"]).shape == (size,)


def test_models_config():
    text = (SAVED_MODELS / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("fashion_mnist", "/models/fashion_mnist")
    assert model.model_platform == "tensorflow"


def test_batching_config():
    """The wheel lacks BatchingParameters: these are its fields in session_bundle_config.proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(names, start=1):
        message.field.add(
            name=name, number=number, type=11, label=1, type_name=".google.protobuf.Int64Value"
        )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    parameters = message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
    text_format.Parse((SAVED_MODELS / "batching.config").read_text(), parameters)
    assert all(getattr(parameters, name).value > 0 for name in names)


@pytest.mark.parametrize("channels", [1, 3])
def test_any_scale_and_colour_exports(channels, tmp_path, tiny_run):
    keras.utils.set_random_seed(0)
    base = build_base_model((9, 7, channels), filters=(4,), embedding_dim=3, unit_length=False)
    run = Run(
        tmp_path, tiny_run.config, build_outer_model(base), Classifier(0.5, 3.0), ("a", "b"), {}
    )
    base.get_layer("embedding").set_weights(
        [w * 1000 for w in base.get_layer("embedding").get_weights()]
    )
    assert export(run, tmp_path / "models") == tmp_path / "models" / "1"


def test_two_channels_are_refused(tmp_path, tiny_run):
    outer = build_outer_model(build_base_model((8, 8, 2), filters=(2,)))
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: 2"):
        export(dataclasses.replace(tiny_run, outer=outer), tmp_path)
    assert listing(tmp_path) == set()


def scaled(outer: keras.Model, factor: float) -> keras.Model:
    copy = keras.models.clone_model(outer)
    copy.set_weights([weight * factor for weight in outer.get_weights()])
    return copy


def test_a_model_that_answers_nan_is_not_published(tiny_run, tmp_path):
    broken = dataclasses.replace(tiny_run, outer=scaled(tiny_run.outer, np.nan))
    with pytest.raises(ValueError, match="differs by nan"):
        export(broken, tmp_path)
    assert listing(tmp_path) == set()


def test_a_model_that_answers_otherwise_is_not_published(tiny_run, tmp_path, monkeypatch):
    def altered(outer, classifier):
        return build_signatures(scaled(outer, 1.001), classifier)

    monkeypatch.setattr(export_module, "build_signatures", altered)
    with pytest.raises(ValueError, match="does not answer as the run's"):
        export(tiny_run, tmp_path)
    assert listing(tmp_path) == set()


@pytest.mark.parametrize("signature", ["serving_default", "compare_bytes", "embed", "embed_bytes"])
def test_every_signature_is_compared(signature, exported, tiny_run, monkeypatch):
    """`verify` passes as it is, and fails when one signature gets another request's images."""

    def requests(shape, *, batch_size):
        content = example_requests(shape, batch_size=batch_size)
        name, values = next(iter(content[signature].items()))
        content[signature] = {**content[signature], name: values[::-1].copy()}
        return content

    verify(tiny_run, exported)
    monkeypatch.setattr(export_module, "example_requests", requests)
    with pytest.raises(ValueError, match="differs by"):
        verify(tiny_run, exported)


def write_two_files(_run: Run, path: Path, _name: str) -> None:
    path.mkdir()
    for name in ("saved_model.pb", "variables"):
        (path / name).write_text(threading.current_thread().name)


@pytest.fixture
def quick(monkeypatch):
    """Export two small files, and trust them."""
    monkeypatch.setattr(export_module, "_write", write_two_files)
    monkeypatch.setattr(export_module, "verify", lambda run, path: None)


def test_two_exports_at_once_become_two_versions(quick, tiny_run, tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=20)
    first = threading.local()

    def listed_together(folder):
        """Both see the folder empty before either writes."""
        found = versions(folder)
        if not hasattr(first, "done"):
            first.done = True
            both.wait()
        return found

    monkeypatch.setattr(export_module, "versions", listed_together)
    threads = [
        threading.Thread(target=export, args=(tiny_run, tmp_path), name=f"export-{i}")
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listing(tmp_path) == {"1", "2"}
    contents = [
        {(tmp_path / version / name).read_text() for name in ("saved_model.pb", "variables")}
        for version in ("1", "2")
    ]
    assert sorted(contents, key=str) == [{"export-0"}, {"export-1"}]


def test_versions_count_up_and_nothing_is_replaced(quick, tiny_run, tmp_path):
    for name in ("7", "notes", "12.bak", ".writing-x", "³"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert export(tiny_run, tmp_path).name == "10"
    assert versions(tmp_path) == [7, 9, 10]
    assert newest_version(tmp_path) == tmp_path / "10"


def test_a_failure_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    def full(_run, path, _name):
        write_two_files(_run, path, _name)
        raise OSError("No space left on device")

    monkeypatch.setattr(export_module, "_write", full)
    with pytest.raises(OSError, match="No space"):
        export(tiny_run, tmp_path)
    assert listing(tmp_path) == set()


KILLED = """
import os, signal, sys
from pathlib import Path
from siamese_keras import export
from siamese_keras.verifier import Run

export.verify = lambda run, path: os.kill(os.getpid(), signal.SIGKILL)
export.export(Run.load(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_export_leaves_no_version(quick, tiny_run, tmp_path):
    """Killed when all is written and nothing published; the leftover is removed after an hour."""
    killed = subprocess.run([sys.executable, "-c", KILLED, tiny_run.path, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert (leftover / "model" / "saved_model.pb").is_file()
    assert re.match(r"\.writing-", leftover.name)  # no number: no server takes it for a version
    assert export(tiny_run, tmp_path).name == "1"
    assert leftover.is_dir()  # it might belong to an export that is running
    two_hours_ago = leftover.stat().st_mtime - 7200
    os.utime(leftover, (two_hours_ago, two_hours_ago))
    assert export(tiny_run, tmp_path).name == "2"
    assert listing(tmp_path) == {"1", "2"}


def test_command_line(tiny_run, tmp_path, capsys):
    assert main([str(tiny_run.path), "--output", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == f"export: {tmp_path / 'm' / '1'}\n"


def test_command_line_says_what_is_no_run(tmp_path, capsys):
    assert main([str(tmp_path), "--output", str(tmp_path / "m")]) == 1
    assert capsys.readouterr().err.startswith(f"error: `{tmp_path}` is not the folder of a run")
    assert not (tmp_path / "m").exists()
