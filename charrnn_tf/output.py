"""Where texts go that are sampled: standard output, or a file that appears when it is complete. How far one is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .corpus import Corpus, Progress
from .files import appearing, size_of, without_waiting

if TYPE_CHECKING:
    from .sampling import Sampler

PATIENT_SECONDS = 1.0  # of reading before it is shown


class Reading:
    """Shows on standard error, in a terminal, how far something long has come, and where a text's ids are kept."""

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
        """Told after each part what is done, and how much of how much."""
        if self._quiet or time.monotonic() - self._begun < PATIENT_SECONDS:
            return
        if self._bar is None:
            from rich import progress as bars
            from rich.console import Console

            console = Console(stderr=True)
            count = (
                (bars.DownloadColumn(), bars.TransferSpeedColumn()) if self._of == "bytes" else (bars.MofNCompleteColumn(),)
            )
            columns = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=16),
                *count,
                bars.TimeRemainingColumn(),
            )
            self._bar = bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            self._bar.start()
        if doing != self._doing:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(doing, total=total)
            self._doing = doing
        self._bar.update(self._bar.task_ids[0], completed=done)

    def say(self, text: str) -> None:
        """Say what is waited for."""
        if not self._quiet:
            click.echo(text, err=True)

    def conclude(self, corpus: Corpus) -> None:
        """Say where the ids are kept."""
        if corpus.kept and not self._quiet:
            size = size_of(corpus.kept) / 1e6
            click.echo(f"The text's ids are kept for the next time: {size:,.0f} MB in {corpus.kept}", err=True)


@contextmanager
def open_output(path: str | None) -> Iterator[Callable[[str], None]]:
    """A function that writes to standard output, or to a file that appears when it is complete.

    Bytes that are no UTF-8, in a text characters from U+DC80 to U+DCFF, are written to a file as they are.
    """
    if path is None:
        yield lambda text: click.echo(_replaced(text), nl=False)
        return
    with (
        appearing(path) as place,
        open(place, "w", encoding="utf-8", errors="surrogateescape", newline="", opener=without_waiting) as file,
    ):
        yield lambda text: (file.write(text), None)[1]


def _replaced(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_samples(
    sampler: Sampler, write: Callable[[str], None], prime: str, stop: str | None, end: str = "\n", **draw: Any
) -> None:
    """Each text after its prime; with several, the first as it comes, then the others, each under a line of its own.

    end: what comes after a single text.
    """
    texts = [_Stopping(stop) for _ in range(sampler.batch_size)]
    chunks = sampler.chunks(prime, errors="surrogateescape", **draw)
    if sampler.batch_size > 1:
        write("--- sample 1 ---\n")
    write(prime)
    for pieces in chunks:
        for text, piece in zip(texts, pieces, strict=True):
            text.add(piece)
        write(texts[0].take())
        if all(text.ended for text in texts):
            break
    write(texts[0].take(last=True) + (end if sampler.batch_size == 1 else "\n"))
    for number, text in enumerate(texts[1:], 2):
        write(f"--- sample {number} ---\n{prime}{text.take(last=True)}\n")


class _Stopping:
    """A text that comes in pieces and ends before a word; what may be the word's beginning is held back."""

    def __init__(self, stop: str | None) -> None:
        self.ended = False
        self._stop = stop
        self._held = ""

    def add(self, piece: str) -> None:
        if not self.ended:
            self._held += piece
            if self._stop and self._stop in self._held:
                self._held = self._held.partition(self._stop)[0]
                self.ended = True

    def take(self, last: bool = False) -> str:
        """What can be shown now."""
        held = 0 if last or self.ended or not self._stop else len(self._stop) - 1
        shown = self._held[: len(self._held) - held] if held < len(self._held) else ""
        self._held = self._held[len(shown) :]
        return shown
