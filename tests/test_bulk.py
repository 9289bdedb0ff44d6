"""Pairs of a CSV file: the answers of single comparisons, and bad rows that stop nothing."""

import csv
import os
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras import bulk, load_verifier
from siamese_keras.errors import ArgumentError, DataError, ModelError


@pytest.fixture
def folder(tmp_path, sample):
    (tmp_path / "a b").mkdir()
    for i, image in enumerate(sample.test.images[:8]):
        (tmp_path / "a b" / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path


def write(folder, *rows, header="left,right"):
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=[1, 3, 2000], ids=lambda rows: f"{rows} rows at once")
def rows_at_once(request, monkeypatch):
    monkeypatch.setattr(bulk, "_ROWS", request.param)
    monkeypatch.setattr(bulk, "_KEPT", 2 * request.param)


@pytest.mark.usefixtures("rows_at_once")
def test_answers_are_those_of_single_comparisons(tiny, folder, sample):
    left, right = [0, 0, 1, 2, 3, 4, 5], [1, 0, 2, 7, 0, 1, 5]
    path = write(folder, *(f"a b/{i}.png,a b/{j}.png" for i, j in zip(left, right, strict=True)))
    assert tiny.compare_file(path, folder / "out.csv", prior=0.2) == (7, 0)
    found = read(folder / "out.csv")
    images = sample.test.images
    expected = tiny.compare(images[left], images[right], prior=0.2)
    assert list(found[0]) == ["left", "right", "distance", "similarity", "same", "error"]
    for name in ("distance", "similarity"):
        values = [float(row[name]) for row in found]
        np.testing.assert_allclose(values, getattr(expected, name), atol=1e-5)
    assert [row["same"] for row in found] == [str(int(same)) for same in expected.same]
    assert {row["error"] for row in found} == {""}


def test_a_copy_that_was_embedded_in_another_batch_is_the_same_at_threshold_0(
    tiny, folder, monkeypatch
):
    monkeypatch.setattr(bulk, "_ROWS", 1)
    (folder / "copy.png").write_bytes((folder / "a b" / "0.png").read_bytes())
    path = write(folder, "a b/0.png,a b/1.png", "a b/0.png,copy.png")
    exact = tiny.with_threshold(0)
    # A batch of another size is rounded in another way.
    monkeypatch.setattr(exact, "embed", lambda files: tiny.embed(files) * (1 + 1e-7 * len(files)))
    exact.compare_file(path, folder / "out.csv")
    assert [row["same"] for row in read(folder / "out.csv")] == ["0", "1"]
    assert float(read(folder / "out.csv")[1]["distance"]) > 0


@pytest.mark.usefixtures("rows_at_once")
def test_bad_rows_are_named_and_the_rest_goes_on(tiny, folder, caplog):
    (folder / "broken.png").write_bytes(b"no image")
    path = write(
        folder,
        "1,a b/0.png,a b/1.png",
        "2,none.png,a b/1.png",
        "3,a b/0.png,broken.png",
        "4,a b/0.png",
        "",
        "5,,a b/0.png",
        "6,a b/0.png,a b/1.png,more",
        '"7, or so",a b/2.png,a b/3.png',
        header="id,left,right",
    )
    assert tiny.compare_file(path, folder / "out.csv") == (2, 5)
    found = read(folder / "out.csv")
    assert [row["id"] for row in found] == ["1", "2", "3", "4", "5", "6", "7, or so"]
    for row in found:
        failed = row["id"] in "23456"
        assert bool(row["error"]) == failed
        assert all((row[name] == "") == failed for name in ("distance", "similarity", "same"))
    said = [message.removeprefix(f"{path} ") for message in caplog.messages]
    for message, start, part in zip(
        said,
        ("line 3: ", "line 4: ", "line 5: ", "line 7: ", "line 8: "),
        ("none.png", "broken.png", "3 values, received 2", "received nothing: left", ": more"),
        strict=True,
    ):
        assert message.startswith(start)
        assert part in message


def test_each_file_is_embedded_once(tiny, folder, monkeypatch):
    monkeypatch.setattr(bulk, "_ROWS", 2)
    embedded = []
    original = type(tiny).embed

    def embed(self, images):
        embedded.extend(path.name for path in images)
        return original(self, images)

    monkeypatch.setattr(type(tiny), "embed", embed)
    names = [f"a b/{i}.png" for i in range(4)]
    path = write(folder, *(f"{a},{b}" for a in names for b in names))
    assert tiny.compare_file(path, folder / "out.csv") == (16, 0)
    assert sorted(embedded) == ["0.png", "1.png", "2.png", "3.png"]


def test_a_byte_order_mark_and_absolute_paths_are_fine(tiny, folder):
    path = folder / "pairs.csv"
    files = [folder / "a b" / f"{i}.png" for i in (0, 1)]
    path.write_bytes(b"\xef\xbb\xbfright,left\r\n" + f"{files[0]},{files[1]}\r\n".encode())
    assert tiny.compare_file(path, folder / "out.csv") == (1, 0)


def test_columns_are_found_in_any_case(tiny, folder):
    path = write(folder, "7,a b/0.png,a b/1.png", header="ID,Left,RIGHT")
    assert tiny.compare_file(path, folder / "out.csv") == (1, 0)
    header, row = (folder / "out.csv").read_text().splitlines()
    assert header == "ID,Left,RIGHT,distance,similarity,same,error"
    assert row.startswith("7,a b/0.png,a b/1.png,")
    with pytest.raises(DataError, match="rename distance"):
        tiny.compare_file(write(folder, header="left,right,Distance"), folder / "out.csv")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="csv refuses NUL: the file is not CSV")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_pairs_may_come_from_a_pipe(tiny, folder):
    path = write(folder, "a b/0.png,a b/1.png", header="left,right")
    content = path.read_text()
    path.unlink()
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(content,))
    writer.start()
    assert tiny.compare_file(path, folder / "out.csv") == (1, 0)
    writer.join()


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_values_may_be_separated_otherwise(tiny, folder, delimiter):
    path = write(folder, "1,a b/0.png,a b/1.png", header="id,left,right")
    tiny.compare_file(path, folder / "commas.csv")
    path.write_text(path.read_text().replace(",", delimiter))
    assert tiny.compare_file(path, folder / "out.csv") == (1, 0)
    expected = (folder / "commas.csv").read_text().replace(",", delimiter)
    assert (folder / "out.csv").read_text() == expected


def test_a_nul_character_is_an_error_of_its_row(tiny, folder):
    path = write(folder, "a\0b.png,a b/0.png", "a b/0.png,a b/1.png")
    assert tiny.compare_file(path, folder / "out.csv") == (1, 1)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes")
def test_a_name_that_is_not_utf_8_passes_as_it_is(tiny, folder):
    path = folder / "pairs.csv"
    content = b"left,right\ncaf\xe9.png,a b/0.png\n"
    path.write_bytes(content)
    assert tiny.compare_file(path, folder / "out.csv") == (0, 1)
    assert b"caf\xe9.png,a b/0.png,,,," in (folder / "out.csv").read_bytes()


def test_progress_counts_lines(tiny, folder, monkeypatch):
    monkeypatch.setattr(bulk, "_ROWS", 2)
    path, calls = write(folder, *["a b/0.png,a b/1.png"] * 5), []
    tiny.compare_file(path, folder / "out.csv", progress=lambda *call: calls.append(call))
    assert calls == [(3, 6), (5, 6), (6, 6)]


def test_a_server_is_refused(folder, server):
    path = write(folder, "a b/0.png,a b/1.png")
    with pytest.raises(ModelError, match="need a run or an export"):
        load_verifier(server.url).compare_file(path, folder / "out.csv")


def test_an_error_of_the_file_leaves_the_output_as_it_was(tiny, folder):
    output = folder / "out.csv"
    output.write_text("of yesterday")
    good = "a b/0.png,a b/1.png"
    for change, message in (
        (lambda: write(folder, good, header="a,right"), "Missing: left"),
        (lambda: write(folder, good + ",1", header="left,right,same"), "rename same"),
        (lambda: write(folder, good + ",b", header="left,right,right"), "Twice: right"),
        (lambda: write(folder, good, "x" * 200_000), "is not CSV"),
    ):
        path = change()
        with pytest.raises(DataError, match=message):
            tiny.compare_file(path, output)
    for bad in (folder / "pairs.csv", folder / "out.txt", folder / "none" / "out.csv"):
        with pytest.raises(ArgumentError, match=r"^The output must "):
            tiny.compare_file(folder / "pairs.csv", bad)
    assert output.read_text() == "of yesterday"
    assert not list(folder.glob(".writing-*"))
