"""The index: the embeddings of a gallery, a folder of images, in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from siamese_keras.errors import DataError, ModelError
from siamese_keras.files import LAST_MTIME, atomic_path
from siamese_keras.gallery import Embed, Progress, check_not_empty, embed_files, gallery_files

_log = logging.getLogger(__name__)

_FORMAT = "siamese_keras index 1"
_PROBES = 3
_PROBE_TOLERANCE = 1e-3  # between machines and forms of one model; models differ by about 1


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """The embeddings of a folder's images, with what tells whether they are still right.

    Attributes:
        folder: The folder.
        names: str `[n]`, the files' paths relative to it, with `/`.
        sizes: int64 `[n]`, bytes of each file when it was embedded.
        mtimes: int64 `[n]`, its modification time, in ns.
        embeddings: float32 `[n, embedding_dim]`.
        fingerprint: float32 `[3, embedding_dim]`, what the model makes of three fixed images. Of
            one model it is the same from a run, an exported model and a server.
        invert: Whether the images were inverted.
    """

    folder: str
    names: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray
    embeddings: np.ndarray
    fingerprint: np.ndarray
    invert: bool

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Index: {len(self)} images of {self.folder}>"


@dataclasses.dataclass(frozen=True)
class Changes:
    """What an update of an index did, in numbers of images."""

    embedded: int
    kept: int
    removed: int


def model_fingerprint(embed: Embed) -> np.ndarray:
    """Return what a model makes of three fixed images: float32 `[3, embedding_dim]`."""
    pixels = np.random.default_rng(0).integers(0, 256, (_PROBES, 16, 16, 3), np.uint8)
    return embed([tf.io.encode_png(image).numpy() for image in pixels])


def is_same_model(index: Index, fingerprint: np.ndarray, *, invert: bool) -> bool:
    """Return whether an index is of the model with this fingerprint."""
    return index.invert == invert and _are_equal(index.fingerprint, fingerprint)


def _are_equal(fingerprint: np.ndarray, other: np.ndarray) -> bool:
    if fingerprint.shape != other.shape:
        return False
    limit = _PROBE_TOLERANCE * max(1.0, float(np.abs(other).max()))
    return bool(np.abs(fingerprint - other).max() <= limit)


@contextlib.contextmanager
def one_model(embed: Embed) -> Iterator[np.ndarray]:
    """Make sure that one model embeds all images of a block: a server may switch to another one.

    Args:
        embed: Function of many images, `Verifier.embed`.

    Yields:
        The model's fingerprint.

    Raises:
        ModelError: After the block, when it is that of another model then.
    """
    fingerprint = model_fingerprint(embed)
    yield fingerprint
    if not _are_equal(fingerprint, model_fingerprint(embed)):
        raise ModelError("The server switched to another model meanwhile: try again.")


def build_index(
    embed: Embed,
    folder: Path,
    *,
    batch_size: int,
    invert: bool = False,
    before: Index | None = None,
    progress: Progress | None = None,
) -> tuple[Index, Changes]:
    """Embed a folder's images, except those that an index of the same model already has.

    Args:
        embed: Function of many images, `Verifier.embed`.
        folder: The folder.
        batch_size: Files to read at once.
        invert: Whether `embed` inverts images.
        before: An earlier index of the folder. Files of the same name, size and modification time
            are taken from it, if it is of the same model.
        progress: Called with how many are done and how many there are.

    Returns:
        The index, names in order, and what was done.

    Raises:
        DataError: When it is not a folder or has no image that can be read.
        ModelError: When a server switched to another model meanwhile.
    """
    with one_model(embed) as fingerprint:
        if before is not None and not is_same_model(before, fingerprint, invert=invert):
            how = "with another model"
            if before.invert != invert:
                how = "with --invert" if before.invert else "without --invert"
            _log.warning("The existing index was made %s: embedding all images again.", how)
            before = None
        files = gallery_files(folder)
        states = [_state(path) for path in files]
        names = [path.relative_to(folder).as_posix() for path in files]
        known: dict[tuple[str, int, int], int] = {}
        if before is not None:
            columns = (before.names.tolist(), before.sizes.tolist(), before.mtimes.tolist())
            known = {key: i for i, key in enumerate(zip(*columns, strict=True))}
        old = [known.get((name, *state)) for name, state in zip(names, states, strict=True)]
        new = [i for i, place in enumerate(old) if place is None]
        read, embedded = embed_files(embed, [files[i] for i in new], batch_size, progress)
    kept = {i: place for i, place in enumerate(old) if place is not None}
    places = [*kept, *(new[i] for i in read)]
    check_not_empty(folder, places)
    parts = [embedded] if len(embedded) else []
    if before is not None and kept:
        parts.insert(0, before.embeddings[list(kept.values())])
    order = np.argsort(places)
    chosen = [places[i] for i in order]
    index = Index(
        folder=str(folder.resolve()),
        names=np.array([names[i] for i in chosen], str),
        sizes=np.array([states[i][0] for i in chosen], np.int64),
        mtimes=np.array([states[i][1] for i in chosen], np.int64),
        embeddings=np.concatenate(parts)[order],
        fingerprint=fingerprint,
        invert=invert,
    )
    gone = 0 if before is None else len(set(before.names.tolist()) - set(index.names.tolist()))
    return index, Changes(embedded=len(read), kept=len(kept), removed=gone)


def _state(path: Path) -> tuple[int, int]:
    """Return size and modification time; what no file has when they cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, min(found.st_mtime_ns, LAST_MTIME)


def write_index(path: Path, index: Index) -> None:
    """Write an index to `path`, an `.npz` file without pickles, whole or not at all."""
    content = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, format=_FORMAT, **content)  # given a name, NumPy may add `.npz` to it


def read_index(path: Path) -> Index:
    """Read what `write_index` wrote.

    Raises:
        DataError: When the file cannot be read or is not an index.
    """
    expected = "an index, as `siamese-keras index FOLDER` writes it"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            if str(content["format"]) != _FORMAT:
                raise DataError(f"`{path}` must be {expected}. Received: {content['format']}")
            fields = {field.name: content[field.name] for field in dataclasses.fields(Index)}
        index = Index(
            **{**fields, "folder": str(fields["folder"]), "invert": bool(fields["invert"])}
        )
        _check_fields(index)
    except DataError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"`{path}` cannot be read as {expected}. {error}") from None
    except Exception:  # NumPy raises many kinds for damaged files
        raise DataError(f"`{path}` must be {expected}.") from None
    return index


def _check_fields(index: Index) -> None:
    rows, kinds = index.names.shape, [index.sizes.dtype.kind, index.mtimes.dtype.kind]
    fits = len(rows) == 1 and index.names.dtype.kind == "U" and kinds == ["i", "i"]
    fits &= index.sizes.shape == index.mtimes.shape == rows
    for array in (index.embeddings, index.fingerprint):
        fits &= array.dtype == np.float32 and array.ndim == 2
    if not fits or index.embeddings.shape != (*rows, index.fingerprint.shape[1]):
        raise ValueError("the arrays do not fit")


def warn_of_changes(index: Index, places: Iterable[int]) -> None:
    """Warn of images of an index whose files have changed, or are gone, since they were embedded.

    Args:
        index: The index. Where its folder is not on this machine, nothing can be told.
        places: The images that are to be looked at.
    """
    folder = Path(index.folder)
    if not folder.is_dir():
        return
    changed = [
        name
        for place in sorted(set(places))
        if _state(folder / (name := str(index.names[place])))
        != (index.sizes[place], index.mtimes[place])
    ]
    if changed:
        _log.warning(
            "The index is out of date: %d of the images found have changed, or are gone, since it "
            "was made, such as %s. Index the folder again.",
            len(changed),
            changed[0],
        )


def check_index(index: Index, path: str | os.PathLike[str], embed: Embed, *, invert: bool) -> None:
    """Raise unless an index was made by this model.

    Raises:
        ModelError: When it was not.
    """
    if index.invert != invert:
        made, now = ("with", "without") if index.invert else ("without", "with")
        raise ModelError(f"`{path}` was made {made} --invert. Received: a search {now} it")
    if not is_same_model(index, model_fingerprint(embed), invert=invert):
        raise ModelError(
            f"`{path}` is an index of another model: its embeddings cannot be compared with this "
            "one's. Index the folder with this model, or search with the other one."
        )
