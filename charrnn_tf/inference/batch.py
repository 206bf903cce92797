"""Generates many texts: several after each of many primes, as many at once as fit in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..errors import ConfigError, TextError
from ..machine.estimate import rows_at_once
from ..machine.hardware import parts_at_once
from ..network.cells import State
from ..network.model import join, shard, zero_state
from ..network.products import Tensor
from ..settings.schema import ModelConfig, whole_number
from ..text.vocabulary import Ids, Vocabulary
from .cuts import Cuts, chooser
from .sampling import CHUNK, check_length, read_prime, write
from .stopping import check_stop

if TYPE_CHECKING:
    from .sampling import Sampler

LOGITS_AT_ONCE = 1 << 24  # numbers that a compiled call keeps, to score what it wrote


class Completion(NamedTuple):
    """A generated text."""

    prime: str  # as it was read
    text: str  # generated, without the prime
    seed: int
    sample: int  # number of the text among those of its prime, from 1
    nats_per_character: float  # mean of -log p(character | all before it) of the text; cuts and temperature don't change p


def sample_many(
    sampler: Sampler,
    primes: Iterable[str],
    num_samples: int = 1,
    length: int = 1000,
    *,
    stop: str | None = None,
    top_n: int = 5,
    top_p: float = 1.0,
    temperature: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    unknown: str = "error",
    normalize: str | None = None,
    errors: str = "replace",
) -> Iterator[Completion]:
    """Yield the texts of `Sampler.sample_many`. Raises ConfigError for settings out of range."""
    if isinstance(primes, str):
        raise ConfigError("`primes` must be a list of texts, got one text; pass [text]")
    whole_number("num_samples", num_samples, least=1)
    cuts = Cuts.of(top_n, top_p, temperature, min_p)
    check_length(length, seed)
    check_stop(stop)
    vocabulary = sampler.vocabulary
    end = _ids_as_text(vocabulary, stop)

    def rows() -> Iterator[tuple[str, Ids, int]]:
        for number, prime in enumerate(primes, 1):
            text = sampler.as_read(prime, unknown, normalize)
            try:
                ids = sampler.first_ids(text)
            except TextError as error:
                raise TextError(f"prime {number:,} has {error}") from error
            yield from ((text, ids, k) for k in range(num_samples))

    def completions() -> Iterator[Completion]:
        waiting, at_once = rows(), rows_at_once(sampler.config, length)
        while batch := list(itertools.islice(waiting, at_once)):
            texts, begins, samples = zip(*batch, strict=True)
            written = sampler.writer.write(begins, samples, length, cuts, seed, end)
            for prime, k, (ids, nats) in zip(texts, samples, written, strict=True):
                yield Completion(prime, vocabulary.decode(ids, errors), seed, k + 1, nats)

    return completions()


class Writer:
    """Compiled functions that generate any number of texts at once, split over the cores."""

    def __init__(self, model: keras.Model, config: ModelConfig) -> None:
        self._model, self._config = model, config
        self._shards = parts_at_once()
        states = tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]]), zero_state(config, 1))
        rows, whole, real = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)
        cuts = Cuts(whole, real, real, real)
        self._read = tf.function(
            self._read_all, autograph=False, input_signature=[tf.TensorSpec([None, None], tf.int32), states]
        )
        self._write = tf.function(
            self._write_all,
            autograph=False,
            input_signature=[rows, states, whole, whole, cuts, tf.TensorSpec([], tf.int64), rows],
        )

    def write(
        self, begins: Sequence[Ids], samples: Sequence[int], length: int, cuts: Cuts, seed: int, end: str | None = None
    ) -> list[tuple[Ids, float]]:
        """Generate a text after each beginning -> its ids, and their mean nats.

        samples: number of each text's random numbers, from 0. end: `_ids_as_text` of the text to stop before.
        """
        state = self._read(tf.constant(_aligned(begins)), zero_state(self._config, len(begins)))
        last = tf.constant([ids[-1] for ids in begins], tf.int32)
        chunk = max(1, min(CHUNK, LOGITS_AT_ONCE // (len(begins) * self._config.vocab_size)))
        parts: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = []
        texts, stops = [""] * len(begins), [-1] * len(begins)  # written so far, and where each text ends
        for position in range(0, length, chunk):
            count = min(chunk, length - position)
            ids, nats, state = self._write(last, state, position, count, cuts, seed, samples)
            last = ids[-1]
            parts.append((ids.numpy(), nats.numpy()))
            if end is not None:
                for row, column in enumerate(parts[-1][0].T):
                    if stops[row] < 0:
                        texts[row] += _as_text(column)
                        stops[row] = texts[row].find(end, max(position - len(end) + 1, 0))
                if min(stops) >= 0:
                    break
        written, scores = (np.concatenate(part).T for part in zip(*parts, strict=True))
        ends = [written.shape[1] if stop < 0 else stop for stop in stops]
        return [
            (ids[:stop], float(nats[:stop].mean(dtype=np.float64)) if stop else 0.0)
            for ids, nats, stop in zip(written, scores, ends, strict=True)
        ]

    def _read_all(self, ids: Tensor, state: Any) -> list[State]:
        """States before the last ids of all rows: ids [B, T], filled with -1 on the left."""
        parts = [
            read_prime(self._model, shard(ids[:, :-1], n, self._shards), self._part(state, n)) for n in range(self._shards)
        ]
        return join(parts)

    def _write_all(
        self, ids: Tensor, state: Any, position: Tensor, length: Tensor, cuts: Cuts, seed: Tensor, samples: Tensor
    ) -> tuple[Tensor, Tensor, list[State]]:
        """`sampling.generate` with a sample's number for each row [B] -> ids and their nats [length, B], states."""
        count, parts = tf.reduce_max(samples) + 1, []
        chosen = chooser(cuts, self._config.vocab_size)
        for n in range(self._shards):
            first, before, numbers = self._part((ids, state, samples), n)

            def draw(t: Tensor, logits: Tensor, numbers: Tensor = numbers) -> Tensor:
                place = tf.stack([seed, tf.cast(position + t, tf.int64)])
                uniform = tf.random.stateless_uniform([count], place, alg="philox")
                return chosen(logits, tf.gather(uniform, numbers))

            written, after, logits = write(self._model, first, before, length, draw, keep_logits=True)
            logits = tf.ensure_shape(logits, [None, None, self._config.vocab_size])
            parts.append((written, tf.nn.sparse_softmax_cross_entropy_with_logits(written, logits), after))
        all_ids, all_nats, states = zip(*parts, strict=True)
        return tf.concat(all_ids, 1), tf.concat(all_nats, 1), join(states)

    def _part(self, whole: Any, n: int) -> Any:
        return tf.nest.map_structure(lambda each: shard(each, n, self._shards), whole)


def _aligned(begins: Sequence[Ids]) -> npt.NDArray[np.int32]:
    """Beginnings as rows of one array, filled with -1 on the left: [B, T]."""
    rows = np.full((len(begins), max(map(len, begins))), -1, np.int32)
    for row, ids in zip(rows, begins, strict=True):
        row[-len(ids) :] = ids
    return rows


def _as_text(ids: npt.ArrayLike) -> str:
    """Ids as a string to search in: each is a code point."""
    return np.asarray(ids, "<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _ids_as_text(vocabulary: Vocabulary, text: str | None) -> str | None:
    """The ids of a text to stop before; None for one that the model can't write."""
    with suppress(TextError):
        return None if text is None else _as_text(vocabulary.encode(text))
    return None
