"""Bars of long work: after a second only, in a terminal only, one at a time."""

import functools
import io
import re

import pytest
from rich.console import Console

from charrnn_tf.api import progress


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal of 80 columns, and a clock: `terminal.now` seconds."""
    written = io.StringIO()
    written.now = 100.0
    monkeypatch.setattr("rich.console.Console", functools.partial(Console, file=written, width=80))
    monkeypatch.setattr(progress, "is_live", lambda stream: True)
    monkeypatch.setattr(progress.time, "monotonic", lambda: written.now)
    return written


def bars(terminal):
    """The lines that were drawn, without control characters."""
    return re.sub(r"\x1b\[[\d;?]*\w", "", terminal.getvalue()).replace("\r", "\n")


def test_nothing_is_drawn_in_the_first_second_or_if_quiet(terminal):
    with progress.Reading() as show:
        show("Encoding", 1, 2)
        assert bars(terminal) == ""
    with progress.Reading(quiet=True) as show:
        terminal.now += 5
        show("Encoding", 1, 2)
    assert bars(terminal) == ""


def test_a_bar_shows_the_work_and_how_much_is_done(terminal):
    with progress.Reading() as show:
        terminal.now += 5
        show("Encoding", 1_000_000, 4_000_000)
    assert re.search(r"Encoding ━+.* 1\.0/4\.0 MB", bars(terminal))


def test_the_next_work_replaces_the_bar(terminal):
    with progress.Reading(of="characters") as show:
        terminal.now += 5
        show("Counting", 3, 3)
        show("Encoding", 1, 4)
    last = bars(terminal).strip().splitlines()[-1]
    assert "Encoding" in last
    assert "1/4" in last
    assert "Counting" not in last
