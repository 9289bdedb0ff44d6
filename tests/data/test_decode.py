"""Decoding image files: sizes, colour types, transparency and damaged files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from helpers.png import png_bomb
from PIL import Image

from siamese_keras.data.decode import decode_batch, decode_image, fit_image, invert_image

GREY, COLOUR = (28, 28, 1), (28, 28, 3)


def file(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def fitted(image: Image.Image, shape=GREY, kind: str = "PNG") -> np.ndarray:
    return decode_batch(tf.constant([file(image, kind)]), shape)[0].numpy()


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_an_image_of_the_models_size_stays_as_it_is(shape, rng):
    pixels = rng.integers(0, 256, shape, np.uint8)
    image = Image.fromarray(pixels[..., 0] if shape == GREY else pixels)
    np.testing.assert_array_equal(fitted(image, shape), pixels)


def test_grey_is_luminance_and_grey_in_colour_is_equal_channels():
    red = Image.new("RGB", (28, 28), (255, 0, 0))
    np.testing.assert_array_equal(fitted(red), 76)  # 0.2989 * 255 = 76.2, as ITU-R BT.601 has it
    np.testing.assert_array_equal(fitted(Image.new("L", (28, 28), 100), COLOUR), 100)


def test_what_is_transparent_becomes_black():
    for mode, colour in (("RGBA", (255, 255, 255, 0)), ("LA", (255, 0))):
        np.testing.assert_array_equal(fitted(Image.new(mode, (28, 28), colour)), 0)
    # 200 * 51 / 255 = 40
    half = Image.new("RGBA", (28, 28), (200, 200, 200, 51))
    np.testing.assert_array_equal(fitted(half), 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_every_colour_type_of_png(mode):
    white = {"LA": (255, 255), "RGB": (255,) * 3, "RGBA": (255,) * 4, "I;16": 65535, "1": 255}
    image = Image.new(mode, (28, 28), white.get(mode, 255))
    if mode == "P":
        image.putpalette([255] * 768)
    np.testing.assert_array_equal(fitted(image), 255)


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_a_palette_with_transparency(colours):
    """2, 4 or 16 colours take 1, 2 or 4 bits a pixel; one of them is see-through."""
    image = Image.new("P", (28, 28), 1)
    image.putpalette([255] * 3 * colours)
    image.paste(0, (0, 0, 28, 14))
    image.info["transparency"] = 0
    expected = np.full(GREY, 255)
    expected[:14] = 0
    np.testing.assert_array_equal(fitted(image), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_colour_type_of_jpeg(mode):
    white = {"L": 255, "RGB": (255,) * 3, "CMYK": (0,) * 4}[mode]
    np.testing.assert_array_equal(fitted(Image.new(mode, (28, 28), white), kind="JPEG"), 255)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),  # width and height of the file, rows and columns that it fills
    [
        ((1, 1), (0, 28), (0, 28)),
        ((56, 56), (0, 28), (0, 28)),
        ((280, 140), (7, 21), (0, 28)),
        ((14, 28), (0, 28), (7, 21)),
        ((5000, 1), (13, 14), (0, 28)),
        ((2, 3000), (0, 28), (13, 14)),
    ],
)
def test_sizes_keep_their_proportions_on_black(size, rows, columns):
    expected = np.zeros(GREY, np.uint8)
    expected[slice(*rows), slice(*columns)] = 255
    np.testing.assert_array_equal(fitted(Image.new("L", size, 255)), expected)


def test_shrinking_averages():
    """Stripes finer than a pixel of the result become a grey; samples would stay stripes."""
    stripes = np.zeros((280, 280), np.uint8)
    stripes[:, np.arange(280) % 6 < 3] = 255
    inner = fitted(Image.fromarray(stripes))[:, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() < 32


def test_inverting_keeps_transparency():
    image = Image.new("RGBA", (4, 4), (250, 200, 0, 77))
    again = decode_image(invert_image(tf.constant(file(image)))).numpy()
    np.testing.assert_array_equal(again, np.broadcast_to([5, 55, 255, 77], (4, 4, 4)))


DAMAGED = {
    "empty": b"",
    "text": b"no image",
    "png-signature-only": b"\x89PNG\r\n\x1a\n",
    "cut-png": file(Image.new("L", (28, 28)))[:60],
    "cut-jpeg": file(Image.effect_noise((28, 28), 99), "JPEG")[:500],
    "gif": file(Image.new("L", (28, 28)), "GIF"),
    "bmp": file(Image.new("L", (28, 28)), "BMP"),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("in_graph", [False, True])
def test_damaged_files_are_refused(name, in_graph):
    decode = tf.function(decode_image) if in_graph else decode_image
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(DAMAGED[name]))


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("size", [(20_000, 20_000), (0, 5), (2**32 - 1, 2**32 - 1)])
def test_a_size_beyond_the_limit_is_refused_before_decoding(size, in_graph):
    decode = tf.function(decode_image) if in_graph else decode_image
    with pytest.raises(tf.errors.InvalidArgumentError, match="25000000 pixels"):
        decode(tf.constant(png_bomb(*size, rows=10)))


def test_a_jpeg_beyond_the_limit_is_refused_before_decoding():
    content = bytearray(file(Image.new("L", (28, 28)), "JPEG"))
    frame = content.index(b"\xff\xc0")  # marker, length, bits of a sample, height, width, ...
    content[frame + 5 : frame + 9] = bytes([255, 0, 255, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="25000000 pixels"):
        decode_image(tf.constant(bytes(content)))


def test_eager_and_in_a_pipeline_are_equal(rng):
    content = file(Image.fromarray(rng.integers(0, 256, (50, 31, 4), np.uint8)))
    eager = fit_image(decode_image(tf.constant(content)), GREY)
    mapped = tf.data.Dataset.from_tensors(content).map(lambda c: fit_image(decode_image(c), GREY))
    np.testing.assert_array_equal(eager, next(iter(mapped)))
