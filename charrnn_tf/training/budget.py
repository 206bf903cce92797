"""Schedules the events of a run by step, and measures its pace to end within `max_seconds`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..settings.schema import EPOCH, TrainConfig

CALL_SECONDS = 0.25  # target time of one compiled call: the longest that a signal or the display waits
CALL_BYTES, CALL_STEPS = 1 << 26, 1000  # upper bounds per call: bytes of windows, and steps
LEAVING_SECONDS = 0.5  # from the last save to the end of the process
SAMPLING_SECONDS = 1.5  # of a run's first sample, compilation included
SAVE_SECONDS = 60.0  # between two saves without `save_every`


@dataclass(frozen=True)
class Calendar:
    """Decides at which steps validations, rows, samples, saves and the end are due. Settings must be resolved."""

    config: TrainConfig
    steps_per_epoch: int
    validates: bool  # whether there is a validation part

    @property
    def total_steps(self) -> int | None:
        """Number of steps after which `max_steps` or `epochs` ends the run; None without either."""
        return self.config.most_steps(self.steps_per_epoch)

    def every(self, interval: int | str | None, step: int) -> bool:
        """Whether a step is a multiple of an interval, a number of steps or "epoch"."""
        length = self.steps_per_epoch if interval == EPOCH else interval
        return isinstance(length, int) and step % length == 0

    def validation(self, step: int, end: bool) -> bool:
        """Whether a validation is due. end: the run ends at this step."""
        return self.validates and (end or self.every(self.config.validate_every, step))

    def row(self, step: int, end: bool) -> bool:
        """Whether a row of metrics.csv is due besides those of validations. end: the run ends at this step."""
        return end or self.every(self.config.log_every, step) or self.every(EPOCH, step)

    def save(self, step: int, seconds: float) -> bool:
        """Whether a regular save is due. seconds: since the one before."""
        return seconds >= SAVE_SECONDS if self.config.save_every is None else self.every(self.config.save_every, step)

    def steps_done(self, step: int) -> bool:
        """Whether `max_steps` or `epochs` is used up."""
        return self.total_steps is not None and step >= self.total_steps

    def why_ended(self, step: int, time_used: bool, early: bool) -> str | None:
        """The budget that has ended a run, and how to continue it, as a message; None if the run has not ended."""
        if self.steps_done(step):
            return "All steps of this run are done. To continue, pass a larger `max_steps` or `epochs`."
        if early:
            return "This run has ended early. To continue, pass a larger `patience`, or 0."
        if time_used:
            return "Time budget used up. To continue, pass a larger `max_seconds` (in total), or `max_steps` or `epochs`."
        return None

    def steps_to_event(self, step: int) -> int:
        """Steps until the next event."""
        config = self.config
        intervals = [config.log_every, self.steps_per_epoch, config.validate_every, config.save_every, config.sample_every]
        ends = [interval - step % interval for interval in intervals if isinstance(interval, int)]
        return min(ends + ([self.total_steps - step] if self.total_steps else []))

    def patience_used(self, step: int, best_step: int | None) -> bool:
        """Whether `patience` validations at the regular interval have followed the best one."""
        interval, patience = self.config.validate_every, self.config.patience
        return bool(patience and interval and best_step is not None and step // interval - best_step // interval >= patience)


class Clock:
    """Wall time of a run in seconds: since `started`, or without it the time spent inside `running`."""

    def __init__(self, started: float | None) -> None:
        self.before = 0.0  # of earlier processes, and of earlier spans
        self._since, self._goes_on = started, started is not None

    @property
    def seconds(self) -> float:
        """Time so far."""
        return self.before + (0.0 if self._since is None else time.monotonic() - self._since)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        if not self._goes_on:
            self._since = time.monotonic()
        try:
            yield
        finally:
            if not self._goes_on:
                self.before, self._since = self.seconds, None


def steps_per_call(config: TrainConfig) -> int:
    """Upper bound on steps per compiled call."""
    return max(1, min(CALL_STEPS, CALL_BYTES // (4 * config.batch_size * (config.num_steps + 1))))


class Pace:
    """Measures how long training steps, validations, saves and samples take."""

    def __init__(self, config: TrainConfig, shows_samples: bool = False) -> None:
        self._chars_per_step = config.batch_size * config.num_steps
        self._most_steps = steps_per_call(config)
        self._step_seconds = 0.0  # in the latest call; 0: none yet
        self._row_steps, self._row_seconds = 0, 0.0
        self._cost = {"saving": 0.5, "sampling": SAMPLING_SECONDS if shows_samples else 0.0}  # seconds by part
        self.spent: dict[str, float] = {}  # seconds in all, by part

    @property
    def chars_per_second(self) -> float:
        """Speed of the training steps since the last row."""
        return self._row_steps * self._chars_per_step / self._row_seconds if self._row_seconds else 0.0

    def expect(self, part: str, seconds: float) -> None:
        """Estimate the seconds of a part that has not been measured yet."""
        self._cost[part] = seconds

    def cost(self, part: str) -> float:
        """Seconds that a part takes, as last measured."""
        return self._cost.get(part, 0.0)

    @property
    def seconds_to_finish(self) -> float:
        """Seconds still needed after the last training step: validation, save, sample, exit."""
        return sum(self._cost.values()) + LEAVING_SECONDS

    def steps(self, seconds_left: float) -> int:
        """Number of steps for the next call: few enough to react to signals and to end in time."""
        if not self._step_seconds:
            return 1
        return max(1, min(self._most_steps, int(min(CALL_SECONDS, seconds_left) / self._step_seconds)))

    @contextmanager
    def training(self, steps: int) -> Iterator[None]:
        """Time one compiled call of this many steps."""
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self._step_seconds = seconds / steps
        self._spend("training", seconds)
        self._row_steps += steps
        self._row_seconds += seconds

    @contextmanager
    def ending(self, part: str) -> Iterator[None]:
        """Time a part that also ends a run: "validating", "saving", or "sampling" (all samples of a step)."""
        begin = time.perf_counter()
        yield
        self._cost[part] = time.perf_counter() - begin
        self._spend(part, self._cost[part])

    def _spend(self, part: str, seconds: float) -> None:
        self.spent[part] = self.spent.get(part, 0.0) + seconds

    def new_row(self) -> None:
        """Restart the measurement of `chars_per_second`."""
        self._row_steps, self._row_seconds = 0, 0.0
