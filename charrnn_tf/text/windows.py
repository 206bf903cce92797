"""Cuts ids into parallel streams and windows for truncated backpropagation through time.

The position in the text follows from the step alone, so resuming needs no saved position.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ..errors import TextError
from ..settings.schema import VALIDATION_LIMIT, whole_number
from .vocabulary import Ids


@dataclass(frozen=True)
class Streams:
    """Parts of a text that are read in parallel, in windows of `num_steps` characters."""

    ids: Ids
    starts: npt.NDArray[np.int64]  # index of each stream's first character, [B]
    length: int  # targets of each stream
    num_steps: int  # T

    @classmethod
    def cut(cls, ids: Ids, batch_size: int, num_steps: int) -> Self:
        """Cut ids into `batch_size` streams of equal length, a multiple of `num_steps`; a remainder is not used.

        Raises TextError if the text is too short for one window of every stream.
        """
        whole_number("batch_size", batch_size, least=1)
        whole_number("num_steps", num_steps, least=1)
        steps = max(len(ids) - 1, 0) // (batch_size * num_steps)
        if steps < 1:
            raise TextError(
                f"the text is too short: {len(ids):,} characters to train on, but `batch_size` {batch_size} with windows of "
                f"`num_steps` {num_steps} needs {batch_size * num_steps + 1:,}. Use a longer text or smaller values."
            )
        return cls(ids, np.arange(batch_size) * (steps * num_steps), steps * num_steps, num_steps)

    @property
    def steps_per_epoch(self) -> int:
        """Windows in one pass over the streams."""
        return -(-self.length // self.num_steps)

    def read(self, step: int, count: int, rows: slice = slice(None)) -> npt.NDArray[np.int32]:
        """The windows of `count` steps from `step` on, [count, B, T + 1]. rows: only these streams.

        Steps are counted from the start of the run, over all epochs.
        """
        out = np.empty((count, len(self.starts[rows]), self.num_steps + 1), dtype=np.int32)
        for n in range(count):
            out[n] = self.window((step + n) % self.steps_per_epoch * self.num_steps, self.num_steps, rows)
        return out

    def window(self, begin: int, size: int, rows: slice = slice(None)) -> npt.NDArray[np.int32]:
        """A window of each stream, of `size` characters from `begin` on and the next character, [B, size + 1].

        The next character is the last target, and the first input of the next window.
        """
        starts = self.starts[rows] + begin
        out = np.empty((len(starts), size + 1), dtype=np.int32)
        for row, start in zip(out, starts, strict=True):
            row[:] = self.ids[start : start + size + 1]
        _release(self.ids)
        return out


def _release(ids: Ids) -> None:
    """Release the pages read from a memory-mapped file, which otherwise count as memory of this process."""
    mapped = getattr(ids, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def hold_out(ids: Ids, training_characters: int) -> tuple[Ids, Ids]:
    """The ids to train on, and the ids that validations read. Raises TextError if only one is left for validations."""
    validation = ids[training_characters:][:VALIDATION_LIMIT]
    if len(validation) == 1:
        raise TextError("the validation part is a single character. Use a longer text, or `validation_fraction` 0.")
    return ids[:training_characters], validation


def windows(ids: Ids, batch_size: int, num_steps: int) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """One epoch of (inputs, targets), each int32 [batch_size, num_steps]; targets are the inputs shifted by one character.

    Raises TextError if the text is too short for one window of every stream, ConfigError for a size below 1.
    """
    streams = Streams.cut(ids, batch_size, num_steps)
    for step in range(streams.steps_per_epoch):
        window = streams.read(step, 1)[0]
        yield window[:, :-1], window[:, 1:]
