import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from siamese_keras.data.decode import decode_batch, decode_image, luminance
from siamese_keras.data.inputs import as_images, call_by_name
from siamese_keras.errors import ArgumentError, DataError, RequestError


@pytest.fixture
def arrays(rng):
    return rng.integers(0, 256, (5, 6, 4, 3), np.uint8)


@pytest.fixture
def files(arrays, tmp_path):
    """The arrays as the paths of PNG files."""
    paths = [tmp_path / f"{i}.png" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        path.write_bytes(tf.io.encode_png(array).numpy())
    return paths


def test_one_array_is_a_batch_of_one(arrays):
    images = as_images(arrays[0])
    assert images.is_single
    assert len(images) == 1
    ((batch, names),) = images.batches(10)
    np.testing.assert_array_equal(batch, arrays[:1])
    assert names == ["image 0"]


@pytest.mark.parametrize("kind", [np.asarray, list, tuple, tf.constant])
def test_many_arrays_are_cut_into_batches(arrays, kind):
    images = as_images(kind(arrays))
    assert not images.is_single
    assert len(images) == 5
    batches, names = zip(*images.batches(2), strict=True)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), arrays)
    assert list(names) == [["image 0", "image 1"], ["image 2", "image 3"], ["image 4"]]


def test_a_sequence_of_one_is_not_a_single_image(arrays, files):
    for images in (arrays[:1], [arrays[0]], files[:1], [files[0].read_bytes()]):
        assert not as_images(images).is_single
        assert len(as_images(images)) == 1


class AnyPath(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("kind", [str, Path, AnyPath, Path.read_bytes])
def test_one_file_is_a_path_or_its_bytes(files, kind):
    images = as_images(kind(files[3]))
    assert images.is_single
    ((batch, names),) = images.batches(10)
    assert batch == [files[3].read_bytes()]
    assert names == ([f"`{files[3]}`"] if kind in (str, Path) else ["image 0"])


@pytest.mark.parametrize("kind", [list, tuple])
def test_many_files_may_be_paths_and_bytes_in_turn(files, kind):
    mixed = kind([str(files[0]), files[1], files[2].read_bytes(), files[3], AnyPath(files[4])])
    images = as_images(mixed)
    assert not images.is_single
    batches, names = zip(*images.batches(3), strict=True)
    assert [len(batch) for batch in batches] == [3, 2]
    assert [content for batch in batches for content in batch] == [
        path.read_bytes() for path in files
    ]
    assert [*names[0], *names[1]] == [
        f"`{files[0]}`", f"`{files[1]}`", "image 2", f"`{files[3]}`", "image 4"
    ]  # fmt: skip


def test_files_are_read_when_their_batch_is_due(files):
    batches = as_images(files).batches(2)
    next(batches)
    files[4].unlink()
    next(batches)
    with pytest.raises(FileNotFoundError, match=r"4\.png"):
        next(batches)


def test_files_and_arrays_are_not_mixed(arrays, files):
    for images in ([files[0], arrays[0]], (arrays[0], files[0].read_bytes())):
        with pytest.raises(ArgumentError, match=r"files or arrays\. Received: both"):
            as_images(images)


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 6, 4, 3), np.uint8)])
def test_no_image_at_all_is_refused(images):
    with pytest.raises(ArgumentError, match=r"at least one image\. Received: none"):
        as_images(images)


@pytest.mark.parametrize("count", [None, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_arrays_of_other_numbers_are_refused(dtype, count):
    shape = (6, 4, 3) if count is None else (count, 6, 4, 3)
    with pytest.raises(DataError, match=f"must be uint8.* Received: {np.dtype(dtype)} of shape"):
        as_images(np.zeros(shape, dtype))


@pytest.mark.parametrize("shape", [(), (6,), (6, 4), (2, 3, 6, 4, 3), (0, 4, 3), (2, 6, 4, 0)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match=r"shape \[n, height, width, channels\]"):
        as_images(np.zeros(shape, np.uint8))


def test_arrays_of_several_shapes_are_refused(arrays):
    with pytest.raises(DataError, match="must have one shape"):
        as_images([arrays[0], arrays[1][:3]])


@pytest.mark.parametrize("images", [None, 7, [None], {"a.png"}, np.array(["a.png"])])
def test_other_things_are_refused(images):
    with pytest.raises(DataError, match="must be uint8"):
        as_images(images)


def test_files_become_what_training_sees(arrays, files):
    """As arrays for a model whose shape is known, as files for a server."""
    ((batch, _),) = as_images(files).batches(10, (6, 4, 3))
    np.testing.assert_array_equal(batch, arrays)
    ((gray, _),) = as_images(files).batches(10, (6, 4, 1))
    np.testing.assert_array_equal(gray, luminance(arrays))
    ((sent, _),) = as_images(files).batches(10)
    assert sent == [path.read_bytes() for path in files]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_server_gets_png_for_files_that_its_graph_cannot_read(arrays, kind):
    stream = io.BytesIO()
    Image.fromarray(arrays[0]).save(stream, kind)
    ((batch, _),) = as_images(stream.getvalue()).batches(1, (6, 4, 3))
    ((sent, _),) = as_images(stream.getvalue()).batches(1)
    np.testing.assert_array_equal(decode_batch(tf.constant(sent), (6, 4, 3)), batch)


def test_inverting_changes_arrays_and_files_alike(arrays, files):
    ((batch, _),) = as_images(arrays).batches(10, invert=True)
    np.testing.assert_array_equal(batch, 255 - arrays)
    ((batch, _),) = as_images(files).batches(10, (6, 4, 3), invert=True)
    np.testing.assert_array_equal(batch, 255 - arrays)
    ((sent, _),) = as_images(files).batches(10, invert=True)
    for array, content in zip(arrays, sent, strict=True):
        decoded = decode_image(tf.constant(content)).numpy()
        np.testing.assert_array_equal(decoded[..., :3], 255 - array)
        assert (decoded[..., 3] == 255).all()


@pytest.mark.parametrize("shape", [None, (6, 4, 3)])
def test_a_broken_file_is_named_in_one_line(files, shape):
    files[1].write_bytes(b"not an image")
    with pytest.raises(RequestError, match=r"1\.png`: An image must be a PNG.*'not an i'$"):
        list(as_images(files).batches(10, shape))


@pytest.mark.parametrize("shape", [None, (28, 28, 1)])
def test_an_image_that_becomes_one_color_is_named(tmp_path, sample, shape, caplog):
    drawing = np.zeros((28, 28, 4), np.uint8)
    drawing[..., 3:] = sample.test.images[0]  # black ink on a transparent ground
    Image.fromarray(drawing).save(tmp_path / "ink.png")
    dark = sample.test.images[0][..., 0].astype(np.uint16) * 16  # 12 bits in 16
    Image.fromarray(dark).save(tmp_path / "scan.png")
    Image.fromarray(sample.test.images[0][..., 0]).save(tmp_path / "fine.png")
    list(as_images([tmp_path / f"{n}.png" for n in ("ink", "scan", "fine")]).batches(9, shape))
    (record,) = caplog.messages
    assert re.match(r"Nearly one color as the model sees it: `.*ink.png`, `.*scan.png`\. ", record)
    caplog.clear()
    list(as_images(tmp_path / "ink.png").batches(9, shape, invert=True))
    assert not caplog.messages


def refuse_broken(*batches):
    """What a model does: it refuses a batch as a whole, and does not say which row it is for."""
    for row in zip(*batches, strict=True):
        if b"broken" in row:
            raise RequestError("not an image")
    return [len(batch) for batch in batches]


def test_the_answer_is_handed_on():
    assert call_by_name(["a", "b"], refuse_broken, [b"fine", b"fine"]) == [2]
    assert call_by_name(["a"], refuse_broken, [b"fine"], [b"fine"]) == [1, 1]


@pytest.mark.parametrize("place", range(4))
def test_the_image_that_is_refused_is_named(place):
    contents = [b"fine"] * 4
    contents[place] = b"broken"
    names = ["`a.png`", "image 1", "`c.png`", "`d.png`"]
    with pytest.raises(RequestError, match=f"^{names[place]}: not an image$"):
        call_by_name(names, refuse_broken, contents)


@pytest.mark.parametrize("side", [0, 1])
def test_the_pair_that_is_refused_is_named(side):
    batches = [[b"fine"] * 3, [b"fine"] * 3]
    batches[side][1] = b"broken"
    with pytest.raises(RequestError, match=r"^b and y: not an image$"):
        call_by_name(["a and x", "b and y", "c and z"], refuse_broken, *batches)


def test_a_single_image_that_is_refused_is_named():
    with pytest.raises(RequestError, match=r"^`a.png`: not an image$"):
        call_by_name(["`a.png`"], refuse_broken, [b"broken"])


def test_a_batch_that_is_refused_as_a_whole_names_all():
    def too_many(batch):
        if len(batch) > 1:
            raise RequestError("too many")

    with pytest.raises(RequestError, match=r"^a, b: too many$"):
        call_by_name(["a", "b"], too_many, [b"fine", b"fine"])


def test_a_model_that_is_not_there_is_asked_once():
    """Only a refused request is tried again row by row."""
    calls = []

    def fail(batch):
        calls.append(len(batch))
        raise OSError("connection refused")

    with pytest.raises(OSError, match=r"^connection refused$"):
        call_by_name(["a", "b"], fail, [b"fine", b"fine"])
    assert calls == [2]
