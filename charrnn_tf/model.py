"""The stateful Keras model, and its forward pass: over windows for training and evaluation, by steps for sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .config import CELLS, ModelConfig
from .layers import LAYERS, PLAIN, Engine, State, Tensor, dense_losses, linear, summed_product

LARGE_VOCABULARY = 1024  # from here on no table of all characters is made for a window, nor one-hot rows of it
Dropout = Callable[[int, Tensor], Tensor]  # number of the layer and its outputs [T, B, H] -> what goes on to the next


def build_model(config: ModelConfig, batch_size: int, *, seed: int = 0) -> keras.Model:
    """A stateful Keras model: ids [batch_size, T] -> probabilities of the next character [batch_size, T, V].

    Input, one-hot or embedding, `num_layers` recurrent layers each with dropout, dense (`logits`), softmax. The same
    weights serve any batch size; sampling builds a second model with batch 1. Weights begin as `config.init` says, drawn
    from `seed`.
    """
    ids = keras.Input(batch_shape=(batch_size, None), dtype="int32", name="ids")
    if config.embedding_size:
        x = keras.layers.Embedding(config.vocab_size, config.embedding_size, name="embedding")(ids)
    else:
        x = keras.ops.one_hot(ids, config.vocab_size)
    for n in range(config.num_layers):
        layer = LAYERS[config.cell]
        x = layer(config.hidden_size, return_sequences=True, stateful=True, name=f"{config.cell}_{n}")(x)
        x = keras.layers.Dropout(config.dropout, name=f"dropout_{n}")(x)
    logits = keras.layers.Dense(config.vocab_size, name="logits")(x)
    model = keras.Model(ids, keras.layers.Softmax(name="softmax")(logits), name="charrnn")
    initialize(model, config, seed)
    return model


def initialize(model: keras.Model, config: ModelConfig, seed: int) -> None:
    """Draw every weight anew, by `config.init`.

    keras: Keras's defaults: Glorot-uniform kernels, orthogonal recurrent kernels, forget bias 1, embedding U(-0.05, 0.05).
    pytorch: PyTorch's: recurrent layers and dense U(-1/sqrt(H), 1/sqrt(H)), embedding N(0, 1). PyTorch has two biases a
        layer; an LSTM's one bias here is the sum of two draws, a GRU has both.
    wide: pytorch, but dense weights U(-1, 1) and bias 0, as the PyTorch "Anna Karenina" notebooks have it.
    tf1: TensorFlow 1's: input and recurrent kernel as one Glorot-uniform matrix, bias 0 plus 1 for the forget gate (a
        GRU's two gates), dense weights from a normal of 0.1 cut at two deviations, embedding U(-0.05, 0.05).
    """
    draw = np.random.default_rng(seed)
    H = config.hidden_size
    bound = 1 / math.sqrt(H)

    def seeded() -> int:
        return int(draw.integers(2**31))

    def uniform(limit: float, shape: Sequence[int]) -> Any:
        return draw.uniform(-limit, limit, shape)

    if config.embedding_size:
        shape = (config.vocab_size, config.embedding_size)
        normal = config.init in ("pytorch", "wide")
        model.get_layer("embedding").set_weights([draw.normal(size=shape) if normal else uniform(0.05, shape)])
    for layer in recurrent_layers(model):
        kernel, recurrent, bias = (weight.shape for weight in layer.get_weights())
        ones = np.zeros(bias)
        if config.cell == "lstm":
            ones[H : 2 * H] = 1
        elif config.init == "tf1":
            ones[0, : 2 * H] = 1
        if config.init == "keras":
            glorot = keras.initializers.GlorotUniform(seeded())(kernel)
            layer.set_weights([glorot, keras.initializers.Orthogonal(seed=seeded())(recurrent), ones])
        elif config.init == "tf1":
            limit = math.sqrt(6 / (kernel[0] + recurrent[0] + recurrent[1]))
            layer.set_weights([uniform(limit, kernel), uniform(limit, recurrent), ones])
        else:
            second = uniform(bound, bias) if config.cell == "lstm" else 0
            layer.set_weights([uniform(bound, kernel), uniform(bound, recurrent), uniform(bound, bias) + second])
    kernel, bias = (weight.shape for weight in model.get_layer("logits").get_weights())
    dense = {
        "keras": lambda: [keras.initializers.GlorotUniform(seeded())(kernel), np.zeros(bias)],
        "pytorch": lambda: [uniform(bound, kernel), uniform(bound, bias)],
        "wide": lambda: [uniform(1, kernel), np.zeros(bias)],
        "tf1": lambda: [keras.initializers.TruncatedNormal(stddev=0.1, seed=seeded())(kernel), np.zeros(bias)],
    }
    model.get_layer("logits").set_weights(dense[config.init]())


def forward(
    model: keras.Model,
    ids: Tensor,
    state: Sequence[State],
    dropout: Dropout | None = None,
    engine: Engine = PLAIN,
) -> tuple[Tensor, list[State]]:
    """The model as a pure function of its weights: ids [B, T] and each layer's state -> logits [T * B, V], time-major, and
    the states after.

    dropout: applied to each recurrent layer's outputs; None while not training.
    """
    outputs, after = _recurrent_outputs(model, ids, state, dropout, engine)
    return linear(engine.precision)(outputs, *_dense(model)), after


def _recurrent_outputs(
    model: keras.Model, ids: Tensor, state: Sequence[State], dropout: Dropout | None, engine: Engine
) -> tuple[Tensor, list[State]]:
    """What the dense layer reads, [T * B, H], time-major, and the states after."""
    after = []
    columns = tf.transpose(ids)
    outputs: Tensor = None
    for n, layer in enumerate(recurrent_layers(model)):
        if engine.cudnn:
            outputs, layer_state = layer.keras_scan(outputs if n else _inputs(model, columns), state[n])
        else:
            precision = engine.precision
            projected = layer.project(outputs, precision) if n else _first_projection(model, layer, columns, precision)
            outputs, layer_state = layer.scan(projected, state[n], precision)
        after.append(layer_state)
        if dropout:
            outputs = dropout(n, outputs)
    return tf.reshape(outputs, (-1, outputs.shape[-1])), after


def _dense(model: keras.Model) -> tuple[Tensor, Tensor]:
    dense = model.get_layer("logits")
    return tf.convert_to_tensor(dense.kernel), tf.convert_to_tensor(dense.bias)


def character_losses(
    model: keras.Model,
    window: Tensor,
    state: Sequence[State],
    dropout: Dropout | None = None,
    engine: Engine = PLAIN,
) -> tuple[Tensor, list[State]]:
    """Nats of every target of a window: ids [B, T + 1], of which all but the first are targets, and each layer's state ->
    -log p(target) [T, B], time-major, and the states after.
    """
    outputs, after = _recurrent_outputs(model, window[:, :-1], state, dropout, engine)
    targets = tf.transpose(window[:, 1:])
    flat, (kernel, bias) = tf.reshape(targets, (-1,)), _dense(model)
    if kernel.shape[1] >= LARGE_VOCABULARY:
        nats = dense_losses(engine.precision)(outputs, kernel, bias, flat)
    else:
        logits = linear(engine.precision)(outputs, kernel, bias)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(flat, logits)
    return tf.reshape(nats, tf.shape(targets)), after


def shard(whole: Tensor, n: int, shards: int) -> Tensor:
    """The n-th of `shards` parts of a batch, [B, ...] -> [B / shards, ...]; nearly equal where B does not divide."""
    size = whole.shape[0] if whole.shape[0] is not None else tf.shape(whole)[0]
    return whole[n * size // shards : (n + 1) * size // shards]


def recurrent_layers(model: keras.Model) -> list[Any]:
    """The model's LSTM or GRU layers, from the input on."""
    return [layer for layer in model.layers if isinstance(layer, tuple(LAYERS.values()))]


def zero_state(config: ModelConfig, batch_size: Tensor) -> list[State]:
    """Zeros for every layer's state, each [batch_size, H]."""
    shape = (batch_size, config.hidden_size)
    return [tuple(tf.zeros(shape) for _ in CELLS[config.cell].states) for _ in range(config.num_layers)]


def state_names(config: ModelConfig) -> list[str]:
    """The names of the states in order: hidden_0, cell_0, hidden_1, ..."""
    return [f"{part}_{n}" for n in range(config.num_layers) for part in CELLS[config.cell].states]


def weights(model: keras.Model) -> dict[str, Any]:
    """The model's variables under names that do not depend on Keras: `lstm_0.recurrent_kernel` and the like."""
    return {
        f"{layer.name}.{variable.name}": variable.value for layer in model.layers for variable in layer.trainable_variables
    }


def step(model: keras.Model, table: Tensor, ids: Tensor, state: Sequence[State]) -> tuple[Tensor, list[State]]:
    """One character as a pure function: ids [B] and each layer's state -> the last layer's outputs [B, H], states after.

    table: `input_table(model)`, made once outside the loop that steps.
    """
    after = []
    layers = recurrent_layers(model)
    outputs, layer_state = layers[0].step(tf.gather(table, ids), state[0])
    after.append(layer_state)
    for layer, before in zip(layers[1:], state[1:], strict=True):
        outputs, layer_state = layer.step(layer.project(outputs), before)
        after.append(layer_state)
    return outputs, after


def input_table(model: keras.Model) -> Tensor:
    """What each character brings to the first recurrent layer's gates, [V, G].

    There are only V different inputs, so they are projected once and looked up: equal to embedding or one-hot rows followed
    by the layer's `project`, with far fewer products.
    """
    layer = recurrent_layers(model)[0]
    inputs, embedded = _input_rows(model, layer)
    return layer.project(inputs) if embedded else layer.add_bias(inputs)


def _inputs(model: keras.Model, ids: Tensor) -> Tensor:
    """What enters the first layer, embedded or as one-hot rows: ids [T, B] -> [T, B, F]."""
    inputs, embedded = _input_rows(model, recurrent_layers(model)[0])
    return tf.gather(inputs, ids) if embedded else tf.one_hot(ids, inputs.shape[0])


def _first_projection(model: keras.Model, layer: Any, ids: Tensor, precision: tf.DType | None) -> Tensor:
    """The first layer's `project` of characters: ids [T, B] -> [T, B, G]."""
    inputs, embedded = _input_rows(model, layer)
    large = inputs.shape[0] >= LARGE_VOCABULARY
    if embedded:
        if large:
            return layer.project(tf.gather(inputs, ids), precision)
        table = layer.project(tf.stop_gradient(inputs))
        return _embedded_rows(table, ids, inputs, tf.convert_to_tensor(layer.cell.kernel))
    return layer.add_bias(_rows(inputs, ids)) if large else _rows(layer.add_bias(inputs), ids)


def _input_rows(model: keras.Model, layer: Any) -> tuple[Tensor, bool]:
    """The embedding [V, E], or without one the first layer's kernel [V, G]; and whether it is an embedding."""
    embedded = any(each.name == "embedding" for each in model.layers)
    return tf.convert_to_tensor(model.get_layer("embedding").embeddings if embedded else layer.cell.kernel), embedded


@tf.custom_gradient
def _rows(table: Tensor, ids: Tensor) -> Any:
    """`tf.gather(table, ids)`: [V, G], [T, B] -> [T, B, G], its gradient quick on a CPU: a product for small V."""

    def gradient(d_rows: Tensor) -> tuple[Tensor, None]:
        return _table_gradient(*_flat(d_rows, ids), table.shape[0]), None

    return tf.gather(table, ids), gradient


@tf.custom_gradient
def _embedded_rows(table: Tensor, ids: Tensor, embedding: Tensor, kernel: Tensor) -> Any:
    """`tf.gather(table, ids)` for the table of an embedding [V, E] by a kernel [E, G], with the embedding's gradient as
    Keras's own layers give it to the optimizer: a row for each character read, not summed (Keras's Adam squares it so).
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
