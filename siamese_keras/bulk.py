"""The pairs of a CSV file, compared and written a part at a time."""

from __future__ import annotations

import csv
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.errors import ArgumentError, DataError
from siamese_keras.files import atomic_path, check_columns, delimiter_of
from siamese_keras.gallery import Embed, embed_files
from siamese_keras.progress import Progress

_log = logging.getLogger(__name__)

_COLUMNS = ("left", "right")
_ADDED = ("distance", "similarity", "same", "error")
_ROWS = 2_000  # that are read, compared and written at once
_KEPT = 100_000  # embeddings that are kept for files that come again

# (left, right) float32 [n, embedding_dim] -> distance, similarity, same, each [n]
Decide = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
# The line that a row ends in, its values, its two files, and what is wrong with it or nothing.
Row = tuple[int, list[str], list[Path], str]


def compare_file(
    embed: Embed,
    decide: Decide,
    pairs: Path,
    output: Path,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Compare the pairs of a CSV file and write them with the answers, as `Verifier.compare_file`.

    Args:
        embed: Function of many files, `Verifier.embed`.
        decide: Function of left and right embeddings that gives distance, similarity and decision.
        pairs: The pairs.
        output: The file to write.
        batch_size: Files to embed at once.
        progress: Called with how many lines are done and how many there are.
    """
    if output.exists() and output.samefile(pairs):
        raise ArgumentError(f"The output must be another file than the pairs. Received: `{output}`")
    lines = _count_lines(pairs) if progress is not None and pairs.is_file() else 0
    embeddings = _Embeddings(embed, batch_size)
    compared = failed = 0
    # File names that are not UTF-8 pass as they are.
    text: dict[str, Any] = {"newline": "", "errors": "surrogateescape"}
    with (
        pairs.open(encoding="utf-8-sig", **text) as source,
        atomic_path(output) as temporary,
        temporary.open("w", encoding="utf-8", **text) as target,
    ):
        header = source.readline()
        delimiter = delimiter_of(header)
        # A pipe cannot go back to its first line.
        reader = csv.reader(itertools.chain([header], source), delimiter=delimiter)
        writer = csv.writer(target, delimiter=delimiter)
        try:
            names = _header(pairs, reader)
            writer.writerow([*names, *_ADDED])
            rows = _rows(reader, names, pairs.parent)
            while chunk := list(itertools.islice(rows, _ROWS)):
                answers = _answers(chunk, embeddings, decide)
                for (line, values, *_), answer in zip(chunk, answers, strict=True):
                    padding = [""] * (len(names) - len(values))
                    writer.writerow([*values[: len(names)], *padding, *answer])
                    if error := answer[-1]:
                        _log.warning("%s line %d: %s", pairs, line, _printable(error))
                    failed += bool(error)
                compared += len(chunk)
                if progress is not None and lines:
                    progress(min(reader.line_num, lines), lines)
        except csv.Error as error:
            raise DataError(f"`{pairs}` line {reader.line_num} is not CSV: {error}") from None
    return compared - failed, failed


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))


def _printable(text: str) -> str:
    """Return a text with escapes in place of bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _header(path: Path, reader: Any) -> list[str]:
    names: list[str] = next(reader, [])
    columns = _columns(names)
    if missing := [name for name in _COLUMNS if name not in columns]:
        received = _printable(",".join(names)[:80]) or "none"
        raise DataError(
            f"`{path}` must begin with a header line that has the columns left and right. "
            f"Missing: {', '.join(missing)}. Received: {received}"
        )
    if taken := [name for name in _ADDED if name in columns]:
        raise DataError(
            f"`{path}` must not have columns that the output adds: rename {', '.join(taken)}."
        )
    check_columns(path, columns, _COLUMNS)
    return names


def _columns(names: Sequence[str]) -> list[str]:
    """Return the names of columns in lower case, in which they are looked up."""
    return [name.casefold() for name in names]


def _rows(reader: Any, names: Sequence[str], folder: Path) -> Iterator[Row]:
    columns = _columns(names)
    places = [columns.index(name) for name in _COLUMNS]
    for values in reader:
        if not values:  # an empty line
            continue
        files, error = [], ""
        if len(values) != len(names):
            error = f"expected {len(names)} values, received {len(values)}"
            if surplus := values[len(names) :]:
                error += f": {', '.join(surplus)} too many"
        elif empty := [names[place] for place in places if not values[place]]:
            error = f"expected a path, received nothing: {', '.join(empty)}"
        elif "\0" in "".join(values):
            error = "expected a path, received a NUL character"
        else:
            files = [folder / values[place] for place in places]
        yield reader.line_num, values, files, error


def _answers(
    chunk: Sequence[Row], embeddings: _Embeddings, decide: Decide
) -> list[tuple[Any, Any, Any, str]]:
    """Return distance, similarity, decision and error of each row; three of them empty or one."""
    found = embeddings.of({path for _, _, files, _ in chunk for path in files})
    errors = [
        error or "; ".join(dict.fromkeys(x for path in files if isinstance(x := found[path], str)))
        for _, _, files, error in chunk
    ]
    good = [files for (_, _, files, _), error in zip(chunk, errors, strict=True) if not error]
    answers: Iterator[tuple[Any, ...]] = iter(())
    if good:
        left, right = (np.stack([found[pair[side]] for pair in good]) for side in (0, 1))
        answers = zip(*decide(left, right), strict=True)
    rows: list[tuple[Any, Any, Any, str]] = []
    for error in errors:
        if error:
            rows.append(("", "", "", error))
        else:
            distance, similarity, same = next(answers)
            rows.append((f"{distance:.6g}", f"{similarity:.6g}", int(same), ""))
    return rows


class _Embeddings:
    """Embeddings of files, each computed once while it is kept; or why a file has none."""

    def __init__(self, embed: Embed, batch_size: int) -> None:
        self._embed = embed
        self._batch_size = batch_size
        self._known: dict[Path, np.ndarray | str] = {}

    def of(self, paths: set[Path]) -> dict[Path, Any]:
        new = sorted(paths - self._known.keys())
        if len(self._known) + len(new) > _KEPT:
            self._known = {path: self._known[path] for path in paths & self._known.keys()}

        def note(path: Path, error: Exception) -> None:
            self._known[path] = " ".join(str(error).split())

        read, embeddings = embed_files(self._embed, new, self._batch_size, on_error=note)
        self._known |= {new[i]: row for i, row in zip(read, embeddings, strict=True)}
        return {path: self._known[path] for path in paths}
