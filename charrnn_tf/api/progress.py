"""Progress bars of work that takes longer than a second, such as reading a long text."""

import os
import sys
import time
from typing import Any, TextIO

import click

from ..files import size_of
from ..text.corpus import MUCH, Corpus, Progress

PATIENT_SECONDS = 1.0  # before a bar is shown


def is_live(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that can redraw lines.

    FORCE_COLOR has no effect. False in a notebook's shell escape (JPY_PARENT_PID), in CI and with TERM=dumb.
    """
    plain = os.environ.get("JPY_PARENT_PID") or os.environ.get("CI", "false").lower() not in ("", "0", "false")
    dumb = os.environ.get("TERM", "ansi" if os.name == "nt" else "dumb").lower() in ("", "dumb", "unknown")
    return stream is not None and stream.isatty() and not plain and not dumb


class Reading:
    """A context that yields a progress callback; shows a bar on standard error in a terminal."""

    def __init__(self, quiet: bool = False, of: str = "bytes") -> None:
        self._begun = time.monotonic()
        self._doing = ""
        self._quiet = quiet
        self._of = of
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def _show(self, doing: str, done: int, total: int | None) -> None:
        """Update the bar. doing: the work, such as "Encoding"; done, total: units of it."""
        if self._quiet or time.monotonic() - self._begun < PATIENT_SECONDS:
            return
        if self._bar is None:
            self._bar = self._new_bar()
            self._bar.start()
            self._bar.add_task(doing)
        (task,) = self._bar.task_ids
        if doing != self._doing:
            self._doing = doing
            self._bar.reset(task, description=doing, total=total)
        self._bar.update(task, completed=done)

    def _new_bar(self) -> Any:
        from rich import progress as bars
        from rich.console import Console

        console = Console(stderr=True, force_terminal=is_live(sys.stderr))
        count = (bars.DownloadColumn(), bars.TransferSpeedColumn()) if self._of == "bytes" else (bars.MofNCompleteColumn(),)
        columns = (
            bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=16), *count, bars.TimeRemainingColumn(),
        )  # fmt: skip
        return bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def say(self, text: str) -> None:
        """Print a message, unless quiet."""
        if not self._quiet:
            click.echo(text, err=True)

    def conclude(self, corpus: Corpus) -> None:
        """Print the characters added, those left out (unless a warning named them), and the cache entry of the ids."""
        if corpus.added:
            self.say(f"{corpus.added}.")
        if corpus.left_out and corpus.left_out.share < MUCH:
            self.say(f"{corpus.left_out}.")
        if corpus.kept:
            size = size_of(corpus.kept) / 1e6
            self.say(f"Cached the encoded text for the next run: {size:,.0f} MB in {corpus.kept}")
