"""From PNG and JPEG files to the images of a model, as TensorFlow operations.

They run inside an exported graph. Files that Python reads are decoded in `photo.py`, to the same
pixels, and brought to the shape of a model's images with the same `fit_image`. Nothing here imports
Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from siamese_keras.data.photo import MAX_PIXELS
from siamese_keras.errors import DataError

_MAX_SEGMENTS = 100  # to look for the orientation in; cameras write it into the first or second


def decode_image(content: tf.Tensor) -> tf.Tensor:
    """Decode a PNG or JPEG file of any color type.

    The orientation that a camera notes in a JPEG file (EXIF) is applied. Values of 16 bits are
    scaled by 1 / 257.

    Args:
        content: string `[]`, the bytes of the file.

    Returns:
        uint8 `[height, width, 4]`: red, green, blue and alpha (255 = opaque).

    Raises:
        tf.errors.InvalidArgumentError: When the bytes are neither format or are damaged, or their
            header states more than `MAX_PIXELS` pixels.
    """
    # A PNG file begins with 8 fixed bytes, then the header chunk: length and type in 4 bytes each,
    # width and height in 4 each, the bits of a sample in one, four more, and a checksum.
    is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_png &= tf.strings.length(content) >= 33
    is_jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    content = _checked(content, is_png | is_jpeg, ["An image must be a PNG or JPEG file."])
    size = tf.cond(is_png, lambda: _png_size(content), lambda: _jpeg_size(content))
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    content = _checked(
        content,
        tf.reduce_all(size > 0) & (pixels <= MAX_PIXELS),
        [f"An image must have 1 to {MAX_PIXELS} pixels. Received: height and width", size],
    )

    def decode_jpeg() -> tf.Tensor:
        # Accurate, as Pillow and browsers decode: TensorFlow's default differs by up to 9 of 255.
        color = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        opaque = tf.fill(tf.concat([size, [1]], 0), tf.constant(255, tf.uint8))
        return _upright(tf.concat([color, opaque], 2), jpeg_orientation(content))

    return tf.cond(is_png, lambda: _decode_png(content), decode_jpeg)


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    bits = tf.io.decode_raw(tf.strings.substr(content, 24, 1), tf.uint8)[0]

    def rounded() -> tf.Tensor:  # TensorFlow's own conversion drops the low bytes
        image = tf.cast(tf.io.decode_png(content, channels=4, dtype=tf.uint16), tf.int32)
        return tf.cast((image + 128) // 257, tf.uint8)

    def decoded() -> tf.Tensor:
        image = tf.io.decode_png(content, channels=4)
        # TensorFlow gives opaque images of less than 8 bits the alpha of their own scale: 1, 3, 15.
        opaque = tf.bitwise.left_shift(tf.constant(1, tf.uint8), bits) - 1
        color, alpha = image[..., :3], image[..., 3:]
        scaled = tf.where(alpha == opaque, tf.constant(255, tf.uint8), alpha)
        return tf.cond(bits < 8, lambda: tf.concat([color, scaled], 2), lambda: image)

    return tf.cond(bits == 16, rounded, decoded)


def jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """Find the EXIF orientation of a JPEG file.

    The file is a series of segments: 0xff, a kind, the length of the rest in two bytes. That of
    kind 0xe1 which begins with `Exif` holds a TIFF header and a table of tags.

    Args:
        content: string `[]`, the bytes of the file.

    Returns:
        int32 `[]`: 1 (as it is) to 8; 1 where the file does not say.
    """
    size = tf.strings.length(content)

    def number(at: tf.Tensor, length: int, *, little: Any = False) -> tf.Tensor:
        """Read an integer; beyond the end of the file it is 0."""
        place = tf.clip_by_value(at, 0, tf.maximum(size - length, 0))
        digits = tf.cast(
            tf.io.decode_raw(tf.strings.substr(content, place, length), tf.uint8), tf.int32
        )
        digits = tf.where(little, tf.reverse(digits, [0]), digits)
        weights = tf.constant([256**i for i in reversed(range(length))], tf.int32)
        inside = (at >= 0) & (at + length <= size)
        return tf.where(inside, tf.reduce_sum(digits * weights), 0)

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        place = tf.clip_by_value(at + 4, 0, size)
        length = tf.minimum(6, size - place)
        return (number(at, 2) == 0xFFE1) & (
            tf.strings.substr(content, place, length) == b"Exif\0\0"
        )

    def goes_on(at: tf.Tensor) -> tf.Tensor:
        kind = number(at, 2)  # the picture itself begins with 0xffda
        return (kind > 0xFF01) & (kind != 0xFFDA) & ~is_exif(at)

    def next_segment(at: tf.Tensor) -> tuple[tf.Tensor]:
        is_fill = number(at, 2) == 0xFFFF  # before a segment may come any number of 0xff
        return (tf.where(is_fill, at + 1, at + 2 + number(at + 2, 2)),)

    (at,) = tf.while_loop(
        goes_on, next_segment, (tf.constant(2),), maximum_iterations=_MAX_SEGMENTS
    )
    header = at + 10
    little = number(header, 2) == 0x4949  # "II"; "MM" otherwise
    table = header + number(header + 4, 4, little=little)
    entries = table + 2 + 12 * tf.range(tf.minimum(number(table, 2, little=little), _MAX_SEGMENTS))

    def stated(entry: tf.Tensor) -> tf.Tensor:
        is_orientation = number(entry, 2, little=little) == 0x0112
        kind, value = number(entry + 2, 2, little=little), tf.constant(0)
        for kinds, length in ((6,), 1), ((3, 8), 2), ((4, 9), 4):  # the integers that Pillow takes
            is_kind = tf.reduce_any(kind == kinds)
            value = tf.where(is_kind, number(entry + 8, length, little=little), value)
        return tf.where(is_orientation, value, 0)

    found = tf.reduce_max(tf.concat([[0], tf.map_fn(stated, entries)], 0))
    return tf.where(is_exif(at) & (found >= 1) & (found <= 8), found, 1)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn an image as `photo.upright` does."""

    def changed(image: tf.Tensor, kinds: list[int], change: Callable[..., tf.Tensor]) -> tf.Tensor:
        return tf.cond(tf.reduce_any(orientation == kinds), lambda: change(image), lambda: image)

    image = changed(image, [5, 6, 7, 8], lambda pixels: tf.transpose(pixels, [1, 0, 2]))
    image = changed(image, [3, 4, 7, 8], lambda pixels: tf.reverse(pixels, [0]))
    return changed(image, [2, 3, 6, 7], lambda pixels: tf.reverse(pixels, [1]))


def _checked(content: tf.Tensor, condition: tf.Tensor, message: list[Any]) -> tf.Tensor:
    """Return `content`, for operations that must not start before `condition` is known to hold."""
    check = tf.debugging.Assert(condition, message)  # None when it runs at once
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(content)


def _png_size(content: tf.Tensor) -> tf.Tensor:
    width_height = tf.io.decode_raw(
        tf.strings.substr(content, 16, 8), tf.int32, little_endian=False
    )
    return tf.reverse(tf.ensure_shape(width_height, [2]), [0])


def _jpeg_size(content: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(content)[:2]


def fit_image(image: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Bring an image to the shape that a model takes.

    Transparent pixels become black, the background of Fashion-MNIST. The image is scaled, with
    antialiasing, until it fits, and centered; black fills the rest. An opaque image of that size
    is returned unchanged.

    Args:
        image: uint8 `[any height, any width, 4]`, as `decode_image` returns it.
        shape: Height, width and channels; 1 channel is gray, 3 are red, green and blue.

    Returns:
        uint8 `[height, width, channels]`.
    """
    height, width, channels = shape
    color, alpha = image[..., :3], image[..., 3:]
    product = tf.cast(color, tf.uint16) * tf.cast(alpha, tf.uint16)  # at most 255 * 255
    color = tf.cast(product // 255, tf.uint8)
    fitted = tf.cast(tf.round(_scaled_to_fit(color, height, width)), tf.uint8)
    return tf.ensure_shape(luminance(fitted) if channels == 1 else fitted, shape)


def luminance(images: tf.Tensor) -> tf.Tensor:
    """Return uint8 `[..., 3]` in gray, uint8 `[..., 1]`; of a gray image, any of its channels."""
    gray = tf.image.rgb_to_grayscale(tf.cast(images, tf.float32))
    return tf.cast(tf.round(gray), tf.uint8)


def scale_to_fit(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale images, with antialiasing, until they fit, and center them on black.

    Args:
        images: uint8 `[n, any height, any width, channels]`.
        height: Height to bring them to.
        width: Width to bring them to.

    Returns:
        uint8 `[n, height, width, channels]`, the pixels that `fit_image` gives.
    """
    return tf.cast(tf.round(_scaled_to_fit(images, height, width)), tf.uint8).numpy()


def _scaled_to_fit(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    # Not `tf.image.resize_with_pad`: it fails on images of 1 x 5000 pixels and rounds sizes down.
    size = tf.cast(tf.shape(images)[-3:-1], tf.float32)
    shrink = tf.reduce_max(size / tf.constant([height, width], tf.float32))
    inside = tf.cast(tf.maximum(tf.round(size / shrink), 1.0), tf.int32)
    scaled = tf.image.resize(images, inside, antialias=True)
    return tf.image.resize_with_crop_or_pad(scaled, height, width)


def decode_batch(contents: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decode files and bring them to one shape.

    Args:
        contents: string `[n]`, the bytes of PNG or JPEG files.
        shape: Height, width and channels, as for `fit_image`.

    Returns:
        uint8 `[n, height, width, channels]`.

    Raises:
        tf.errors.InvalidArgumentError: As `decode_image`.
    """
    return tf.map_fn(
        lambda content: fit_image(decode_image(content), shape),
        contents,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        parallel_iterations=1,  # one large image in memory at a time
    )


@functools.cache
def photo_fitter(shape: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Return `fit_image` for one shape as a function of arrays.

    It runs as a graph. Opaque images of that size do without, which takes a tenth of the time.

    Raises:
        DataError: When the images have other than 1 or 3 channels.
    """
    if shape[2] not in (1, 3):
        raise DataError(f"The model takes images of {shape[2]} channels: pass arrays, not files.")

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4], tf.uint8)])
    def fit(pixels: tf.Tensor) -> tf.Tensor:
        return fit_image(pixels, shape)

    def fitted(pixels: np.ndarray) -> np.ndarray:
        color = pixels[..., :3]
        if color.shape[:2] == shape[:2] and (pixels[..., 3] == 255).all():
            if shape[2] == 3:
                return color
            if (color[..., :1] == color[..., 1:]).all():
                return color[..., :1]
        return fit(pixels).numpy()

    return fitted
