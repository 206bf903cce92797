"""Shows a run on standard error: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..runs.metrics import Row, nats
from ..settings.merge import Resolved
from ..training.trainer import Trainer
from .introduction import duration, introduction

if TYPE_CHECKING:
    from ..insight.tensorboard import EventFile

CALLS_TO_BELIEVE = 3  # compiled calls before the speed is believed: the first is slower
TREND = 8  # losses in a trend
SAMPLE_LINES = 8  # of the latest sample in the live display
LEVELS = "▁▂▃▄▅▆▇█"
CONTROLS = {n: 0x2400 + n for n in range(32) if chr(n) not in "\t\n"}  # shown by their pictures
CONTROLS |= dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)


class TrainDisplay:
    """Shows a run's progress, rows and samples; also passes rows and samples to a TensorBoard event file."""

    def __init__(self, trainer: Trainer, quiet: bool, events: EventFile | None = None) -> None:
        self._trainer = trainer
        self._events = events
        self._console = Console(file=cast(Any, _Outlived(sys.stderr)), quiet=quiet, highlight=False, soft_wrap=True)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal and not quiet
        self._calls = 0
        self._line = "starting"
        self._epoch, self._done = 0.0, 0.0  # epochs so far; fraction of the run
        self._ends: float | None = None  # by `time.monotonic`
        self._losses: list[float] = []
        self._validations: list[float] = []
        self._latest: tuple[int, str] | None = None  # sample in the live display, not yet printed above it
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._print_sample()
        if self._is_live:
            self._live.stop()

    def introduce(self, resolved: Resolved) -> None:
        """Print the introduction of a run."""
        for line in introduction(self._trainer, resolved):
            self.say(line)

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """Update the live display."""
        trainer = self._trainer
        self._calls += 1
        if self._calls == CALLS_TO_BELIEVE:
            self.say(f"Expected to end after {duration(self._expected(chars_per_second))}.")
        if self._calls >= CALLS_TO_BELIEVE:
            self._ends = time.monotonic() + self._expected(chars_per_second) - trainer.seconds
        self._line = f"loss {_loss(loss, 3)}{self._trend(self._losses)}"
        if self._validations:
            self._line += f"  validation {self._validations[-1]:.3f}{self._trend(self._validations)}"
        self._line += f"  {chars_per_second:,.0f} char/s  step {step:,}"
        self._epoch, self._done = step / trainer.steps_per_epoch, _fraction_done(trainer)

    def _render(self) -> Group:
        """Bars of the epoch and of the run, the loss line, and the latest sample."""
        bars = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            bars.add_column(ratio=ratio, justify="left" if ratio else "right", no_wrap=True)
        left = "" if self._ends is None else f"{duration(max(self._ends - time.monotonic(), 0))} left"
        for name, done, told in (f"epoch {int(self._epoch) + 1:,}", self._epoch % 1, ""), ("run", self._done, left):
            bars.add_row(name, ProgressBar(total=1.0, completed=done), f"{done:.0%}", told)
        overflow: Any = "crop" if self._console.options.ascii_only else "ellipsis"
        parts: list[Any] = [bars, Text(self._line, no_wrap=True, overflow=overflow)]
        if latest := self._latest:  # copied: another thread may change it
            step, text = latest
            lines = Text("\n".join(text.split("\n")[:SAMPLE_LINES]), no_wrap=True, overflow=overflow)
            parts.append(Panel(lines, title=f"sample at step {step:,}", title_align="left"))
        return Group(*parts)

    def _trend(self, losses: Sequence[float]) -> str:
        """A sparkline of the latest losses; empty in terminals that lack the characters."""
        latest = losses[-TREND:]
        if len(latest) < 2 or self._console.options.ascii_only:
            return ""
        span = max(max(latest) - min(latest), 1e-9)
        return " " + "".join(LEVELS[int((loss - min(latest)) / span * (len(LEVELS) - 1))] for loss in latest)

    def row(self, row: Row) -> None:
        """Print a row of metrics.csv as a line above the live display."""
        self._losses += [row.train_loss] if row.train_loss is not None else []
        self._validations += [row.validation_loss] if row.validation_loss is not None else []
        if self._events:
            self._events.row(row, float(self._trainer.state.gradient_norm))
        shown = "" if row.validation_loss is None else f"  validation {row.validation_loss:.4f}"
        line = f"step {row.step:>7,}  epoch {row.epoch:7.2f}  loss {_loss(row.train_loss, 4)}{shown}"
        self.say(f"{line}  {row.chars_per_second:,.0f} char/s  {duration(row.seconds)}")

    def sample(self, step: int, text: str) -> None:
        """Show a sample in the live display; the next one moves it above."""
        if self._events:
            self._events.sample(step, text)
        self._print_sample()
        self._latest = step, text.translate(CONTROLS)
        if not self._is_live:
            self._print_sample()

    def _print_sample(self) -> None:
        if self._latest:
            step, text = self._latest
            self._latest = None
            self.say(f"--- sample at step {step:,} ---\n{text}\n---")

    def conclude(self) -> None:
        """Print the last and best validation losses, after the reason if the run ended early."""
        trainer = self._trainer
        self._print_sample()
        if not trainer.stopped and trainer.out_of_patience:
            self.say(f"Ended early: {trainer.config.patience} validations in a row without improvement.")
        last, best = trainer.last_validation, trainer.directory.best
        if last is not None:
            self.say(f"Last validation: {nats(last)}.")
        if best and best.validation_loss is not None:
            self.say(f"Best validation: {nats(best.validation_loss)}, in {best.name}.")

    def say(self, text: str) -> None:
        """Print a line above the live display; brackets in it are not markup."""
        self._console.print(Text(text))

    def _expected(self, chars_per_second: float) -> float:
        """Estimated seconds of the whole run, by the budget that ends first."""
        trainer = self._trainer
        chars_per_step = trainer.config.batch_size * trainer.config.num_steps
        ends: list[Any] = [trainer.config.max_seconds]
        if trainer.total_steps is not None:
            ends.append(trainer.seconds + (trainer.total_steps - trainer.step) * chars_per_step / chars_per_second)
        return min(end for end in ends if end is not None)


def _fraction_done(trainer: Trainer) -> float:
    """Largest fraction used of the budgets, 0 to 1."""
    used = [trainer.step / trainer.total_steps] if trainer.total_steps else []
    used += [trainer.seconds / trainer.config.max_seconds] if trainer.config.max_seconds else []
    return min(1.0, max(used))


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
