"""How far a run is, when it is expected to end, and its recent loss."""

from __future__ import annotations

import time

from ..runs.metrics import Row
from ..training.trainer import Trainer

CALLS_TO_BELIEVE = 3  # compiled calls before the speed is believed: the first is slower


class Eta:
    """Progress, expected end and recent loss of a run, for displays; told of each compiled call and each row."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._calls = 0
        self._ends: float | None = None  # by `time.monotonic`
        self._row: Row | None = None  # the last one

    def call(self, chars_per_second: float) -> bool:
        """Record a compiled call; True for the first one with a reliable estimate of the end."""
        self._calls += 1
        if self._calls >= CALLS_TO_BELIEVE:
            self._ends = time.monotonic() + self.expected_seconds(chars_per_second) - self._trainer.seconds
        return self._calls == CALLS_TO_BELIEVE

    def row(self, row: Row) -> None:
        """Record a row of metrics.csv."""
        self._row = row

    def recent_loss(self, loss: float | None) -> float | None:
        """A mean loss that does not jump where a row begins: until `log_every` steps have passed, the last row's counts too.

        loss: the mean since the last row.
        """
        if loss is None or self._row is None or self._row.train_loss is None:
            return loss
        part = min((self._trainer.step - self._row.step) / self._trainer.config.log_every, 1.0)
        return self._row.train_loss + (loss - self._row.train_loss) * part

    @property
    def fraction_done(self) -> float:
        """Largest fraction used of the budgets, 0 to 1."""
        trainer, limit = self._trainer, self._trainer.config.max_seconds
        used = [trainer.step / trainer.total_steps] if trainer.total_steps else []
        return min(1.0, max(used + ([trainer.seconds / limit] if limit else [])))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end; None before the first estimate."""
        return None if self._ends is None else max(self._ends - time.monotonic(), 0.0)

    def expected_seconds(self, chars_per_second: float) -> float:
        """Estimated seconds of the whole run, by the budget that ends first."""
        trainer = self._trainer
        ends = [trainer.config.max_seconds] if trainer.config.max_seconds is not None else []
        if trainer.total_steps is not None:
            chars_per_step = trainer.config.batch_size * trainer.config.num_steps
            ends.append(trainer.seconds + (trainer.total_steps - trainer.step) * chars_per_step / chars_per_second)
        return min(ends)
