"""What C++ libraries print on the terminal."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_LOCK = threading.RLock()  # standard error is the process's: one thread at a time redirects it


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Hold back what is printed on standard error, by C++ too, and print it when the block fails.

    Some libraries print before they read any setting, so only the file descriptor can be
    redirected.
    """
    with _LOCK:
        yield from _held_stderr()


def _held_stderr() -> Iterator[None]:
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        with Path(os.devnull).open("wb"):  # which takes its place
            yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
