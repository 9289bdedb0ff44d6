"""From PNG and JPEG files to the images of a model, as TensorFlow operations.

They run as they are inside an exported graph, so that a server, `predict` and a test see the same
pixels. Nothing here imports Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# An image of so many pixels takes about half a gigabyte while it is decoded and composited. Photos
# of 24 megapixels pass. The size is read from the file's header, before anything is decoded.
MAX_PIXELS = 25_000_000


def decode_image(content: tf.Tensor) -> tf.Tensor:
    """Decode a PNG or JPEG file of any color type.

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
        color = tf.io.decode_jpeg(content, channels=3)
        return tf.concat([color, tf.fill(tf.concat([size, [1]], 0), tf.constant(255, tf.uint8))], 2)

    return tf.cond(is_png, lambda: _decode_png(content), decode_jpeg)


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_png(content, channels=4)
    # TensorFlow gives opaque images of less than 8 bits the alpha of their own scale: 1, 3 or 15.
    bits = tf.io.decode_raw(tf.strings.substr(content, 24, 1), tf.uint8)[0]
    opaque = tf.bitwise.left_shift(tf.constant(1, tf.uint8), bits) - 1

    def rescaled() -> tf.Tensor:
        color, alpha = image[..., :3], image[..., 3:]
        return tf.concat([color, tf.where(alpha == opaque, tf.constant(255, tf.uint8), alpha)], 2)

    return tf.cond(bits < 8, rescaled, lambda: image)


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
        shape: Height, width and channels; 1 channel is grey, 3 are red, green and blue.

    Returns:
        uint8 `[height, width, channels]`.
    """
    height, width, channels = shape
    color, alpha = image[..., :3], image[..., 3:]
    product = tf.cast(color, tf.uint16) * tf.cast(alpha, tf.uint16)  # at most 255 * 255
    color = tf.cast(product // 255, tf.uint8)
    fitted = _scaled_to_fit(color, height, width)
    if channels == 1:
        fitted = tf.image.rgb_to_grayscale(fitted)
    return tf.ensure_shape(tf.cast(tf.round(fitted), tf.uint8), shape)


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


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def invert_image(content: tf.Tensor) -> tf.Tensor:
    """Invert an image file: dark on white becomes white on dark.

    Args:
        content: string `[]`, the bytes of a PNG or JPEG file.

    Returns:
        string `[]`, the bytes of a PNG file; transparency is kept.

    Raises:
        tf.errors.InvalidArgumentError: As `decode_image`.
    """
    image = decode_image(content)
    return tf.io.encode_png(tf.concat([255 - image[..., :3], image[..., 3:]], 2))
