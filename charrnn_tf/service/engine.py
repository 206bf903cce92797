"""Writes the texts of all requests at once: one compiled loop over a fixed number of rows, on a thread of its own.

Between two chunks of characters, finished and cancelled texts leave their rows and waiting ones take them. A row first
reads its prime, then writes, with the random numbers that `Sampler.chunks` draws for the text's seed.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..inference.sampling import Cuts, Sampler, choose, write
from ..machine.hardware import available_cores, gpus
from ..network.model import shard
from ..network.products import Tensor
from .draws import uniforms
from .texts import CHUNK, Ids, Piece, Scores, Text

LIKELIEST = 5  # characters whose log-probabilities are given at each place
SMOOTHING = 0.1  # weight of the latest text in the moving average of their seconds
log = logging.getLogger(__name__)


class FullError(Exception):
    """All rows are taken, and as many texts wait as may wait."""


class ClosingError(Exception):
    """The engine takes no more texts."""


class Engine:
    """Takes texts from any thread, and hands out the pieces of each chunk together, from its own thread.

    Its rows are those of the sampler. queue: texts that may wait for a row. Call `start` first and `close` at the end.
    """

    def __init__(self, sampler: Sampler, queue: int, deliver: Callable[[list[Piece]], object]) -> None:
        self.sampler = sampler
        self.rows, self.queue = sampler.batch_size, queue
        self.written = 0  # characters
        self._deliver = deliver
        self._seconds_per_text = 1.0  # moving average
        self._texts: list[Text | None] = [None] * self.rows
        self._waiting: deque[Text] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="charrnn-engine", daemon=True)
        self._cuts = Cuts(*(np.full(self.rows, cut.numpy()) for cut in Cuts.of()))
        self._seeds, self._numbers = np.zeros((2, self.rows, 1), np.int64)
        self._clear()
        self._loops = {scored: self._compile(scored) for scored in (False, True)}

    def start(self) -> None:
        """Compile the loop, and begin."""
        for scored in self._loops:
            self._compute(scored, np.zeros((self.rows, CHUNK), np.int32), np.zeros((self.rows, CHUNK), np.float32))
        self._clear()
        self._thread.start()

    def read(self, prime: str, unknown: str = "error") -> tuple[str, Ids]:
        """A prime as the model reads it, and its ids. Raises TextError for characters that the model never saw."""
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
            self._changed.notify()

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
            self._changed.notify()
        if self.alive:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether texts are written."""
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        """Rows that are taken."""
        return sum(text is not None for text in self._texts)

    @property
    def waiting(self) -> int:
        """Texts that wait for a row."""
        return len(self._waiting)

    def seconds_to_wait(self) -> int:
        """Estimated time until the texts that wait now have rows, at least a second."""
        return math.ceil(max(self._seconds_per_text * self.waiting / self.rows, 1))

    def _run(self) -> None:
        while self._admit():
            texts = {row: text for row, text in enumerate(self._texts) if text}
            try:
                pieces = self._advance(texts)
            except Exception:  # a bug, or too little memory: these texts end, the next ones begin anew
                log.exception("A chunk of characters could not be computed")
                pieces = [Piece(text, finish="error") for text in texts.values()]
                self._clear()
            for row, piece in zip(texts, pieces, strict=True):
                if piece.finish:
                    self._texts[row] = None
                    seconds = time.monotonic() - piece.text.begun
                    self._seconds_per_text += SMOOTHING * (seconds - self._seconds_per_text)
            self._deliver(pieces)

    def _admit(self) -> bool:
        """Give free rows to waiting texts, and wait for the first one; False at the end."""
        with self._changed:
            while True:
                for row, text in enumerate(self._texts):
                    if text and text.cancelled:
                        self._texts[row] = None
                    if self._waiting and not self._texts[row]:
                        self._place(row, self._waiting.popleft())
                if self.active or self._closing:
                    return self.active > 0
                self._changed.wait()

    def _place(self, row: int, text: Text) -> None:
        self._texts[row] = text
        text.begun = time.monotonic()
        self._last[row], self._fresh[row] = text.ids[0], True
        self._seeds[row], self._numbers[row] = text.seed, text.number
        for values, value in zip(self._cuts, Cuts.of(**text.cuts), strict=True):
            values[row] = value

    def _advance(self, texts: dict[int, Text]) -> list[Piece]:
        """Compute a chunk: texts by row -> a piece of each."""
        following = np.zeros((self.rows, CHUNK), np.int32)  # free rows read the vocabulary's first character
        begin = np.zeros((self.rows, 1), np.int64)
        for row, text in texts.items():
            following[row], begin[row] = text.following(), text.position
        positions = np.maximum(begin + np.arange(CHUNK), 0)
        scored = any(text.scored for text in texts.values())
        ids, scores = self._compute(scored, following, uniforms(self._seeds, positions, self._numbers))
        pieces = []
        for row, text in texts.items():
            pieces.append(text.take(ids[row], Scores(*(part[row] for part in scores)) if scored else None))
            self.written += len(pieces[-1].written)
        return pieces

    def _clear(self) -> None:
        """Begin with zero states."""
        self._last = np.zeros(self.rows, np.int32)
        self._fresh = np.ones(self.rows, bool)
        self._state = self.sampler.initial_state()

    def _compute(self, scored: bool, following: Ids, uniform: Any) -> tuple[Ids, list[Any]]:
        ids, self._state, *scores = self._loops[scored](self._last, self._fresh, self._state, following, uniform, self._cuts)
        ids = ids.numpy()
        self._last, self._fresh = ids[:, -1].copy(), np.zeros(self.rows, bool)
        return ids, [part.numpy() for part in scores]

    def _compile(self, scored: bool) -> Any:
        """The loop over a chunk, its rows split over the cores.

        Last characters [B], which rows begin anew [B], states, characters to read [B, CHUNK], uniform numbers [B, CHUNK] and
        cuts [B] -> characters that follow [B, CHUNK], states, and with `scored` the parts of `Scores` for each row.
        """
        shards = 1 if gpus() else min(available_cores(), self.rows)

        def loop(*inputs: Any) -> Any:
            parts = [
                _advance_rows(
                    self.sampler.model, scored, *tf.nest.map_structure(lambda whole, n=n: shard(whole, n, shards), inputs)
                )
                for n in range(shards)
            ]
            return tf.nest.map_structure(lambda *each: tf.concat(each, 0), *parts)

        states = tf.nest.map_structure(tf.TensorSpec.from_tensor, self._state)
        row, chunk = [self.rows], [self.rows, CHUNK]
        cuts = Cuts(*(tf.TensorSpec(row, values.dtype) for values in self._cuts))
        signature = [tf.TensorSpec(row, tf.int32), tf.TensorSpec(row, tf.bool), states, tf.TensorSpec(chunk, tf.int32)]
        return tf.function(loop, autograph=False, input_signature=[*signature, tf.TensorSpec(chunk), cuts])


def _advance_rows(
    model: keras.Model, scored: bool, last: Tensor, fresh: Tensor, state: Any, following: Tensor, uniform: Tensor, cuts: Cuts
) -> Any:
    """The loop of `Engine._compile` over some rows."""
    following, uniform = tf.transpose(following), tf.transpose(uniform)

    def decide(t: Tensor, logits: Tensor) -> Tensor:
        return tf.where(following[t] >= 0, following[t], choose(logits, uniform[t], cuts))

    state = tf.nest.map_structure(lambda part: tf.where(fresh[:, None], 0.0, part), state)
    ids, state, logits = write(model, last, state, tf.constant(CHUNK), decide, keep_logits=scored)
    if not scored:
        return tf.transpose(ids), state
    logprobs = tf.nn.log_softmax(tf.transpose(logits, (1, 0, 2)))
    values, likeliest = tf.math.top_k(logprobs, min(LIKELIEST, logprobs.shape[-1]))
    return tf.transpose(ids), state, tf.gather(logprobs, tf.transpose(ids), batch_dims=2), likeliest, values
