"""The bar of a long task: not at once, and lines in its place where there is no terminal."""

import io
import sys

import pytest

from siamese_keras import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at(monkeypatch):
    """Set the seconds that have passed."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def set_seconds(seconds):
        clock[0] = 100.0 + seconds

    return set_seconds


def test_the_bar_appears_after_two_seconds_and_ends_its_line(at, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show = progress.progress_line("images")
    at(1.9)
    show(500, 10_000)
    assert terminal.getvalue() == ""
    at(2.1)
    show(1_000, 10_000)
    assert terminal.getvalue() == f"\r[###{27 * '.'}] 1,000 of 10,000 images"
    show(10_000, 10_000)
    assert terminal.getvalue().endswith(f"\r[{30 * '#'}] 10,000 of 10,000 images\n")


def test_without_a_terminal_a_line_is_written_now_and_then(at, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show = progress.progress_line("images")
    for seconds in (9, 31, 59, 62):
        at(seconds)
        show(1000 * seconds, 62_000)
    assert stream.getvalue() == "31,000 of 62,000 images\n62,000 of 62,000 images\n"


def test_without_standard_error_nothing_is_shown(at, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    show = progress.progress_line("images")
    at(90)
    assert show(1, 2) is None
