"""How fast a run goes: how many steps fit in a call, how long ending takes, characters a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .config import TrainConfig

CALL_SECONDS = 0.5  # of training in one call of the compiled loop: how long a signal or the display waits
CALL_BYTES, CALL_STEPS = 1 << 26, 1000  # of windows in one call, at most
LEAVING_SECONDS = 0.5  # from the last save to the end of the process
SAMPLING_SECONDS = 1.5  # of a run's first sample, with what is compiled for it


def steps_a_call(config: TrainConfig) -> int:
    """How many steps a call of the compiled loop has at most."""
    return max(1, min(CALL_STEPS, CALL_BYTES // (4 * config.batch_size * (config.num_steps + 1))))


class Pace:
    """Times the parts of a run as they happen."""

    def __init__(self, config: TrainConfig, validation_characters: int, shows_samples: bool = False) -> None:
        self._chars_per_step = config.batch_size * config.num_steps
        self._validation_steps = validation_characters / self._chars_per_step
        self._most_steps = steps_a_call(config)
        self._step_seconds = 0.0  # of the latest call; 0: none yet
        self._quickest = [math.inf, math.inf]  # seconds a step of the two quickest calls: the machine may stall in any one
        self._row_steps, self._row_seconds = 0, 0.0
        self._ending = {"saving": 0.5, "sampling": SAMPLING_SECONDS if shows_samples else 0.0}  # seconds by part

    @property
    def chars_per_second(self) -> float:
        """Of the training steps since the last row."""
        return self._row_steps * self._chars_per_step / self._row_seconds if self._row_seconds else 0.0

    @property
    def seconds_to_finish(self) -> float:
        """What ending the run takes: a validation, a save, a sample where it is shown, and leaving.

        Before the first validation its time is guessed from the quickest of at least two calls.
        """
        known = 0.0 if math.isinf(self._quickest[1]) else self._quickest[0]
        guess = 2.0 + self._validation_steps * known if self._validation_steps else 0.0
        return sum(({"validating": guess} | self._ending).values()) + LEAVING_SECONDS

    def steps(self, seconds_left: float) -> int:
        """How many steps the next call should have: few enough to answer a signal, and to end in time."""
        if not self._step_seconds:
            return 1
        return max(1, min(self._most_steps, int(min(CALL_SECONDS, seconds_left) / self._step_seconds)))

    @contextmanager
    def training(self, steps: int) -> Iterator[None]:
        """Times a call of so many steps."""
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self._step_seconds = seconds / steps
        self._quickest = sorted([*self._quickest, self._step_seconds])[:2]
        self._row_steps += steps
        self._row_seconds += seconds

    @contextmanager
    def ending(self, part: str) -> Iterator[None]:
        """Times what a run also ends with: "validating", "saving", or "sampling" (all samples of a step)."""
        begin = time.perf_counter()
        yield
        self._ending[part] = time.perf_counter() - begin

    def new_row(self) -> None:
        """Begin to count anew."""
        self._row_steps, self._row_seconds = 0, 0.0
