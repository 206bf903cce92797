"""Shows a run on standard error: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..runs.metrics import Row
from ..settings.merge import Resolved
from ..training.trainer import Trainer
from .eta import Eta
from .progress import is_live
from .summary import conclusion, duration, introduction

if TYPE_CHECKING:
    from ..insight.tensorboard import EventFile

TREND = 8  # losses in a trend
LEVELS = "▁▂▃▄▅▆▇█"
CONTROLS = {n: 0x2400 + n for n in range(32) if chr(n) not in "\t\n"}  # shown by their pictures
CONTROLS |= dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)


class TrainDisplay:
    """Shows a run's progress, rows and samples; also passes rows and samples to a TensorBoard event file."""

    def __init__(
        self, trainer: Trainer, quiet: bool, events: EventFile | None = None, wording: Callable[[str], str] = str
    ) -> None:
        """wording: turns a line with the names of settings into the caller's terms."""
        self._trainer, self._wording = trainer, wording
        self._eta = Eta(trainer)
        self._events = events
        self.active = bool(events) or not quiet  # whether progress and samples are wanted
        self._is_live = not quiet and is_live(sys.stderr)
        self._console = Console(
            file=cast(Any, _Outlived(sys.stderr)), quiet=quiet or sys.stderr is None, force_terminal=self._is_live,
            highlight=False, soft_wrap=not self._is_live,
        )  # fmt: skip
        self._line = "starting"
        self._epoch, self._done = 0.0, 0.0  # epochs so far; fraction of the run
        self._losses: list[float] = []
        self._validations: list[float] = []
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_live:
            self._live.stop()

    def introduce(self, resolved: Resolved) -> None:
        """Print the introduction of a run."""
        for line in introduction(self._trainer, resolved):
            self.say(self._wording(line))

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """Update the live display."""
        if self._eta.call(chars_per_second):
            self.say(f"Expected to end after {duration(self._eta.expected_seconds(chars_per_second))}.")
        self._line = f"loss {_loss(self._eta.recent_loss(loss), 3)}{self._trend(self._losses)}"
        if self._validations:
            self._line += f"  validation {self._validations[-1]:.3f}{self._trend(self._validations)}"
        self._line += f"  {chars_per_second:,.0f} char/s  step {step:,}"
        self._epoch, self._done = step / self._trainer.steps_per_epoch, self._eta.fraction_done

    def activity(self, doing: str) -> None:
        """Append the current activity to the line of the live display."""
        self._line = f"{self._line}  {doing}"

    def _render(self) -> Group:
        """Bars of the epoch and of the run, and the loss line."""
        bars = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            bars.add_column(ratio=ratio, justify="left" if ratio else "right", no_wrap=True)
        seconds = self._eta.seconds_left
        left = "" if seconds is None else f"{duration(seconds)} left"
        for name, done, remark in (f"epoch {int(self._epoch) + 1:,}", self._epoch % 1, ""), ("run", self._done, left):
            bars.add_row(name, ProgressBar(total=1.0, completed=done), f"{done:.0%}", remark)
        overflow: Any = "crop" if self._console.options.ascii_only else "ellipsis"
        return Group(bars, Text(self._line, no_wrap=True, overflow=overflow))

    def _trend(self, losses: Sequence[float]) -> str:
        """A sparkline of the latest losses; empty in terminals that lack the characters."""
        latest = losses[-TREND:]
        if len(latest) < 2 or self._console.options.ascii_only:
            return ""
        span = max(max(latest) - min(latest), 1e-9)
        return " " + "".join(LEVELS[int((loss - min(latest)) / span * (len(LEVELS) - 1))] for loss in latest)

    def row(self, row: Row) -> None:
        """Print a row of metrics.csv as a line above the live display."""
        self._eta.row(row)
        self._losses += [row.train_loss] if row.train_loss is not None else []
        self._validations += [row.validation_loss] if row.validation_loss is not None else []
        if self._events:
            self._events.row(row, float(self._trainer.state.gradient_norm))
        shown = "" if row.validation_loss is None else f"  validation {row.validation_loss:.4f}"
        line = f"step {row.step:>7,}  epoch {row.epoch:7.2f}  loss {_loss(row.train_loss, 4)}{shown}"
        self.say(f"{line}  {row.chars_per_second:,.0f} char/s  {duration(row.seconds)}")

    def sample(self, step: int, text: str) -> None:
        """Print a sample above the live display."""
        if self._events:
            self._events.sample(step, text)
        self.say(f"--- sample at step {step:,} ---\n{text.translate(CONTROLS)}\n---")

    def conclude(self) -> None:
        """Print why the run ended early, if it did, and its last and best validation losses."""
        for line in conclusion(self._trainer):
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line above the live display; brackets in it are not markup."""
        self._console.print(Text(text))


class _Outlived:
    """A stream that may be closed during the run: later output is dropped without an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        self._or_give_up(self._stream.write, text)

    def flush(self) -> None:
        self._or_give_up(self._stream.flush)

    def _or_give_up(self, method: Callable[..., object], *arguments: str) -> None:
        try:
            method(*arguments)
        except OSError:
            with suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())


def _loss(loss: float | None, digits: int) -> str:
    return "-" if loss is None else f"{loss:.{digits}f}"
