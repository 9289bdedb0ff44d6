"""Asking about image files: local and by REST, what is printed, and every error in one line."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras.errors import ModelError
from siamese_keras.index import main as index_main
from siamese_keras.predict import main


def write(path: Path, image: np.ndarray) -> str:
    path.write_bytes(tf.io.encode_png(image).numpy())
    return str(path)


@pytest.fixture
def pair(tmp_path, sample):
    images = sample.test.images
    return [write(tmp_path / "left.png", images[0]), write(tmp_path / "right.png", images[1])]


@pytest.fixture(params=["saved model", "server", "run"])
def where(request, tiny, tiny_run, exported, server):
    """Options that name the model, in every way."""
    if request.param == "server":
        return ["--url", server.url]
    return ["--model", str(exported.parent if request.param == "saved model" else tiny_run)]


@pytest.fixture
def url(server):
    """Options that name a model which is loaded already: the quickest to ask."""
    return ["--url", server.url]


def ask(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


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


def test_a_pair(where, url, pair, capsys, sample, tiny):
    left, right = sample.test.images[:1], sample.test.images[1:2]
    (distance,) = tiny.outer_model.predict_on_batch({"left": left, "right": right})
    answer = json.loads(ask(capsys, *pair, *where, "--json"))
    assert answer == {
        "distance": pytest.approx(distance, abs=1e-5),
        "similarity": pytest.approx(tiny.calibration.similarity(distance), abs=1e-5),
        "same": bool(tiny.calibration.same(distance)),
    }
    decision = "same" if answer["same"] else "different"
    numbers = f"distance {distance:.3f}  similarity {answer['similarity']:.3f}"
    assert ask(capsys, *pair, *url) == f"{decision}  {numbers}\n"


NAMES = ["0.png", "1.png", "2.PNG", "3.jpg", "4.png", "more/5.jpeg"]


@pytest.fixture
def gallery(tmp_path, sample):
    """Six images, one below a subfolder, others with unusual suffixes, and a file that is none."""
    folder = tmp_path / "gallery"
    (folder / "more").mkdir(parents=True)
    for name, image in zip(NAMES, sample.test.images[1:], strict=False):
        write(folder / name, image)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_the_nearest_of_a_gallery(where, url, gallery, pair, capsys, sample, tiny):
    embeddings = tiny.base_model.predict(sample.test.images[:7], verbose=0)
    distances = np.linalg.norm(embeddings[1:] - embeddings[0], axis=1)
    expected = [(str(gallery / NAMES[i]), distances[i]) for i in np.argsort(distances)]
    (answer,) = json.loads(ask(capsys, pair[0], "--gallery", gallery, *where, "--json"))
    assert answer["query"] == pair[0]
    found = answer["matches"]
    assert [item["file"] for item in found] == [name for name, _ in expected[:5]]
    np.testing.assert_allclose([item["distance"] for item in found],
                               [distance for _, distance in expected[:5]], atol=1e-5)  # fmt: skip
    lines = ask(capsys, "--gallery", gallery, *url, "--top", 2, pair[0]).splitlines()
    assert lines == [f"{distance:.3f}  {name}" for name, distance in expected[:2]]


def test_a_gallery_may_have_fewer_images_than_are_wanted(gallery, pair, capsys, url):
    assert len(ask(capsys, pair[0], "--gallery", gallery, *url, "--top", 99).splitlines()) == 6


@pytest.mark.parametrize("where", ["server", "run"], indirect=True)
def test_a_broken_image_of_a_gallery_is_skipped_by_name(where, gallery, pair, capsys):
    (gallery / "broken.png").write_text("no image")
    assert main([pair[0], "--gallery", str(gallery), *where, "--top", "9"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    (line,) = err.splitlines()
    assert line.startswith(f"Skipping `{gallery / 'broken.png'}`: ")
    assert "`: An image must be a PNG, JPEG, " in line


def test_the_query_is_not_its_own_neighbor(gallery, capsys, url):
    found = ask(capsys, gallery / "0.png", "--gallery", gallery, *url, "--top", 9)
    assert "0.png" not in found
    assert len(found.splitlines()) == 5


def test_inverting_undoes_dark_on_white(url, tmp_path, pair, capsys, sample):
    negative = write(tmp_path / "negative.png", 255 - sample.test.images[0])
    photo = write(tmp_path / "photo.png", 255 - sample.test.images[1])
    as_it_is = json.loads(ask(capsys, *pair, *url, "--json"))
    inverted = json.loads(ask(capsys, negative, "--invert", photo, *url, "--json"))
    assert inverted == pytest.approx(as_it_is)
    assert json.loads(ask(capsys, negative, photo, *url, "--json")) != pytest.approx(as_it_is)


def test_the_newest_version_or_the_one_that_is_named_answers(exported, pair, url, capsys, tmp_path):
    for version in ("2", "10", ".writing-99"):
        (tmp_path / "models" / version).mkdir(parents=True)
    assert "10` cannot be loaded" in error(capsys, *pair, "--model", tmp_path / "models")
    (tmp_path / "models" / "11").symlink_to(exported)
    for model in (tmp_path / "models", exported):
        assert ask(capsys, *pair, "--model", model) == ask(capsys, *pair, *url)


def test_without_a_model_the_only_one_below_saved_models_is_asked(
    exported, pair, url, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    said = error(capsys, *pair)
    assert said == (
        "error: `saved_models` must hold one exported model, or --model must name one. "
        "Received: none\n"
    )
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "cats").symlink_to(exported.parent)
    assert main(pair) == 0
    out, err = capsys.readouterr()
    assert out == ask(capsys, *pair, *url)
    assert err == "Using the model saved_models/cats.\n"
    (tmp_path / "saved_models" / "fashion_mnist" / "1").mkdir(parents=True)
    assert error(capsys, *pair).endswith("must name one. Received: cats, fashion_mnist\n")
    assert error(capsys, pair[0], "--gallery", ".").endswith("Received: cats, fashion_mnist\n")


@pytest.mark.parametrize("where", ["server", "run"], indirect=True)
@pytest.mark.parametrize("invert", [[], ["--invert"]])
def test_errors_of_files(where, pair, tmp_path, capsys, invert):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    said = error(capsys, pair[0], broken, *where, *invert)
    assert "broken.png" in said
    assert "left.png" not in said
    assert "must be a PNG, JPEG, " in error(capsys, broken, pair[1], *where, *invert)
    assert "none.png" in error(capsys, pair[0], tmp_path / "none.png", *where, *invert)
    assert "directory" in error(capsys, pair[0], tmp_path, *where, *invert)
    assert "broken.png" in error(capsys, broken, "--gallery", tmp_path, *where, *invert)


def test_errors_of_galleries(pair, tmp_path, capsys, url):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "has no image"), ("none", "is not a folder")):
        assert message in error(capsys, pair[0], "--gallery", tmp_path / name, *url)


def test_errors_of_models(pair, tmp_path, capsys):
    assert "siamese_keras.export" in error(capsys, *pair, "--model", tmp_path / "none")
    assert "siamese_keras.export" in error(capsys, *pair, "--model", tmp_path)
    (tmp_path / "1").mkdir()
    assert "cannot be loaded" in error(capsys, *pair, "--model", tmp_path)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"broken")
    assert "cannot be loaded" in error(capsys, *pair, "--model", tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "2"))
    assert "is not an export of this package" in error(capsys, *pair, "--model", tmp_path)
    with pytest.raises(ModelError):
        main([*pair, "--model", str(tmp_path), "--traceback"])


@pytest.mark.parametrize(
    "options",
    [
        ["a.png"],
        ["a.png", "b.png", "c.png"],
        ["--gallery", "folder"],
        ["--index", "gallery.npz"],
        ["a.png", "--gallery", "folder", "--index", "gallery.npz"],
        ["a.png", "--gallery", "folder", "--top", "0"],
        ["a.png", "b.png", "--top", "3"],
        ["a.png", "--pairs", "pairs.csv", "--output", "out.csv"],
        ["--pairs", "pairs.csv"],
        ["--pairs", "pairs.csv", "--output", "out.csv", "--json"],
        ["a.png", "b.png", "--output", "out.csv"],
        ["a.png", "--all-pairs", "folder"],
        ["a.png", "b.png", "--threshold", "-1"],
        ["a.png", "b.png", "--threshold", "inf"],
        ["a.png", "b.png", "--threshold", "close"],
        ["a.png", "b.png", "--far", "0"],
        ["a.png", "b.png", "--far", "1"],
        ["a.png", "b.png", "--prior", "1"],
        ["a.png", "b.png", "--far", "0.1", "--prior", "0.1"],
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


def test_a_server_that_is_not_there(pair, capsys):
    with socket.create_server(("localhost", 0)) as closed:
        url = f"http://localhost:{closed.getsockname()[1]}/v1/models/m"
    assert "cannot be reached" in error(capsys, *pair, "--url", url)


def test_a_timeout_without_a_server_to_wait_for_is_refused(pair, capsys):
    assert error(capsys, *pair, "--timeout", 3) == (
        "error: --timeout is for --url, the server to wait for.\n"
    )


def test_a_server_that_does_not_answer(pair, capsys):
    with socket.create_server(("localhost", 0)) as silent:
        url = f"http://localhost:{silent.getsockname()[1]}/v1/models/m"
        message = error(capsys, *pair, "--url", url, "--timeout", 0.3)
    assert "did not answer within 0.3 s" in message


def test_a_model_that_the_server_does_not_know(pair, capsys, server):
    message = error(capsys, *pair, "--url", server.url.replace("fashion_mnist", "other"))
    assert "answered 404: Servable not found" in message


# From the command line to the answers, then as a library. TensorFlow imports Keras where it can.
WITHOUT_KERAS = """
import runpy, sys
from pathlib import Path

for name in ("keras", "sklearn", "matplotlib", "tensorflow_datasets"):
    sys.modules[name] = None  # as if it were not installed
left, right, exported, url = sys.argv[1:]
for model in (["--model", exported], ["--url", url]):
    sys.argv = ["predict", left, right, *model]
    try:
        runpy.run_module("siamese_keras.predict", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code
from siamese_keras import load_verifier
for source in (exported, url):
    verifier = load_verifier(source, invert=True)
    verifier.compare([left, right], [right, left], prior=0.1)
    verifier.search(left, Path(left).parent)
parts = ("training", "evaluation", "runs", "models.base_model", "data.datasets")
print([name for name in sys.modules if name.startswith(tuple(f"siamese_keras.{p}" for p in parts))])
"""


def test_an_exported_model_and_a_server_are_asked_without_keras(pair, exported, server):
    """In a process of its own, which also shows that nothing else is printed."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, *pair, str(exported), server.url],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    local, remote, loaded = finished.stdout.splitlines()
    assert local.split()[0] in ("same", "different")
    assert remote == local
    assert loaded == "[]"
    assert finished.stderr == ""


def test_an_index_is_searched_for_several_queries(gallery, pair, capsys, tiny, tmp_path, tiny_run):
    index, model = tmp_path / "gallery.npz", ["--model", tiny_run]
    tiny.index(gallery, index)
    every = [tiny.search(query, gallery, top=9) for query in pair]
    limit = every[0][0].distance + 1e-6  # the nearest one of the first query
    expected = []
    for query, matches in zip(pair, every, strict=True):
        near = [m for m in matches if m.distance <= limit]
        lines = [f"{m.distance:.3f}  {Path(m.file).relative_to(gallery)}" for m in near]
        expected += [f"{query}  {line}" for line in lines or ["no match"]]
    options = ["--index", index, *model, "--threshold", limit, "--top", 9]
    assert ask(capsys, *pair, *options).splitlines() == expected
    found = json.loads(ask(capsys, pair[0], *options, "--json"))
    assert [item["query"] for item in found] == [pair[0]]
    assert len(found[0]["matches"]) == 1
    nothing = ["--index", index, *model, "--threshold", 0]
    query = np.random.default_rng(7).integers(0, 256, (28, 28, 1), np.uint8)
    assert ask(capsys, write(tmp_path / "q.png", query), *nothing) == "no match\n"


def test_near_duplicates_are_listed_nearest_first(gallery, capsys, tiny_run):
    (gallery / "copy.png").write_bytes((gallery / "0.png").read_bytes())
    options = ["--all-pairs", gallery, "--model", tiny_run, "--threshold", 9]
    lines = ask(capsys, *options).splitlines()
    assert len(lines) == 21
    assert lines == sorted(lines)
    assert lines[0] == f"0.000  {gallery / '0.png'}  {gallery / 'copy.png'}"
    (nearest,) = json.loads(ask(capsys, *options, "--top", 1, "--json"))
    assert nearest == {
        "left": str(gallery / "0.png"),
        "right": str(gallery / "copy.png"),
        "distance": 0.0,
    }


def test_a_pair_is_decided_at_the_threshold_that_is_asked_for(pair, capsys, tiny, tiny_run):
    distance = float(tiny.distance(*pair))
    for options, same in (
        (["--threshold", distance + 1e-4], True),
        (["--threshold", distance - 1e-4], False),
        (["--threshold", 0], False),
    ):
        answer = json.loads(ask(capsys, *pair, "--model", tiny_run, *options, "--json"))
        assert answer["same"] is same
        assert answer["similarity"] == pytest.approx(float(tiny.similarity(*pair)), abs=1e-5)
    assert main([*pair, "--model", str(tiny_run), "--prior", "0.2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.endswith(" for a prior of 0.2.\n")
    answer = json.loads(out)
    assert answer["similarity"] == pytest.approx(float(tiny.similarity(*pair, prior=0.2)), abs=1e-5)
    assert answer["same"] == (answer["similarity"] >= 0.5)


def test_an_index_needs_a_threshold_where_a_server_answers(gallery, pair, capsys, tmp_path, url):
    index = tmp_path / "gallery.npz"
    assert index_main([str(gallery), "--output", str(index), *url]) == 0
    capsys.readouterr()
    assert "set one with --threshold" in error(capsys, pair[0], "--index", index, *url)
    assert ask(capsys, pair[0], "--index", index, "--threshold", 9, *url)
