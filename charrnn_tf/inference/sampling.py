"""Generates text, all characters of it in one compiled loop, and tells how surprising a text is."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..errors import ConfigError
from ..machine.startup import check_process
from ..network.cells import State
from ..network.model import advance, begun, build_model, character_losses, input_table, zero_state
from ..network.products import Tensor
from ..runs import checkpoint
from ..runs.record import read_record
from ..settings.schema import ModelConfig
from ..text.vocabulary import ByteVocabulary, Ids, Vocabulary, normalized
from .colours import Sample, Samples
from .cuts import Cuts, choose, chooser
from .stopping import Stopping, check_stop

if TYPE_CHECKING:
    from .batch import Completion, Writer

CHUNK = 100  # characters per compiled call, after which they are printed
MOST_OF_PRIME = 100_000  # last characters of a long prime that are read; earlier ones no longer affect the state


def read_prime(model: keras.Model, ids: Tensor, state: Sequence[State]) -> list[State]:
    """Advance the states over ids [B, T], skipping negative ones."""
    table = input_table(model)
    columns = tf.transpose(ids)

    def body(t: Tensor, state: Any) -> Any:
        _, after = advance(model, table, tf.maximum(columns[t], 0), state)
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
    """Generate `length` characters: last characters read [B] and states before them -> ids [length, B], states.

    position: number of characters generated before. A text can be generated in chunks: the next one starts from the states
    and the last row of ids of this one. Row k's character at position p is drawn with the k-th random number of (seed, p),
    whatever the chunks and the number of rows.
    """

    chosen = chooser(cuts, model.get_layer("logits").units)

    def draw(t: Tensor, logits: Tensor) -> Tensor:
        place = tf.stack([seed, tf.cast(position + t, tf.int64)])
        return chosen(logits, tf.random.stateless_uniform(tf.shape(logits)[:1], place, alg="philox"))

    written, state, _ = write(model, ids, state, length, draw)
    return written, state


def write(
    model: keras.Model,
    ids: Tensor,
    state: Sequence[State],
    length: Tensor,
    following: Callable[[Tensor, Tensor], Tensor],
    keep_logits: bool = False,
) -> tuple[Tensor, list[State], Tensor]:
    """Read ids [B] and `length - 1` characters after them -> characters after each [length, B], states, logits.

    following: step t and logits [B, V] -> the next characters [B]. Logits [length, B, V] are returned with `keep_logits`.
    """
    table = input_table(model)
    logits_layer = model.get_layer("logits")

    def body(t: Tensor, ids: Tensor, state: Any, out: Any, kept: Any) -> Any:
        outputs, state = advance(model, table, ids, state)
        logits = logits_layer(outputs)
        ids = following(t, logits)
        return t + 1, ids, state, out.write(t, ids), kept.write(t, logits) if keep_logits else kept

    out = tf.TensorArray(tf.int32, length, element_shape=ids.shape)
    kept = tf.TensorArray(tf.float32, length) if keep_logits else ()
    _, _, state, out, kept = tf.while_loop(lambda t, *_: t < length, body, (0, ids, list(state), out, kept))
    return out.stack(), list(state), kept.stack() if keep_logits else None


class Sampler:
    """Generates text from a trained model, one or several texts at a time.

    >>> sampler = Sampler.from_checkpoint("checkpoints/i2000_l512")  # doctest: +SKIP
    >>> sampler.sample("The ", length=200, top_n=5, seed=1)  # doctest: +SKIP
    """

    normalize = "none"  # Unicode normalization form for primes: that of the training text

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
            input_signature=[ids, states, whole, whole, Cuts(whole, real, real, real), tf.TensorSpec([], tf.int64)],
        )
        self._predict = tf.function(self._one_step, autograph=False, input_signature=[ids, states])

    @classmethod
    def from_checkpoint(cls, path: str | Path, batch_size: int = 1) -> Self:
        """Load a saved model. Raises CheckpointError where the checkpoint can't be used."""
        record = read_record(path)
        sampler = cls(record.model, record.vocabulary, batch_size)
        sampler.normalize, sampler.model.line_start = record.train.normalize, record.line_start
        checkpoint.restore_weights(path, sampler.model)
        return sampler

    def initial_state(self) -> list[State]:
        """The zero state: for each layer (hidden, cell) or (hidden,), each [batch_size, H]."""
        return zero_state(self.config, self.batch_size)

    def predict(
        self,
        character: str,
        state: Sequence[State] | None = None,
        *,
        top_n: int = 0,
        top_p: float = 1.0,
        temperature: float = 1.0,
        min_p: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> tuple[str, list[State]]:
        """Draw the next character, as `predict` in the notebooks; returns it and the state after.

        state: the one before `character`; None is the zero state. generator: source of the random number; None is a fresh
        one. `probabilities` returns the distribution itself. Raises ConfigError unless batch_size is 1.
        """
        probabilities, after = self.probabilities(character, state)
        uniform = (generator or np.random.default_rng()).random(1, dtype=np.float32)
        logits = tf.math.log(probabilities[None])
        chosen = choose(logits, tf.constant(uniform), Cuts.of(top_n, top_p, temperature, min_p))
        return self.vocabulary.decode(chosen.numpy(), "surrogateescape"), after

    def probabilities(
        self, character: str, state: Sequence[State] | None = None
    ) -> tuple[npt.NDArray[np.float32], list[State]]:
        """A character and the state before it -> probability of each next character [V], and the state after."""
        check_process()
        ids = self.vocabulary.encode(character)
        if self.batch_size != 1 or len(ids) != 1:
            raise ConfigError("this needs exactly one character (one byte for a byte model) and batch_size=1")
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
        min_p: float = 0.0,
        seed: int = 0,
        unknown: str = "error",
        normalize: str | None = None,
        errors: str = "replace",
        chunk: int = CHUNK,
    ) -> Iterator[list[str]]:
        """Generate `length` characters after the prime, `chunk` at a time: each item is the next piece of every text.

        Without a prime, or with only unknown characters in it, the text starts from a newline, or from the vocabulary's
        first character where there is none. Raises TextError for characters of the prime outside the vocabulary, unless
        unknown is "skip". normalize: form of the prime; None is that of the run's text. A byte
        model generates `length` bytes; errors: how to decode invalid UTF-8, as in `bytes.decode`.
        """
        cuts = Cuts.of(top_n, top_p, temperature, min_p)
        check_length(length, seed)
        if chunk < 1:
            raise ConfigError(f"`chunk` must be at least 1, got {chunk}")
        begin = self.first_ids(self.as_read(prime, unknown, normalize), unknown)
        return self._chunks(begin, length, chunk, cuts, seed, errors)

    def first_ids(self, prime: str, unknown: str = "error") -> Ids:
        """The ids that a text with this prime, from `as_read`, begins with; at least one."""
        ids = self.vocabulary.encode(prime, unknown).astype(np.int32)[-MOST_OF_PRIME:]
        return begun(self.model, ids if len(ids) else np.array([start_id(self.vocabulary)], np.int32))

    def as_read(self, prime: str, unknown: str = "error", normalize: str | None = None) -> str:
        """A prime as the model reads it: normalized, and without the characters that it skips. See `chunks`."""
        if not isinstance(prime, str):
            raise ConfigError(f"a prime must be a string, got {prime!r:.40}; for several, use `sample_many`")
        prime = normalized(prime, normalize or self.normalize)
        skipping = unknown == "skip" and not isinstance(self.vocabulary, ByteVocabulary)
        return self.vocabulary.decode(self.vocabulary.encode(prime, unknown)) if skipping else prime

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

    def sample(
        self, prime: str = "", length: int = 1000, *, stop: str | None = None, seed: int = 0, **settings: Any
    ) -> Sample:
        """The prime as it was read and `length` characters after it, of the first text; settings as for `chunks`.

        stop: the text ends before this would appear after the prime.
        """
        check_stop(stop)
        stopping = Stopping([stop] if stop else [])
        for texts in self.chunks(prime, length, seed=seed, **settings):
            stopping.add(texts[0])
            if stopping.ended:
                break
        written = stopping.take(last=True)
        text = self.shown(self.as_read(prime, settings.get("unknown", "error"), settings.get("normalize")) + written)
        text.seed = seed
        return text

    def samples(self, prime: str, num_samples: int, length: int = 1000, *, seed: int = 0, **settings: Any) -> Samples:
        """Several texts after a prime, those of `sample_many` with the same settings."""
        found = self.sample_many([prime], num_samples, length, seed=seed, **settings)
        return Samples(self.shown(each.prime + each.text) for each in found)

    def shown(self, text: str) -> Sample:
        """A text that a notebook shows with each character coloured by its surprise, as it shows samples."""
        sample = Sample(text)
        sample.sampler = self
        return sample

    def sample_many(
        self, primes: Iterable[str], num_samples: int = 1, length: int = 1000, *, stop: str | None = None, **settings: Any
    ) -> Iterator["Completion"]:
        """Yield `num_samples` texts after each prime, in order; settings as for `chunks`.

        As many are generated at once as fit in memory, whatever the sampler's batch size. Text k of a prime is the k-th
        that `chunks` generates with the same seed. stop: a text ends before this would appear in it.
        """
        from .batch import sample_many  # imports this module

        return sample_many(self, primes, num_samples, length, stop=stop, **settings)

    @cached_property
    def writer(self) -> "Writer":
        """Generates any number of texts at once, with the scores of their characters."""
        from .batch import Writer

        return Writer(self.model, self.config)

    def surprise(self, text: str) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The N known characters of a text, and the surprise of each in bits, [N], read from a zero state.

        0 for the first, unless the model reads a newline before it (`begun`).
        """
        ids = self.vocabulary.encode(text, "skip")
        shown = [self.vocabulary.decode([n], "backslashreplace") for n in ids]
        ids = begun(self.model, ids)
        if len(ids) < 2:
            return shown, np.zeros(len(shown), np.float32)
        check_process()
        nats = self._losses(tf.constant(ids[None].astype(np.int32)))
        bits = np.concatenate([[0], nats.numpy() / math.log(2)]).astype(np.float32)
        return shown, bits[-len(shown) :]

    @cached_property
    def _losses(self) -> Any:
        """The nats of a text's characters after the first, as a function: ids [1, T + 1] -> [T]."""

        def losses(ids: Tensor) -> Tensor:
            return character_losses(self.model, ids, zero_state(self.config, 1))[0][:, 0]

        return tf.function(losses, autograph=False, input_signature=[tf.TensorSpec([1, None], tf.int32)])

    def _one_step(self, ids: Tensor, state: Any) -> tuple[Tensor, list[State]]:
        outputs, after = advance(self.model, None, ids, state)
        return tf.nn.softmax(self.model.get_layer("logits")(outputs)), after


def check_length(length: int, seed: int) -> None:
    """Raise ConfigError for a text's length or seed that is out of range."""
    if not isinstance(length, Integral) or not 1 <= length < 2**31:
        raise ConfigError(f"`length` must be a whole number of at least 1 and below 2**31, got {length!r}")
    if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**63:
        raise ConfigError(f"`seed` must be a whole number of 64 bits, got {seed!r}")


def start_id(vocabulary: Vocabulary) -> int:
    """The character that a text without a prime starts from: a newline, or the vocabulary's first character."""
    return max(vocabulary.characters.find("\n"), 0)
