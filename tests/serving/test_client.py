"""Clients of an exported model: which version is asked, and what is said when no answer comes."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ArgumentError, ModelError, RequestError
from siamese_keras.serving.address import check_model_url
from siamese_keras.serving.client import (
    ExportedModel,
    connect,
    load_saved_model,
    newest_version,
    only_model,
    read_model_json,
    versions,
)


def test_versions_are_folders_named_by_a_number(tmp_path):
    for name in ("7", "12", "100", "notes", "13.bak", ".writing-x", "³", "-1", "1e3"):
        (tmp_path / name).mkdir()
    (tmp_path / "999").write_text("a file")
    found = versions(tmp_path)
    assert list(found) == [7, 12, 100]
    assert found == {number: tmp_path / str(number) for number in found}
    assert newest_version(tmp_path) == tmp_path / "100"


def test_a_version_is_taken_as_it_is_named(tmp_path):
    (tmp_path / "007").mkdir()
    (tmp_path / "6").mkdir()
    assert versions(tmp_path) == {6: tmp_path / "6", 7: tmp_path / "007"}
    assert newest_version(tmp_path) == tmp_path / "007"


def test_a_folder_that_is_a_version_itself_is_taken(exported):
    assert newest_version(exported) == exported
    assert newest_version(exported.parent) == exported


def test_without_any_version_the_error_says_how_to_make_one(tmp_path):
    (tmp_path / "9").write_text("a file")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "9"):
        with pytest.raises(ModelError, match=r"python -m siamese_keras\.export RUN") as refused:
            newest_version(folder)
        assert f"`{folder}`" in str(refused.value)


def test_the_only_model_is_found_and_two_are_named(tmp_path):
    models = tmp_path / "saved_models"
    with pytest.raises(ModelError, match=r"--model must name one\. Received: none"):
        only_model(models)
    for name in ("cats/3", "empty/notes"):
        (models / name).mkdir(parents=True)
    (models / "models.config").write_text("")
    assert only_model(models) == models / "cats"
    (models / "birds" / "1").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"must name one\. Received: birds, cats$"):
        only_model(models)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b"[]", "must be a JSON object"),
    ],
)
def test_a_model_json_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "assets.extra" / "model.json"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as refused:
        read_model_json(tmp_path)
    assert str(path) in str(refused.value)


def test_a_saved_model_that_cannot_be_loaded_or_lacks_a_signature_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"1` cannot be loaded\. "):
        load_saved_model(tmp_path / "1")
    tf.saved_model.save(tf.Module(), str(tmp_path / "2"))
    ask = load_saved_model(tmp_path / "2")
    with pytest.raises(ModelError, match="2` has no signature 'embed'"):
        ask("embed", {"images": np.zeros((1, 28, 28, 1), np.uint8)})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8501",
        "http://localhost:8501",
        "http://localhost:8501/v2/models/m",
        "http://localhost:x/v1/models/m",
        "http://localhost:0/v1/models/m",
        "http:///v1/models/m",
        "gs://bucket/v1/models/m",
        "http://localhost:8501/v1/models/m\u00f6bel",
        "http://localhost:8501/v1/models/my model",
        "",
    ],
)
def test_an_address_of_another_kind_is_refused_before_anything_is_sent(url):
    with pytest.raises(ArgumentError) as refused:
        connect(url)
    assert str(refused.value) == f"`url` must be http://HOST:PORT/v1/models/NAME. Received: {url}"


@pytest.mark.parametrize("end", ["", "/", "/versions/3", "/labels/stable"])
def test_an_address_of_a_model_is_taken(end):
    check_model_url(f"http://localhost:8501/v1/models/m{end}")
    check_model_url(f"https://user@[::1]/v1/models/m{end}")


@contextmanager
def answering(status, body):
    """Answer one request with `body`; yield the address of a model and the list of requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, json.loads(content)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}/v1/models/m", requests
        thread.join(timeout=10)


FILES = [b"\x89PNG", b"\xff\xd8"]


def test_a_request_is_as_the_rest_api_has_it():
    body = b'{"outputs": {"distance": [0.5, 1], "similarity": [1, 0], "same": [true, false]}}'
    with answering(200, body) as (url, requests):
        answer = ExportedModel(connect(url + "/")).compare(FILES, FILES[::-1])
    assert {name: values.tolist() for name, values in answer.items()} == {
        "distance": [0.5, 1.0],
        "similarity": [1, 0],
        "same": [True, False],
    }
    png, jpeg = {"b64": "iVBORw=="}, {"b64": "/9g="}
    assert requests == [
        (
            "/v1/models/m:predict",
            {
                "signature_name": "compare_bytes",
                "inputs": {"left": [png, jpeg], "right": [jpeg, png]},
            },
        )
    ]


def test_a_single_output_comes_without_its_name():
    images = np.full((1, 2, 1, 1), 200, np.uint8)
    with answering(200, b'{"outputs": [[1, 2]]}') as (url, requests):
        embedding = ExportedModel(connect(url)).embed(images)
    assert embedding.tolist() == [[1.0, 2.0]]
    assert embedding.dtype == np.float32
    ((_, request),) = requests
    assert request == {"signature_name": "embed", "inputs": {"images": [[[[200]], [[200]]]]}}


def test_large_photos_come_in_requests_of_a_few():
    photos = [bytes([i]) * 4_000_000 for i in range(5)]
    asked = []

    def ask(signature, inputs):
        asked.append({name: [photo[0] for photo in images] for name, images in inputs.items()})
        if signature == "embed_bytes":
            return {"embedding": np.array([[photo[0]] for photo in inputs["images"]])}
        values = np.array([float(photo[0]) for photo in inputs["left"]])
        return {"distance": values, "similarity": values, "same": values}

    model = ExportedModel(ask)
    assert model.embed(photos).ravel().tolist() == [0, 1, 2, 3, 4]
    assert [request["images"] for request in asked] == [[0, 1], [2, 3, 4]]
    asked.clear()
    assert model.compare(photos, photos[::-1])["distance"].tolist() == [0, 1, 2, 3, 4]
    assert [request["left"] for request in asked] == [[0, 1], [2], [3, 4]]
    assert [request["right"] for request in asked] == [[4, 3], [2], [1, 0]]
    asked.clear()
    model.embed([b"\0" * 20_000_000])  # which cannot be cut
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>hello</html>", "does not answer as TensorFlow Serving does"),
        (200, b"[1, 2]", "does not answer as TensorFlow Serving does"),
        (200, b'{"error": "x"}', "does not answer as TensorFlow Serving does"),
        (200, b'{"outputs": {"scores": [1]}}', "not an export of this package"),
        (200, b'{"outputs": [1, 2]}', "not an export of this package"),
        (200, b'{"outputs": [[1, 2], [3]]}', "does not answer as TensorFlow Serving does"),
        (200, b'{"outputs": {"distance": 1, "similarity": "x", "same": null}}', "not an export"),
        (
            200,
            b'{"outputs": {"distance": [1], "similarity": [1], "same": [true]}}',  # one row
            "not an export of this package",
        ),
        (500, b"\xff\xfe", "answered 500"),
        (503, b'{"error": "busy"}', "answered 503: busy"),
        (404, b'{"error": {"code": 404}}', "answered 404: {'code': 404}"),
        (404, b'{"error": "Servable not found"}', "answered 404: Servable not found"),
    ],
)
def test_servers_that_are_something_else(status, body, message):
    with answering(status, body) as (url, _), pytest.raises(ModelError, match=message) as refused:
        ExportedModel(connect(url)).compare(FILES, FILES)
    assert not isinstance(refused.value, RequestError)  # which would be the images' fault
    assert "\n" not in str(refused.value)


def test_a_refused_request_may_be_another_ones_luck():
    body = json.dumps({"error": "assertion failed: [An image must be a PNG.]\n\t [[{{node A}}]]"})
    with answering(400, body.encode()) as (url, _), pytest.raises(RequestError) as refused:
        ExportedModel(connect(url)).embed(FILES)
    assert str(refused.value) == f"`{url}:predict` answered 400: An image must be a PNG."


def test_a_server_that_is_not_there():
    with socket.create_server(("localhost", 0)) as closed:
        url = f"http://localhost:{closed.getsockname()[1]}/v1/models/m"
    ask = connect(url)  # which sends nothing
    with pytest.raises(ModelError, match=f"`{url}:predict` cannot be reached: "):
        ask("embed_bytes", {"images": FILES})


def test_a_server_that_does_not_answer():
    with socket.create_server(("localhost", 0)) as silent:
        url = f"http://localhost:{silent.getsockname()[1]}/v1/models/m"
        with pytest.raises(ModelError, match=r"did not answer within 0\.2 s"):
            connect(url, timeout=0.2)("embed_bytes", {"images": FILES})
