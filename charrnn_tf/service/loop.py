"""One compiled loop over a fixed number of rows: each row reads a text's prime, then writes, a chunk at a time.

A row's random numbers are those that `Sampler.chunks` draws for its text's seed.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..inference.cuts import Cuts, chooser
from ..inference.sampling import Sampler, write
from ..network.model import zero_state
from ..network.products import Tensor
from .draws import uniforms
from .texts import CHUNK, Ids, Piece, Scores, Text

LIKELIEST = 5  # characters whose log-probabilities are given at each place


class Loop:
    """The rows of one loop, and the texts that have them. before: called just before each compiled call."""

    def __init__(self, sampler: Sampler, rows: int, before: Callable[[], object] = lambda: None) -> None:
        self.texts: list[Text | None] = [None] * rows
        self._sampler, self._before = sampler, before
        self._cuts = Cuts(*(np.full(rows, cut.numpy()) for cut in Cuts.of()))
        self._seeds, self._numbers = np.zeros((2, rows, 1), np.int64)
        self.clear()
        self._advance_rows = {scored: self._compile(scored) for scored in (False, True)}

    @property
    def active(self) -> int:
        """Rows that are taken."""
        return sum(text is not None for text in self.texts)

    def warm_up(self) -> None:
        """Compile the loop."""
        rows = len(self.texts)
        for scored in self._advance_rows:
            self._compute(scored, np.zeros((rows, CHUNK), np.int32), np.zeros((rows, CHUNK), np.float32))
        self.clear()

    def clear(self) -> None:
        """Reset all rows to zero states."""
        rows = len(self.texts)
        self._last = np.zeros(rows, np.int32)
        self._fresh = np.ones(rows, bool)
        self._state = zero_state(self._sampler.config, rows)

    def place(self, row: int, text: Text) -> None:
        """Give a row to a text."""
        self.texts[row] = text
        text.begun = time.monotonic()
        self._last[row], self._fresh[row] = text.ids[0], True
        self._seeds[row], self._numbers[row] = text.seed, text.number
        for values, value in zip(self._cuts, Cuts.of(**text.cuts), strict=True):
            values[row] = value

    def advance(self) -> list[Piece]:
        """Compute a chunk: a piece of each text, in the order of their rows."""
        texts = {row: text for row, text in enumerate(self.texts) if text}
        following = np.zeros((len(self.texts), CHUNK), np.int32)  # free rows read the vocabulary's first character
        begin = np.zeros((len(self.texts), 1), np.int64)
        for row, text in texts.items():
            following[row], begin[row] = text.following(), text.position
        positions = np.maximum(begin + np.arange(CHUNK), 0)
        scored = any(text.scored for text in texts.values())
        ids, scores = self._compute(scored, following, uniforms(self._seeds, positions, self._numbers))
        return [
            text.take(ids[row], Scores(*(part[row] for part in scores)) if scored else None) for row, text in texts.items()
        ]

    def _compute(self, scored: bool, following: Ids, uniform: Any) -> tuple[Ids, list[Any]]:
        self._before()
        advance = self._advance_rows[scored]
        ids, self._state, *scores = advance(self._last, self._fresh, self._state, following, uniform, self._cuts)
        ids = ids.numpy()
        self._last, self._fresh = ids[:, -1].copy(), np.zeros(len(ids), bool)
        return ids, [part.numpy() for part in scores]

    def _compile(self, scored: bool) -> Any:
        """The loop over a chunk, as a function.

        Last characters [B], which rows begin anew [B], states, characters to read [B, CHUNK], uniform numbers [B, CHUNK] and
        cuts [B] -> characters that follow [B, CHUNK], states, and with `scored` the parts of `Scores` for each row.
        """
        states = tf.nest.map_structure(tf.TensorSpec.from_tensor, self._state)
        row, chunk = [len(self.texts)], [len(self.texts), CHUNK]
        cuts = Cuts(*(tf.TensorSpec(row, values.dtype) for values in self._cuts))
        signature = [tf.TensorSpec(row, tf.int32), tf.TensorSpec(row, tf.bool), states, tf.TensorSpec(chunk, tf.int32)]
        function = functools.partial(_advance_rows, self._sampler.model, scored)
        return tf.function(function, autograph=False, input_signature=[*signature, tf.TensorSpec(chunk), cuts])


def _advance_rows(
    model: keras.Model, scored: bool, last: Tensor, fresh: Tensor, state: Any, following: Tensor, uniform: Tensor, cuts: Cuts
) -> Any:
    """The loop of `Loop._compile`."""
    following, uniform = tf.transpose(following), tf.transpose(uniform)
    chosen = chooser(cuts, model.get_layer("logits").units)

    def decide(t: Tensor, logits: Tensor) -> Tensor:
        return tf.where(following[t] >= 0, following[t], chosen(logits, uniform[t]))

    state = tf.nest.map_structure(lambda part: tf.where(fresh[:, None], 0.0, part), state)
    ids, state, logits = write(model, last, state, tf.constant(CHUNK), decide, keep_logits=scored)
    if not scored:
        return tf.transpose(ids), state
    logprobs = tf.nn.log_softmax(tf.transpose(logits, (1, 0, 2)))
    values, likeliest = tf.math.top_k(logprobs, min(LIKELIEST, logprobs.shape[-1]))
    return tf.transpose(ids), state, tf.gather(logprobs, tf.transpose(ids), batch_dims=2), likeliest, values
