"""Asking about image files: local and by REST, what is printed, and every error in one line."""

import ast
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.predict import main
from siamese_keras.serving.client import load_saved_model
from siamese_keras.verifier import embed


def write(path: Path, image: np.ndarray) -> str:
    path.write_bytes(tf.io.encode_png(image).numpy())
    return str(path)


@pytest.fixture
def pair(tmp_path, sample):
    images = sample.test.images
    return [write(tmp_path / "left.png", images[0]), write(tmp_path / "right.png", images[1])]


@pytest.fixture(params=["saved model", "server"])
def where(request, exported, server):
    """Options that name the model, in both ways."""
    if request.param == "server":
        return ["--url", server.url]
    return ["--model", str(exported.parent)]


@pytest.fixture
def loaded_once(exported, monkeypatch):
    """Keep the exported model loaded for all tests: `--model` costs a second each time."""
    if not hasattr(loaded_once, "ask"):
        loaded_once.ask = load_saved_model(exported)
    monkeypatch.setattr("siamese_keras.predict.load_saved_model", lambda folder: loaded_once.ask)


pytestmark = pytest.mark.usefixtures("loaded_once")


def ask(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def error(capsys, *arguments: object) -> str:
    """Run to an error: exit status 1, one line, nothing on standard output."""
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "{{" not in err
    return err


def test_a_pair(where, pair, capsys, sample, tiny_run):
    left, right = sample.test.images[:1], sample.test.images[1:2]
    (distance,) = tiny_run.outer.predict_on_batch({"left": left, "right": right})
    answer = json.loads(ask(capsys, *pair, *where, "--json"))
    assert answer == {
        "distance": pytest.approx(distance, abs=1e-5),
        "similarity": pytest.approx(tiny_run.classifier.similarity(distance), abs=1e-5),
        "same": bool(tiny_run.classifier.same(distance)),
    }
    decision = "same" if answer["same"] else "different"
    numbers = f"distance {distance:.3f}  similarity {answer['similarity']:.3f}"
    assert ask(capsys, *pair, *where) == f"{decision}  {numbers}\n"


@pytest.fixture
def gallery(tmp_path, sample):
    """Six images, one below a subfolder, one with another suffix, and files that are none."""
    folder = tmp_path / "gallery"
    (folder / "more").mkdir(parents=True)
    names = ["0.png", "1.png", "2.PNG", "3.jpg", "4.png", "more/5.jpeg"]
    for name, image in zip(names, sample.test.images[1:], strict=False):
        write(folder / name, image)
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.png").write_text("no image")
    return folder


def test_the_nearest_of_a_gallery(where, gallery, pair, capsys, sample, tiny_run):
    embeddings = embed(tiny_run.base, sample.test.images[:7])
    distances = np.linalg.norm(embeddings[1:] - embeddings[0], axis=1)
    names = ["0.png", "1.png", "2.PNG", "3.jpg", "4.png", "more/5.jpeg"]
    expected = [(str(gallery / names[i]), distances[i]) for i in np.argsort(distances)]
    assert main([pair[0], "--gallery", str(gallery), *where, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [item["file"] for item in found] == [name for name, _ in expected[:5]]
    np.testing.assert_allclose([item["distance"] for item in found],
                               [distance for _, distance in expected[:5]], atol=1e-5)  # fmt: skip
    assert err == "" or err.startswith("Left out")
    lines = ask(capsys, pair[0], "--gallery", gallery, *where, "--top", 2).splitlines()
    assert lines == [f"{distance:.3f}  {name}" for name, distance in expected[:2]]
    assert len(ask(capsys, pair[0], "--gallery", gallery, *where, "--top", 99).splitlines()) == 6


def test_a_broken_image_of_a_gallery_is_left_out_by_name(gallery, pair, caplog, exported):
    assert main([pair[0], "--gallery", str(gallery), "--model", str(exported)]) == 0
    assert f"Left out: `{gallery / 'broken.png'}`: An image must be a PNG" in caplog.text


def test_the_query_is_not_its_own_neighbour(gallery, capsys, exported):
    found = ask(capsys, gallery / "0.png", "--gallery", gallery, "--model", exported, "--top", 9)
    assert "0.png" not in found
    assert len(found.splitlines()) == 5


def test_inverting_undoes_dark_on_white(where, tmp_path, pair, capsys, sample):
    negative = write(tmp_path / "negative.png", 255 - sample.test.images[0])
    photo = write(tmp_path / "photo.png", 255 - sample.test.images[1])
    as_it_is = json.loads(ask(capsys, *pair, *where, "--json"))
    inverted = json.loads(ask(capsys, negative, "--invert", photo, *where, "--json"))
    assert inverted == pytest.approx(as_it_is)
    assert json.loads(ask(capsys, negative, photo, *where, "--json")) != pytest.approx(as_it_is)


def test_the_newest_version_answers(exported, pair, capsys, tmp_path, monkeypatch):
    for version in ("2", "10", ".writing-99"):
        (tmp_path / "models" / version).mkdir(parents=True)
    asked = []
    monkeypatch.setattr(
        "siamese_keras.predict.load_saved_model",
        lambda folder: asked.append(folder) or load_saved_model(exported),
    )
    ask(capsys, *pair, "--model", tmp_path / "models")
    ask(capsys, *pair, "--model", exported)
    assert asked == [tmp_path / "models" / "10", exported]


@pytest.mark.parametrize("invert", [[], ["--invert"]])
def test_errors_of_files(where, pair, tmp_path, capsys, invert):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert "broken.png" in error(capsys, pair[0], broken, *where, *invert)
    assert "PNG or JPEG file" in error(capsys, broken, pair[1], *where, *invert)
    assert "none.png" in error(capsys, pair[0], tmp_path / "none.png", *where, *invert)
    assert "directory" in error(capsys, pair[0], tmp_path, *where, *invert)
    assert "broken.png" in error(capsys, broken, "--gallery", tmp_path, *where, *invert)


def test_errors_of_galleries(pair, tmp_path, capsys, exported):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "has no image"), ("none", "is not a folder")):
        options = ("--gallery", tmp_path / name, "--model", exported)
        assert message in error(capsys, pair[0], *options)


def test_errors_of_models(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("siamese_keras.predict.load_saved_model", load_saved_model)
    assert "siamese_keras.export" in error(capsys, *pair, "--model", tmp_path / "none")
    assert "siamese_keras.export" in error(capsys, *pair, "--model", tmp_path)
    (tmp_path / "1").mkdir()
    assert "cannot be loaded" in error(capsys, *pair, "--model", tmp_path)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"broken")
    assert "cannot be loaded" in error(capsys, *pair, "--model", tmp_path)
    other = tf.Module()
    tf.saved_model.save(other, str(tmp_path / "2"))
    assert "has no signature" in error(capsys, *pair, "--model", tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ["a.png"],
        ["a.png", "b.png", "c.png"],
        ["a.png", "b.png", "--gallery", "folder"],
        ["a.png", "--gallery", "folder", "--top", "0"],
        ["a.png", "b.png", "--timeout", "0"],
        ["a.png", "b.png", "--timeout", "nan"],
        ["a.png", "b.png", "--url", "localhost:8501"],
        ["a.png", "b.png", "--url", "http://localhost:x/v1/models/m"],
        ["a.png", "b.png", "--url", "http://localhost:8501"],
        ["a.png", "b.png", "--url", "http://h/v1/models/m", "--model", "folder"],
        ["a.png", "b.png", "--mode", "folder"],
    ],
    ids=" ".join,
)
def test_mistaken_options_end_with_status_2(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_not_there(pair, capsys):
    url = f"http://localhost:{free_port()}/v1/models/m"
    assert "cannot be reached" in error(capsys, *pair, "--url", url)


def test_a_server_that_does_not_answer(pair, capsys):
    with socket.create_server(("localhost", 0)) as silent:
        url = f"http://localhost:{silent.getsockname()[1]}/v1/models/m"
        message = error(capsys, *pair, "--url", url, "--timeout", 0.3)
    assert "did not answer within 0.3 s" in message


def test_a_model_that_the_server_does_not_know(pair, capsys, server):
    message = error(capsys, *pair, "--url", server.url.replace("fashion_mnist", "other"))
    assert "answered 404: Servable not found" in message


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>hello</html>", "does not answer as TensorFlow Serving does"),
        (200, b"[1, 2]", "does not answer as TensorFlow Serving does"),
        (200, b'{"outputs": {"scores": [1]}}', "not an export of this package"),
        (200, b'{"outputs": [1, 2]}', "not an export of this package"),
        (200, b'{"outputs": {"distance": 1, "similarity": "x", "same": null}}', "not an export"),
        (500, b"\xff\xfe", "answered 500"),
        (503, b'{"error": "busy"}', "answered 503: busy"),
    ],
)
def test_servers_that_are_something_else(status, body, message, pair, capsys):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("localhost", 0), Handler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        url = f"http://localhost:{other.server_port}/v1/models/m"
        assert message in error(capsys, *pair, "--url", url, "--timeout", 10)


def test_predict_imports_no_training_code(pair, exported):
    """In a process of its own, from the command line to the answer."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('siamese_keras.predict', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted(name for name in sys.modules if name.startswith('siamese_keras.')))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *pair, "--model", exported],
        capture_output=True,
        text=True,
        check=True,
    )
    answer, modules = finished.stdout.splitlines()
    assert answer.split()[0] in ("same", "different")
    assert not {"siamese_keras.verifier", "siamese_keras.models", "siamese_keras.training"} & set(
        ast.literal_eval(modules)
    )
    assert finished.stderr == ""
