"""Exports for LiteRT and ONNX: they answer as the Keras model, appear whole, and are loaded."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from siamese_keras import load_verifier
from siamese_keras.errors import ArgumentError, ModelError, RequestError
from siamese_keras.models.base_model import build_base_model
from siamese_keras.models.calibration import Calibration
from siamese_keras.models.outer_model import build_outer_model
from siamese_keras.serving import exporter
from siamese_keras.serving.client import newest_version, only_model, read_model_json
from siamese_keras.serving.exporter import export, verify
from siamese_keras.serving.portable import load_version

CALIBRATION = Calibration(threshold=0.5, slope=3.0)
FILES = {"litert": "model.tflite", "onnx": "model.onnx"}


def small_model(shape=(12, 10, 1), **options):
    keras.utils.set_random_seed(0)
    options = {"filters": (2, 3), "embedding_dim": 3, **options}
    return build_outer_model(build_base_model(shape, **options))


@pytest.fixture(scope="module")
def versions(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("portable")
    found = {form: tiny.export(folder / form, format=form) for form in FILES}
    found["int8"] = tiny.export(folder / "int8", format="litert", quantize="int8")
    return found


@pytest.fixture(scope="module")
def small_versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return {form: export(small_model(), CALIBRATION, folder / form, format=form) for form in FILES}


@pytest.fixture(params=FILES)
def form(request):
    return request.param


def test_a_version_holds_the_model_and_its_facts(versions, exported, form):
    files = {p.relative_to(versions[form]).as_posix() for p in versions[form].rglob("*.*")}
    assert files - {"assets.extra"} == {
        FILES[form],
        "assets.extra/model.json",
        "assets.extra/false_accepts.csv",
        "assets.extra/model_card.md",
    }
    facts, of_saved_model = read_model_json(versions[form]), read_model_json(exported)
    for key in facts.keys() - {"name", "metrics"}:
        assert facts[key] == of_saved_model[key]


@pytest.mark.parametrize("count", [1, 3, 70])
def test_embeddings_are_those_of_the_run_for_any_number_of_images(
    versions, tiny, sample, form, count
):
    images = sample.test.images[:count]
    verifier = load_verifier(versions[form])
    np.testing.assert_allclose(verifier.embed(images), tiny.embed(images), atol=1e-5)
    assert verifier.embed(images[0]).shape == (tiny.base_model.output_shape[-1],)


def test_files_are_embedded_as_the_run_embeds_them(versions, tiny, rng, form):
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    found = load_verifier(versions[form]).embed(buffer.getvalue())
    np.testing.assert_allclose(found, tiny.embed(buffer.getvalue()), atol=1e-5)


def test_answers_and_facts_are_those_of_the_run(versions, tiny, sample, form):
    left, right = sample.test.images[:50], sample.test.images[50:100]
    verifier = load_verifier(versions[form])
    found, expected = verifier.compare(left, right), tiny.compare(left, right)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-4)
    assert found.same.tolist() == expected.same.tolist()
    assert verifier.calibration == tiny.calibration
    assert verifier.class_names == tiny.class_names
    assert verifier.with_threshold(far=0.01).threshold == tiny.with_threshold(far=0.01).threshold


def test_eight_bit_weights_are_smaller_and_nearly_as_exact(versions, tiny, sample):
    sizes = {name: (versions[name] / "model.tflite").stat().st_size for name in ("litert", "int8")}
    assert sizes["int8"] < 0.75 * sizes["litert"]  # of a large model a quarter
    assert read_model_json(versions["int8"])["quantize"] == "int8"
    images = sample.test.images
    difference = np.abs(load_verifier(versions["int8"]).embed(images) - tiny.embed(images)).max()
    assert 1e-5 < difference < 0.05


def test_a_litert_file_compares_by_its_own_signature(versions, tiny, sample):
    """What a phone does, without this package."""
    runner = Interpreter(str(versions["litert"] / "model.tflite")).get_signature_runner(
        "serving_default"
    )
    left, right = sample.test.images[:20], sample.test.images[20:40]
    answer, expected = runner(left=left, right=right), tiny.compare(left, right)
    np.testing.assert_allclose(answer["distance"], expected.distance, atol=1e-5)
    np.testing.assert_allclose(answer["similarity"], expected.similarity, atol=1e-4)
    assert answer["same"].tolist() == expected.same.tolist()


def test_an_onnx_file_embeds_by_name(versions, tiny, sample):
    session = onnxruntime.InferenceSession(str(versions["onnx"] / "model.onnx"))
    (embedding,) = session.run(["embedding"], {"images": sample.test.images[:4]})
    np.testing.assert_allclose(embedding, tiny.embed(sample.test.images[:4]), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((12, 10, 3), {"architecture": "resnet", "flip_averaging": True}),
        ((12, 10, 1), {"shift_averaging": "all", "pooling": "average"}),
        ((12, 12, 1), {"architecture": "mlp", "shift_averaging": "left"}),
        ((5, 4, 3), {"architecture": "mlp", "units": (4,), "unit_length": False}),
    ],
)
def test_every_architecture_is_converted(tmp_path, form, shape, options):
    """`export` compares the answers."""
    version = export(small_model(shape, **options), CALIBRATION, tmp_path, format=form)
    assert version == tmp_path / "1"


@pytest.mark.parametrize("change", [1.001, np.nan])
def test_another_models_answers_are_refused(small_versions, form, change):
    outer = small_model(unit_length=False)
    other = keras.models.clone_model(outer)
    other.set_weights([weight * change for weight in outer.get_weights()])
    with pytest.raises(ModelError, match=r"embedding of embed differs by|distance of serving_def"):
        verify(other, CALIBRATION, small_versions[form])


def test_a_failure_leaves_nothing(tmp_path, monkeypatch, form):
    def full(*_):
        (model,) = tmp_path.glob(".writing-*/model")
        assert (model / FILES[form]).is_file()
        raise OSError("No space left on device")

    monkeypatch.setattr(exporter, "verify", full)
    with pytest.raises(OSError, match="No space"):
        export(small_model(), CALIBRATION, tmp_path, format=form)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_holds_one_format(small_versions, form):
    folder = small_versions[form].parent
    for other in {"saved_model", *FILES} - {form}:
        with pytest.raises(ArgumentError) as refused:
            export(small_model(), CALIBRATION, folder, format=other)
        assert str(refused.value) == (
            f"`{folder}` holds versions in the format {form}, and one folder must hold one "
            f"format. Received: {other}. Export to another folder."
        )
    assert [path.name for path in folder.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "coreml"}, r"one of saved_model, litert, onnx\. Received: coreml"),
        ({"format": "litert", "quantize": "int4"}, r"int8 or None\. Received: int4"),
        ({"format": "onnx", "quantize": "int8"}, r"needs the format litert\. .* format onnx"),
        ({"quantize": "int8"}, r"needs the format litert\. .* format saved_model"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        export(small_model(), CALIBRATION, tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_what_is_not_installed_is_named(small_versions, monkeypatch, tmp_path, form):
    package = {"litert": "ai_edge_litert.interpreter", "onnx": "onnxruntime"}[form]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ArgumentError) as refused:
        load_version(small_versions[form])
    assert str(refused.value) == (
        f"The format {form} needs the package {package.partition('.')[0]}. In a clone of the "
        f"repository: pip install -e '.[{form}]'"
    )
    with pytest.raises(ArgumentError, match="needs the package"):
        export(small_model(), CALIBRATION, tmp_path / "m", format=form)
    assert not (tmp_path / "m").exists()


@keras.saving.register_keras_serializable("tests")
class Decoding(keras.layers.Layer):
    """A layer with an operation that neither format has."""

    def call(self, images):
        text = tf.strings.as_string(images[:, 0, 0, :])
        return tf.cast(tf.strings.length(text), tf.float32)

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def test_a_model_that_cannot_be_converted_is_one_line(tmp_path, form):
    image = keras.Input((12, 10, 1), dtype="uint8", name="image")
    outer = build_outer_model(keras.Model(image, Decoding()(image), name="base"))
    with pytest.raises(ModelError, match=r"cannot be (converted to litert|loaded)\.") as refused:
        export(outer, CALIBRATION, tmp_path / "m", format=form)
    assert "\n" not in str(refused.value)


def test_a_converter_is_needed_to_write_alone(small_versions, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    load_version(small_versions["onnx"])
    with pytest.raises(ArgumentError, match=r"the package tf2onnx\. In a clone"):
        export(small_model(), CALIBRATION, tmp_path / "m", format="onnx")


def test_a_damaged_file_is_named(tmp_path, form):
    path = tmp_path / FILES[form]
    for content in (b"", b"not a model", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot be loaded\. ") as refused:
            load_version(tmp_path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 12, 11, 1), np.uint8), r"shape \(12, 10, 1\)\. .* \(2, 12, 11, 1\)"),
        (np.zeros((2, 12, 10, 1), np.float32), r"must be uint8 .* Received: float32"),
        (np.zeros((0, 12, 10, 1), np.uint8), r"Received: uint8 \(0, 12, 10, 1\)"),
        (np.zeros((12, 10, 1), np.uint8), r"Received: uint8 \(12, 10, 1\)"),
    ],
)
def test_requests_that_do_not_fit_are_refused(small_versions, form, images, message):
    with pytest.raises(RequestError, match=message):
        load_version(small_versions[form])("embed", {"images": images})


def test_sides_of_different_lengths_are_refused(small_versions):
    sides = {name: np.zeros((n, 12, 10, 1), np.uint8) for name, n in (("left", 2), ("right", 3))}
    with pytest.raises(RequestError, match=r"equally many images\. Received: \[2, 3\]"):
        load_version(small_versions["litert"])("serving_default", sides)


def test_files_that_are_no_images_are_refused(small_versions, form):
    with pytest.raises(RequestError):
        load_version(small_versions[form])("embed_bytes", {"images": [b"no image"]})


def test_an_onnx_export_has_no_signature_for_pairs(small_versions):
    pair = {name: np.zeros((1, 12, 10, 1), np.uint8) for name in ("left", "right")}
    with pytest.raises(ModelError, match="no signature 'serving_default'"):
        load_version(small_versions["onnx"])("serving_default", pair)


def test_the_newest_version_is_found_but_it_is_not_the_only_model(small_versions, tmp_path, form):
    version = small_versions[form]
    assert newest_version(version) == version == newest_version(version.parent)
    (tmp_path / "cats-portable").symlink_to(version.parent)
    (tmp_path / "cats" / "3").mkdir(parents=True)
    assert only_model(tmp_path) == Path(tmp_path / "cats")


def test_several_threads_may_ask(versions, tiny, sample, form):
    """As they do in an index: their answers must not be mixed up."""
    verifier = load_verifier(versions[form])
    batches = [sample.train.images[start : start + 7 + start % 3] for start in range(0, 400, 10)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(verifier.embed, batches))
    for batch, embeddings in zip(batches, found, strict=True):
        np.testing.assert_allclose(embeddings, tiny.embed(batch), atol=1e-4)


def test_a_steep_similarity_may_differ_by_as_much_as_its_slope(tmp_path):
    """Distances that agree to 1e-6 differ in a similarity of slope 400 by 1e-4."""
    steep = Calibration(threshold=0.5, slope=400.0)
    version = export(small_model(), steep, tmp_path / "steep", format="litert", quantize="int8")
    assert (version / "model.tflite").is_file()
