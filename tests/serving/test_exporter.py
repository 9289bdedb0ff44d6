"""Exporting: what a version's folder holds, and that it appears whole or not at all."""

import contextlib
import json
import os
import re
import shutil
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as _registers_int64_value  # noqa: F401
from tensorflow_serving.config import model_server_config_pb2

from siamese_keras import __version__, load_verifier
from siamese_keras.errors import ArgumentError, ModelError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.outer_model import build_outer_model
from siamese_keras.serving import exporter
from siamese_keras.serving.client import read_model_json, versions
from siamese_keras.serving.exporter import export, verify
from siamese_keras.serving.signatures import example_requests

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"
CALIBRATION = Calibration(threshold=0.5, slope=3.0)
CLASSES = ("persian", "tabby")


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def small_model(shape=(9, 7, 1), **options):
    keras.utils.set_random_seed(0)
    return build_outer_model(build_base_model(shape, filters=(2,), embedding_dim=3, **options))


@pytest.fixture(scope="module")
def outer():
    return small_model()


@pytest.fixture
def quick(monkeypatch):
    """Write a graph that does nothing, and trust it: for tests of the folder."""

    def signatures(outer, calibration):
        return {"nothing": (lambda x: {"x": x}, [tf.TensorSpec([], tf.float32, "x")])}

    monkeypatch.setattr(exporter, "build_signatures", signatures)
    monkeypatch.setattr(exporter, "verify", lambda *_: None)


def test_every_variable_is_stored_once(exported, tiny):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    shapes = [shape for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sum(int(np.prod(shape)) for shape in shapes) == tiny.base_model.count_params()


def test_model_json(exported, tiny, tiny_run):
    content = json.loads((exported / "assets.extra" / "model.json").read_text())
    del content["metrics"]  # see the next test
    assert content == {
        "name": "tiny",
        "dataset": tiny.name,
        "siamese_keras": __version__,
        "class_names": list(tiny.class_names),
        "image_shape": [28, 28, 1],
        "threshold": tiny.calibration.threshold,
        "slope": tiny.calibration.slope,
        "midpoint": tiny.calibration.midpoint,
        "false_accepts": tiny.false_accepts.summary(),
        "config": json.loads((tiny_run / "config.json").read_text()),
        "training": tiny.training,
    }


@pytest.mark.usefixtures("quick")
def test_the_metrics_of_a_scored_run_go_along(tiny, tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "metrics.json").write_text('{"test": {"accuracy": 0.9}}')
    version = load_verifier(run).export(tmp_path / "models")
    assert read_model_json(version)["metrics"] == {"test": {"accuracy": 0.9}}
    (run / "metrics.json").unlink()
    version = load_verifier(run).export(tmp_path / "models")
    assert read_model_json(version)["metrics"] is None


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


def of_large_embeddings(shape):
    outer = small_model(shape, unit_length=False)
    embedding = outer.get_layer("base").get_layer("embedding")
    embedding.set_weights([weight * 1000 for weight in embedding.get_weights()])
    return outer


def test_a_model_of_color_images_exports(tmp_path):
    folder = tmp_path / "new" / "models"
    assert export(of_large_embeddings((9, 7, 3)), CALIBRATION, folder) == folder / "1"


@pytest.mark.usefixtures("without_files")
def test_embeddings_in_the_thousands_are_compared_in_proportion(tmp_path):
    outer = of_large_embeddings((9, 7, 1))
    assert export(outer, CALIBRATION, str(tmp_path)) == tmp_path / "1"


def test_two_channels_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"1 or 3 channels\. Received: 2"):
        export(small_model((8, 8, 2)), CALIBRATION, tmp_path)
    assert listing(tmp_path) == set()


def test_an_address_is_not_made_into_a_local_folder(outer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"on this machine\. Received: gs://bucket/models"):
        export(outer, CALIBRATION, "gs://bucket/models")
    assert listing(tmp_path) == set()


def scaled(outer: keras.Model, factor: float) -> keras.Model:
    copy = keras.models.clone_model(outer)
    copy.set_weights([weight * factor for weight in outer.get_weights()])
    return copy


@pytest.mark.usefixtures("without_files")
def test_a_model_that_answers_nan_is_not_published(outer, tmp_path):
    with pytest.raises(ModelError, match=r"differs by nan, .* Nothing was exported\."):
        export(scaled(outer, np.nan), CALIBRATION, tmp_path)
    assert listing(tmp_path) == set()


@pytest.mark.usefixtures("without_files")
def test_a_model_that_answers_otherwise_is_not_published(tmp_path, monkeypatch):
    outer = small_model(unit_length=False)
    signatures = exporter.build_signatures

    def altered(outer, calibration):
        return signatures(scaled(outer, 1.001), calibration)

    monkeypatch.setattr(exporter, "build_signatures", altered)
    with pytest.raises(ModelError, match="does not answer as the Keras model does: "):
        export(outer, CALIBRATION, tmp_path)
    assert listing(tmp_path) == set()


@pytest.mark.parametrize("signature", ["serving_default", "compare_bytes", "embed", "embed_bytes"])
def test_every_signature_is_compared(signature, exported, tiny, monkeypatch):
    """`verify`, which passed for the export, fails when one signature gets other images."""

    def requests(shape, *, batch_size):
        content = example_requests(shape, batch_size=batch_size)
        name, values = next(iter(content[signature].items()))
        content[signature] = {**content[signature], name: values[::-1].copy()}
        return content

    monkeypatch.setattr(exporter, "example_requests", requests)
    with pytest.raises(ModelError, match="differs by"):
        verify(tiny.outer_model, tiny.calibration, exported)


def test_similarities_are_compared(exported, tiny):
    flatter = Calibration(tiny.calibration.threshold, tiny.calibration.slope * 0.99)
    with pytest.raises(ModelError, match="similarity of serving_default differs by"):
        verify(tiny.outer_model, flatter, exported)


@pytest.mark.usefixtures("without_files")
def test_decisions_are_compared(outer, tmp_path):
    """With a slope of nearly 0 all similarities are 0.5, whatever the threshold is."""
    never, always = Calibration(-1.0, 1e-9), Calibration(100.0, 1e-9)
    version = export(outer, never, tmp_path)
    verify(outer, never, version)
    with pytest.raises(ModelError, match="same of serving_default differs by 1,"):
        verify(outer, always, version)


@pytest.mark.usefixtures("quick")
def test_versions_count_up_and_nothing_is_replaced(outer, tmp_path):
    for name in ("7", "notes", "12.bak", ".writing-x", "³"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert export(outer, CALIBRATION, tmp_path) == tmp_path / "10"
    assert list(versions(tmp_path)) == [7, 10]
    assert (tmp_path / "9").read_text() == "a file"
    (tmp_path / "011").mkdir()
    assert export(outer, CALIBRATION, tmp_path) == tmp_path / "12"


@pytest.mark.usefixtures("quick")
def test_another_project_cannot_become_the_next_version(outer, tmp_path):
    def export_again(outer=outer, classes=CLASSES):
        return export(outer, CALIBRATION, tmp_path, class_names=classes).name

    assert export_again() == "1"
    for classes in (("lily", "rose"), (*CLASSES, "siamese"), CLASSES[::-1], ()):
        with pytest.raises(ArgumentError) as refused:
            export_again(classes=classes)
        assert str(refused.value) == (
            f"`{tmp_path / '1'}` is a model of other images, so this one cannot become its next "
            f"version. Its classes: persian, tabby. Received: {', '.join(classes)}. Export under "
            "another name."
        )
    for shape in ((9, 8, 1), (9, 7, 3)):
        with pytest.raises(ArgumentError, match=r"Its image shape: 9, 7, 1\. Received: "):
            export_again(small_model(shape))
    assert listing(tmp_path) == {"1"}
    assert export_again(small_model(embedding_activation="relu")) == "2"


@pytest.mark.usefixtures("quick")
def test_many_classes_are_not_all_listed(outer, tmp_path):
    classes = [tuple(f"{word} {i}" for i in range(100)) for word in ("cat", "dog")]
    export(outer, CALIBRATION, tmp_path, class_names=classes[0])
    with pytest.raises(ArgumentError, match=r"cat 7, \.\.\.\. Received: dog 0, .*dog 7, \.\.\.\. "):
        export(outer, CALIBRATION, tmp_path, class_names=classes[1])


@pytest.mark.usefixtures("quick")
def test_versions_of_other_packages_are_not_judged(outer, tmp_path):
    (tmp_path / "4").mkdir()
    assert export(outer, CALIBRATION, tmp_path, class_names=CLASSES) == tmp_path / "5"


@pytest.mark.usefixtures("quick")
def test_two_exports_at_once_become_two_versions(outer, tmp_path, monkeypatch):
    """Both see the folder empty, and want to become version 1 at the same time."""
    both = threading.Barrier(2, timeout=60)
    rename, met = Path.rename, threading.local()

    def rename_together(path, target):
        if not hasattr(met, "done"):
            met.done = True
            assert Path(target).name == "1"
            both.wait()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_together)
    published = []
    threads = [
        threading.Thread(
            target=lambda slope=slope: published.append(
                (slope, export(outer, Calibration(0.5, slope), tmp_path))
            )
        )
        for slope in (1.0, 2.0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listing(tmp_path) == {"1", "2"}
    assert {version.name for _, version in published} == {"1", "2"}
    for slope, version in published:
        assert read_model_json(version)["slope"] == slope
        assert (version / "saved_model.pb").is_file()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", ["write_warmup_requests", "verify"])
def test_a_failure_leaves_nothing(outer, tmp_path, monkeypatch, step):
    def full(*_):
        assert any(tmp_path.glob(".writing-*/model/saved_model.pb"))
        raise OSError("No space left on device")

    monkeypatch.setattr(exporter, step, full)
    with pytest.raises(OSError, match="No space"):
        export(outer, CALIBRATION, tmp_path)
    assert listing(tmp_path) == set()


@contextlib.contextmanager
def small_files():
    """Let no file grow beyond 500 bytes, as on a full disk; pytest's own output is one as well."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_an_os_error(outer, tmp_path):
    """TensorFlow's file system reports it as an error of another kind."""
    message = r"model` cannot be written\. .*saved_model\.pb"
    with pytest.raises(OSError, match=message), small_files():
        export(outer, CALIBRATION, tmp_path)
    assert listing(tmp_path) == set()


@pytest.mark.usefixtures("quick")
def test_a_killed_export_leaves_no_version(outer, tmp_path, monkeypatch):
    """Killed when all is written and nothing published; the leftover is removed after an hour."""
    killed = tmp_path / "killed"
    monkeypatch.setattr(exporter, "verify", lambda *_: shutil.copytree(tmp_path / "m", killed))
    export(outer, CALIBRATION, tmp_path / "m")
    monkeypatch.setattr(exporter, "verify", lambda *_: None)
    (leftover,) = killed.iterdir()
    assert (leftover / "model" / "saved_model.pb").is_file()
    assert (leftover / "model" / "assets.extra" / "model.json").is_file()
    assert re.match(r"\.writing-", leftover.name)  # no number: no server takes it for a version
    assert versions(killed) == {}
    leftover.touch()  # `copytree` copies the times as well
    assert export(outer, CALIBRATION, killed).name == "1"
    assert leftover.is_dir()  # it might belong to an export that is running
    two_hours_ago = leftover.stat().st_mtime - 7200
    os.utime(leftover, (two_hours_ago, two_hours_ago))
    assert export(outer, CALIBRATION, killed).name == "2"
    assert listing(killed) == {"1", "2"}


@pytest.mark.usefixtures("without_files")
def test_rounding_of_long_embeddings_is_no_difference(tmp_path):
    """A small value of a long embedding carries the rounding of the whole."""
    base = keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8", name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, use_bias=False),
        ],
        name="base",
    )
    kernel = np.random.default_rng(0).normal(size=(784, 4)) * [100, 1e-3, 1e-3, 1e-3]
    base.layers[-1].set_weights([kernel])
    outer, calibration = build_outer_model(base), Calibration(1.0, 1.0)
    version = export(outer, calibration, tmp_path)
    kernel[:, 1] += 1e-7  # 1e-3 in a value of about 1, and 1e-9 of the length of the embedding
    base.layers[-1].set_weights([kernel])
    verify(outer, calibration, version)
    kernel[:, 0] += 1
    base.layers[-1].set_weights([kernel])
    with pytest.raises(ModelError, match="differs by"):
        verify(outer, calibration, version)
