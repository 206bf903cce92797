"""Scores a text with a model: nats per character, dropout off, from a zero state."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..errors import ConfigError, concise
from ..machine.hardware import gpus
from ..network.cells import Engine, State
from ..network.model import begun, character_losses, join, shard, zero_state
from ..network.products import Tensor
from ..runs.checkpoint import load_model
from ..settings.schema import EVALUATED_STEPS, EVALUATED_STREAMS, ModelConfig
from ..text.corpus import LeftOut, Progress, check_length
from ..text.names import check_text
from ..text.vocabulary import Ids, normalized
from ..text.windows import Streams

CHARACTERS_PER_STREAM = 10_000  # lower bound, per parallel stream
WARM_UP = 2_000  # characters that a stream reads unscored before its own part
TIMED = 2  # readings of a window that `seconds` times


@dataclass(frozen=True)
class Evaluation:
    """Mean of -log p(character | all characters before it) over a text."""

    nats_per_character: float
    characters: int  # scored ones: all but the first

    @property
    def bits_per_character(self) -> float:
        """The mean in bits."""
        return self.nats_per_character / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats), at most exp(700): the number of equally likely characters with the same mean."""
        return math.exp(min(self.nats_per_character, 700.0))

    def as_dict(self) -> dict[str, float]:
        """The object that `charrnn-tf evaluate --json` prints."""
        names = ("nats_per_character", "bits_per_character", "perplexity", "characters")
        return {name: getattr(self, name) for name in names}


@concise
def evaluate(checkpoint: str | Path, text: str, *, unknown: str = "error", window: int = 0) -> Evaluation:
    """Score a text with a saved model, from a zero state, every character but the first.

    The text is normalized as the run's text was.

    unknown: "error" raises TextError for characters outside the vocabulary, "skip" drops them.
    window: 0 for one pass over the text; N for windows of N characters, each from a zero state.
    Raises TextError where fewer than two known characters are left, and ConfigError for the name of a file.
    """
    check_text(text)
    model, record = load_model(checkpoint)
    text = normalized(text, record.train.normalize)
    ids = record.vocabulary.encode(text, unknown)
    if unknown == "skip":
        LeftOut.of(text, record.vocabulary).warn("the text")
    return Evaluator(model, record.model).evaluate(ids, window=window)


class StoppedError(Exception):
    """The evaluation was stopped before its end."""


class _Part(NamedTuple):
    """Streams that are scored together."""

    streams: Streams
    scored: npt.NDArray[np.int64]  # index of the first scored target of each stream, [B]


class Evaluator:
    """Scores texts with a model's current weights; with those of a run with `lines`, every line from a zero state.

    A long text is read as parallel streams. Each starts `WARM_UP` characters before its part, unscored, so that its state
    is close to that of a single pass; the first stream is scored from its beginning.
    """

    def __init__(self, model: keras.Model, config: ModelConfig, shards: int = 2) -> None:
        """shards: parts of each window computed in parallel; on a GPU there is always one."""
        self.config = config
        self.shards = 1 if gpus() else shards
        self._score = tf.function(self._score_window, autograph=False, reduce_retracing=True)
        self.model = model

    def evaluate(
        self,
        ids: Ids,
        most_streams: int | None = None,
        window: int = 0,
        stopped: Callable[[], bool] = lambda: False,
        progress: Progress = lambda doing, done, total: None,
    ) -> Evaluation:
        """Score ids [characters] in parallel streams; in a single pass with `most_streams=1`.

        window: if not 0, score windows of this many characters, each from a zero state. stopped: called before each compiled
        call; StoppedError is raised once it returns True. progress: called after each with characters read and to read.
        """
        ids = begun(self.model, ids)
        check_length(ids)
        if window < 0:
            raise ConfigError(f"`window` must be at least 0, got {window}")
        targets = len(ids) - 1
        most = most_streams or EVALUATED_STREAMS
        parts = list(_cold_windows(ids, window, most)) if window else [_warm_streams(ids, most)]
        total, read, to_read = 0.0, 0, sum(len(streams.starts) * streams.length for streams, _ in parts)
        progress("Scoring", read, to_read)
        for streams, scored in parts:
            state, nats = zero_state(self.config, len(streams.starts)), 0.0
            for begin in range(0, streams.length, streams.num_steps):
                if stopped():
                    raise StoppedError
                characters, window_nats, state = self._read(streams, scored, begin, state)
                nats += window_nats
                read += characters
                progress("Scoring", read, to_read)
            total += nats
        return Evaluation(total / targets, targets)

    def seconds(self, ids: Ids) -> float:
        """The time that `evaluate` will take, estimated from its first window; the first reading compiles."""
        streams, scored = _warm_streams(ids, EVALUATED_STREAMS)
        times = []
        for _ in range(1 + TIMED):
            begin = time.perf_counter()
            self._read(streams, scored, 0, zero_state(self.config, len(streams.starts)))
            times.append(time.perf_counter() - begin)
        return min(times[1:]) * -(-streams.length // streams.num_steps)

    def _read(
        self, streams: Streams, scored: npt.NDArray[np.int64], begin: int, state: list[State]
    ) -> tuple[int, float, list[State]]:
        """Score the window of each stream from `begin` on -> characters read, summed nats, states."""
        count = min(streams.num_steps, streams.length - begin)
        batch = streams.window(begin, count)
        weight = (np.arange(begin, begin + count) >= scored[:, None]).astype(np.float32)
        nats, state = self._score(tf.constant(batch), tf.constant(weight), state, min(self.shards, len(batch)))
        return batch[:, 1:].size, float(nats), state

    def _score_window(self, window: Tensor, weight: Tensor, state: list[State], shards: int) -> tuple[Tensor, list[State]]:
        """One window of all N streams: ids [N, T + 1], weights of targets [N, T], states -> summed nats, states."""
        engine = Engine.CUDNN if gpus() else Engine.FLOAT32
        totals, after = [], []
        for n in range(shards):
            part = tf.nest.map_structure(lambda whole, n=n: shard(whole, n, shards), (window, weight, state))
            nats, new = character_losses(self.model, part[0], part[2], engine=engine)
            totals.append(tf.reduce_sum(nats * tf.transpose(part[1])))
            after.append(new)
        return tf.add_n(totals), join(after)


def _warm_streams(ids: Ids, most: int) -> _Part:
    """Cut a text into overlapping streams whose scored parts cover it.

    Stream s reads `WARM_UP + part` targets from s * part on and is scored after the warm-up, the first from its beginning.
    The last is moved back to end with the text, and scored from the end of the previous stream's part on.
    """
    targets = len(ids) - 1
    count = min(targets // CHARACTERS_PER_STREAM, most)
    if count < 2:
        return _Part(Streams(ids, np.zeros(1, np.int64), targets, EVALUATED_STEPS), np.zeros(1, np.int64))
    part = -(-(targets - WARM_UP) // count)
    length = WARM_UP + part
    starts = np.arange(count) * part
    starts[-1] = targets - length
    scored = np.full(count, WARM_UP)
    scored[0] = 0
    scored[-1] = WARM_UP + (count - 1) * part - starts[-1]
    return _Part(Streams(ids, starts, length, EVALUATED_STEPS), scored)


def _cold_windows(ids: Ids, window: int, most: int) -> Iterator[_Part]:
    """Cut a text into windows of `window` targets, the last one shorter, read at most `most` at a time."""
    targets = len(ids) - 1
    starts = np.arange(targets // window) * window
    for begin in range(0, len(starts), most):
        group = starts[begin : begin + most]
        yield _Part(Streams(ids, group, window, EVALUATED_STEPS), np.zeros_like(group))
    if targets % window:
        last = Streams(ids, np.array([targets - targets % window]), targets % window, EVALUATED_STEPS)
        yield _Part(last, np.zeros(1, np.int64))
