"""A line on a terminal that tells how far a long task is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_PATIENCE = 2.0  # seconds before the line appears
_WIDTH = 30


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return a function of how many are done and how many there are, which shows a bar.

    The bar is drawn on standard error, when that is a terminal and the task takes over 2 s.

    Args:
        what: What is counted, such as "images".
    """
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        stream = sys.stderr
        if stream is None or not stream.isatty() or time.monotonic() - started < _PATIENCE:
            return
        full = _WIDTH * done // max(total, 1)
        bar = "#" * full + "." * (_WIDTH - full)
        end = "\n" if done >= total else ""
        print(f"\r[{bar}] {done:,} of {total:,} {what}", end=end, file=stream, flush=True)

    return show
