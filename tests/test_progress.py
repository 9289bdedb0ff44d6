"""The bar of a long task: not at once, and lines in its place where there is no terminal."""

import io
import logging
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from siamese_keras import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def informed(caplog):
    """Show messages of the level INFO, as the commands do."""
    caplog.set_level(logging.INFO, "siamese_keras")


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns."""
    size = os.terminal_size((80, 24))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: size)  # pytest asks too
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    return terminal


@pytest.fixture
def at(monkeypatch):
    """Set the seconds that have passed."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def set_seconds(seconds):
        clock[0] = 100.0 + seconds

    return set_seconds


def test_the_bar_appears_after_two_seconds_and_is_erased(at, terminal):
    show = progress.progress_line("images")
    at(1.9)
    show(500, 10_000)
    assert terminal.getvalue() == ""
    at(2.1)
    show(1_000, 10_000)
    assert terminal.getvalue() == f"\r\x1b[K[###{27 * '.'}] 1,000 of 10,000 images"
    show(10_000, 10_000)
    assert terminal.getvalue().endswith(" images\r\x1b[K")


def test_a_task_that_was_quick_leaves_no_trace(at, terminal):
    show = progress.progress_line("images")
    at(1)
    show(10, 10)
    at(3)
    show(10, 10)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (40, "[#######........] 1,000 of 2,000 images"),
        (26, "1,000 of 2,000 images"),
        (12, "1,000 of 2,"),
    ],
)
def test_the_bar_fits_a_narrow_terminal(at, terminal, monkeypatch, columns, line):
    size = os.terminal_size((columns, 24))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: size)
    show = progress.progress_line("images")
    at(3)
    show(1_000, 2_000)
    assert terminal.getvalue() == f"\r\x1b[K{line}"
    assert len(line) < columns


def test_nothing_is_shown_where_messages_are_not(at, terminal, caplog):
    caplog.set_level(logging.WARNING, "siamese_keras")
    show = progress.progress_line("images")
    at(90)
    show(1, 2)
    assert terminal.getvalue() == ""


def test_without_a_terminal_a_line_is_written_now_and_then(at, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show, silent = progress.progress_line("images"), progress.progress_line("x", in_files=False)
    for seconds in (9, 31, 59, 62):
        at(seconds)
        show(1000 * seconds, 62_000)
        silent(1000 * seconds, 62_000)
    assert stream.getvalue() == "31,000 of 62,000 images\n62,000 of 62,000 images\n"


def test_without_standard_error_nothing_is_shown(at, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    show = progress.progress_line("images")
    at(90)
    assert show(1, 2) is None
