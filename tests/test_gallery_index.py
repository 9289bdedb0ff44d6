"""The index: what it holds, what an update embeds anew, and which are refused."""

import copy
import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from siamese_keras import Verifier, fit, load_verifier
from siamese_keras.errors import ArgumentError, DataError, ModelError
from siamese_keras.gallery_index import Changes, build_index, read_index, write_index
from siamese_keras.serving import client


@pytest.fixture
def folder(tmp_path, sample):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, image in enumerate(sample.test.images[:6]):
        name = f"more/{i}.png" if i > 3 else f"{i}.png"
        (folder / name).write_bytes(tf.io.encode_png(image).numpy())
    return folder


NAMES = ["0.png", "1.png", "2.png", "3.png", "more/4.png", "more/5.png"]


@pytest.fixture
def counted(tiny, monkeypatch):
    """The files that are embedded; probes and queries are not files of a folder."""
    embedded = []
    original = type(tiny).embed

    def embed(self, images):
        if isinstance(images, list) and not isinstance(images[0], bytes):
            embedded.extend(path.name for path in images)
        return original(self, images)

    monkeypatch.setattr(type(tiny), "embed", embed)
    return embedded


def test_what_an_index_holds(tiny, folder, tmp_path, sample):
    path = tmp_path / "gallery.npz"
    assert tiny.index(folder, path) == Changes(embedded=6, kept=0, removed=0)
    with np.load(path, allow_pickle=False) as content:
        assert content["names"].tolist() == NAMES
        assert content["embeddings"].dtype == np.float32
        assert content["embeddings"].shape == (6, 8)
        stat = (folder / "more" / "5.png").stat()
        assert content["sizes"][-1] == stat.st_size
        assert content["mtimes"][-1] == stat.st_mtime_ns
    index = read_index(path)
    np.testing.assert_allclose(index.embeddings, tiny.embed(sample.test.images[:6]), atol=1e-6)
    assert len(index) == 6


def test_only_what_is_new_or_changed_is_embedded_anew(tiny, folder, tmp_path, sample, counted):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    counted.clear()
    assert tiny.index(folder, path) == Changes(embedded=0, kept=6, removed=0)
    assert counted == []
    png = [tf.io.encode_png(image).numpy() for image in sample.test.images[10:12]]
    (folder / "1.png").write_bytes(png[0])
    (folder / "2.png").unlink()
    (folder / "more" / "new.png").write_bytes(png[1])
    os.utime(folder / "3.png", ns=(0, 0))
    assert tiny.index(folder, path) == Changes(embedded=3, kept=3, removed=1)
    assert counted == ["1.png", "3.png", "new.png"]
    index = read_index(path)
    assert index.names.tolist() == [n for n in [*NAMES, "more/new.png"] if n != "2.png"]
    expected = tiny.embed(sample.test.images[[0, 10, 3, 4, 5, 11]])
    np.testing.assert_allclose(index.embeddings, expected, atol=1e-6)


def test_an_index_answers_as_its_folder_from_every_source(
    tiny, exported, server, folder, tmp_path, sample
):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    for verifier in (tiny, load_verifier(exported), load_verifier(server.url)):
        for query in (sample.test.images[7], folder / "0.png"):
            expected = verifier.search(query, folder, top=4)
            found = verifier.search(query, str(path), top=4)
            assert [str(folder / match.file) for match in found] == [m.file for m in expected]
            for match, other in zip(found, expected, strict=True):
                assert match.distance == pytest.approx(other.distance, abs=1e-5)
    assert load_verifier(exported).index(folder, path) == Changes(embedded=0, kept=6, removed=0)


def test_an_opened_gallery_answers_as_its_folder_without_embedding_it_again(
    tiny, folder, tmp_path, sample, counted
):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    expected = tiny.search(sample.test.images[7], str(path), top=4)
    for source in (folder, path):
        gallery = tiny.open_gallery(source)
        counted.clear()
        assert tiny.search(sample.test.images[7], gallery, top=4) == expected
        assert counted == []


def test_only_matches_within_a_distance_are_found(tiny, folder, tmp_path, sample):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    every = tiny.search(sample.test.images[7], path, top=6)
    limit = every[2].distance
    assert tiny.search(sample.test.images[7], path, top=6, within=limit) == every[:3]
    assert tiny.search(sample.test.images[7], path, within=0.0) == []


@pytest.fixture(scope="module")
def other(sample, tiny):
    from helpers.tiny import TINY

    return fit(sample, TINY, seed=1, verbose=0)


def test_an_index_of_another_model_is_refused_and_made_anew(tiny, other, folder, tmp_path, caplog):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    with pytest.raises(ModelError, match=r"gallery\.npz` is an index of another model"):
        other.search(folder / "0.png", path)
    with caplog.at_level(logging.INFO):
        assert other.index(folder, path) == Changes(embedded=6, kept=0, removed=0)
    assert (
        "The existing index was made with another model: embedding all images again."
        in caplog.messages
    )
    other.search(folder / "0.png", path)


def test_a_server_that_changes_its_model_meanwhile_makes_no_index(tiny, folder):
    asked = []

    def embed(images):
        asked.append(images)
        return tiny.embed(images) * (1 if len(asked) == 1 else -1)

    with pytest.raises(ModelError, match="switched to another model meanwhile: try again"):
        build_index(embed, folder, batch_size=4)


class Switching:
    """A server that answers with another model after some requests."""

    batch_size, image_shape = 4, None

    def __init__(self, model, requests):
        self.model, self.requests = model, requests

    def embed(self, images):
        self.requests -= 1
        return self.model.embed(images) * (1 if self.requests >= 0 else -1)

    def compare(self, left, right):
        raise NotImplementedError


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_server_that_changes_its_model_meanwhile_answers_no_search(tiny, folder, requests):
    query, files = folder / "0.png", [folder / name for name in NAMES]
    for ask in (
        lambda served: served.search(query, folder),
        lambda served: served.search(query, files),
        lambda served: served.embed_folder(folder),
        lambda served: served.with_threshold(0.1).near_duplicates(folder),
        lambda served: served.embed(files),
    ):
        with pytest.raises(ModelError, match="switched to another model meanwhile: try again"):
            ask(Verifier(Switching(tiny, requests), None))
        ask(Verifier(Switching(tiny, 99), None))


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_server_that_changes_its_model_answers_no_search_in_an_index(
    tiny, folder, tmp_path, requests
):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    served = Verifier(Switching(tiny, requests), None)
    with pytest.raises(ModelError, match=r"switched to another model|an index of another model"):
        served.search(folder / "0.png", path)


def test_a_server_that_changes_its_model_between_requests_for_few_large_images_gives_no_embedding(
    tiny, tmp_path, rng, monkeypatch
):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file in files:  # of 12 KB
        file.write_bytes(tf.io.encode_png(rng.integers(0, 256, (64, 64, 3), np.uint8)).numpy())
    Verifier(Switching(tiny, 0), None).embed(files)  # in a single request
    monkeypatch.setattr(client, "_REQUEST_BYTES", 25_000)
    with pytest.raises(ModelError, match="switched to another model meanwhile: try again"):
        Verifier(Switching(tiny, 1), None).embed(files)


def test_an_index_of_inverted_images_is_another_one(tiny, tiny_run, folder, tmp_path):
    path = tmp_path / "gallery.npz"
    inverting = load_verifier(tiny_run, invert=True)
    inverting.index(folder, path)
    with pytest.raises(ModelError, match=r"was made with --invert. Received: a search without it"):
        tiny.search(folder / "0.png", path)
    assert tiny.index(folder, path).embedded == 6
    with pytest.raises(ModelError, match=r"was made without --invert. Received: a search with it"):
        inverting.near_duplicates(path)


def test_broken_files_are_skipped_and_tried_again(tiny, folder, tmp_path, sample, caplog):
    (folder / "broken.png").write_bytes(b"no image")
    path = tmp_path / "gallery.npz"
    assert tiny.index(folder, path).embedded == 6
    assert "broken.png" in caplog.text
    (folder / "broken.png").write_bytes(tf.io.encode_png(sample.test.images[9]).numpy())
    assert tiny.index(folder, path) == Changes(embedded=1, kept=6, removed=0)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="has no image that can be read"):
        tiny.index(folder, path)
    assert len(read_index(path)) == 7  # as it was


def test_a_query_that_was_deleted_and_files_that_are_gone_do_no_harm(tiny, folder, tmp_path):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    query = (folder / "0.png").read_bytes()
    for name in NAMES[1:]:
        (folder / name).unlink()
    assert len(tiny.search(query, path, top=9)) == 6
    assert "0.png" not in {match.file for match in tiny.search(folder / "0.png", path, top=9)}


def test_files_that_changed_since_they_were_indexed_are_told(tiny, folder, tmp_path, caplog):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    query = (folder / "0.png").read_bytes()
    wide = tiny.with_threshold(2.0)
    tiny.search(query, path)
    wide.near_duplicates(path)
    assert caplog.messages == []
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes() + b"longer")
    (folder / "more" / "4.png").unlink()
    message = (
        "The index is out of date: 2 of the images found have changed, or are gone, since it was "
        "made, such as 1.png. Index the folder again."
    )
    tiny.search([query, query], path, top=6)
    wide.near_duplicates(path)
    assert caplog.messages == [message, message]
    caplog.clear()
    tiny.search(query, path, top=1)  # what is not found does not matter
    folder.rename(tmp_path / "elsewhere")  # as on a machine without the images
    tiny.search(query, path, top=6)
    assert caplog.messages == []


def damage(content, key, value):
    return {**content, key: value}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {k: v for k, v in c.items() if k != "names"},
        lambda c: {k: v for k, v in c.items() if k != "format"},
        lambda c: damage(c, "format", "siamese_keras index 2"),
        lambda c: damage(c, "names", c["names"][:-1]),
        lambda c: damage(c, "names", np.array([{}] * 6, object)),
        lambda c: damage(c, "sizes", c["sizes"].astype(float)),
        lambda c: damage(c, "embeddings", c["embeddings"].astype(float)),
        lambda c: damage(c, "embeddings", c["embeddings"][:, :3]),
        lambda c: damage(c, "fingerprint", np.float32(3)),
    ],
)
def test_a_file_that_is_not_an_index_is_named_and_kept(tiny, folder, tmp_path, change):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    with np.load(path) as content:
        np.savez(path, **change(dict(content)))
    before = path.read_bytes()
    for call in (lambda: tiny.search(folder / "0.png", path), lambda: tiny.index(folder, path)):
        with pytest.raises(DataError, match=r"gallery\.npz` must be an index, as") as refused:
            call()
        assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "gallery.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"gallery\.npz` (must be|cannot be read as) an index"):
        read_index(path)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read as an index, .* No such file"):
        read_index(path)


def test_where_an_index_cannot_be_written(tiny, folder, tmp_path, monkeypatch):
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
        ("gallery.zip", r"must end in \.npz"),
        ("none/gallery.npz", "must lie in a folder that exists"),
        ("folder.npz", "must not be a folder"),
    ):
        with pytest.raises(ArgumentError, match=message):
            tiny.index(folder, tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(tiny, "embed", None)  # the error comes before the work
    with pytest.raises(ArgumentError, match=r"a folder that can be written to\. Received: `.*here"):
        tiny.index(folder, tmp_path / "here.npz")


def test_a_failed_write_leaves_the_index_as_it_was(tiny, folder, tmp_path, monkeypatch):
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    index, before = read_index(path), path.read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        write_index(path, index)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gallery.npz", "photos"]


def test_near_duplicates_of_a_folder_and_of_its_index(tiny, folder, tmp_path, sample):
    copied = folder / "more" / "copy.png"
    copied.write_bytes((folder / "2.png").read_bytes())
    strict = tiny.with_threshold(1e-3)
    nothing = pytest.approx(0, abs=1e-6)
    assert strict.near_duplicates(folder) == [(str(folder / "2.png"), str(copied), nothing)]
    path = tmp_path / "gallery.npz"
    tiny.index(folder, path)
    assert strict.near_duplicates(path) == [("2.png", "more/copy.png", nothing)]
    found = tiny.with_threshold(0.7).near_duplicates(path)
    embedded = tiny.embed(sample.test.images[:6])
    distances = [d for _, _, d in found]
    assert distances == sorted(distances)
    for left, right, distance in found[1:]:
        if "copy" not in left + right:
            i, j = NAMES.index(left), NAMES.index(right)
            assert distance == pytest.approx(np.linalg.norm(embedded[i] - embedded[j]), abs=1e-5)


def test_copies_are_found_at_distance_0_in_whatever_batch_they_are(tiny, tmp_path, rng):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(rng.integers(0, 256, (40, 28, 28, 1), np.uint8)):
        (folder / f"{i:02}.png").write_bytes(tf.io.encode_png(image).numpy())
    copied = folder / "99.png"
    copied.write_bytes((folder / "00.png").read_bytes())
    (pair,) = tiny.with_threshold(0.0).near_duplicates(folder)
    assert pair[:2] == (str(folder / "00.png"), str(copied))
    (match,) = tiny.search(folder / "00.png", folder, within=0.0)
    assert match.file == str(copied)


def test_an_index_of_another_folder_is_refused_and_stays_as_it_is(tiny, folder, tmp_path):
    path, other = tmp_path / "gallery.npz", tmp_path / "other"
    other.mkdir()
    (other / "0.png").write_bytes((folder / "0.png").read_bytes())
    tiny.index(folder, path)
    before = path.read_bytes()
    with pytest.raises(
        DataError, match=r"gallery\.npz` is an index of another folder, .*: delete it, or write"
    ):
        tiny.index(other, path)
    assert path.read_bytes() == before


def test_an_index_without_inverted_images_is_made_anew_with_them(tiny, folder, tmp_path, caplog):
    path, inverted = tmp_path / "gallery.npz", copy.copy(tiny)
    tiny.index(folder, path)
    inverted.invert = True
    assert inverted.index(folder, path) == Changes(embedded=6, kept=0, removed=0)
    assert caplog.messages == [
        "The existing index was made without --invert: embedding all images again."
    ]
    np.testing.assert_array_equal(read_index(path).embeddings, inverted.embed_folder(folder)[1])


def test_paths_in_the_home_folder(tiny, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder.rename(tmp_path / "photos")
    tiny.index("~/photos", "~/gallery.npz")
    query = tmp_path / "photos" / "0.png"
    (match,) = tiny.search(query, "~/gallery.npz", top=1)
    assert tiny.search(query, "~/photos", top=1)[0].distance == match.distance
    assert tiny.search(query, tiny.open_gallery("~/gallery.npz"), top=1) == [match]
    assert tiny.near_duplicates("~/gallery.npz") == tiny.near_duplicates(tmp_path / "gallery.npz")
    tiny.save("~/run")
    assert (tmp_path / "run" / "model.json").is_file()


@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_an_index_is_written_under_its_very_name(tiny, folder, tmp_path, suffix):
    path = tmp_path / f"gallery{suffix}"
    tiny.index(folder, path)
    assert read_index(path).names.tolist() == NAMES
    assert {p.name for p in tmp_path.iterdir()} == {"photos", path.name}


def test_an_opened_index_of_another_model_is_refused(tiny, exported, folder):
    opened = load_verifier(exported, invert=True).open_gallery(folder)
    with pytest.raises(ModelError, match="was made with --invert"):
        tiny.search(folder / "0.png", opened)


def test_a_model_of_long_embeddings_is_the_same_one_up_to_rounding(tiny, folder):
    index, _ = build_index(lambda images: 1000 * tiny.embed(images), folder, batch_size=4)
    _, changes = build_index(
        lambda images: 1000.2 * tiny.embed(images), folder, batch_size=4, before=index
    )
    assert changes == Changes(embedded=0, kept=6, removed=0)
