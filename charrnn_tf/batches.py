"""Ids -> windows for truncated backpropagation through time.

The ids are cut into `batch_size` streams of equal length that are read side by side, `num_steps` characters at a time; what
is left over at the end is not used. The place in the text is a function of the step alone, so nothing needs saving.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .config import check_whole
from .errors import TextError
from .vocabulary import Ids


@dataclass(frozen=True)
class Streams:
    """A text read as parallel streams, [batch_size, num_steps] ids a step."""

    ids: Ids
    batch_size: int  # B
    num_steps: int  # T

    def __post_init__(self) -> None:
        check_whole(self, "batch_size", "num_steps", least=1)
        if self.steps_per_epoch < 1:
            need = self.batch_size * self.num_steps + 1
            raise TextError(
                f"the text is too short: {len(self.ids):,} characters to train on, but batch size {self.batch_size} with "
                f"windows of {self.num_steps} steps needs {need:,}. Use a longer text, or a smaller --batch-size or "
                "--num-steps."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Windows in one pass over the text."""
        return (len(self.ids) - 1) // (self.batch_size * self.num_steps)

    def read(self, step: int, count: int, rows: slice = slice(None)) -> npt.NDArray[np.int32]:
        """The windows of `count` steps from `step` on, [count, batch_size, num_steps + 1], or those of some rows.

        The last column is the true next character, the last target; the next window begins with it. Steps are counted from
        the run's beginning, over all epochs.
        """
        length = self.steps_per_epoch * self.num_steps  # of one stream
        starts = (np.arange(self.batch_size) * length)[rows]
        out = np.empty((count, len(starts), self.num_steps + 1), dtype=np.int32)
        for n in range(count):
            begin = (step + n) % self.steps_per_epoch * self.num_steps
            for stream, start in enumerate(starts):
                out[n, stream] = self.ids[start + begin : start + begin + self.num_steps + 1]
        release(self.ids)
        return out


def release(ids: Ids) -> None:
    """Let go of the pages of a mapped file that were read: they would count as memory of this process."""
    mapped = getattr(ids, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def windows(ids: Ids, batch_size: int, num_steps: int) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """One epoch of (inputs, targets), each [batch_size, num_steps]; targets are inputs moved on by one character.

    Raises TextError where the text is too short for a single window of every stream.
    """
    streams = Streams(ids, batch_size, num_steps)
    for step in range(streams.steps_per_epoch):
        window = streams.read(step, 1)[0]
        yield window[:, :-1], window[:, 1:]
