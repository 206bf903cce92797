"""Scores lines of text, each by itself from a zero state: as many as there are, in constant memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..errors import ConfigError, TextError
from ..machine.hardware import gpus, parts_at_once
from ..network.cells import Engine, State
from ..network.model import character_losses, join, shard, zero_state
from ..network.products import Tensor
from ..runs.checkpoint import load_model
from ..runs.record import Record
from ..settings.schema import EVALUATED_STEPS, EVALUATED_STREAMS
from ..text.corpus import LeftOut
from ..text.new_characters import NAMED
from ..text.vocabulary import ByteVocabulary, Ids, normalized
from .evaluation import Evaluation
from .sampling import start_id

BLOCK = 1 << 18  # characters that are read, sorted by the lengths of their lines, and scored together


class LineScore(NamedTuple):
    """The score of a line."""

    nats: float  # sum of -log p(character | the line before it) over the line
    characters: int  # scored ones: all that the model knows
    perplexity: float  # exp(nats / characters); 1 for an empty line
    text: str  # the line, without its newline


def score_lines(
    checkpoint: str | Path,
    lines: Iterable[str],
    *,
    with_newline: bool = False,
    unknown: str = "error",
    normalize: str | None = None,
) -> Iterator[LineScore]:
    """Score each line with a saved model: a generator of a `LineScore` for each, in order, in constant memory.

    Each line is read from a zero state after a newline, or after the vocabulary's first character where it has none, as a
    sample without a prime begins; so all of its characters are scored. A newline at the end of a line, as in lines of a
    file, is dropped.

    with_newline: also score a newline at the end of each line. unknown: as in `evaluate`. normalize: form of the lines;
    None is that of the run's text. Raises TextError, with the number of the line, for characters outside the vocabulary.
    """
    if isinstance(lines, str):
        raise ConfigError("`lines` must be a list of lines or a file, got one text; pass text.splitlines()")
    model, record = load_model(checkpoint)
    return LineScorer(model, record).score(lines, with_newline=with_newline, unknown=unknown, normalize=normalize)


class LineScorer:
    """Scores lines with a model; many lines of similar length are read as streams of one batch."""

    def __init__(self, model: keras.Model, record: Record) -> None:
        self._model, self._config = model, record.model
        self._vocabulary, self._normalize = record.vocabulary, record.train.normalize
        self._shards = parts_at_once()
        self._scoring = cache(self._compile)
        self.left_out = LeftOut(0, 0, ())  # of all lines, after `score`

    def score(
        self,
        lines: Iterable[str],
        *,
        with_newline: bool = False,
        unknown: str = "error",
        normalize: str | None = None,
        title: str = "the text",
    ) -> Iterator[LineScore]:
        """Yield the scores of `score_lines`; afterwards, a warning says if much was skipped. title: in messages."""
        end, form = "\n" if with_newline else "", normalize or self._normalize
        skipped: Counter[str] = Counter()
        read = characters = 0
        for block in _blocks(normalized(line.removesuffix("\n"), form) for line in lines):
            encoded = []
            for line in block:
                read += 1
                characters += len(line + end)
                try:
                    encoded.append(self._vocabulary.encode(line + end, unknown))
                except TextError as error:
                    raise TextError(f"line {read:,} of {title} has {error}") from error
                if unknown == "skip":
                    skipped.update(self._skipped(line + end, len(encoded[-1])))
            for line, ids, nats in zip(block, encoded, self._nats(encoded), strict=True):
                score = Evaluation(float(nats) / max(len(ids), 1), len(ids))
                yield LineScore(float(nats), len(ids), score.perplexity, line)
            self.left_out = LeftOut(skipped.total(), characters, tuple(skipped.most_common(NAMED)))
        self.left_out.warn(title)

    def _skipped(self, text: str, kept: int) -> Iterator[str]:
        if isinstance(self._vocabulary, ByteVocabulary) or kept == len(text):
            return iter(())
        return (character for character in text if character not in self._vocabulary.characters)

    def _nats(self, encoded: Sequence[Ids]) -> npt.NDArray[np.float64]:
        """Summed nats of each line of a block."""
        lengths = np.array([len(ids) for ids in encoded])
        order, nats = np.argsort(-lengths, kind="stable"), np.zeros(len(encoded))
        order = order[: np.count_nonzero(lengths)]
        while len(order):
            most = EVALUATED_STREAMS * EVALUATED_STEPS // min(lengths[order[0]], EVALUATED_STEPS)
            group, order = order[:most], order[most:]
            nats[group] = self._batch([encoded[n] for n in group], lengths[group])
        return nats

    def _batch(self, encoded: Sequence[Ids], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Summed nats of each of N lines, the longest first; a window reads only those that reach it."""
        start = np.array([start_id(self._vocabulary)], np.int32)
        ids = np.concatenate([part for line in encoded for part in (start, line)]).astype(np.int32)
        begins = np.cumsum(lengths + 1) - lengths - 1
        nats = np.zeros(len(encoded))
        state = zero_state(self._config, len(encoded))
        for begin in range(0, lengths[0], EVALUATED_STEPS):
            rows, count = np.count_nonzero(lengths > begin), min(EVALUATED_STEPS, lengths[0] - begin)
            places = begins[:rows, None] + np.arange(begin, begin + count + 1)
            window = ids[np.minimum(places, len(ids) - 1)]
            scored = np.arange(begin, begin + count) < lengths[:rows, None]
            state = tf.nest.map_structure(lambda part, rows=rows: part[:rows], state)
            read = self._scoring(self._shards if rows >= self._shards else 1)
            part, state = read(tf.constant(window), tf.constant(scored), state)
            nats[:rows] += part.numpy()
        return nats

    def _compile(self, shards: int) -> Any:
        """A function of a window of N lines: ids [N, T + 1], scored targets [N, T], states -> summed nats [N], states."""
        engine = Engine.CUDNN if gpus() else Engine.FLOAT32

        def read(window: Tensor, scored: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
            totals, after = [], []
            for n in range(shards):
                part = tf.nest.map_structure(lambda whole, n=n: shard(whole, n, shards), (window, scored, state))
                nats, new = character_losses(self._model, part[0], part[2], engine=engine)
                totals.append(tf.reduce_sum(tf.where(tf.transpose(part[1]), tf.cast(nats, tf.float64), 0.0), axis=0))
                after.append(new)
            return tf.concat(totals, 0), join(after)

        states = tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]]), zero_state(self._config, 1))
        rows = [tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.bool)]
        return tf.function(read, autograph=False, input_signature=[*rows, states])


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines in lists of BLOCK characters, or one line more; an empty line counts as one character."""
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += max(len(line), 1)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
