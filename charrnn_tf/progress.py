"""What a person sees while a model trains: a living display in a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import estimate
from .events import EventFile
from .metrics import Row, nats
from .training import Trainer

CALLS_TO_BELIEVE = 3  # of the compiled loop before its speed is believed: the first is slower
TREND = 8  # losses that a trend shows
SAMPLE_LINES = 8  # of the latest sample in the living display
LEVELS = "▁▂▃▄▅▆▇█"
CONTROLS = {n: 0x2400 + n for n in range(32) if chr(n) not in "\t\n"}  # shown by pictures: a text may hold any
CONTROLS |= dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)


class TrainDisplay:
    """Shows a run's progress, rows and samples, and writes events where they are wanted."""

    def __init__(self, trainer: Trainer, quiet: bool, events: EventFile | None = None) -> None:
        self._trainer = trainer
        self._events = events
        self._console = Console(file=cast(IO[str], _Outlived(sys.stderr)), quiet=quiet, highlight=False, soft_wrap=True)
        self._lives = self._console.is_terminal and not self._console.is_dumb_terminal and not quiet
        self._calls = 0
        self._line = "starting"
        self._epoch, self._done = 0.0, 0.0
        self._ends: float | None = None  # by `time.monotonic`
        self._losses: list[float] = []
        self._validations: list[float] = []
        self._latest: tuple[int, str] | None = None  # sample, shown in the living display and not yet above it
        self._live = Live(get_renderable=self._living, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> TrainDisplay:
        if self._lives:
            self._live.start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._print_sample()
        if self._lives:
            self._live.stop()

    def introduce(self, chosen: dict[str, Any], budget_given: bool) -> None:
        """Say what is about to be trained on what, which settings the recipe chose for it, and what it takes."""
        trainer = self._trainer
        config, model = trainer.config, trainer.model
        parameters = model.count_params()
        characters = trainer.text.characters
        files = len(trainer.text.sources)
        held_out, validating = trainer.held_out, trainer.validation_characters
        self.say(
            f"Text: {characters:,} characters{f' in {files} files' if files > 1 else ''}, "
            f"{trainer.model_config.vocab_size:,} in the vocabulary; the last {held_out:,} are for validation"
            f"{f', which reads {validating:,} of them' if validating < held_out else ''}."
        )
        if not trainer.model_config.embedding_size:
            self.say(f"  {'one-hot':<12} {'':<12} {trainer.model_config.vocab_size:>7} {0:>11,}")
        for layer in model.layers[1:]:
            shape = " x ".join(str(size) for size in layer.output.shape[1:] if size is not None) or "1"
            self.say(f"  {layer.name:<12} {type(layer).__name__:<12} {shape:>7} {layer.count_params():>11,}")
        self.say(f"Model: {parameters:,} parameters, {characters / parameters:.2g} characters of text for each.")
        self.say(f"Device: {trainer.device}.")
        total = "until the time is over" if trainer.total_steps is None else f"{trainer.total_steps:,} in all"
        self.say(f"Steps: {trainer.steps_per_epoch:,} an epoch, {total}; {config.shards} shards of a batch at once.")
        size = estimate.checkpoint_bytes(trainer.model_config, config) / 1e6
        self.say(
            f"Checkpoints: {size:.1f} MB each, at most {config.keep + 1} kept in {trainer.directory.path}: "
            f"{size * (config.keep + 1):,.0f} MB."
        )
        for note in trainer.notes:
            self.say(note)
        if chosen:
            settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in chosen.items())
            self.say(f"Chosen by the text's length, the budget and the machine: {settings}. Options override it.")
        if not budget_given and config.max_seconds is not None:
            self.say(
                f"Budget: {_duration(config.max_seconds)}, by the text's length. Change it with --epochs, --max-steps or "
                "--max-seconds."
            )

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """Move the living display on."""
        trainer = self._trainer
        self._calls += 1
        if self._calls == CALLS_TO_BELIEVE:
            self.say(f"Expected to end after {_duration(self._expected(chars_per_second))}.")
        if self._calls >= CALLS_TO_BELIEVE:
            self._ends = time.monotonic() + self._expected(chars_per_second) - trainer.seconds
        self._line = f"loss {_loss(loss, 3)}{self._trend(self._losses)}"
        if self._validations:
            self._line += f"  validation {self._validations[-1]:.3f}{self._trend(self._validations)}"
        self._line += f"  {chars_per_second:,.0f} char/s  step {step:,}"
        self._epoch, self._done = step / trainer.steps_per_epoch, trainer.fraction_done

    def _living(self) -> Group:
        """Bars of the epoch and of the run, the line, and the latest sample."""
        bars = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            bars.add_column(ratio=ratio, justify="left" if ratio else "right", no_wrap=True)
        left = "" if self._ends is None else f"{_duration(max(self._ends - time.monotonic(), 0))} left"
        for name, done, told in (f"epoch {int(self._epoch) + 1:,}", self._epoch % 1, ""), ("run", self._done, left):
            bars.add_row(name, ProgressBar(total=1.0, completed=done), f"{done:.0%}", told)
        overflow: Any = "crop" if self._console.options.ascii_only else "ellipsis"
        parts: list[Any] = [bars, Text(self._line, no_wrap=True, overflow=overflow)]
        if latest := self._latest:  # read once: this is another thread than the one that changes it
            step, text = latest
            lines = Text("\n".join(text.split("\n")[:SAMPLE_LINES]), no_wrap=True, overflow=overflow)
            parts.append(Panel(lines, title=f"sample at step {step:,}", title_align="left"))
        return Group(*parts)

    def _trend(self, losses: Sequence[float]) -> str:
        """The latest losses as a row of bars; nothing where the terminal has no such characters."""
        latest = losses[-TREND:]
        if len(latest) < 2 or self._console.options.ascii_only:
            return ""
        span = max(max(latest) - min(latest), 1e-9)
        return " " + "".join(LEVELS[int((loss - min(latest)) / span * (len(LEVELS) - 1))] for loss in latest)

    def row(self, row: Row) -> None:
        """Print a row of metrics.csv as a line, above the living display."""
        self._losses += [row.train_loss] if row.train_loss is not None else []
        self._validations += [row.validation_loss] if row.validation_loss is not None else []
        if self._events:
            self._events.row(row, self._trainer.gradient_norm)
        shown = "" if row.validation_loss is None else f"  validation {row.validation_loss:.4f}"
        line = f"step {row.step:>7,}  epoch {row.epoch:7.2f}  loss {_loss(row.train_loss, 4)}{shown}"
        self.say(f"{line}  {row.chars_per_second:,.0f} char/s  {_duration(row.seconds)}")

    def sample(self, step: int, text: str) -> None:
        """Show a text written by the model as it is now: in the living display, and above it when the next one comes."""
        if self._events:
            self._events.sample(step, text)
        self._print_sample()
        self._latest = step, text.translate(CONTROLS)
        if not self._lives:
            self._print_sample()

    def _print_sample(self) -> None:
        if self._latest:
            step, text = self._latest
            self._latest = None
            self.say(f"--- sample at step {step:,} ---\n{text}\n---")

    def conclude(self, finished: bool) -> None:
        """Say why a run that was not stopped has ended, and how well it validated, from a zero state."""
        trainer = self._trainer
        self._print_sample()
        if finished and trainer.out_of_patience:
            self.say(f"Ended early: {trainer.config.patience} validations in a row were no better than the best.")
        last, best = trainer.last_validation, trainer.directory.best
        if last is not None:
            self.say(f"Last validation: {nats(last)}.")
        if best and best.validation_loss is not None:
            self.say(f"Best validation: {nats(best.validation_loss)}, in {best.name}.")

    def say(self, text: str) -> None:
        """Print a line above the living display; what comes from a text is not read as markup."""
        self._console.print(Text(text))

    def _expected(self, chars_per_second: float) -> float:
        """Seconds the whole run takes, of all given budgets the shortest."""
        trainer = self._trainer
        chars_per_step = trainer.config.batch_size * trainer.config.num_steps
        ends: list[Any] = [trainer.config.max_seconds]
        if trainer.total_steps is not None:
            ends.append(trainer.seconds + (trainer.total_steps - trainer.step) * chars_per_step / chars_per_second)
        return min(end for end in ends if end is not None)


class _Outlived(io.TextIOBase):
    """A stream that the run outlives: when nothing takes what is written any more, it is lost without an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        with suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())


def _loss(loss: float | None, digits: int) -> str:
    return "-" if loss is None else f"{loss:.{digits}f}"


def _duration(seconds: float) -> str:
    """Seconds as a person says them: `43 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
