"""Writes the texts of all requests at once, in compiled loops that share a queue: one loop for each core, on a thread.

Between two chunks of characters of a loop, finished and cancelled texts leave their rows and waiting ones take them.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from ..inference.sampling import Sampler
from ..machine.hardware import parts_at_once
from .loop import Loop
from .texts import Ids, Piece, Text

SMOOTHING = 0.1  # weight of the latest text in the moving average of their seconds
log = logging.getLogger(__name__)


class FullError(Exception):
    """All rows are taken, and the queue is full."""


class ClosingError(Exception):
    """The engine takes no more texts."""


class Engine:
    """Takes texts from any thread, and hands out the pieces of each loop's chunk together, from the loop's own thread.

    Its rows, the texts written at once, are those of the sampler. queue: texts that may wait for a row. loops: number of
    loops that the rows are divided among; None: one for each core, and one for a GPU. Call `start` first and `close` at the
    end.

    The loops do not wait for each other: with one loop whose rows are split over the cores, every core would wait for the
    slowest, and all for Python, at each chunk.
    """

    def __init__(
        self, sampler: Sampler, queue: int, deliver: Callable[[list[Piece]], object], loops: int | None = None
    ) -> None:
        self.sampler, self.rows, self.queue = sampler, sampler.batch_size, queue
        self.written = 0  # characters
        self._deliver = deliver
        self._seconds_per_text = 1.0  # moving average
        self._waiting: deque[Text] = deque()
        self._changed = threading.Condition()
        self._closing = False
        count = min(loops or parts_at_once(), self.rows)
        self._pieces: list[list[Piece]] = [[] for _ in range(count)]  # of each loop, not delivered yet
        ends = [self.rows * n // count for n in range(count + 1)]
        self._loops = [Loop(sampler, ends[n + 1] - ends[n], partial(self._hand_out, n)) for n in range(count)]
        self._threads = [
            threading.Thread(target=self._run, args=[n], name=f"charrnn-loop-{n}", daemon=True) for n in range(count)
        ]

    def start(self) -> None:
        """Compile the loops, and begin."""
        for loop, thread in zip(self._loops, self._threads, strict=True):
            loop.warm_up()
            thread.start()

    def read(self, prime: str, unknown: str = "error") -> tuple[str, Ids]:
        """A prime as the model reads it, and its ids. Raises TextError for characters outside the vocabulary."""
        prime = self.sampler.as_read(prime, unknown)
        return prime, self.sampler.first_ids(prime, unknown)

    def submit(self, texts: Sequence[Text]) -> None:
        """Take texts: all of them, or none. Raises FullError or ClosingError."""
        with self._changed:
            if self._closing:
                raise ClosingError
            if self.active + self.waiting + len(texts) > self.rows + self.queue:
                raise FullError
            self._waiting.extend(texts)
            self._changed.notify_all()

    def cancel(self, texts: Sequence[Text]) -> None:
        """Forget texts, finished or not: waiting ones at once, others before the next chunk."""
        with self._changed:
            for text in texts:
                text.cancelled = True
            self._waiting = deque(text for text in self._waiting if not text.cancelled)

    def close(self) -> None:
        """Take no more texts, finish those taken, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def alive(self) -> bool:
        """Whether all loops are running."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def active(self) -> int:
        """Rows that are taken."""
        return sum(loop.active for loop in self._loops)

    @property
    def waiting(self) -> int:
        """Texts that wait for a row."""
        return len(self._waiting)

    def seconds_to_wait(self) -> int:
        """Estimated time until the texts that wait now have rows, at least a second."""
        return math.ceil(max(self._seconds_per_text * self.waiting / self.rows, 1))

    def _run(self, n: int) -> None:
        loop = self._loops[n]
        while self._admit(n):
            texts = {row: text for row, text in enumerate(loop.texts) if text}
            try:
                pieces = loop.advance()
            except Exception:  # a bug, or too little memory: these texts end, the next ones begin anew
                log.exception("A chunk of characters could not be computed")
                pieces = [Piece(text, finish="error") for text in texts.values()]
                loop.clear()
            with self._changed:
                for row, piece in zip(texts, pieces, strict=True):
                    self.written += len(piece.written)
                    if piece.finish:
                        loop.texts[row] = None
                        seconds = time.monotonic() - piece.text.begun
                        self._seconds_per_text += SMOOTHING * (seconds - self._seconds_per_text)
            self._pieces[n] += pieces

    def _hand_out(self, n: int) -> None:
        """Deliver the pieces of a loop's last chunk.

        Called just before the next compiled call, so that readers get Python's lock while that call runs without it.
        """
        pieces, self._pieces[n] = [piece for piece in self._pieces[n] if not piece.text.cancelled], []
        if pieces:
            self._deliver(pieces)

    def _admit(self, n: int) -> bool:
        """Give a loop's free rows to waiting texts, and wait for the first one; False at the end."""
        loop = self._loops[n]
        while True:
            with self._changed:
                for row, text in enumerate(loop.texts):
                    if text and text.cancelled:
                        loop.texts[row] = None
                    if self._waiting and not loop.texts[row]:
                        loop.place(row, self._waiting.popleft())
                if loop.active:
                    return True
                if not self._pieces[n]:
                    if self._closing:
                        return False
                    self._changed.wait()
            self._hand_out(n)
