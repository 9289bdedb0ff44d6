"""A SavedModel as TensorFlow Serving takes it: the C++ loader, bad requests, gRPC and REST."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from helpers.png import png_bomb
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from siamese_keras import predict
from siamese_keras.errors import RequestError
from siamese_keras.serving.client import connect, load_saved_model
from siamese_keras.serving.warmup import WARMUP_FILE

TOLERANCE = 1e-5
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "serving.md"


def files(images: np.ndarray) -> np.ndarray:
    """Encode images as PNG files: an array of `bytes` objects, `[n]`."""
    encoded = np.empty(len(images), object)
    encoded[:] = [tf.io.encode_png(image).numpy() for image in images]
    return encoded


@pytest.fixture(scope="module")
def requests(sample):
    """Return requests of `n` real images or pairs for every signature."""

    def build(n: int) -> dict[str, dict[str, np.ndarray]]:
        left, right = sample.test.images[:n], sample.test.images[-n:]
        return {
            "serving_default": {"left": left, "right": right},
            "compare_bytes": {"left": files(left), "right": files(right)},
            "embed": {"images": left},
            "embed_bytes": {"images": files(left)},
        }

    return build


def expected_answers(verifier, left: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    distance = verifier.outer_model.predict_on_batch({"left": left, "right": right})
    return {
        "distance": distance,
        "similarity": verifier.calibration.similarity(distance),
        "same": verifier.calibration.same(distance),
        "embedding": verifier.base_model.predict_on_batch(left),
    }


def assert_close(answer, expected, names) -> None:
    assert set(answer) == set(names)
    for name in names:
        assert answer[name].shape == expected[name].shape
        if name == "same":
            np.testing.assert_array_equal(answer[name], expected[name])
        else:
            np.testing.assert_allclose(answer[name], expected[name], rtol=0, atol=TOLERANCE)


OUTPUTS = {
    "serving_default": ("distance", "similarity", "same"),
    "compare_bytes": ("distance", "similarity", "same"),
    "embed": ("embedding",),
    "embed_bytes": ("embedding",),
}


@pytest.mark.parametrize("n", [1, 3, 129])
@pytest.mark.parametrize("signature", OUTPUTS)
def test_the_cpp_loader_answers_as_the_keras_model(signature, n, requests, c_api_model, tiny):
    pair = requests(n)["serving_default"]
    answer = c_api_model.ask(signature, requests(n)[signature])
    assert not isinstance(answer, str), answer
    assert_close(answer, expected_answers(tiny, **pair), OUTPUTS[signature])
    assert all(array.dtype in (np.float32, np.bool_) for array in answer.values())


def test_warmup_requests_are_answered(exported, c_api_model):
    signatures = []
    for record in tf.data.TFRecordDataset(str(exported / WARMUP_FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = c_api_model.ask(request.model_spec.signature_name, inputs)
        assert not isinstance(answer, str), answer
        signatures.append(request.model_spec.signature_name)
    assert sorted(signatures) == sorted(OUTPUTS)


def pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


def texts(*contents: bytes) -> np.ndarray:
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


GOOD = pixels(1, 28, 28, 1)
GOOD_FILE = files(GOOD)[0]
BOMB = png_bomb(20_000, 20_000, rows=20_000)
BAD_IMAGES = {
    "wrong rank": (pixels(1, 28, 28), "not compatible with expected shape"),
    "one image without batch": (pixels(28, 28, 1), "not compatible with expected shape"),
    "scalar": (pixels(), "not compatible with expected shape"),
    "rank 5": (pixels(1, 1, 28, 28, 1), "not compatible with expected shape"),
    "wrong size": (pixels(1, 32, 32, 1), "not compatible with expected shape"),
    "wrong channels": (pixels(1, 28, 28, 3), "not compatible with expected shape"),
    "wrong dtype": (pixels(1, 28, 28, 1, dtype=np.float32), "uint8"),
    "strings": (texts(b"x"), "uint8"),
    "empty batch": (pixels(0, 28, 28, 1), "at least 1"),
}
BAD_FILES = {
    "wrong rank": (texts(GOOD_FILE).reshape(1, 1), "not compatible with expected shape"),
    "scalar": (texts(GOOD_FILE).reshape(()), "not compatible with expected shape"),
    "wrong dtype": (GOOD, "string"),
    "empty batch": (texts(), "at least 1"),
    "empty file": (texts(b""), "must be a PNG or JPEG file"),
    "no image": (texts(b"GIF89a"), "must be a PNG or JPEG file"),
    "broken PNG": (texts(GOOD_FILE[:-20]), "Invalid PNG"),
    "PNG of 20,000 x 20,000": (texts(BOMB), r"25000000 pixels.*\[20000 20000\]"),
    "PNG of negative size": (texts(png_bomb(2**32 - 1, 9, rows=1)), "25000000 pixels"),
    "one broken of two": (texts(GOOD_FILE, b"broken"), "must be a PNG or JPEG file"),
}
BAD = [
    *(("serving_default", what, *case) for what, case in BAD_IMAGES.items()),
    *(("embed", what, *case) for what, case in BAD_IMAGES.items()),
    *(("compare_bytes", what, *case) for what, case in BAD_FILES.items()),
    *(("embed_bytes", what, *case) for what, case in BAD_FILES.items()),
]


@pytest.fixture(scope="module")
def assert_still_answers(c_api_model, requests, tiny):
    """Return a check that the process lives, and answers a good request as it should."""
    good = requests(3)["compare_bytes"]
    expected = expected_answers(tiny, **requests(3)["serving_default"])

    def check() -> None:
        answer = c_api_model.ask("compare_bytes", good)
        assert_close(answer, expected, OUTPUTS["compare_bytes"])

    return check


@pytest.mark.parametrize(
    ("signature", "bad", "message"),
    [(signature, bad, message) for signature, _, bad, message in BAD],
    ids=[f"{signature}-{what}" for signature, what, _, _ in BAD],
)
def test_a_bad_request_gets_an_error_and_the_next_an_answer(
    signature, bad, message, c_api_model, assert_still_answers
):
    if signature.startswith("embed"):
        sides = [{"images": bad}]
    else:
        good = texts(*[GOOD_FILE] * bad.size) if bad.dtype == object else GOOD
        sides = [{"left": bad, "right": good}, {"left": good, "right": bad}]
        sides.append({"left": bad, "right": bad})
    for inputs in sides:
        answer = c_api_model.ask(signature, inputs)
        assert isinstance(answer, str), answer
        # With one good side it may be that side that is found to be of another length.
        allowed = f"{message}|equally many images|uint8|string"
        assert re.search(message if inputs is sides[-1] else allowed, answer), answer
    assert_still_answers()


@pytest.mark.parametrize("signature", ["serving_default", "compare_bytes"])
@pytest.mark.parametrize(("left", "right"), [(1, 3), (3, 1), (2, 3)])
def test_unequal_numbers_of_images_never_broadcast(
    signature, left, right, requests, c_api_model, assert_still_answers
):
    many = requests(3)[signature]
    answer = c_api_model.ask(
        signature, {"left": many["left"][:left], "right": many["right"][:right]}
    )
    assert isinstance(answer, str)
    assert "equally many images" in answer
    assert_still_answers()


@pytest.mark.parametrize("signature", OUTPUTS)
def test_a_missing_input_is_an_error(signature, requests, c_api_model, assert_still_answers):
    inputs = dict(requests(1)[signature])
    inputs.popitem()
    answer = c_api_model.ask(signature, inputs)
    assert isinstance(answer, str)
    assert "must feed a value" in answer
    assert_still_answers()


def test_an_image_that_claims_to_be_huge_takes_no_memory(c_api_model):
    """Decoded to RGBA it would take 1.6 GB."""
    c_api_model.ask("compare_bytes", {"left": texts(GOOD_FILE), "right": texts(GOOD_FILE)})
    before = c_api_model.peak_memory()
    for signature in ("compare_bytes", "embed_bytes"):
        names = c_api_model.signatures[signature][0]
        assert isinstance(c_api_model.ask(signature, dict.fromkeys(names, texts(BOMB, BOMB))), str)
    assert c_api_model.peak_memory() - before < 100e6


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.mark.parametrize("signature", OUTPUTS)
def test_grpc(signature, requests, stub, tiny):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fashion_mnist"
    request.model_spec.signature_name = signature
    for name, array in requests(3)[signature].items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    response = stub.Predict(request, timeout=20)
    answer = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    expected = expected_answers(tiny, **requests(3)["serving_default"])
    assert_close(answer, expected, OUTPUTS[signature])


def test_grpc_tells_what_is_wrong(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fashion_mnist"
    request.model_spec.signature_name = "embed_bytes"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto([b"no image"]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "must be a PNG or JPEG file" in caught.value.details()


@pytest.mark.parametrize("signature", ["compare_bytes", "embed_bytes"])
def test_the_two_ways_to_ask_agree(signature, requests, server, exported, tiny):
    inputs = {name: array.tolist() for name, array in requests(3)[signature].items()}
    expected = expected_answers(tiny, **requests(3)["serving_default"])
    for ask in (
        connect(server.url),
        connect(server.url + "/versions/1"),
        load_saved_model(exported),
    ):
        assert_close(ask(signature, inputs), expected, OUTPUTS[signature])
        with pytest.raises(RequestError, match=r"An image must be a PNG or JPEG file\.$"):
            ask(signature, {name: [b"no image"] for name in inputs})
        with pytest.raises(RequestError, match=r"Received: height and width \[20000 20000\]$"):
            ask(signature, {name: [BOMB] for name in inputs})


def page_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def clone(tmp_path, sample, exported):
    """A folder in which the page's commands find what they name: images and a model."""
    examples, photos = tmp_path / "examples", tmp_path / "photos"
    examples.mkdir()
    photos.mkdir()
    paths = [examples / "left.png", examples / "right.png", photos / "2.png", photos / "3.png"]
    for path, content in zip(paths, files(sample.test.images[:4]), strict=True):
        path.write_bytes(content)
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "fashion_mnist").symlink_to(exported.parent)
    return tmp_path


@pytest.fixture
def pair_distance(sample, tiny):
    """Distance of the pair that the page asks about."""
    left, right = sample.test.images[:1], sample.test.images[1:2]
    return tiny.outer_model.predict_on_batch({"left": left, "right": right})[0]


def test_grpc_client_of_the_page(server, clone, pair_distance, monkeypatch, capsys):
    client, *_ = page_blocks("python")
    assert "localhost:8500" in client
    monkeypatch.chdir(clone)
    exec(client.replace("localhost:8500", server.grpc_address), {})
    answer = ast.literal_eval(capsys.readouterr().out)
    assert set(answer) == set(OUTPUTS["compare_bytes"])
    assert answer["distance"] == [pytest.approx(pair_distance, abs=TOLERANCE)]


def test_shell_commands_of_the_page(server, clone, pair_distance, monkeypatch, capsys):
    """Curl and predict run as they stand, but for the port; docker does not run here."""
    port = re.search(r":\d+", server.url).group()
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def run(block: str) -> str:
        if "curl" in block:
            command = ["bash", "-euo", "pipefail", "-c", block]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            assert finished.returncode == 0, finished.stderr
            return finished.stdout
        for line in block.replace("\\\n", "").splitlines():
            python, m, program, *arguments = shlex.split(line)
            assert (python, m, program) == ("python", "-m", "siamese_keras.predict")
            assert predict.main(arguments) == 0
        return capsys.readouterr().out

    blocks = [block.replace(":8501", port) for block in page_blocks("bash")]
    files_by_rest, pixels_by_rest, local, by_url = map(
        run, [block for block in blocks if "docker" not in block]
    )
    (answer,) = json.loads(files_by_rest)["predictions"]
    assert answer["distance"] == pytest.approx(pair_distance, abs=TOLERANCE)
    (answer,) = json.loads(pixels_by_rest)["predictions"]
    assert answer["distance"] == 0
    compared, *found = local.splitlines()
    assert f"distance {pair_distance:.3f}" in compared
    assert {line.split()[1] for line in found} == {"photos/2.png", "photos/3.png"}
    assert f"distance {pair_distance:.3f}" in by_url
