"""Shows a run in a notebook: one output, updated in place."""

from __future__ import annotations

import html
import time
from typing import Any, Self

from ..inference.colours import WRAPPED
from ..runs.chart import chart
from ..runs.metrics import METRICS, Row, nats, read_rows
from ..settings.merge import Resolved
from ..training.trainer import Trainer
from .eta import Eta
from .summary import conclusion, duration, introduction, notes

REFRESH_SECONDS = 0.5  # between two updates


class NotebookDisplay:
    """A bar with the time left, the losses as they come, and the latest sample; the same interface as `TrainDisplay`."""

    active = True  # wants progress and samples

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._eta = Eta(trainer)
        metrics = trainer.directory.path / METRICS
        self._rows = read_rows(metrics) if trainer.step and metrics.exists() else []  # of a resumed run
        self._status = "starting"
        self._sample = ""
        self._before: list[str] = []  # lines of the introduction
        self._lines: list[str] = []  # messages below the chart
        self._ended = False  # by a budget, not by an interrupt
        self._handle: Any = None
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        from IPython.display import HTML, display

        self._handle = display(HTML(self._render()), display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._update(now=True)

    def introduce(self, resolved: Resolved) -> None:
        """Store the introduction, which the output shows folded."""
        self._before = list(introduction(self._trainer, resolved))
        self._update(now=True)
        for remark in notes(self._trainer):
            self.say(remark)

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """Update the bar and the status line."""
        self._eta.call(chars_per_second)
        loss = self._eta.recent_loss(loss)
        self._status = f"step {step:,}, loss {'-' if loss is None else f'{loss:.3f}'}, {chars_per_second:,.0f} characters/s"
        if (left := self._eta.seconds_left) is not None:
            self._status += f", {duration(left)} left"
        self._update()

    def activity(self, doing: str) -> None:
        """Append the current activity to the status line."""
        self._status += f", {doing}"
        self._update(now=True)

    def row(self, row: Row) -> None:
        """Add a row of metrics.csv to the chart."""
        self._rows.append(row)
        self._eta.row(row)
        self._update()

    def sample(self, step: int, text: str) -> None:
        """Show a sample in place of the one before."""
        lines = text.replace("\r\n", "\n")
        self._sample = f"sample at step {step:,}\n\n{lines}"
        self._update()

    def conclude(self) -> None:
        """Show why the run ended, and its last and best validation losses."""
        self._status = f"step {self._trainer.step:,}, {duration(self._trainer.seconds)}"
        self._ended = not self._trainer.stopped
        for line in conclusion(self._trainer):
            self.say(line)

    def say(self, text: str) -> None:
        """Add a line below the chart."""
        self._lines.append(text)
        self._update(now=True)

    def _update(self, now: bool = False) -> None:
        if self._handle and (now or time.monotonic() - self._shown_at >= REFRESH_SECONDS):
            from IPython.display import HTML

            self._handle.update(HTML(self._render()))
            self._shown_at = time.monotonic()

    def _render(self) -> str:
        losses = f", validation {nats(self._trainer.last_validation)}" if self._trainer.last_validation else ""
        about = html.escape("\n".join(self._before))
        sample = f'<pre style="{WRAPPED}">{html.escape(self._sample)}</pre>' if self._sample else ""
        done = 1.0 if self._ended else self._eta.fraction_done
        return (
            f'<div><progress value="{done:.4f}" style="width: 560px; max-width: 100%"></progress><br>'
            f"{html.escape(self._status + losses)}</div>{chart(self._rows) if self._rows else ''}{sample}"
            f"<details><summary>Text, model and settings</summary><pre>{about}</pre></details>"
            + "".join(f"<div>{html.escape(line)}</div>" for line in self._lines)
        )
