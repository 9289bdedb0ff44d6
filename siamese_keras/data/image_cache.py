"""The pixels of image files, decoded in parallel, in memory or in a cache on disk.

A cache is a folder of `images.npy`, which is mapped into memory and not read into it,
`digests.npy` and `facts.json`. There is one for each folder of files and setting, written whole or
not at all, and replaced when there are other files in it, or of other sizes or modification times.
Splits of the images are kept beside them; see `Split.take`.
"""

from __future__ import annotations

import array
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from siamese_keras.config import ColorMode
from siamese_keras.data.decode import luminance, photo_fitter
from siamese_keras.data.disk_arrays import STALE_SECONDS, mapped, new_array
from siamese_keras.data.photo import is_flat, photo_size, read_photo
from siamese_keras.data.splits import image_digests
from siamese_keras.errors import DataError
from siamese_keras.files import LAST_MTIME, writing_folder
from siamese_keras.progress import Progress

MAX_DEFAULT_SIZE = 64  # of images when no size is asked for: a training of minutes, not hours
_VERSION = 2  # of the decoder and of the folder's layout
_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """What a list of image files holds.

    Attributes:
        images: uint8 `[n, size, size, channels]`, of the files that can be read, in order.
        unread: Why others cannot be read, by their index in the list.
        flat: Indices of the images that are nearly of one color.
        digests: SHA-256 of the pixels of each image, as `image_digests` gives them.
        cache: The folder of the cache, or None.
    """

    images: np.ndarray
    unread: dict[int, str]
    flat: list[int]
    digests: np.ndarray
    cache: Path | None = None


def load_pixels(
    paths: Sequence[str],
    where: Path,
    size: int,
    color_mode: ColorMode,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Pixels:
    """Decode image files, or find them decoded.

    Args:
        paths: The files.
        where: Folder or list that they were found in: there is one cache of it for each setting.
        size: Height and width to fit them to; 0 takes `default_image_size`.
        color_mode: `rgb`, `grayscale`, or `auto`: grayscale if all images are gray.
        cache_dir: Folder of the caches; None keeps the pixels in memory.
        progress: Called with how many files are decoded and how many there are.

    Raises:
        OSError: When the cache cannot be written.
    """
    if cache_dir is None:
        return _decode(
            paths, size, color_mode, lambda _, shape: np.empty(shape, np.uint8), progress
        )
    state = _state_of(paths, where if where.is_dir() else where.parent)
    # A run records which size and colors the defaults came to, and is loaded with these again.
    for settings in ((size, color_mode), (0, "auto"), (size, "auto"), (0, color_mode)):
        cached = _read_cache(_cache_folder(cache_dir, where, *settings), state)
        if cached is None or not _fits(cached.images, size, color_mode):
            continue
        # Permission to read a file changes neither its size nor its time.
        if not any(_can_be_read(paths[i]) for i in cached.unread):
            return cached
    folder = _cache_folder(cache_dir, where, size, color_mode)
    _write_cache(folder, state, paths, size, color_mode, progress)
    cached = _read_cache(folder, state)
    if cached is None:
        raise DataError(f"The cache `{folder}` was written but cannot be read back.")
    return cached


def _cache_folder(cache_dir: Path, where: Path, size: int, color_mode: str) -> Path:
    settings = repr((_VERSION, str(where.absolute()), size, color_mode))
    digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape")).hexdigest()
    return cache_dir / digest[:16]


def _fits(images: np.ndarray, size: int, color_mode: ColorMode) -> bool:
    """Return whether images have a size and colors, where these are said."""
    channels = {"grayscale": 1, "rgb": 3}.get(color_mode, images.shape[-1])
    return images.shape[1:] == (size or images.shape[1], size or images.shape[2], channels)


def _can_be_read(path: str) -> bool:
    try:
        read_photo(Path(path).read_bytes())
    except (DataError, OSError, MemoryError):
        return False
    return True


def _state_of(paths: Sequence[str], folder: Path) -> str:
    """Return the SHA-256 of the names of files, seen from `folder`, their sizes and times."""
    facts = array.array("q")
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - a `Path` for each file takes as long again
        except OSError:  # reported when it is read
            facts.extend((-1, -1))
            continue
        facts.append(status.st_size)
        mtime = status.st_mtime_ns
        facts.append(mtime if mtime < LAST_MTIME else LAST_MTIME)  # a call of `min` takes longer
    names = "\0".join(["", *paths]).replace(f"\0{folder}{os.sep}", "\0")[1:]
    state = hashlib.sha256(names.encode("utf-8", "surrogateescape"))
    state.update(facts)
    return state.hexdigest()


def _read_cache(folder: Path, state: str) -> Pixels | None:
    """Return what a cache holds, or None when it is missing, damaged or of other files."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if facts["state"] != state:
            return None
        images, digests = mapped(folder / "images.npy"), np.load(folder / "digests.npy")
        if images is None or images.dtype != np.uint8 or digests.dtype != "S32":
            return None
        if digests.ndim != 1 or len(images) < len(digests):
            return None
        unread = {int(i): reason for i, reason in facts["unread"].items()}
        return Pixels(images[: len(digests)], unread, facts["flat"], digests, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_cache(
    folder: Path,
    state: str,
    paths: Sequence[str],
    size: int,
    color_mode: ColorMode,
    progress: Progress | None,
) -> None:
    with writing_folder(folder.parent, stale_seconds=STALE_SECONDS) as temporary:
        (made := temporary / "made").mkdir()

        def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
            return new_array(made / name, shape, np.uint8)

        pixels = _decode(paths, size, color_mode, allocate, progress)
        if isinstance(pixels.images, np.memmap):
            pixels.images.flush()
        np.save(made / "digests.npy", pixels.digests)
        name = "gray.npy" if pixels.images.shape[-1] == 1 else "color.npy"
        (made / name).rename(made / "images.npy")
        (made / "color.npy").unlink(missing_ok=True)
        facts = {
            "state": state,
            "unread": pixels.unread,
            "flat": pixels.flat,
        }
        (made / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):  # of other files; its readers go on reading
            folder.rename(temporary / "old")
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another program was faster
                raise


def _decode(
    paths: Sequence[str],
    size: int,
    color_mode: ColorMode,
    allocate: Callable[[str, tuple[int, ...]], np.ndarray],
    progress: Progress | None,
) -> Pixels:
    size = size or default_image_size(paths)
    fit = photo_fitter((size, size, 3))

    def read(path: str) -> np.ndarray | str:
        try:
            return fit(read_photo(Path(path).read_bytes()))
        except (DataError, OSError, MemoryError) as error:
            return getattr(error, "strerror", None) or str(error) or type(error).__name__

    try:
        images = allocate("color.npy", (len(paths), size, size, 3))
    except MemoryError:
        raise DataError(
            f"{len(paths)} images of {size} x {size} pixels do not fit into memory: choose a "
            "smaller `image_size`, or a `cache_dir`."
        ) from None
    unread: dict[int, str] = {}
    flat: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            for i, found in enumerate(pool.map(read, paths[start : start + _CHUNK]), start):
                at = i - len(unread)
                if isinstance(found, str):
                    unread[i] = found
                    continue
                images[at] = found
                flat += [at] if is_flat(found) else []
            if progress is not None:
                progress(min(start + _CHUNK, len(paths)), len(paths))
    images = images[: len(paths) - len(unread)]
    if color_mode == "grayscale" or (color_mode == "auto" and _is_gray(images)):
        gray = allocate("gray.npy", (*images.shape[:3], 1))
        for start in range(0, len(images), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            gray[chunk] = luminance(images[chunk]).numpy()
        images = gray
    return Pixels(images, unread, flat, image_digests(images))


def default_image_size(paths: Sequence[str]) -> int:
    """Return a size for images of many sizes: the median of their smaller sides, at most 64."""
    sides = []
    for path in paths:
        try:
            sides.append(min(photo_size(Path(path))))
        except (DataError, OSError):
            continue  # reported when it is read
    return max(1, min(MAX_DEFAULT_SIZE, int(np.median(sides)))) if sides else MAX_DEFAULT_SIZE


def _is_gray(images: np.ndarray) -> bool:
    chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
    return all((x[..., :1] == x[..., 1:]).all() for x in chunks)
