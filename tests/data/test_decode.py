"""Decoding image files: sizes, color types, transparency and damaged files."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from helpers.png import png_bomb
from PIL import Image, ImageOps

from siamese_keras.data.decode import (
    MAX_PIXELS,
    decode_batch,
    decode_image,
    fit_image,
    jpeg_orientation,
    luminance,
    photo_fitter,
    scale_to_fit,
)
from siamese_keras.errors import DataError

GRAY, COLOR = (28, 28, 1), (28, 28, 3)


def file(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def fitted(image: Image.Image, shape=GRAY, kind: str = "PNG") -> np.ndarray:
    return decode_batch(tf.constant([file(image, kind)]), shape)[0].numpy()


@pytest.mark.parametrize("shape", [GRAY, COLOR])
def test_an_image_of_the_models_size_stays_as_it_is(shape, rng):
    pixels = rng.integers(0, 256, shape, np.uint8)
    image = Image.fromarray(pixels[..., 0] if shape == GRAY else pixels)
    np.testing.assert_array_equal(fitted(image, shape), pixels)


def test_gray_is_luminance_and_gray_in_color_is_equal_channels():
    red = Image.new("RGB", (28, 28), (255, 0, 0))
    np.testing.assert_array_equal(fitted(red), 76)  # 0.2989 * 255 = 76.2, as ITU-R BT.601 has it
    np.testing.assert_array_equal(fitted(Image.new("L", (28, 28), 100), COLOR), 100)


def test_what_is_transparent_becomes_black():
    for mode, color in (("RGBA", (255, 255, 255, 0)), ("LA", (255, 0))):
        np.testing.assert_array_equal(fitted(Image.new(mode, (28, 28), color)), 0)
    # 200 * 51 / 255 = 40
    half = Image.new("RGBA", (28, 28), (200, 200, 200, 51))
    np.testing.assert_array_equal(fitted(half), 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_every_color_type_of_png(mode):
    white = {"LA": (255, 255), "RGB": (255,) * 3, "RGBA": (255,) * 4, "I;16": 65535, "1": 255}
    image = Image.new(mode, (28, 28), white.get(mode, 255))
    if mode == "P":
        image.putpalette([255] * 768)
    np.testing.assert_array_equal(fitted(image), 255)


@pytest.mark.parametrize("colors", [2, 4, 16, 256])
def test_a_palette_with_transparency(colors):
    """2, 4 or 16 colors take 1, 2 or 4 bits a pixel; one of them is see-through."""
    image = Image.new("P", (28, 28), 1)
    image.putpalette([255] * 3 * colors)
    image.paste(0, (0, 0, 28, 14))
    image.info["transparency"] = 0
    expected = np.full(GRAY, 255)
    expected[:14] = 0
    np.testing.assert_array_equal(fitted(image), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_color_type_of_jpeg(mode):
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
    expected = np.zeros(GRAY, np.uint8)
    expected[slice(*rows), slice(*columns)] = 255
    np.testing.assert_array_equal(fitted(Image.new("L", size, 255)), expected)


def test_shrinking_averages():
    """Stripes finer than a pixel of the result become a gray; samples would stay stripes."""
    stripes = np.zeros((280, 280), np.uint8)
    stripes[:, np.arange(280) % 6 < 3] = 255
    inner = fitted(Image.fromarray(stripes))[:, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() < 32


def test_arrays_are_scaled_as_files_are(rng):
    """The pixels of a dataset that is resized are those of its images as files."""
    images = rng.integers(0, 256, (3, 20, 33, 3), np.uint8)
    scaled = scale_to_fit(images, 14, 12)
    assert scaled.dtype == np.uint8
    for image, expected in zip(images, scaled, strict=True):
        np.testing.assert_array_equal(fitted(Image.fromarray(image), (14, 12, 3)), expected)
    np.testing.assert_array_equal(scale_to_fit(images, 20, 33), images)


def test_a_batch_of_files_of_several_kinds_becomes_one_array(rng):
    files = [
        file(Image.new("L", (5, 5), 255)),
        file(Image.new("RGB", (300, 300), (255, 255, 255)), "JPEG"),
        file(Image.new("RGBA", (28, 28), (0, 0, 0, 0))),
    ]
    batch = decode_batch(tf.constant(files), COLOR).numpy()
    assert batch.dtype == np.uint8
    assert batch.shape == (3, *COLOR)
    np.testing.assert_array_equal(batch.min(axis=(1, 2, 3)), [255, 255, 0])
    np.testing.assert_array_equal(batch.max(axis=(1, 2, 3)), [255, 255, 0])
    assert decode_batch(tf.constant([], tf.string), COLOR).shape == (0, *COLOR)


DAMAGED = {
    "empty": b"",
    "text": b"not an image",
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
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"1 to {MAX_PIXELS} pixels"):
        decode(tf.constant(png_bomb(*size, rows=10)))


def test_a_jpeg_beyond_the_limit_is_refused_before_decoding():
    content = bytearray(file(Image.new("L", (28, 28)), "JPEG"))
    frame = content.index(b"\xff\xc0")  # marker, length, bits of a sample, height, width, ...
    content[frame + 5 : frame + 9] = bytes([255, 0, 255, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"1 to {MAX_PIXELS} pixels"):
        decode_image(tf.constant(bytes(content)))


def test_eager_and_in_a_pipeline_are_equal(rng):
    content = file(Image.fromarray(rng.integers(0, 256, (50, 31, 4), np.uint8)))
    eager = fit_image(decode_image(tf.constant(content)), GRAY)
    mapped = tf.data.Dataset.from_tensors(content).map(lambda c: fit_image(decode_image(c), GRAY))
    np.testing.assert_array_equal(eager, next(iter(mapped)))


decode_in_graph = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def with_exif(
    content: bytes,
    orientation: int,
    *,
    little: bool = True,
    before: int = 0,
    form: int = 3,
    fill: int = 0,
) -> bytes:
    """Put an EXIF segment into a JPEG file, behind `before` segments of other kinds.

    The orientation is an integer of a TIFF type, `form`; `fill` bytes come before the segment.
    """
    kind = "<" if little else ">"
    value = struct.pack(
        kind + {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}[form], orientation
    )
    entries = [(0x010F, 2, 4, b"Ab\0\0"), (0x0112, form, 1, value.ljust(4, b"\0"))]
    table = struct.pack(f"{kind}H", len(entries))
    for tag, form, count, value in entries:
        table += struct.pack(f"{kind}HHI", tag, form, count) + value
    header = (b"II*\0" if little else b"MM\0*") + struct.pack(f"{kind}I", 8)
    exif = b"Exif\0\0" + header + table + bytes(4)
    segments = before * (b"\xff\xe2" + struct.pack(">H", 20) + bytes(18))
    segments += fill * b"\xff" + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return content[:2] + segments + content[2:]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(("little", "before"), [(True, 0), (False, 0), (True, 3)])
def test_the_orientation_of_a_jpeg_is_applied(orientation, little, before, rng):
    pixels = rng.integers(0, 256, (5, 8, 3), np.uint8)
    plain = file(Image.fromarray(pixels), "JPEG")
    content = with_exif(plain, orientation, little=little, before=before)
    stated = orientation if 1 <= orientation <= 8 else 1
    assert jpeg_orientation(tf.constant(content)) == stated
    turned = decode_in_graph(tf.constant(content)).numpy()
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("form", [1, 3, 4, 6, 7, 8, 9])
@pytest.mark.parametrize(("little", "fill"), [(True, 0), (False, 0), (False, 3)])
def test_an_orientation_of_any_type_is_read_as_pillow_reads_it(form, little, fill, rng):
    pixels = rng.integers(0, 256, (5, 8, 3), np.uint8)
    plain = file(Image.fromarray(pixels), "JPEG")
    content = with_exif(plain, 6, little=little, form=form, fill=fill)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    np.testing.assert_array_equal(decode_in_graph(tf.constant(content)).numpy(), expected)


@pytest.mark.parametrize("cut", [12, 20, 30, 40, 60])
def test_an_orientation_that_is_cut_short_counts_as_none(cut):
    content = with_exif(file(Image.new("L", (9, 9)), "JPEG"), 6)[:cut]
    assert jpeg_orientation(tf.constant(content)) in (1, 6)
    loop = b"\xff\xd8" + b"\xff\xe2\0\0" * 2000
    assert jpeg_orientation(tf.constant(loop)) == 1


def test_sixteen_bits_are_rounded(rng):
    """257 * 128 - 200 is nearer to 127 than to 128, and its high byte is 127; ... - 100 is not."""
    values = np.array([[0, 128, 129, 257 * 128 - 200, 257 * 128 - 100, 65535]], np.uint16)
    content = tf.io.encode_png(values[..., np.newaxis])
    expected = [0, 0, 1, 127, 128, 255]
    assert decode_image(content)[0, :, 0].numpy().tolist() == expected


def test_one_channel_is_the_luminance_of_three(rng):
    image = rng.integers(0, 256, (31, 44, 4), np.uint8)
    color, gray = photo_fitter(COLOR)(image), photo_fitter(GRAY)(image)
    np.testing.assert_array_equal(gray, luminance(color))
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(luminance(every), every[..., :1])


@pytest.mark.parametrize("shape", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("kind", ["opaque", "opaque gray", "transparent", "of another size"])
def test_the_fitter_gives_the_pixels_of_the_graph(rng, shape, kind):
    height, width, _ = shape
    image = rng.integers(0, 256, (height + (kind == "of another size"), width, 4), np.uint8)
    if kind == "opaque gray":
        image[:] = image[..., :1]
    if kind != "transparent":
        image[..., 3] = 255
    np.testing.assert_array_equal(photo_fitter(shape)(image), fit_image(tf.constant(image), shape))


def test_files_are_not_for_models_of_other_channels():
    with pytest.raises(DataError, match="images of 4 channels: pass arrays"):
        photo_fitter((8, 8, 4))
