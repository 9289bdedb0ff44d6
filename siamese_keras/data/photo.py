"""Image files of any format as pixels, with Pillow: the one place where that is decided.

Training, `predict` and galleries read files here. Clients of a server send PNG and JPEG files,
which the exported graph decodes with TensorFlow's operations (`decode.py`); tests hold both to the
same pixels, and `portable` converts the files that the graph cannot read.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from siamese_keras.errors import DataError

# Pillow's notes on what it could read nevertheless. Not `catch_warnings` around each file: several
# threads read files, and it would leave the warnings of the whole program ignored.
warnings.filterwarnings("ignore", module=r"PIL\.")

# An image of so many pixels takes about half a gigabyte while it is decoded and composited. Photos
# of 24 megapixels pass. The size is read from the file's header, before anything is decoded.
MAX_PIXELS = 25_000_000

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pgm", ".ppm", ".pbm", ".pnm"),
)
FORMATS = "PNG, JPEG, BMP, GIF, WebP, TIFF or PGM"
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag
# Between the darkest and the brightest pixel of an image that shows next to nothing: 8 %.
_FLAT = 20


def read_photo(content: bytes) -> np.ndarray:
    """Decode an image file as a viewer shows it.

    The first frame is taken, and the orientation that a camera notes in the file is applied. Gray
    values of 16 bits are scaled by 1 / 257; of colors, Pillow gives the high byte. A JPEG file of
    more than `MAX_PIXELS` pixels is decoded at a half, a quarter or an eighth of its size.

    Args:
        content: The bytes of a file of one of the `FORMATS`.

    Returns:
        uint8 `[height, width, 4]`: red, green, blue and alpha (255 = opaque).

    Raises:
        DataError: When it is not such a file, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        image = _opened(content)
        image.load()
        if image.mode == "L" and image.format == "PNG" and "transparency" in image.info:
            # Pillow compares pixels that it has scaled to 8 bits with the file's own value.
            image.info["transparency"] *= 255 // (2 ** content[24] - 1)
        return upright(_rgba(image), _orientation(image))
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds for damaged files
        raise DataError(f"The image is damaged: {error or type(error).__name__}") from None


def photo_size(source: bytes | Path) -> tuple[int, int]:
    """Return width and height of an image file from its header, without decoding it.

    Args:
        source: The bytes of the file, or its path.

    Raises:
        DataError: When it is not an image file.
        OSError: When it cannot be read.
    """
    if isinstance(source, bytes):
        return _identified(io.BytesIO(source)).size
    with source.open("rb") as file:
        return _identified(file).size


def _opened(content: bytes) -> Image.Image:
    """Open a file of at most `MAX_PIXELS` pixels, or one that is decoded to as many."""
    image = _identified(io.BytesIO(content))
    size = image.size
    factor = 1
    while factor < 8 and _pixels(size) > MAX_PIXELS * factor**2:
        factor *= 2
    if factor > 1:
        image.draft(None, (size[0] // factor, size[1] // factor))  # JPEG alone takes notice
    if not 0 < _pixels(image.size) <= MAX_PIXELS:
        raise DataError(
            f"An image must have 1 to {MAX_PIXELS} pixels. Received: {size[0]} x {size[1]}"
        )
    return image


def _identified(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(8)
        if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")):
            raise DataError("The image is damaged: its header cannot be read") from None
        shown = repr(start) if start else "nothing"
        raise DataError(f"An image must be a {FORMATS} file. It begins with {shown}") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"An image must have 1 to {MAX_PIXELS} pixels. {error}") from None
    except Exception as error:
        raise DataError(f"The image is damaged: {error or type(error).__name__}") from None


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _rgba(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image of any of Pillow's modes, uint8 `[height, width, 4]`."""
    if image.mode == "F":
        raise DataError("An image must have whole numbers as pixels. Received: floating-point ones")
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("RGBA"))
    values = np.asarray(image).astype(np.int64)  # "I;16" and its kind, or "I": 16-bit PGM
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            "An image must have pixels of at most 16 bits. Received: "
            f"{values.min()} to {values.max()}"
        )
    gray = ((values + 128) // 257).astype(np.uint8)
    alpha = np.where(values == image.info.get("transparency", -1), 0, 255).astype(np.uint8)
    return np.stack([gray, gray, gray, alpha], axis=2)


def _orientation(image: Image.Image) -> int:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # the pixels are fine even if the notes beside them are not
        return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as its EXIF orientation says.

    Args:
        pixels: `[height, width, channels]`, as they are in the file.
        orientation: 1 (as it is) to 8; others count as 1.

    Returns:
        The image; height and width are exchanged for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Exchange dark and light of uint8 `[height, width, 4]`; transparency stays."""
    return np.concatenate([255 - pixels[..., :3], pixels[..., 3:]], axis=2)


def png_of(pixels: np.ndarray) -> bytes:
    """Return uint8 `[height, width, 4]` as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def thumbnail(pixels: np.ndarray, size: int = 160) -> np.ndarray:
    """Return uint8 `[height, width, 4]`, made smaller where a side is longer than `size`."""
    image = Image.fromarray(pixels)
    image.thumbnail((size, size))
    return np.asarray(image)


def portable(content: bytes, pixels: np.ndarray) -> bytes:
    """Return a file that the graph of an exported model decodes to the same pixels.

    Args:
        content: The bytes of a file.
        pixels: The same file as `read_photo` returns it.

    Returns:
        `content` itself if it is a JPEG or PNG file that the graph reads alike, otherwise a PNG.
    """
    is_jpeg = content.startswith(b"\xff\xd8\xff")
    is_png = content.startswith(b"\x89PNG") and content[24] <= 8 and b"eXIf" not in content
    is_png &= b"IEND" in content  # the graph refuses a file that ends before
    width, height = photo_size(content)
    if (is_jpeg or is_png) and width * height <= MAX_PIXELS:
        return content
    return png_of(pixels)


def is_flat(image: np.ndarray) -> bool:
    """Say whether an image, uint8 `[height, width, channels]`, is of nearly one color."""
    return bool(np.ptp(image, axis=(0, 1)).max(initial=0) <= _FLAT)
