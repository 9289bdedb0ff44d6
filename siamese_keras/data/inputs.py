"""Images as users pass them: arrays, or paths or bytes of image files, one or many."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.decode import photo_fitter
from siamese_keras.data.photo import inverted, is_flat, png_of, portable, read_photo
from siamese_keras.data.splits import check_images
from siamese_keras.errors import ArgumentError, DataError, RequestError

_log = logging.getLogger(__name__)

File = str | os.PathLike[str] | bytes
# uint8 [n, height, width, channels], or the bytes of n PNG or JPEG files.
Batch = np.ndarray | list[bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageInput:
    """Images that a caller passed, in batch form.

    Attributes:
        items: uint8 `[n, height, width, channels]`, or paths and bytes of image files.
        is_single: Whether the caller passed one image and not a sequence.
    """

    items: np.ndarray | Sequence[File]
    is_single: bool

    def __len__(self) -> int:
        return len(self.items)

    def batches(
        self, size: int, shape: tuple[int, int, int] | None = None, *, invert: bool = False
    ) -> Iterator[tuple[Batch, list[str]]]:
        """Yield batches with a name for each image.

        Files become arrays, the pixels that training sees. Where the shape of the model's images is
        not known, as with a server, they are PNG or JPEG files that its graph decodes alike. Images
        of nearly one color are named in a warning.

        Args:
            size: Images in a batch.
            shape: Height, width and channels of the model's images.
            invert: Exchange dark and light; transparency stays.

        Raises:
            RequestError: When a file is not an image, with its name.
            OSError: When a file cannot be read.
        """
        for start in range(0, len(self), size):
            batch = self.items[start : start + size]
            names = [_name(item, start + i) for i, item in enumerate(batch)]
            if isinstance(batch, np.ndarray):
                yield 255 - batch if invert else batch, names
            elif shape is None:
                yield _files_to_send(batch, names, invert=invert), names
            else:
                yield _fitted_files(batch, names, shape, invert=invert), names


def _fitted_files(
    items: Sequence[File], names: Sequence[str], shape: tuple[int, int, int], *, invert: bool
) -> np.ndarray:
    fit = photo_fitter(shape)
    fitted = [fit(pixels) for _, pixels in _read_files(items, names, invert=invert)]
    warn_of_flat([name for name, image in zip(names, fitted, strict=True) if is_flat(image)])
    return np.stack(fitted)


def _files_to_send(items: Sequence[File], names: Sequence[str], *, invert: bool) -> list[bytes]:
    files: list[bytes] = []
    flat: list[str] = []
    for content, pixels in _read_files(items, names, invert=invert):
        on_black = (pixels[..., :3] * (pixels[..., 3:] / np.float32(255))).astype(np.uint8)
        flat += [names[len(files)]] if is_flat(on_black) else []
        files.append(png_of(pixels) if invert else portable(content, pixels))
    warn_of_flat(flat)
    return files


def _read_files(
    items: Sequence[File], names: Sequence[str], *, invert: bool
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the bytes and the pixels of each file, one at a time."""
    for item, name in zip(items, names, strict=True):
        content = item if isinstance(item, bytes) else Path(item).read_bytes()
        try:
            pixels = read_photo(content)
        except DataError as error:
            raise RequestError(f"{name}: {error}") from None
        yield content, inverted(pixels) if invert else pixels


def warn_of_flat(names: Sequence[str]) -> None:
    """Warn of images that show next to nothing as the model sees them."""
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        _log.warning(
            "Nearly one color as the model sees it: %s%s. Transparent pixels become black, which "
            "hides dark drawings, and 16-bit values are read as 0 to 65535.",
            ", ".join(names[:5]),
            more,
        )


def as_images(images: Any) -> ImageInput:
    """Take images in any of the accepted forms.

    Args:
        images: uint8 `[height, width, channels]` or `[n, height, width, channels]`; a path (`str`
            or `Path`) or the `bytes` of an image file; or a sequence of one of these forms.

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
