"""A line on a terminal that tells how far a long task is."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable

_PATIENCE = 2.0  # seconds before the bar appears
_SECONDS_BETWEEN_BARS = 0.1
_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal
_WIDTH = 30  # of the bar, at most
_CLEAR = "\r\x1b[K"  # go to the start of the line and erase it

# Called with how many are done and how many there are.
Progress = Callable[[int, int], None]

_log = logging.getLogger("siamese_keras")


def progress_line(what: str, *, in_files: bool = True) -> Progress:
    """Return a function of how many are done and how many there are, which shows a bar.

    The bar is drawn on standard error when the task takes over 2 s, and erased at its end. Where
    standard error is not a terminal but a file, a line is written to it every 30 s. Nothing is
    shown where messages of the level INFO are not, as with `--quiet`.

    Args:
        what: What is counted, such as "images".
        in_files: Write lines to a file; otherwise nothing but the bar is shown.
    """
    started = told = time.monotonic()
    is_drawn = False

    def show(done: int, total: int) -> None:
        nonlocal told, is_drawn
        stream, now = sys.stderr, time.monotonic()
        if stream is None or not _log.isEnabledFor(logging.INFO):
            return
        is_due = now - started >= _PATIENCE
        text = f"{done:,} of {total:,} {what}"
        if not stream.isatty():
            if in_files and is_due and now - told >= _SECONDS_BETWEEN_LINES:
                told = now
                print(text, file=stream, flush=True)
        elif done >= total:
            if is_drawn:
                print(_CLEAR, end="", file=stream, flush=True)
                is_drawn = False
        elif is_due and now - told >= _SECONDS_BETWEEN_BARS:
            told = now
            print(_CLEAR + _bar(done, total, text), end="", file=stream, flush=True)
            is_drawn = True

    return show


def _bar(done: int, total: int, text: str) -> str:
    """Return a bar and the text beside it, in one line of the terminal."""
    columns = shutil.get_terminal_size().columns - 1
    width = min(_WIDTH, columns - len(text) - 3)
    if width < 5:
        return text[:columns]
    full = width * done // max(total, 1)
    return f"[{'#' * full}{'.' * (width - full)}] {text}"
