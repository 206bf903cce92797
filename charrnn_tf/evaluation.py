"""How well a model predicts a text: nats a character, dropout off, from a zero state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .batches import release
from .checkpoint import load_model
from .config import EVALUATED_STEPS, EVALUATED_STREAMS, ModelConfig
from .corpus import Progress, check_length
from .errors import ConfigError
from .layers import Engine, State, Tensor
from .model import character_losses, shard, zero_state
from .runtime import gpus
from .vocabulary import Ids

CHARACTERS_PER_STREAM = 10_000  # at least, for each parallel stream
WARM_UP = 2_000  # characters that a stream reads unscored before its own part


@dataclass(frozen=True)
class Evaluation:
    """The mean of -log p(character | all before it) over a text."""

    nats_per_character: float
    characters: int  # scored: all but the first

    @property
    def bits_per_character(self) -> float:
        """The same in bits."""
        return self.nats_per_character / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats): as unsure as among so many equally likely characters."""
        return math.exp(min(self.nats_per_character, 700.0))

    def as_dict(self) -> dict[str, float]:
        """What `charrnn-tf evaluate --json` prints."""
        names = ("nats_per_character", "bits_per_character", "perplexity", "characters")
        return {name: getattr(self, name) for name in names}


def evaluate(checkpoint: str | Path, text: str, *, unknown: str = "error", window: int = 0) -> Evaluation:
    """Score a text with a saved model, from a zero state, every character but the first.

    unknown: "error" raises TextError for characters the model never saw, "skip" leaves them out.
    window: 0 for one pass over the text; N for windows of N characters, each begun from a zero state.
    Raises TextError where fewer than two known characters are left.
    """
    model, record = load_model(checkpoint)
    return Evaluator(model, record.model).evaluate(record.vocabulary.encode(text, unknown), window=window)


class StoppedError(Exception):
    """An evaluation was asked to end before its end."""


class Streams(NamedTuple):
    """Parts of a text that are read side by side, each from a zero state."""

    starts: npt.NDArray[np.int64]  # where each begins
    scored: npt.NDArray[np.int64]  # from which of its targets on each is scored
    length: int  # targets of each


class Evaluator:
    """Scores texts with a model's weights as they are at each call.

    A long text is read as parallel streams, each beginning with `WARM_UP` unscored characters before its part, so that its
    state is nearly the one of a single pass; the first stream has nothing before it and is scored from its beginning.
    """

    def __init__(self, model: keras.Model, config: ModelConfig, shards: int = 2) -> None:
        self.config = config
        self.shards = shards
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
        """Nats a character of ids [characters]; with `most_streams=1` in a single pass, with a window in cold windows.

        stopped: asked between the compiled calls; once it answers True, StoppedError is raised. progress: told after each
        how many characters are read, and of how many.
        """
        check_length(ids)
        if window < 0:
            raise ConfigError(f"window must be at least 0, got {window}")
        targets = len(ids) - 1
        most = most_streams or EVALUATED_STREAMS
        groups = list(_cold_windows(targets, window, most)) if window else [_streams(targets, most)]
        read, to_read = 0, sum(len(streams.starts) * streams.length for streams in groups)

        def tell(characters: int) -> None:
            nonlocal read
            read += characters
            progress("Scoring", read, to_read)

        tell(0)
        total = sum(self._score_streams(ids, streams, stopped, tell) for streams in groups)
        return Evaluation(total / targets, targets)

    def _score_streams(self, ids: Ids, streams: Streams, stopped: Callable[[], bool], tell: Callable[[int], None]) -> float:
        """Nats of streams read side by side, summed."""
        state = zero_state(self.config, len(streams.starts))
        total = 0.0
        for begin in range(0, streams.length, EVALUATED_STEPS):
            if stopped():
                raise StoppedError
            count = min(EVALUATED_STEPS, streams.length - begin)
            window = np.stack([ids[start + begin : start + begin + count + 1] for start in streams.starts]).astype(np.int32)
            release(ids)
            weight = (np.arange(begin, begin + count) >= streams.scored[:, None]).astype(np.float32)
            nats, state = self._score(tf.constant(window), tf.constant(weight), state, min(self.shards, len(window)))
            total += float(nats)
            tell(window[:, 1:].size)
        return total

    def _score_window(self, window: Tensor, weight: Tensor, state: list[State], shards: int) -> tuple[Tensor, list[State]]:
        """Nats of one window of all streams: [N, count + 1], which targets count [N, count], states -> sum, states."""
        totals, after = [], []
        for n in range(shards):
            part = tf.nest.map_structure(lambda whole, n=n: shard(whole, n, shards), (window, weight, state))
            nats, new = character_losses(self.model, part[0], part[2], engine=Engine(cudnn=gpus() > 0))
            totals.append(tf.reduce_sum(nats * tf.transpose(part[1])))
            after.append(new)
        return tf.add_n(totals), tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *after)


def _streams(targets: int, most: int) -> Streams:
    """Cut a text into streams that cover it together.

    Stream s reads `WARM_UP + part` targets from s * part on and is scored after the warm-up, the first from its beginning;
    the last is moved back to end with the text and is scored after what the one before it covers.
    """
    count = min(targets // CHARACTERS_PER_STREAM, most)
    if count < 2:
        return Streams(np.zeros(1, np.int64), np.zeros(1, np.int64), targets)
    part = -(-(targets - WARM_UP) // count)
    length = WARM_UP + part
    starts = np.arange(count) * part
    starts[-1] = targets - length
    scored = np.full(count, WARM_UP)
    scored[0] = 0
    scored[-1] = WARM_UP + (count - 1) * part - starts[-1]
    return Streams(starts, scored, length)


def _cold_windows(targets: int, window: int, most: int) -> Iterator[Streams]:
    """Cut a text into windows of as many targets, the last one shorter, at most so many side by side."""
    starts = np.arange(targets // window) * window
    for begin in range(0, len(starts), most):
        group = starts[begin : begin + most]
        yield Streams(group, np.zeros_like(group), window)
    if targets % window:
        yield Streams(np.array([targets - targets % window]), np.zeros(1, np.int64), targets % window)
