"""Search: in arrays, in lists of files and in folders."""

import logging
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from siamese_keras import Verifier, load_verifier
from siamese_keras.errors import ArgumentError, DataError, RequestError
from siamese_keras.models.outer_model import build_outer_model
from siamese_keras.search import Match


def write(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(tf.io.encode_png(image).numpy())
    return path


# Six images, one below a subfolder, others with unusual suffixes.
NAMES = ["0.png", "1.png", "2.PNG", "3.jpg", "4.png", "more/5.jpeg"]


@pytest.fixture
def gallery(tmp_path, sample):
    """The images 1 to 6 of the test set, and files that are none."""
    folder = tmp_path / "gallery"
    for name, image in zip(NAMES, sample.test.images[1:], strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, image)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def query(tmp_path, sample):
    return write(tmp_path / "query.png", sample.test.images[0])


@pytest.fixture
def expected(sample, tiny):
    """Indices into the gallery, the nearest first, and the distances in its order."""
    embeddings = tiny.base_model.predict(sample.test.images[:7], verbose=0)
    distances = np.sqrt(((embeddings[1:] - embeddings[0]) ** 2).sum(axis=1))
    return list(np.argsort(distances, kind="stable")), distances


def assert_found(found, expected, *, files=None, atol=1e-6):
    order, distances = expected
    assert [match.index for match in found] == order[: len(found)]
    for match in found:
        assert isinstance(match.distance, float)
        assert match.distance == pytest.approx(distances[match.index], abs=atol)
        assert match.file == (None if files is None else str(files[match.index]))


def test_an_array_is_searched(tiny, sample, expected):
    images = sample.test.images
    found = tiny.search(images[0], images[1:7])
    assert len(found) == 5
    assert isinstance(found[0], Match)
    assert_found(found, expected)
    assert_found(tiny.search(images[0], list(images[1:7]), top=6), expected)
    assert tiny.search(images[3], images[:7], top=1) == [Match(3, pytest.approx(0, abs=1e-6))]


@pytest.fixture(scope="module", params=["run", "saved model", "server"])
def source(request, tiny, exported, server):
    if request.param == "run":
        return tiny
    return load_verifier(server.url if request.param == "server" else exported)


def test_files_and_folders_are_searched_by_every_source(source, gallery, query, expected):
    files = [gallery / name for name in NAMES]
    sorted_files = sorted(files)
    assert files == sorted_files  # so that both count alike
    for found in (
        source.search(query, gallery, top=6),
        source.search(str(query), str(gallery), top=99),
        source.search(query.read_bytes(), gallery, top=6),
        source.search(query, files, top=6),
        source.search(query, list(map(str, files)), top=6),
    ):
        assert len(found) == 6
        assert_found(found, expected, files=files, atol=1e-5)


def test_files_given_as_bytes_have_no_name(tiny, gallery, query, expected):
    contents = [(gallery / name).read_bytes() for name in NAMES]
    assert_found(tiny.search(query, contents, top=6), expected)


def test_top_is_how_many_are_found_at_most(tiny, sample):
    images = sample.test.images
    assert len(tiny.search(images[0], images[:20])) == 5
    assert [len(tiny.search(images[0], images[:3], top=top)) for top in (1, 2, 3, 4)] == [
        1,
        2,
        3,
        3,
    ]
    for top in (0, -1, 1.5, "5"):
        with pytest.raises(
            ArgumentError, match=f"`top` must be an integer of at least 1. Received: top={top!r}"
        ):
            tiny.search(images[0], images, top=top)


@pytest.mark.parametrize("within", [-1, float("nan"), "0.5"])
def test_within_is_a_distance(tiny, sample, within):
    images = sample.test.images
    with pytest.raises(ArgumentError, match="`within` must be a distance of at least 0"):
        tiny.search(images[0], images, within=within)


def test_equally_near_images_are_found_in_their_order(sample):
    # Pixels as embeddings: a matrix product may round the last rows of a batch in another way.
    image = keras.Input((28, 28, 1), dtype="uint8")
    base = keras.Model(image, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image)))
    verifier = Verifier.of_model(build_outer_model(base), None)
    images = sample.test.images[[5] + [9] * 40]
    found = verifier.search(sample.test.images[9], images, top=41)
    assert [match.index for match in found] == [*range(1, 41), 0]


def test_many_queries_get_a_list_each(tiny, sample, gallery, query, expected):
    images = sample.test.images
    several = tiny.search(images[:3], images[1:7], top=6)
    assert len(several) == 3
    for image, found in zip(images, several, strict=False):
        alone = tiny.search(image, images[1:7], top=6)
        assert [m.index for m in found] == [m.index for m in alone]
    assert_found(several[0], expected)
    (only,) = tiny.search([query], gallery, top=6)
    assert_found(only, expected, files=[gallery / name for name in NAMES])


def test_the_querys_own_file_is_left_out(tiny, gallery, tmp_path):
    query = gallery / "0.png"
    (tmp_path / "link.png").symlink_to(query)
    (gallery / "hard-link.png").hardlink_to(query)
    for name in (query, str(query), gallery / "more" / ".." / "0.png", tmp_path / "link.png"):
        found = {Path(match.file).name for match in tiny.search(name, gallery, top=99)}
        assert found == {Path(n).name for n in NAMES} - {"0.png"}
    copied = tiny.search(query.read_bytes(), gallery, top=99)
    assert {Path(match.file).name for match in copied[:2]} == {"0.png", "hard-link.png"}
    first, second = tiny.search([query, gallery / "1.png"], gallery, top=99)
    assert {"0.png", "hard-link.png"}.isdisjoint(Path(match.file).name for match in first)
    assert "1.png" not in {Path(match.file).name for match in second}
    assert {"0.png", "hard-link.png"} <= {Path(match.file).name for match in second}


def test_broken_files_of_a_folder_are_skipped_by_name(source, gallery, query, expected, caplog):
    (gallery / "3 broken.png").write_bytes(b"no image")
    (gallery / "empty.jpg").write_bytes(b"")
    found = source.search(query, gallery, top=99)
    assert [match.file for match in found] == [str(gallery / NAMES[i]) for i in expected[0]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    for name, message in zip(("3 broken.png", "empty.jpg"), caplog.messages, strict=True):
        assert message.startswith(f"Skipping `{gallery / name}`: ")
        assert "`: An image must be a PNG, JPEG, " in message


def test_hidden_files_and_folders_are_not_searched(tiny, gallery, query, expected, sample, caplog):
    write(gallery / ".hidden.png", sample.test.images[0])
    (gallery / "._0.png").write_bytes(b"no image: an AppleDouble file")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (gallery / "more" / name).mkdir()
        write(gallery / "more" / name / "0.png", sample.test.images[0])
    found = tiny.search(query, gallery, top=99)
    assert [match.file for match in found] == [str(gallery / NAMES[i]) for i in expected[0]]
    assert caplog.messages == []


def test_what_is_not_a_file_is_not_searched(tiny, gallery, query):
    (gallery / "folder.png").mkdir()
    (gallery / "dangling.png").symlink_to(gallery / "none.png")
    (gallery / "loop.png").symlink_to(gallery / "loop.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(gallery / "pipe.png")  # reading it would wait for ever
    assert len(tiny.search(query, gallery, top=99)) == 6


@pytest.fixture
def unprivileged():
    """Have the rights of an ordinary user, also where root runs the tests."""
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions of POSIX")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that other users may enter, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in folder.iterdir():
            path.chmod(0o755)


def test_what_may_not_be_read_is_skipped_by_name(tiny, sample, open_folder, caplog, request):
    images = sample.test.images
    for name in ("closed", "listed"):
        (open_folder / name).mkdir()
        write(open_folder / name / "0.png", images[1])
    paths = [write(open_folder / f"{i}.png", images[i]) for i in range(3)]
    tiny.search(paths[0], open_folder)  # whatever TensorFlow loads at first
    paths[1].chmod(0)
    (open_folder / "closed").chmod(0)
    (open_folder / "listed").chmod(0o644)  # names can be read, files cannot
    request.getfixturevalue("unprivileged")
    found = tiny.search(images[0], open_folder, top=99)
    assert [Path(match.file).name for match in found] == ["0.png", "2.png"]
    assert all(message.startswith("Skipping ") for message in caplog.messages)
    said = "\n".join(caplog.messages)
    for path in (open_folder / "1.png", open_folder / "closed", open_folder / "listed"):
        assert str(path) in said
    assert len(caplog.messages) == 3


def test_a_folder_without_images_is_refused(tiny, query, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"empty` has no image that can be read"):
        tiny.search(query, empty)
    (empty / "broken.png").write_text("no image")
    with pytest.raises(DataError, match=r"empty` has no image that can be read"):
        tiny.search(query, empty)
    with pytest.raises(DataError, match=r"The gallery `.*none` is not a folder"):
        tiny.search(query, tmp_path / "none")
    with pytest.raises(DataError, match=r"The gallery `.*query\.png` is not a folder"):
        tiny.search(query, query)


def test_a_broken_query_and_a_broken_file_of_a_list_are_errors(source, gallery, query):
    broken = gallery / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(RequestError, match=r"broken\.png`: .*An image must be a PNG, JPEG, "):
        source.search(broken, gallery)
    with pytest.raises(RequestError, match=r"broken\.png`: .*An image must be a PNG, JPEG, "):
        source.search(query, [gallery / "0.png", broken])
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        source.search(gallery / "none.png", gallery)
    with pytest.raises(ArgumentError, match="at least one image"):
        source.search(query, [])
