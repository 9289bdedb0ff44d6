"""Image files as pixels, against Pillow, and against the graph of an exported model."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from helpers.png import gray_png, png_bomb
from PIL import Image, ImageOps

from siamese_keras.data.decode import decode_batch, decode_image, fit_image
from siamese_keras.data.image_files import ClassFiles, load_image_files
from siamese_keras.data.inputs import as_images
from siamese_keras.data.photo import MAX_PIXELS, portable, read_photo
from siamese_keras.errors import DataError


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(size=(23, 17)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 4), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def palette(transparency) -> bytes:
    image = picture().convert("RGB").quantize(16)
    return file(image, transparency=transparency)


def wide(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (9, 7), np.uint16)
    return file(Image.fromarray(values), kind)


def oriented(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(picture().convert("RGB"), kind, exif=exif)


FILES = {
    **{f"png-{m}": file(picture().convert(m)) for m in ("1", "L", "P", "LA", "RGB", "RGBA")},
    "png-palette-one-transparent": palette(3),
    "png-palette-each-transparent": palette(bytes(range(0, 256, 16))),
    "png-gray-transparent": file(picture().convert("L"), transparency=100),
    "png-color-transparent": file(picture().convert("RGB"), transparency=(1, 2, 3)),
    "png-interlaced": tf.io.encode_png(np.asarray(picture())).numpy(),
    **{f"jpeg-{m}": file(picture().convert(m), "JPEG") for m in ("L", "RGB", "YCbCr", "CMYK")},
    "jpeg-progressive": file(picture().convert("RGB"), "JPEG", progressive=True, quality=30),
    "gif": file(picture().convert("RGB"), "GIF"),
    "gif-animated": file(
        picture().convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (23, 17))]
    ),
    **{f"webp-{m}": file(picture().convert(m), "WEBP") for m in ("RGB", "RGBA")},
    **{f"bmp-{m}": file(picture().convert(m), "BMP") for m in ("1", "L", "RGB", "P")},
    **{f"tiff-{m}": file(picture().convert(m), "TIFF") for m in ("1", "L", "RGB", "RGBA", "CMYK")},
    **{f"pnm-{m}": file(picture().convert(m), "PPM") for m in ("1", "L", "RGB")},
    **{f"jpeg-turned-{n}": oriented(n) for n in range(1, 9)},
    **{f"{kind}-turned-6": oriented(6, kind) for kind in ("PNG", "WEBP", "TIFF")},
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_pillow_and_of_the_graph(name):
    content = FILES[name]
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    pixels = read_photo(content)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    sent = portable(content, pixels)
    assert (sent == content) == (name.startswith(("png", "jpeg")))
    np.testing.assert_array_equal(decode_image(tf.constant(sent)), pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_by_a_257th(kind):
    content = wide(kind)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.round(np.asarray(image).astype(float) / 257)
    pixels = read_photo(content)
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert (pixels[..., 3] == 255).all()
    sent = portable(content, pixels)
    np.testing.assert_array_equal(decode_image(tf.constant(sent)), pixels)
    if kind == "PNG":
        np.testing.assert_array_equal(decode_image(tf.constant(content)), pixels)


def test_sixteen_bits_in_color(rng):
    """Pillow gives their high bytes, which is at most one less than the nearest value."""
    values = rng.integers(0, 65536, (9, 7, 3), np.uint16)
    pixels = read_photo(tf.io.encode_png(values).numpy())
    assert np.abs(pixels[..., :3].astype(int) - values // 257).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("value", [0, 1])
def test_a_gray_value_may_be_transparent(bits, value):
    """Of few bits, the value is not scaled in the file: 1 of 0 to 3 is 85 of 255."""
    row = np.arange(8) % min(2**bits, 4)
    packed = sum(int(v) << (bits * (7 - i)) for i, v in enumerate(row)).to_bytes(bits, "big")
    content = gray_png(8, bits, [packed] * 3, transparent=value)
    pixels = read_photo(content)
    np.testing.assert_array_equal(pixels[..., 3] == 0, np.tile(row == value, (3, 1)))
    np.testing.assert_array_equal(decode_image(tf.constant(portable(content, pixels))), pixels)


def test_a_turned_photo_is_the_upright_one():
    upright = picture((30, 20)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: a viewer turns the pixels to the right
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    pixels = read_photo(file(stored, exif=exif))
    np.testing.assert_array_equal(pixels, read_photo(file(upright)))


def test_exif_that_is_damaged_does_not_matter():
    image = picture().convert("RGB")
    pixels = read_photo(file(image, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish"))
    np.testing.assert_array_equal(pixels[..., :3], np.asarray(image))


def test_a_huge_jpeg_is_decoded_at_a_part_of_its_size():
    """60 megapixels, at half its width and height."""
    content = file(Image.new("L", (10_000, 6_000), 200), "JPEG")
    pixels = read_photo(content)
    assert pixels.shape == (3_000, 5_000, 4)
    assert (pixels[..., 0] == 200).all()
    assert portable(content, pixels) != content


@pytest.mark.parametrize("size", [(20_000, 20_000), (6_000, 6_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused(size):
    with pytest.raises(DataError, match=f"must have 1 to {MAX_PIXELS} pixels"):
        read_photo(png_bomb(*size, rows=10))


DAMAGED = {
    "empty": (b"", "It begins with nothing"),
    "text": (b"not an image", "It begins with b'not an i'"),
    "apple-double": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "It begins with"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "It begins with"),
    "png-signature": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "cut-png": (file(picture())[:60], "damaged"),
    "cut-jpeg": (file(Image.effect_noise((99, 99), 99), "JPEG")[:2000], "damaged"),
    "cut-gif": (file(picture().convert("P"), "GIF")[:40], "."),
    "cut-webp": (file(picture(), "WEBP")[:40], "."),
    "cut-tiff": (file(picture(), "TIFF")[:40], "."),
    "float": (file(Image.new("F", (5, 5)), "TIFF"), "whole numbers"),
    "32-bit": (file(Image.new("I", (5, 5), 70_000), "TIFF"), "at most 16 bits.*70000"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_with_a_file_is_said_in_one_line(name):
    content, expected = DAMAGED[name]
    with pytest.raises(DataError, match=expected) as caught:
        read_photo(content)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_every_file_is_the_same_in_training_and_in_predict(tmp_path):
    """Pillow's pixels, composited on black and scaled to fit, in a folder and in `predict`."""
    shape = (12, 12, 3)
    for name, content in FILES.items():
        path = tmp_path / name[-1] / name
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(f".{name.partition('-')[0].lower()}").write_bytes(content)
    paths = sorted(tmp_path.glob("*/*"))
    assert len(paths) == len(FILES)
    files = [ClassFiles([str(path)], path.parent.name) for path in paths]
    trained = load_image_files(files, tmp_path, image_size=12, color_mode="rgb").train.images
    ((asked, _),) = as_images(paths).batches(99, shape)
    ((sent, _),) = as_images(paths).batches(99)
    np.testing.assert_array_equal(asked, trained)
    np.testing.assert_array_equal(decode_batch(tf.constant(sent), shape), trained)
    for path, image in zip(paths, trained, strict=True):
        with Image.open(path) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGBA"))
        np.testing.assert_array_equal(fit_image(tf.constant(expected), shape), image)


def test_reading_in_threads_leaves_the_warnings_of_the_program(tmp_path):
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_photo, [palette(b"\x40\x80")] * 200))
    assert warnings.filters == before
