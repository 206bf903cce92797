"""The SavedModel: a trained model with its vocabulary, for programs that have TensorFlow but not charrnn_tf."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from ..errors import ConfigError, warn
from ..files import tensorflow_reads
from ..inference.cuts import Cuts
from ..inference.sampling import generate, read_prime, start_id
from ..machine.startup import logging_kept
from ..network.cells import State
from ..network.model import advance, character_losses, line_start, state_names, weights, zero_state
from ..network.products import Tensor
from ..runs.checkpoint import load_model, why
from ..settings.schema import ModelConfig
from ..text.vocabulary import ByteVocabulary, Vocabulary

WINDOW = 100  # characters of every text that `score` reads at a time
UNREADABLE = "path has a '[', a backslash or bytes that are not UTF-8"


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as a SavedModel, as `exporting` calls it; returns an empty string."""
    export_saved_model(checkpoint, output)
    return ""


def export_saved_model(checkpoint: str | Path, output: str | Path) -> Path:
    """Write a checkpoint as a SavedModel folder and return its path.

    Signatures, for any batch size N:

        generate(prime: string[N], length: int32, top_n: int32, top_p: float32, temperature: float32, seed: int64)
            -> text: string[N], the prime as read, then `length` characters
        score(text: string[N]) -> nats: float32[N], summed over the text; characters: int32[N], the number scored
        step(ids: int32[N], hidden_0, cell_0, ...: float32[N, H]) -> logits: float32[N, V] and the states under their names
        initial_state(batch: int32) -> hidden_0, cell_0, ...: zeros
        encode(text: string[N]) -> ids: int32[N, T], padded with -1; lengths: int32[N]
        decode(ids: int32[N, T]) -> text: string[N]; ids outside 0 to V - 1 are dropped

    Characters outside the vocabulary and bytes that are not UTF-8 are skipped; a byte model accepts and returns any bytes.
    An earlier SavedModel of that name is replaced. Raises ConfigError if anything else has that name, if the folder can't
    be written, or if TensorFlow could not load it from there.
    """
    output = Path(output)
    if not tensorflow_reads(output):
        raise ConfigError(
            f"TensorFlow can't load a SavedModel from {str(output)!r}: the {UNREADABLE}. Choose another `output`."
        )
    if os.path.lexists(output) and not os.path.isfile(output / "saved_model.pb"):
        raise ConfigError(f"{str(output)!r} exists and is not a SavedModel. Remove it, or choose another `output`.")
    model, record = load_model(checkpoint)
    tracked = tf.Module()
    tracked.variables_of_functions = list(weights(model).values())  # only these go into the SavedModel, not the Keras model
    signatures = _Functions(model, record.model, record.vocabulary).signatures()
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        with logging_kept():
            tf.saved_model.save(tracked, str(partial), signatures=signatures, options=options)
        _forget_custom_gradients(partial / "saved_model.pb")
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)
    except (OSError, tf.errors.OpError) as error:
        raise ConfigError(f"can't write {str(output)!r}: {why(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not tensorflow_reads(output.absolute()):
        warn(f"TensorFlow can load {str(output)!r} by this relative path only: the folder's {UNREADABLE}.")
    return output


def _forget_custom_gradients(path: Path) -> None:
    """Remove the names of gradients that were not saved: TensorFlow warns of each when it loads the model."""
    saved = SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)
    path.write_bytes(saved.SerializeToString(deterministic=True))


class _Functions:
    """The tensor functions behind the signatures."""

    def __init__(self, model: keras.Model, config: ModelConfig, vocabulary: Vocabulary) -> None:
        self._model = model
        self._config = config
        self._state_names = state_names(config)
        order = np.argsort(vocabulary.code_points)
        self._points = vocabulary.code_points.astype(np.int32)  # [V], by id
        self._sorted_points, self._sorted_ids = self._points[order], order.astype(np.int32)
        self._start = start_id(vocabulary)
        self._bytes = isinstance(vocabulary, ByteVocabulary)

    def signatures(self) -> dict[str, Any]:
        """Trace each signature."""
        texts, integer, real = tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)
        arguments = {
            "generate": {
                "prime": texts, "length": integer, "top_n": integer, "top_p": real, "temperature": real,
                "seed": tf.TensorSpec([], tf.int64),
            },
            "score": {"text": texts},
            "step": {
                "ids": tf.TensorSpec([None], tf.int32),
                **{name: tf.TensorSpec([None, self._config.hidden_size], tf.float32) for name in self._state_names},
            },
            "initial_state": {"batch": integer},
            "encode": {"text": texts},
            "decode": {"ids": tf.TensorSpec([None, None], tf.int32)},
        }  # fmt: skip
        functions = {name: tf.function(getattr(self, name), autograph=False) for name in arguments}
        return {name: function.get_concrete_function(**arguments[name]) for name, function in functions.items()}

    def generate(
        self, prime: Tensor, length: Tensor, top_n: Tensor, top_p: Tensor, temperature: Tensor, seed: Tensor
    ) -> dict[str, Tensor]:
        encoded = self.encode(prime)
        ids, lengths = encoded["ids"], encoded["lengths"]
        longest = tf.shape(ids)[1]
        places = tf.range(-1, longest)[None] - (longest - lengths[:, None])  # primes are aligned at their ends
        newline = line_start(self._model)  # before each prime, in a run with `lines`
        outside = tf.where(places == -1, -1 if newline is None else newline, -1)
        padded = tf.pad(ids, [[0, 0], [0, 1]])  # so that there is something to gather
        ids = tf.where(places >= 0, tf.gather(padded, tf.maximum(places, 0), batch_dims=1), outside)
        state = read_prime(self._model, ids[:, :-1], self._zeros(tf.shape(ids)[0]))
        last = tf.where(ids[:, -1] >= 0, ids[:, -1], self._start)
        count = tf.maximum(length, 1)  # the array of written characters must not be empty: it would have no shape
        cuts = Cuts(top_n, top_p, temperature)
        written, _ = generate(self._model, last, state, tf.constant(0), count, cuts, seed)
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
            losses, state = character_losses(self._model, window, state)  # [WINDOW, N]
            counts = n * WINDOW + places[:, None] < characters[None]
            return n + 1, nats + tf.reduce_sum(tf.where(counts, tf.cast(losses, tf.float64), 0.0), axis=0), state

        nats = tf.zeros(tf.shape(characters), tf.float64)
        state = self._zeros(tf.shape(characters)[0])
        _, nats, _ = tf.while_loop(lambda n, *_: n < windows, body, (0, nats, state))
        return {"nats": tf.cast(nats, tf.float32), "characters": characters}

    def step(self, ids: Tensor, **named: Tensor) -> dict[str, Tensor]:
        state = tf.nest.pack_sequence_as(self._zeros(1), [named[name] for name in self._state_names])
        outputs, after = advance(self._model, None, ids, state)
        return {"logits": self._model.get_layer("logits")(outputs), **self._named(after)}

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
        valid = (ids >= 0) & (ids < len(self._points))
        if self._bytes:
            strings = tf.constant([*(bytes([byte]) for byte in range(256)), b""])  # the last one for ids to drop
            return {"text": tf.strings.reduce_join(tf.gather(strings, tf.where(valid, ids, 256)), axis=-1)}
        known = tf.ragged.boolean_mask(ids, valid)
        points = known.with_flat_values(tf.gather(self._points, known.flat_values))
        return {"text": tf.strings.unicode_encode(points, "UTF-8")}

    def _zeros(self, batch: Tensor) -> list[State]:
        return zero_state(self._config, batch)

    def _named(self, state: list[State]) -> dict[str, Tensor]:
        return dict(zip(self._state_names, tf.nest.flatten(state), strict=True))
