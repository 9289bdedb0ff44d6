"""A line on a terminal that tells how far a long task is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_PATIENCE = 2.0  # seconds before the bar appears
_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal
_WIDTH = 30


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return a function of how many are done and how many there are, which shows a bar.

    The bar is drawn on standard error when the task takes over 2 s. Where that is no terminal but a
    file, a line is written to it every 30 s.

    Args:
        what: What is counted, such as "images".
    """
    started = told = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal told
        stream, now = sys.stderr, time.monotonic()
        if stream is None or now - started < _PATIENCE:
            return
        if not stream.isatty():
            if now - told >= _SECONDS_BETWEEN_LINES:
                told = now
                print(f"{done:,} of {total:,} {what}", file=stream, flush=True)
            return
        full = _WIDTH * done // max(total, 1)
        bar = "#" * full + "." * (_WIDTH - full)
        end = "\n" if done >= total else ""
        print(f"\r[{bar}] {done:,} of {total:,} {what}", end=end, file=stream, flush=True)

    return show
