"""The SavedModel: a trained model with its vocabulary, for programs that have TensorFlow and nothing of ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import ConfigError
from ..inference.sampling import Cuts, generate, read_prime, start_id
from ..network.cells import State
from ..network.model import advance, character_losses, input_table, state_names, weights, zero_state
from ..network.products import Tensor
from ..runs.checkpoint import load_model, why
from ..settings.schema import ModelConfig
from ..text.vocabulary import ByteVocabulary, Vocabulary

WINDOW = 100  # characters of every text that `score` reads at a time


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """What `charrnn-tf export` calls by default; returns nothing to say."""
    export_saved_model(checkpoint, output)
    return ""


def export_saved_model(checkpoint: str | Path, output: str | Path) -> Path:
    """Write a checkpoint as a SavedModel folder and return its path.

    Signatures, for any batch size N:

        generate(prime: string[N], length: int32, top_n: int32, top_p: float32, temperature: float32, seed: int64)
            -> text: string[N], the prime as read, then `length` characters
        score(text: string[N]) -> nats: float32[N], summed over the text; characters: int32[N], how many were scored
        step(ids: int32[N], hidden_0, cell_0, ...: float32[N, H]) -> logits: float32[N, V] and the states by their names
        initial_state(batch: int32) -> hidden_0, cell_0, ...: zeros
        encode(text: string[N]) -> ids: int32[N, T], -1 after the end; lengths: int32[N]
        decode(ids: int32[N, T]) -> text: string[N], ids that are none left out

    Characters the model never saw and bytes that are not UTF-8 are skipped; a model of bytes takes and gives any.
    An earlier SavedModel of that name is replaced; anything else there raises ConfigError, and so does a place that can't be
    written.
    """
    output = Path(output)
    if os.path.lexists(output) and not os.path.isfile(output / "saved_model.pb"):
        raise ConfigError(f"{str(output)!r} is there already and is no SavedModel. Remove it, or choose another --output.")
    model, record = load_model(checkpoint)
    module = _Module(model, record.model, record.vocabulary)
    beside = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(beside), signatures=module.signatures(), options=options)
        shutil.rmtree(output, ignore_errors=True)
        beside.rename(output)
    except (OSError, tf.errors.OpError) as error:
        raise ConfigError(f"can't write {str(output)!r}: {why(error)}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return output


class _Module(tf.Module):
    """The tensor functions behind the signatures."""

    def __init__(self, model: keras.Model, config: ModelConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._captured = list(weights(model).values())  # what the functions read must hang on the module
        self._model = _Untracked(model)
        self._config = config
        self._state_names = state_names(config)
        order = np.argsort(vocabulary.code_points)
        self._points = vocabulary.code_points.astype(np.int32)  # [V], by id
        self._sorted_points, self._sorted_ids = self._points[order], order.astype(np.int32)
        self._start = start_id(vocabulary)
        self._bytes = isinstance(vocabulary, ByteVocabulary)

    def signatures(self) -> dict[str, Any]:
        """Each signature as a compiled function."""
        texts, whole, real = (
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
        )
        states = {name: tf.TensorSpec([None, self._config.hidden_size], tf.float32) for name in self._state_names}
        of_generate = {
            "prime": texts, "length": whole, "top_n": whole, "top_p": real, "temperature": real,
            "seed": tf.TensorSpec([], tf.int64),
        }  # fmt: skip
        of_step = {"ids": tf.TensorSpec([None], tf.int32), **states}
        return {
            "generate": _function(self.generate, of_generate),
            "score": _function(self.score, {"text": texts}),
            "step": _function(self.step, of_step),
            "initial_state": _function(self.initial_state, {"batch": whole}),
            "encode": _function(self.encode, {"text": texts}),
            "decode": _function(self.decode, {"ids": tf.TensorSpec([None, None], tf.int32)}),
        }

    def generate(
        self, prime: Tensor, length: Tensor, top_n: Tensor, top_p: Tensor, temperature: Tensor, seed: Tensor
    ) -> dict[str, Tensor]:
        encoded = self.encode(prime)
        ids, lengths = encoded["ids"], encoded["lengths"]
        longest = tf.shape(ids)[1]
        places = tf.range(longest)[None] - (longest - lengths[:, None])  # moved to the right: all primes end together
        moved = tf.where(places >= 0, tf.gather(ids, tf.maximum(places, 0), batch_dims=1), -1)
        ids = tf.pad(moved, [[0, 0], [1, 0]], constant_values=-1)
        state = read_prime(self._model.model, ids[:, :-1], self._zeros(tf.shape(ids)[0]))
        last = tf.where(ids[:, -1] >= 0, ids[:, -1], self._start)
        count = tf.maximum(length, 1)  # no array of no characters: it would have no shape
        cuts = Cuts(top_n, top_p, temperature)
        written, _ = generate(self._model.model, last, state, tf.constant(0), count, cuts, seed)
        written = written[: tf.maximum(length, 0)]
        return {"text": tf.strings.join([self.decode(encoded["ids"])["text"], self.decode(tf.transpose(written))["text"]])}

    def score(self, text: Tensor) -> dict[str, Tensor]:
        encoded = self.encode(text)
        ids, characters = encoded["ids"], tf.maximum(encoded["lengths"] - 1, 0)
        windows = (tf.reduce_max(tf.concat([characters, [0]], 0)) + WINDOW - 1) // WINDOW
        padded = tf.pad(tf.maximum(ids, 0), [[0, 0], [0, WINDOW + 1]])
        places = tf.range(WINDOW)

        def body(n: Tensor, nats: Tensor, state: Any) -> Any:
            window = padded[:, n * WINDOW : (n + 1) * WINDOW + 1]
            losses, state = character_losses(self._model.model, window, state)  # [WINDOW, N]
            counts = n * WINDOW + places[:, None] < characters[None]
            return n + 1, nats + tf.reduce_sum(tf.where(counts, tf.cast(losses, tf.float64), 0.0), axis=0), state

        nats = tf.zeros(tf.shape(characters), tf.float64)
        state = self._zeros(tf.shape(characters)[0])
        _, nats, _ = tf.while_loop(lambda n, *_: n < windows, body, (0, nats, state))
        return {"nats": tf.cast(nats, tf.float32), "characters": characters}

    def step(self, ids: Tensor, **named: Tensor) -> dict[str, Tensor]:
        model = self._model.model
        state = tf.nest.pack_sequence_as(self._zeros(1), [named[name] for name in self._state_names])
        outputs, after = advance(model, input_table(model), ids, state)
        return {"logits": model.get_layer("logits")(outputs), **self._named(after)}

    def initial_state(self, batch: Tensor) -> dict[str, Tensor]:
        return self._named(self._zeros(batch))

    def encode(self, text: Tensor) -> dict[str, Tensor]:
        if self._bytes:
            flat = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(text), tf.uint8), tf.int32)
            ids = tf.RaggedTensor.from_row_lengths(flat, tf.strings.length(text), validate=False)
            return {"ids": ids.to_tensor(-1), "lengths": tf.strings.length(text)}
        points = tf.strings.unicode_decode(text, "UTF-8", errors="ignore")
        places = tf.minimum(tf.searchsorted(self._sorted_points, points.flat_values), len(self._sorted_points) - 1)
        known = points.with_flat_values(tf.gather(self._sorted_points, places) == points.flat_values)
        ids = tf.ragged.boolean_mask(points.with_flat_values(tf.gather(self._sorted_ids, places)), known)
        return {"ids": ids.to_tensor(-1), "lengths": tf.cast(ids.row_lengths(), tf.int32)}

    def decode(self, ids: Tensor) -> dict[str, Tensor]:
        if self._bytes:
            places = tf.where((ids >= 0) & (ids < len(self._points)), ids, len(self._points))
            return {
                "text": tf.strings.reduce_join(tf.gather([bytes([byte]) for byte in range(256)] + [b""], places), axis=-1)
            }
        known = tf.ragged.boolean_mask(ids, (ids >= 0) & (ids < len(self._points)))
        points = known.with_flat_values(tf.gather(self._points, known.flat_values))
        return {"text": tf.strings.unicode_encode(points, "UTF-8")}

    def _zeros(self, batch: Tensor) -> list[State]:
        return zero_state(self._config, batch)

    def _named(self, state: list[State]) -> dict[str, Tensor]:
        return dict(zip(self._state_names, tf.nest.flatten(state), strict=True))


class _Untracked:
    """Holds the Keras model where `tf.Module` does not look: only its variables go into the SavedModel."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model


def _function(function: Any, arguments: dict[str, Any]) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(**arguments)
