"""The demo: the functions behind its page, and the page in a browser."""

import base64
import html
import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.browser import until
from helpers.png import png_bomb
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from siamese_keras import demo_page
from siamese_keras.data.splits import Source
from siamese_keras.demo import main
from siamese_keras.demo_page import Demo, build_page, write_examples
from siamese_keras.demo_server import page_url
from siamese_keras.errors import ModelError
from siamese_keras.verifier import load_verifier


def write(path: Path, image: np.ndarray) -> str:
    path.write_bytes(tf.io.encode_png(image).numpy())
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    """A gallery of ten images."""
    made = tmp_path_factory.mktemp("gallery")
    for i, image in enumerate(sample.test.images[:10]):
        write(made / f"{i}.png", image)
    return made


@pytest.fixture(scope="module")
def verifier(exported):
    return load_verifier(exported)


@pytest.fixture(scope="module")
def demo(verifier, folder):
    return Demo(verifier, verifier.open_gallery(folder))


@pytest.fixture
def pair(tmp_path, sample):
    """Two images that are not in the gallery."""
    images = sample.test.images[20:22]
    return [write(tmp_path / f"{side}.png", images[i]) for i, side in enumerate(("left", "right"))]


def shown_pixels(shown):
    """Return the pixels of the picture in a piece of HTML."""
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def text_of(shown):
    return html.unescape(re.sub(r"<[^>]*>", " ", shown))


def test_two_images_get_the_answer_of_the_model_and_are_shown_as_it_sees_them(demo, verifier, pair):
    left, right, kept = demo.compare(*pair)
    answer = demo.decide(kept, demo.shown_threshold)
    expected = verifier.compare(*pair)
    assert kept == pytest.approx([expected.distance, expected.similarity], abs=1e-6)
    assert f" {'same' if expected.same else 'different'} " in text_of(answer)
    assert f" {expected.distance:.3f} " in text_of(answer)
    assert f" {expected.similarity:.3f} " in text_of(answer)
    for shown, path in zip((left, right), pair, strict=True):
        np.testing.assert_array_equal(
            shown_pixels(shown), np.broadcast_to(verifier.decode(path), (28, 28, 3))
        )
        assert "28 x 28 pixels, gray" in text_of(shown)


def test_inverted_images_are_shown_and_compared_inverted_once(exported, pair):
    inverting = load_verifier(exported, invert=True)
    left, _, kept = Demo(inverting).compare(*pair)
    np.testing.assert_array_equal(
        shown_pixels(left),
        np.broadcast_to(255 - load_verifier(exported).decode(pair[0]), (28, 28, 3)),
    )
    assert kept[0] == pytest.approx(inverting.distance(*pair), abs=1e-6)


def test_the_decision_follows_the_threshold_and_nothing_else_changes(demo):
    near, far = (demo.decide([0.5, 0.7], threshold) for threshold in (0.5, 0.499))
    assert " same " in text_of(near)
    assert " different " in text_of(far)
    assert near.replace("demo-same", "").replace("same<", "") == far.replace(
        "demo-different", ""
    ).replace("different<", "")


def test_where_the_slider_shows_the_threshold_of_the_model_the_decision_is_the_models(demo):
    assert " same " in text_of(demo.decide([demo.threshold, 0.5], demo.shown_threshold))
    beyond = [np.nextafter(demo.threshold, 9), 0.5]
    assert " different " in text_of(demo.decide(beyond, demo.shown_threshold))


def test_nothing_is_answered_before_there_are_two_images(demo, pair):
    assert demo.compare(None, None) == ("", "", None)
    left, *rest = demo.compare(pair[0], None)
    assert "As the network sees it" in left
    assert rest == ["", None]
    assert demo.search(None) == ("", None, "")
    assert (demo.decide(None, 1.0), demo.count(None, 1.0)) == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad <1>.png`: An image must be a PNG, JPEG, "),
        (b"<b>text</b>", "It begins with b'<b>text<'"),
        (b"\x89PNG\r\n\x1a\n....", "The image is damaged"),
        (png_bomb(20_000, 20_000, rows=1), "An image must have 1 to 25000000 pixels"),
    ],
    ids=["empty", "text", "damaged", "bomb"],
)
def test_a_file_that_is_not_an_image_is_named_without_its_folder(
    demo, pair, tmp_path, content, message
):
    bad = tmp_path / "bad <1>.png"
    bad.write_bytes(content)
    left, right, kept = demo.compare(str(bad), pair[1])
    assert message in text_of(left)
    assert 'role="alert"' in left
    assert "bad <1>" not in left  # escaped
    assert "<b>text" not in left
    assert str(tmp_path) not in left
    assert "As the network sees it" in right
    assert kept is None
    shown, *rest = demo.search(str(bad))
    assert message in text_of(shown)
    assert rest == [None, ""]


def test_an_image_of_one_color_is_pointed_out(demo, tmp_path):
    black = write(tmp_path / "black.png", np.zeros((28, 28, 1), np.uint8))
    assert "nearly one color" in text_of(demo.compare(black, None)[0])


def test_a_search_finds_what_the_model_finds_and_counts_those_within_the_threshold(
    demo, verifier, folder, pair
):
    found = verifier.search(pair[0], folder, top=8)
    threshold = (found[2].distance + found[3].distance) / 2
    shown, distances, matches = demo.search(pair[0])
    assert "As the network sees it" in shown
    assert distances == pytest.approx([match.distance for match in found], abs=1e-6)
    assert re.findall(r"\d+\.png", text_of(matches)) == [Path(m.file).name for m in found]
    assert text_of(demo.count(distances, threshold)).split()[:4] == ["3", "of", "the", "8"]
    assert text_of(demo.count(distances, 9.0)).split()[0] == "8"


def test_files_of_the_gallery_that_are_gone_are_listed_as_such(verifier, sample, tmp_path, pair):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("<i>&{{1}}.png", "2.png"):
        write(photos / name, sample.test.images[0])
    index = tmp_path / "gallery.npz"
    verifier.index(photos, index)
    (photos / "2.png").unlink()
    *_, matches = Demo(verifier, verifier.open_gallery(index)).search(pair[0])
    assert matches.count("file is gone") == 1
    assert "<i>" not in matches
    assert "<i>&{{1}}.png" in text_of(matches)


def test_whatever_is_shown_has_one_source_which_is_asked_again_when_it_was_busy(demo):
    """A second one could come last with an earlier threshold or image; the queue loses answers."""
    events = build_page(demo, []).fns.values()
    shown = [block.elem_id for event in events for block in event.outputs if block.elem_id]
    assert sorted(shown) == ["answer", "count", "left-seen", "matches", "query-seen", "right-seen"]
    assert {(event.trigger_mode, event.queue) for event in events} == {("always_last", False)}


def test_the_slider_reaches_the_distances_of_a_base_model_of_the_users_own(exported):
    verifier = load_verifier(exported)
    assert Demo(verifier).max_distance == 2.0
    verifier.training["own_base_model"] = True  # its embeddings may have any length
    assert Demo(verifier).max_distance >= 3 * verifier.threshold


def test_the_page_names_the_trained_classes_and_where_the_threshold_is_from(exported):
    verifier = load_verifier(exported)
    verifier.training["classes"] = ["bag", "boot"]
    fitted, chosen = (
        str(build_page(Demo(v), []).get_config_file())
        for v in (verifier, verifier.with_threshold(0.25))
    )
    assert "trained on 2 classes: bag, boot." in fitted
    assert ", fitted on validation pairs." in fitted
    assert "is 0.250, chosen by the user." in chosen


def test_a_server_is_refused(server):
    with pytest.raises(ModelError, match="a server does not report its threshold"):
        Demo(load_verifier(server.url))


def test_examples_are_test_images_of_fashion_mnist(sample, tmp_path, monkeypatch):
    source = Source(sample.train, sample.test, sample.class_names)
    monkeypatch.setattr(demo_page, "load_local", {"fashion_mnist": source}.get)
    pairs = write_examples(tmp_path)
    assert len(list(tmp_path.iterdir())) == 200
    assert all(Path(path).is_file() for pair in pairs for path in pair)
    sneaker = sample.test.images[sample.test.labels == 7][1]
    written = np.asarray(Image.open(tmp_path / "sneaker-2.png").convert("L"))
    np.testing.assert_array_equal(written, sneaker[..., 0])


def test_without_the_images_on_this_machine_there_are_no_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_page, "load_local", lambda name: None)
    assert write_examples(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def error(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_without_gradio_the_error_says_how_to_install_it(exported, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert error(capsys, exported) == (
        "error: The demo needs the package gradio. In a clone of the repository: "
        "pip install -e '.[demo]'\n"
    )


def test_a_port_in_use_and_an_unknown_address_are_named(exported, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = error(capsys, exported, "--port", port)
    assert line.startswith(f"error: The demo cannot listen on 127.0.0.1, port {port}: ")
    assert "203.0.113.1" in error(capsys, exported, "--host", "203.0.113.1")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_out_of_range_is_a_mistake_in_the_options(port, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([f"--port={port}"])
    assert stopped.value.code == 2
    assert "expected a port between 1 and 65535" in capsys.readouterr().err


@pytest.fixture
def start(exported, tmp_path):
    """Start the program, and return it and the address of its page."""
    started = []

    def start(*arguments):
        (tmp_path / "temporary").mkdir()
        # A program that another test called in this process has set it; a user has not.
        inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        process = subprocess.Popen(
            [sys.executable, "-m", "siamese_keras.demo", exported, "--no-browser", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "TMPDIR": str(tmp_path / "temporary")},
        )
        started.append(process)
        line = process.stdout.readline()
        assert line.startswith("The page is at http://127.0.0.1:"), process.communicate()
        return process, re.search(r"http://\S+", line)[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860/"),
        ("::1", "http://[::1]:7860/"),
        ("0.0.0.0", "http://127.0.0.1:7860/"),
        ("::", "http://[::1]:7860/"),
    ],
)
def test_the_address_of_the_page_is_one_that_opens(host, expected):
    assert page_url(host, 7860) == expected


def end(process, number, tmp_path):
    """End a process by a signal; it must end quietly and leave nothing behind."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_page_in_a_browser(start, browser, demo, verifier, folder, pair, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, url = start("--gallery", folder, "--port", str(port))
    assert url == f"http://127.0.0.1:{port}/"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    browser.set_window_size(1280, 900)
    browser.get(url)

    def find(css):
        return browser.find_element(By.CSS_SELECTOR, css)

    def upload(where, path):
        for button in browser.find_elements(By.CSS_SELECTOR, f"{where} button[title='Clear']"):
            button.click()
        until(lambda: find(f"{where} input[type=file]")).send_keys(str(path))

    def number(css):
        return float(until(lambda: find(f"#answer {css}").text))

    def decision():
        return find("#answer .demo-decision").text

    # Two files get the verifier's own answer.
    upload("#left", pair[0])
    upload("#right", pair[1])
    expected = verifier.compare(*pair)
    assert number(".demo-distance") == pytest.approx(float(expected.distance), abs=6e-4)
    assert number(".demo-similarity") == pytest.approx(float(expected.similarity), abs=6e-4)
    assert decision() == ("same" if expected.same else "different")
    for side in ("left", "right"):
        assert find(f"#{side}-seen img").get_attribute("alt").startswith(f"The {side} image as")

    # The decision follows the slider.
    slider = find("#threshold input[type=range]")
    slider.send_keys(Keys.HOME)
    until(lambda: decision() == "different")
    slider.send_keys(Keys.END)
    until(lambda: decision() == "same")
    assert number(".demo-distance") == pytest.approx(float(expected.distance), abs=6e-4)

    # A broken file gets one line that names it, and the next good one an answer.
    upload("#right", broken)
    problem = until(lambda: find("#right-seen [role=alert]").text)
    assert problem.startswith("`broken.png`: The image is damaged")
    until(lambda: find("#answer").text == "")
    upload("#right", pair[0])
    assert number(".demo-distance") == 0

    # A search finds the verifier's own matches.
    find("button[role=tab][aria-selected=false]").click()
    upload("#query", pair[0])
    matches = until(lambda: find("#matches .demo-matches").text)
    found = verifier.search(pair[0], folder, top=8)
    assert re.findall(r"\d+\.png", matches) == [Path(match.file).name for match in found]
    until(lambda: find("#count").text.startswith("8 of the 8 nearest images are within"))
    slider.send_keys(Keys.HOME)
    until(lambda: find("#count").text.startswith("0 of the 8"))

    # Nothing is wider than a phone, and nothing came from elsewhere.
    browser.set_window_size(390, 844)
    assert browser.execute_script("return document.body.scrollWidth <= window.innerWidth")
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert len(loaded) > 5
    assert [name for name in loaded if not name.startswith((url, "data:", "blob:"))] == []
    end(process, signal.SIGTERM, tmp_path)  # while the page is open


def test_it_ends_when_interrupted(start, tmp_path):
    process, _ = start()
    end(process, signal.SIGINT, tmp_path)
