"""The stateful Keras model and its forward pass as pure functions: over windows, and one character at a time.

A model of a run with `lines` has an attribute `line_start`, the id of the newline: these functions set the state to zero
before they read it.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..machine import startup
from ..settings.schema import CELLS, ModelConfig
from ..text.vocabulary import Ids
from .cells import LAYERS, Engine, State
from .gradients import custom_gradient
from .initializers import initialize
from .products import Precision, Tensor, dense_losses, linear, summed_product

LARGE_VOCABULARY = 1024  # from this size on, a table of all characters or one-hot rows of a window would be too large
Dropout = Callable[[int, Tensor], Tensor]  # layer number and its outputs [T, B, H] -> input of the next layer

MODELS, PARAMETERS = 16, 8_000_000  # built since the last garbage collection; reaching either starts another
_built: list[int] = []  # parameters of each model built since then


def build_model(config: ModelConfig, batch_size: int, *, seed: int = 0) -> keras.Model:
    """Build a stateful Keras model: ids [batch_size, T] -> probabilities of the next character [batch_size, T, V].

    Input, one-hot or embedding, `num_layers` recurrent layers each with dropout, dense (`logits`), softmax. The same
    weights serve any batch size; sampling builds a second model with batch 1. Initial weights follow `config.init` and
    `seed`. It is float32 whatever Keras's global policy is.
    """
    startup.start()
    if (
        len(_built) >= MODELS or sum(_built) > PARAMETERS
    ):  # models are reference cycles, and Python's collector counts objects, not bytes
        gc.collect()
        _built.clear()
    with tf.variable_creator_scope(_without_number):
        model = _layers(config, batch_size)
    _built.append(model.count_params())
    initialize(model, config, seed)
    return model


def _layers(config: ModelConfig, batch_size: int) -> keras.Model:
    """The model with Keras's own initial weights."""
    real = {"dtype": "float32"}
    ids = keras.Input(batch_shape=(batch_size, None), dtype="int32", name="ids")
    if config.embedding_size:
        x = keras.layers.Embedding(config.vocab_size, config.embedding_size, name="embedding", **real)(ids)
    else:
        x = keras.ops.one_hot(ids, config.vocab_size, **real)
    for n in range(config.num_layers):
        layer = LAYERS[config.cell](
            config.hidden_size, return_sequences=True, stateful=True, name=f"{config.cell}_{n}", **real
        )
        orthogonal = layer.cell.recurrent_initializer
        layer.cell.recurrent_initializer = keras.initializers.Zeros()  # `initialize` follows; a QR decomposition takes time
        x = layer(x)
        layer.cell.recurrent_initializer = orthogonal
        x = keras.layers.Dropout(config.dropout, name=f"dropout_{n}", **real)(x)
    logits = keras.layers.Dense(config.vocab_size, name="logits", **real)(x)
    model = keras.Model(ids, keras.layers.Softmax(name="softmax", **real)(logits), name="charrnn")
    model.dtype_policy = "float32"
    return model


def _without_number(create: Callable[..., Any], **settings: Any) -> Any:
    """Name a seed generator's variable without Keras's running number: TensorFlow caches an operation for each name."""
    if settings["name"] == "seed_generator_state":
        settings["name"] += "/"  # an absolute name, outside the scope with the number
    return create(**settings)


def character_losses(
    model: keras.Model,
    window: Tensor,
    state: Sequence[State],
    dropout: Dropout | None = None,
    engine: Engine = Engine.FLOAT32,
    kernels: Sequence[Tensor] | None = None,
) -> tuple[Tensor, list[State]]:
    """Loss of every target of a window: ids [B, T + 1], each layer's state -> nats [T, B], time-major, and states after.

    All ids but the first are targets. dropout: applied to each recurrent layer's outputs. kernels: a recurrent kernel for
    each layer to use instead of its own.
    """
    outputs, after = recurrent_outputs(model, window[:, :-1], state, dropout, engine, kernels)
    targets = tf.transpose(window[:, 1:])
    flat, (kernel, bias) = tf.reshape(targets, (-1,)), dense_weights(model)
    if kernel.shape[1] >= LARGE_VOCABULARY:
        nats = dense_losses(outputs, kernel, bias, flat, engine.precision)
    else:
        logits = linear(outputs, kernel, bias, engine.precision)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(flat, logits)
    return tf.reshape(nats, tf.shape(targets)), after


def recurrent_outputs(
    model: keras.Model,
    ids: Tensor,
    state: Sequence[State],
    dropout: Dropout | None = None,
    engine: Engine = Engine.FLOAT32,
    kernels: Sequence[Tensor] | None = None,
) -> tuple[Tensor, list[State]]:
    """Input of the dense layer, [T * B, H], time-major, and the states after; arguments as in `character_losses`."""
    after = []
    columns = tf.transpose(ids)
    kept, newline = None, line_start(model)
    if newline is not None:
        kept = tf.cast(columns != newline, tf.float32)[..., None]
        engine = Engine.FLOAT32 if engine is Engine.CUDNN else engine  # cuDNN can't reset a state inside a window
    outputs: Tensor = None
    for n, layer in enumerate(recurrent_layers(model)):
        kernel = kernels[n] if kernels else None
        if engine is Engine.CUDNN:
            inputs = outputs if n else _inputs(model, columns)
            outputs, layer_state = layer.keras_scan(inputs, state[n], kernel)
        else:
            precision = engine.precision
            projected = layer.project(outputs, precision) if n else _first_projection(model, layer, columns, precision)
            outputs, layer_state = layer.scan(projected, state[n], precision, kernel, kept)
        after.append(layer_state)
        if dropout:
            outputs = dropout(n, outputs)
    return tf.reshape(outputs, (-1, outputs.shape[-1])), after


def advance(model: keras.Model, table: Tensor | None, ids: Tensor, state: Sequence[State]) -> tuple[Tensor, list[State]]:
    """Read one character per stream: ids [B], each layer's state -> the last layer's outputs [B, H] and states after.

    table: `input_table(model)`, computed once outside a loop over characters; None, for a single character: only its row.
    """
    after: list[State] = []
    outputs: Tensor = None
    newline = line_start(model)
    if newline is not None:
        kept = (ids != newline)[:, None]
        state = tf.nest.map_structure(lambda part: tf.where(kept, part, 0.0), state)
    first = input_table(model, ids) if table is None else tf.gather(table, ids)
    for layer, before in zip(recurrent_layers(model), state, strict=True):
        outputs, layer_state = layer.advance(layer.project(outputs) if after else first, before)
        after.append(layer_state)
    return outputs, after


def input_table(model: keras.Model, ids: Tensor = None) -> Tensor:
    """Contribution of each character to the gates of the first recurrent layer, [V, G], or of those in ids [N] -> [N, G].

    There are only V different inputs, so they are projected once and looked up; equal to projecting embedding or one-hot
    rows, with far fewer products.
    """
    layer = recurrent_layers(model)[0]
    inputs, embedded = _input_rows(model, layer)
    if ids is not None:
        inputs = tf.gather(inputs, ids)
    return layer.project(inputs) if embedded else layer.add_bias(inputs)


def line_start(model: keras.Model) -> int | None:
    """The id before which the state is set to zero; None: there is none."""
    return getattr(model, "line_start", None)


def begun(model: keras.Model, ids: Ids) -> Ids:
    """Prepend the newline of a run with `lines` to a text's ids [characters], unless they begin with it."""
    newline = line_start(model)
    return ids if newline is None or list(ids[:1]) == [newline] else np.concatenate([[newline], ids]).astype(ids.dtype)


def recurrent_layers(model: keras.Model) -> list[Any]:
    """The model's LSTM or GRU layers, from the input on."""
    return [layer for layer in model.layers if isinstance(layer, tuple(LAYERS.values()))]


def dense_weights(model: keras.Model) -> tuple[Tensor, Tensor]:
    """Kernel [H, V] and bias [V] of the output layer."""
    dense = model.get_layer("logits")
    return tf.convert_to_tensor(dense.kernel), tf.convert_to_tensor(dense.bias)


def weights(model: keras.Model) -> dict[str, Any]:
    """The model's variables under names that do not depend on Keras, such as `lstm_0.recurrent_kernel`."""
    return {
        f"{layer.name}.{variable.name}": variable.value for layer in model.layers for variable in layer.trainable_variables
    }


def zero_state(config: ModelConfig, batch_size: Tensor) -> list[State]:
    """Zero state of every layer, each part [batch_size, H]."""
    startup.check_process()  # a model may have been loaded before a fork
    shape = (batch_size, config.hidden_size)
    return [tuple(tf.zeros(shape) for _ in CELLS[config.cell].states) for _ in range(config.num_layers)]


def state_names(config: ModelConfig) -> list[str]:
    """Names of the state tensors in order: hidden_0, cell_0, hidden_1, ..."""
    return [f"{part}_{n}" for n in range(config.num_layers) for part in CELLS[config.cell].states]


def shard(whole: Tensor, n: int, shards: int) -> Tensor:
    """The n-th of `shards` parts of a batch, [B, ...] -> [B / shards, ...]; sizes differ by one where B does not divide."""
    size = whole.shape[0] if whole.shape[0] is not None else tf.shape(whole)[0]
    return whole[n * size // shards : (n + 1) * size // shards]


def join(shards: Sequence[Any]) -> Any:
    """The shards' tensors, in nested lists and tuples of the same form, joined along their first axis."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *shards)


def _inputs(model: keras.Model, ids: Tensor) -> Tensor:
    """Input of the first layer, embedded or one-hot: ids [T, B] -> [T, B, F]."""
    inputs, embedded = _input_rows(model, recurrent_layers(model)[0])
    return tf.gather(inputs, ids) if embedded else tf.one_hot(ids, inputs.shape[0])


def _first_projection(model: keras.Model, layer: Any, ids: Tensor, precision: Precision) -> Tensor:
    """The first layer's `project` of characters: ids [T, B] -> [T, B, G]."""
    inputs, embedded = _input_rows(model, layer)
    large = inputs.shape[0] >= LARGE_VOCABULARY
    if embedded:
        if large:
            return layer.project(tf.gather(inputs, ids), precision)
        table = layer.project(tf.stop_gradient(inputs))
        return _embedded_rows(table, ids, inputs, tf.convert_to_tensor(layer.cell.kernel))
    return _cast_gradient(layer.add_bias(_rows(inputs, ids))) if large else _rows(layer.add_bias(inputs), ids)


def _input_rows(model: keras.Model, layer: Any) -> tuple[Tensor, bool]:
    """The embedding [V, E], or without one the first layer's kernel [V, G]; and whether it is an embedding."""
    embedded = any(each.name == "embedding" for each in model.layers)
    return tf.convert_to_tensor(model.get_layer("embedding").embeddings if embedded else layer.cell.kernel), embedded


@custom_gradient
def _cast_gradient(tensor: Tensor) -> Any:
    """The tensor itself; converts its gradient, which the loop may have rounded, back to its dtype."""
    return tf.identity(tensor), lambda d: tf.cast(d, tensor.dtype)


@custom_gradient
def _rows(table: Tensor, ids: Tensor) -> Any:
    """`tf.gather(table, ids)`, [V, G], [T, B] -> [T, B, G], with a gradient that is fast on a CPU."""

    def gradient(d_rows: Tensor) -> tuple[Tensor, None]:
        return _table_gradient(*_flat(d_rows, ids), table.shape[0]), None

    return tf.gather(table, ids), gradient


@custom_gradient
def _embedded_rows(table: Tensor, ids: Tensor, embedding: Tensor, kernel: Tensor) -> Any:
    """`tf.gather(table, ids)` for the product `table` of an embedding [V, E] and a kernel [E, G].

    The embedding's gradient has a row for each character read, not summed, as Keras's own layers pass it to the optimizer
    (Keras's Adam squares the rows one by one).
    """

    def gradient(d_rows: Tensor) -> tuple[Tensor, None, tf.IndexedSlices, None]:
        flat, places = _flat(d_rows, ids)
        rows = tf.cast(tf.matmul(flat, tf.cast(kernel, flat.dtype), transpose_b=True), embedding.dtype)
        rows = tf.IndexedSlices(rows, places, tf.shape(embedding))
        return _table_gradient(flat, places, table.shape[0]), None, rows, None

    return tf.gather(table, ids), gradient


def _flat(d_rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    return tf.reshape(d_rows, (-1, d_rows.shape[-1])), tf.reshape(ids, (-1,))


def _table_gradient(d_rows: Tensor, ids: Tensor, vocab_size: int) -> Tensor:
    """Gradients of rows [N, G] summed by their ids [N] -> [V, G]."""
    if vocab_size < LARGE_VOCABULARY:
        precision = None if d_rows.dtype == tf.float32 else d_rows.dtype
        return summed_product(tf.one_hot(ids, vocab_size, dtype=d_rows.dtype), d_rows, precision)
    return tf.math.unsorted_segment_sum(tf.cast(d_rows, tf.float32), ids, vocab_size)
