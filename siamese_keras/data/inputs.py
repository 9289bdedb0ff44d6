"""Images as users pass them: arrays, or paths or bytes of image files, one or many."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from siamese_keras.data.decode import invert_image
from siamese_keras.data.splits import check_images
from siamese_keras.errors import ArgumentError, DataError, RequestError, plain_reason

File = str | os.PathLike[str] | bytes
# uint8 [n, height, width, channels], or the bytes of n PNG or JPEG files.
Batch = np.ndarray | list[bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageInput:
    """Images that a caller passed, in batch form.

    Attributes:
        items: uint8 `[n, height, width, channels]`, or paths and bytes of PNG and JPEG files.
        is_single: Whether the caller passed one image and not a sequence.
    """

    items: np.ndarray | Sequence[File]
    is_single: bool

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, size: int) -> Iterator[tuple[Batch, list[str]]]:
        """Yield batches, as an array or as the bytes of files, with a name for each image.

        Raises:
            OSError: When a file cannot be read.
        """
        for start in range(0, len(self), size):
            batch = self.items[start : start + size]
            names = [_name(item, start + i) for i, item in enumerate(batch)]
            if isinstance(batch, np.ndarray):
                yield batch, names
            else:
                yield [_content(item) for item in batch], names


def as_images(images: Any) -> ImageInput:
    """Take images in any of the accepted forms.

    Args:
        images: uint8 `[height, width, channels]` or `[n, height, width, channels]`; a path (`str`
            or `Path`) or the `bytes` of a PNG or JPEG file; or a sequence of one of these forms.

    Raises:
        DataError: When an array is not uint8 of one of these shapes.
        ArgumentError: When there is no image, or forms are mixed.
    """
    if isinstance(images, (str, os.PathLike, bytes)):
        return ImageInput([images], is_single=True)
    if isinstance(images, (list, tuple)):
        if not len(images):
            raise ArgumentError("`images` must hold at least one image. Received: none")
        is_file = [isinstance(item, (str, os.PathLike, bytes)) for item in images]
        if all(is_file):
            return ImageInput(images, is_single=False)
        if any(is_file):
            raise ArgumentError("`images` must be files or arrays. Received: both")
    try:
        array = np.asarray(images)
    except ValueError:  # NumPy's says nothing of images
        raise DataError("Images must have one shape. Received: arrays of several") from None
    is_single = array.ndim == 3
    array = array[np.newaxis] if is_single else array
    check_images(array)
    if not len(array):
        raise ArgumentError("`images` must hold at least one image. Received: none")
    return ImageInput(array, is_single)


def _name(item: Any, index: int) -> str:
    return f"`{item}`" if isinstance(item, (str, Path)) else f"image {index}"


def _content(item: File) -> bytes:
    return item if isinstance(item, bytes) else Path(item).read_bytes()


def inverted(images: Batch) -> Batch:
    """Return a batch with dark and light exchanged; transparency stays.

    Raises:
        RequestError: When a file is not a PNG or JPEG image.
    """
    if isinstance(images, np.ndarray):
        return 255 - images
    try:
        return [invert_image(tf.constant(content)).numpy() for content in images]
    except tf.errors.InvalidArgumentError as error:
        raise RequestError(plain_reason(error.message)) from None


def call_by_name(names: Sequence[str], ask: Callable[..., Any], *batches: Batch) -> Any:
    """Call `ask` with a batch; when it refuses, find and name the image that it refuses.

    Args:
        names: A name for each image, or for each row of several batches.
        ask: Function of `batches`, which raises `RequestError` for a row that it refuses.
        batches: Batches of equally many rows.

    Raises:
        RequestError: With the name of the row.
    """
    try:
        return ask(*batches)
    except RequestError as error:
        if len(names) > 1:
            for i in range(len(names)):
                call_by_name(names[i : i + 1], ask, *(batch[i : i + 1] for batch in batches))
        raise RequestError(f"{', '.join(names)}: {error}") from None
