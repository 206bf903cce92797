"""The next character's distribution, and generation of whole texts in one compiled loop."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from . import checkpoint
from .config import ModelConfig, check_cuts
from .errors import ConfigError
from .layers import State, Tensor
from .model import build_model, character_losses, input_table, step, zero_state
from .record import read_record
from .vocabulary import Vocabulary

CHUNK = 100  # characters between two prints
SHOWN = 5_000  # characters whose surprise a notebook shows
MOST_OF_PRIME = 100_000  # characters that are read of a long prime, the last ones: what was before them leaves no trace
SMALLEST, LARGEST = 1e-37, 1e38  # positive numbers that float32 holds in full precision


class Cuts(NamedTuple):
    """What is drawn from, each a scalar tensor.

    temperature divides the logits (0: the likeliest id); then only the top_n likeliest stay (0: all); then only the fewest
    likeliest whose probabilities reach top_p (Holtzman et al. 2020). Ties go to the lower id.
    """

    top_n: Tensor  # int32
    top_p: Tensor  # float32
    temperature: Tensor  # float32

    @classmethod
    def of(cls, top_n: int = 0, top_p: float = 1.0, temperature: float = 1.0) -> Cuts:
        """Tensors that hold such numbers. Raises ConfigError for what makes no sense."""
        check_cuts(top_n, top_p, temperature)
        heat = min(max(temperature, SMALLEST), LARGEST) if temperature else 0.0
        real = tf.constant(max(top_p, SMALLEST), tf.float32), tf.constant(heat, tf.float32)
        return cls(tf.constant(min(top_n, 2**31 - 1), tf.int32), *real)


def choose(logits: Tensor, uniform: Tensor, cuts: Cuts) -> Tensor:
    """Draw one id a row: logits [B, V] and uniform numbers in [0, 1) [B] -> ids [B]."""
    top_n, top_p, temperature = cuts
    vocab_size = logits.shape[-1]
    cut = tf.where(top_n > 0, tf.minimum(top_n, vocab_size), vocab_size)
    values, ids = tf.math.top_k(logits, tf.where(temperature > 0, cut, 1))
    probabilities = tf.nn.softmax((values - values[:, :1]) / tf.where(temperature > 0, temperature, 1.0))
    cumulative = tf.cumsum(probabilities, axis=1)
    kept = (cumulative - probabilities < top_p) | (top_p >= 1)  # the likeliest always: 0 < top_p
    last = tf.maximum(tf.reduce_sum(tf.cast(kept, tf.int32), axis=1, keepdims=True) - 1, 0)
    total = tf.gather(cumulative, last, batch_dims=1)
    place = tf.reduce_sum(tf.cast(cumulative <= uniform[:, None] * total, tf.int32), axis=1, keepdims=True)
    return tf.gather(ids, tf.minimum(place, last), batch_dims=1)[:, 0]


def read_prime(model: keras.Model, ids: Tensor, state: Sequence[State]) -> list[State]:
    """Advance the states over ids [B, T]; a row's places below zero are passed over."""
    table = input_table(model)
    columns = tf.transpose(ids)

    def body(t: Tensor, state: Any) -> Any:
        _, after = step(model, table, tf.maximum(columns[t], 0), state)
        known = (columns[t] >= 0)[:, None]
        return t + 1, tf.nest.map_structure(lambda new, old: tf.where(known, new, old), after, state)

    return tf.while_loop(lambda t, _: t < tf.shape(columns)[0], body, (0, list(state)))[1]


def generate(
    model: keras.Model,
    ids: Tensor,
    state: Sequence[State],
    position: Tensor,
    length: Tensor,
    cuts: Cuts,
    seed: Tensor,
) -> tuple[Tensor, list[State]]:
    """Generate `length` characters: the last characters read [B] and the states before them -> ids [length, B], states.

    position: characters generated before, so that a text can be made in chunks; the states after and the chunk's last row
    of ids are what the next chunk begins with. Row k's character at position p is drawn with the k-th number of the stream
    that (seed, p) gives, whatever the chunks and however many rows there are.
    """
    table = input_table(model)
    logits_layer = model.get_layer("logits")

    def body(t: Tensor, ids: Tensor, state: Any, out: Any) -> Any:
        outputs, state = step(model, table, ids, state)
        place = tf.stack([seed, tf.cast(position + t, tf.int64)])
        uniform = tf.random.stateless_uniform(tf.shape(ids), place, alg="philox")
        ids = choose(logits_layer(outputs), uniform, cuts)
        return t + 1, ids, state, out.write(t, ids)

    out = tf.TensorArray(tf.int32, length, element_shape=ids.shape)
    _, _, state, out = tf.while_loop(lambda t, *_: t < length, body, (0, ids, list(state), out))
    return out.stack(), list(state)


class Sampler:
    """A model of its own, batch 1 unless more texts are wanted at once, that writes text.

    >>> sampler = Sampler.from_checkpoint("checkpoints/i2000_l512")  # doctest: +SKIP
    >>> sampler.sample("The ", length=200, top_n=5, seed=1)  # doctest: +SKIP
    """

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, batch_size: int = 1) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.batch_size = batch_size
        self.model = build_model(config, batch_size)
        states = tf.nest.map_structure(tf.TensorSpec.from_tensor, self.initial_state())
        ids = tf.TensorSpec([batch_size], tf.int32)
        whole, real = tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)
        self._read = tf.function(
            lambda ids, state: read_prime(self.model, ids, state),
            autograph=False,
            input_signature=[tf.TensorSpec([batch_size, None], tf.int32), states],
        )
        self._generate = tf.function(
            lambda *arguments: generate(self.model, *arguments),
            autograph=False,
            input_signature=[ids, states, whole, whole, Cuts(whole, real, real), tf.TensorSpec([], tf.int64)],
        )
        self._predict = tf.function(self._one_step, autograph=False, input_signature=[ids, states])

    @classmethod
    def from_checkpoint(cls, path: str | Path, batch_size: int = 1) -> Sampler:
        """The sampler of a saved model. Raises CheckpointError where the checkpoint can't be used."""
        record = read_record(path)
        sampler = cls(record.model, record.vocabulary, batch_size)
        checkpoint.restore_weights(path, sampler.model)
        return sampler

    def initial_state(self) -> list[State]:
        """The state before any character: zeros, for each layer (hidden, cell) or (hidden,), each [batch_size, H]."""
        return zero_state(self.config, self.batch_size)

    def predict(
        self,
        character: str,
        state: Sequence[State] | None = None,
        *,
        top_n: int = 0,
        top_p: float = 1.0,
        temperature: float = 1.0,
        generator: np.random.Generator | None = None,
    ) -> tuple[str, list[State]]:
        """The notebooks' one step: a character and the state before it -> the next character, drawn, and the state after.

        state: None is the state before any character. generator: where the draw comes from; None is a fresh one. Use
        `probabilities` for the distribution itself. A sampler with batch 1 only.
        """
        probabilities, after = self.probabilities(character, state)
        uniform = (generator or np.random.default_rng()).random(1, dtype=np.float32)
        logits = tf.math.log(probabilities[None])
        chosen = choose(logits, tf.constant(uniform), Cuts.of(top_n, top_p, temperature))
        return self.vocabulary.decode(chosen.numpy(), "surrogateescape"), after

    def probabilities(
        self, character: str, state: Sequence[State] | None = None
    ) -> tuple[npt.NDArray[np.float32], list[State]]:
        """A character and the state before it -> the probability of each character to come next [V], the state after."""
        ids = self.vocabulary.encode(character)
        if self.batch_size != 1 or len(ids) != 1:
            raise ConfigError("one step takes one character (of bytes: one byte) and a sampler with batch 1")
        probabilities, after = self._predict(tf.constant(ids, tf.int32), list(state or self.initial_state()))
        return probabilities[0].numpy(), after

    def chunks(
        self,
        prime: str = "",
        length: int = 1000,
        *,
        top_n: int = 5,
        top_p: float = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
        unknown: str = "error",
        errors: str = "replace",
        chunk: int = CHUNK,
    ) -> Iterator[list[str]]:
        """Generate `length` characters after the prime, `chunk` at a time: each item is the next piece of every text.

        Without a prime (or with nothing known in it) the text starts from a newline, or from the vocabulary's first
        character where there is none. Raises TextError for characters of the prime that the model never saw, unless
        unknown is "skip". A model of bytes generates `length` bytes; errors: what becomes of those that are no UTF-8, as in
        `bytes.decode`.
        """
        cuts = Cuts.of(top_n, top_p, temperature)
        if not 1 <= length < 2**31:
            raise ConfigError(f"length must be at least 1 and below 2**31, got {length}")
        if chunk < 1:
            raise ConfigError(f"chunk must be at least 1, got {chunk}")
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed must be a number of 64 bits, got {seed}")
        ids = self.vocabulary.encode(prime, unknown).astype(np.int32)[-MOST_OF_PRIME:]
        begin = ids if len(ids) else np.array([start_id(self.vocabulary)], np.int32)
        return self._chunks(begin, length, chunk, cuts, seed, errors)

    def _chunks(
        self, ids: npt.NDArray[np.int32], length: int, chunk: int, cuts: Cuts, seed: int, errors: str
    ) -> Iterator[list[str]]:
        decoders = [self.vocabulary.decoder(errors) for _ in range(self.batch_size)]
        state = self._read(tf.constant(np.tile(ids[:-1], (self.batch_size, 1))), self.initial_state())
        last = tf.fill([self.batch_size], int(ids[-1]))
        for position in range(0, length, chunk):
            written, state = self._generate(last, state, position, min(chunk, length - position), cuts, seed)
            last = written[-1]
            pieces = [decode(column) for decode, column in zip(decoders, written.numpy().T, strict=True)]
            ends = [decode([]) for decode in decoders] if position + chunk >= length else [""] * len(pieces)
            yield [piece + end for piece, end in zip(pieces, ends, strict=True)]

    def sample(self, prime: str = "", length: int = 1000, **settings: Any) -> Sample:
        """The prime and `length` characters after it, of the first text; the settings are those of `chunks`."""
        return Sample(prime + "".join(texts[0] for texts in self.chunks(prime, length, **settings)), self)

    def surprise(self, text: str) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The known characters of a text, and the bits that each surprises the model by, from a zero state; the first 0."""
        ids = self.vocabulary.encode(text, "skip")
        shown = [self.vocabulary.decode([n], "backslashreplace") for n in ids]
        if len(ids) < 2:
            return shown, np.zeros(len(ids), np.float32)
        nats, _ = character_losses(self.model, tf.constant(ids[None].astype(np.int32)), zero_state(self.config, 1))
        return shown, np.concatenate([[0], nats.numpy()[:, 0] / math.log(2)]).astype(np.float32)

    def _one_step(self, ids: Tensor, state: Any) -> tuple[Tensor, list[State]]:
        outputs, after = step(self.model, input_table(self.model), ids, state)
        return tf.nn.softmax(self.model.get_layer("logits")(outputs)), after


class Sample(str):
    """A text that a model wrote. In a notebook each character's ground shows how much it surprised the model."""

    def __new__(cls, text: str, sampler: Sampler) -> Sample:
        """The text itself; the sampler tells of the surprise when it is asked for."""
        made = super().__new__(cls, text)
        made._sampler = sampler
        return made

    _sampler: Sampler

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copies are the text alone."""
        return str, (str(self),)

    def _repr_html_(self) -> str:
        """Spans on a ground from clear (0 bits) to orange (8 bits and more), of the first SHOWN characters."""
        spans = (
            f'<span title="{bits:.2f} bits" style="background-color: rgb(213 94 0 / {0.8 * min(bits / 8, 1):.3f})">'
            f"{html.escape(character)}</span>"
            for character, bits in zip(*self._sampler.surprise(self[:SHOWN]), strict=True)
        )
        return f'<pre style="white-space: pre-wrap">{"".join(spans)}</pre>'


def start_id(vocabulary: Vocabulary) -> int:
    """Where a text without a prime begins: a newline, or the vocabulary's first character."""
    return max(vocabulary.characters.find("\n"), 0)
