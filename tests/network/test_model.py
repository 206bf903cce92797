"""The stateful Keras model and its pure forward pass agree."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import forward

from charrnn_tf.network import model as model_module
from charrnn_tf.network.cells import Engine
from charrnn_tf.network.model import (
    _rows,
    advance,
    begun,
    build_model,
    character_losses,
    input_table,
    shard,
    state_names,
    weights,
    zero_state,
)
from charrnn_tf.settings.schema import ModelConfig

V, H, L, B, T = 11, 8, 2, 2, 4

both_cells = pytest.mark.parametrize("cell", ["lstm", "gru"])
both_inputs = pytest.mark.parametrize("embedding_size", [0, 5], ids=["one-hot", "embedding"])
both_sizes = pytest.mark.parametrize("large", [False, True], ids=["small", "large"])


def config_of(cell="lstm", **changes):
    # pytorch: the init with non-zero recurrent biases
    return ModelConfig(**{"vocab_size": V, "cell": cell, "hidden_size": H, "num_layers": L, "init": "pytorch"} | changes)


def ids_of(*shape, seed=0, vocab_size=V):
    return np.random.default_rng(seed).integers(vocab_size, size=shape, dtype=np.int32)


def flat(state):
    return [part.numpy() for part in tf.nest.flatten(state)]


def call_large(monkeypatch, large):
    """Make the test's vocabulary count as a large one."""
    monkeypatch.setattr(model_module, "LARGE_VOCABULARY", 4 if large else 1024)


@pytest.mark.slow
@both_sizes
@both_inputs
@both_cells
def test_ten_windows_through_the_stateful_call_equal_forward(cell, embedding_size, large, monkeypatch):
    call_large(monkeypatch, large)
    config = config_of(cell, embedding_size=embedding_size, dropout=0.5)
    model, state = build_model(config, B), zero_state(config, B)
    text = ids_of(B, 10 * T + 1)
    losses = tf.function(lambda window, state: character_losses(model, window, state), autograph=False)
    for start in range(0, 10 * T, T):
        window = text[:, start : start + T + 1]
        probabilities = model(window[:, :-1]).numpy()
        logits, _ = forward(model, tf.constant(window[:, :-1]), state)
        nats, state = losses(tf.constant(window), state)
        from_call = -np.log(np.take_along_axis(probabilities, window[:, 1:, None], axis=2))[:, :, 0]
        np.testing.assert_allclose(nats.numpy().T, from_call, rtol=0, atol=1e-6)
        rows = tf.nn.softmax(logits).numpy().reshape(T, B, V)
        np.testing.assert_allclose(rows.swapaxes(0, 1), probabilities, rtol=0, atol=1e-6)
    own = [part.value for layer in model_module.recurrent_layers(model) for part in layer.states]
    np.testing.assert_allclose(flat(state), own, rtol=0, atol=1e-6)
    assert np.abs(own[0]).max() > 0.01


@both_sizes
@both_inputs
@both_cells
def test_the_gradient_of_forward_is_that_of_the_stateful_call(cell, embedding_size, large, monkeypatch):
    call_large(monkeypatch, large)
    config = config_of(cell, embedding_size=embedding_size)
    model, ids, targets = build_model(config, B), ids_of(B, T), ids_of(B, T, seed=1)
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        expected = tf.reduce_sum(keras.losses.sparse_categorical_crossentropy(targets, model(ids)))
    expected_gradients = tape.gradient(expected, variables)
    with tf.GradientTape() as tape:
        window = tf.concat([ids, targets[:, -1:]], axis=1)
        logits, _ = forward(model, window[:, :-1], zero_state(config, B))
        labels = targets.T.reshape(-1)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, variables)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), tf.convert_to_tensor(other), rtol=1e-4, atol=1e-5)


@both_sizes
@both_inputs
@both_cells
def test_gradients_are_float32_also_with_bfloat16_products(cell, embedding_size, large, monkeypatch):
    call_large(monkeypatch, large)
    config = config_of(cell, embedding_size=embedding_size)
    model, window, found = build_model(config, B), tf.constant(ids_of(B, T + 1)), []
    variables = [variable.value for variable in model.trainable_variables]
    for engine in (Engine.FLOAT32, Engine.BFLOAT16):
        with tf.GradientTape() as tape:
            nats, _ = character_losses(model, window, zero_state(config, B), engine=engine)
        found.append([tf.convert_to_tensor(gradient) for gradient in tape.gradient(nats, variables)])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == tf.float32
        np.testing.assert_allclose(rounded, exact, rtol=0, atol=0.02 * np.abs(exact).max())


@both_sizes
def test_the_gradient_of_a_look_up_is_that_of_gather(large, monkeypatch):
    call_large(monkeypatch, large)
    table, ids = tf.random.stateless_normal((V, 3), (1, 2)), tf.constant(ids_of(T, B))
    ids = tf.concat([ids, ids[:1], ids[:1]], axis=0)  # characters that occur twice
    of_loss = tf.random.stateless_normal((T + 2, B, 3), (3, 4))
    gradients = []
    for look_up in (_rows, tf.gather):
        with tf.GradientTape() as tape:
            tape.watch(table)
            rows = look_up(table, ids)
            loss = tf.reduce_sum(rows * of_loss)
        np.testing.assert_array_equal(rows, tf.gather(table, ids))
        gradients.append(tf.convert_to_tensor(tape.gradient(loss, table)))
    np.testing.assert_allclose(*gradients, rtol=1e-6, atol=1e-6)
    assert np.abs(gradients[0]).max() > 0.1


@pytest.mark.parametrize("large", [False, True])
def test_a_large_vocabulary_is_never_made_one_hot(large, monkeypatch):
    call_large(monkeypatch, large)
    made = []
    one_hot = tf.one_hot
    monkeypatch.setattr(tf, "one_hot", lambda *args, **kwargs: made.append(args) or one_hot(*args, **kwargs))
    table = tf.ones((V, 3))
    with tf.GradientTape() as tape:
        tape.watch(table)
        loss = tf.reduce_sum(_rows(table, tf.constant(ids_of(T, B))))
    tape.gradient(loss, table)
    assert bool(made) is not large


@both_cells
def test_a_model_is_built_without_weights_that_are_replaced(cell, monkeypatch):
    def decompose(*arguments, **settings):
        raise AssertionError("a QR decomposition")

    with monkeypatch.context() as patch:
        patch.setattr(keras.initializers.Orthogonal, "__call__", decompose)
        model = build_model(config_of(cell), B)
    again = keras.models.clone_model(model).get_layer(f"{cell}_0").cell.recurrent_kernel
    np.testing.assert_allclose(again @ tf.transpose(again), np.eye(H), atol=1e-5)


@both_inputs
@both_cells
def test_one_character_projects_its_own_row_only(cell, embedding_size):
    config = config_of(cell, embedding_size=embedding_size)
    model, ids, state = build_model(config, B), tf.constant(ids_of(B, 1)[:, 0]), zero_state(config, B)
    one = tf.function(lambda ids, state: advance(model, None, ids, state))
    through_table = advance(model, input_table(model), ids, state)
    np.testing.assert_allclose(flat(one(ids, state)), flat(through_table), rtol=0, atol=1e-6)
    products = [op for op in one.get_concrete_function(ids, state).graph.get_operations() if op.type == "MatMul"]
    assert products
    assert {op.outputs[0].shape[0] for op in products} == {B}


@both_inputs
@both_cells
def test_characters_one_by_one_equal_forward(cell, embedding_size):
    config = config_of(cell, embedding_size=embedding_size)
    model, ids = build_model(config, B), ids_of(B, 3 * T)
    expected, expected_state = forward(model, tf.constant(ids), zero_state(config, B))
    table, state, logits = input_table(model), zero_state(config, B), []
    for t in range(3 * T):
        outputs, state = advance(model, table, tf.constant(ids[:, t]), state)
        logits.append(model.get_layer("logits")(outputs))
    np.testing.assert_allclose(tf.concat(logits, axis=0), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(flat(state), flat(expected_state), rtol=0, atol=1e-6)
    assert table.shape == (V, (4 if cell == "lstm" else 3) * H)


@both_cells
def test_forward_in_two_halves_is_forward_in_one(cell):
    config = config_of(cell)
    model, ids = build_model(config, B), tf.constant(ids_of(B, 2 * T))
    whole, state = forward(model, ids, zero_state(config, B))
    first, between = forward(model, ids[:, :T], zero_state(config, B))
    second, after = forward(model, ids[:, T:], between)
    np.testing.assert_allclose(tf.concat([first, second], axis=0), whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(flat(after), flat(state), rtol=0, atol=1e-6)


@pytest.mark.slow
@both_inputs
@both_cells
def test_forward_by_keras_own_loops_equals_forward(cell, embedding_size, monkeypatch):
    config = config_of(cell, embedding_size=embedding_size)
    model, ids = build_model(config, B), tf.constant(ids_of(B, 3 * T))
    state = [tuple(part + 0.1 for part in layer) for layer in zero_state(config, B)]
    found = []
    for engine in (Engine.FLOAT32, Engine.CUDNN):
        with tf.GradientTape() as tape:
            logits, after = forward(model, ids, state, lambda n, outputs: outputs * (n + 0.5), engine)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        found.append(flat([logits, after]) + [tf.convert_to_tensor(gradient).numpy() for gradient in gradients])
        monkeypatch.setattr(type(model_module.recurrent_layers(model)[0]), "scan", None)  # must not be called
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_dropout_receives_each_layers_number_and_outputs_and_replaces_them():
    config = config_of()
    model, ids = build_model(config, B), tf.constant(ids_of(B, T))
    seen = []

    def drop_all(n, outputs):
        seen.append((n, tuple(outputs.shape)))
        return tf.zeros_like(outputs)

    logits, state = forward(model, ids, zero_state(config, B), drop_all)
    assert seen == [(0, (T, B, H)), (1, (T, B, H))]
    np.testing.assert_allclose(logits, np.tile(model.get_layer("logits").bias, (T * B, 1)), rtol=0, atol=0)
    _, undropped = forward(model, ids, zero_state(config, B))
    np.testing.assert_array_equal(state[0], undropped[0])  # the first layer's own state is before any dropout
    assert not np.allclose(state[1], undropped[1])


def test_the_model_is_an_ordinary_stateful_keras_model():
    model = build_model(config_of(dropout=0.5), B)
    assert isinstance(model, keras.Model)
    assert [layer.name for layer in model.layers if layer.name != "one_hot"] == [
        "ids", "lstm_0", "dropout_0", "lstm_1", "dropout_1", "logits", "softmax",
    ]  # fmt: skip
    assert [layer.stateful for layer in model_module.recurrent_layers(model)] == [True, True]
    assert [model.get_layer(f"dropout_{n}").rate for n in range(L)] == [0.5, 0.5]
    probabilities = model(ids_of(B, T))
    assert probabilities.shape == (B, T, V)
    np.testing.assert_allclose(tf.reduce_sum(probabilities, axis=-1), np.ones((B, T)), rtol=1e-6)


@both_cells
def test_each_row_of_a_batch_is_computed_alone(cell):
    config = config_of(cell, embedding_size=5)
    one, many = build_model(config, 1, seed=3), build_model(config, 6, seed=3)
    ids = ids_of(6, T)
    alone = [forward(one, tf.constant(row[None]), zero_state(config, 1))[0] for row in ids]
    together = tf.reshape(forward(many, tf.constant(ids), zero_state(config, 6))[0], (T, 6, V))
    np.testing.assert_allclose(tf.stack(alone, axis=1), together, rtol=0, atol=1e-6)


def test_weights_have_names_that_do_not_depend_on_keras():
    model = build_model(config_of("gru", embedding_size=5), B)
    assert {name: tuple(value.shape) for name, value in weights(model).items()} == {
        "embedding.embeddings": (V, 5),
        "gru_0.kernel": (5, 3 * H), "gru_0.recurrent_kernel": (H, 3 * H), "gru_0.bias": (2, 3 * H),
        "gru_1.kernel": (H, 3 * H), "gru_1.recurrent_kernel": (H, 3 * H), "gru_1.bias": (2, 3 * H),
        "logits.kernel": (H, V), "logits.bias": (V,),
    }  # fmt: skip
    first = list(weights(build_model(config_of(num_layers=1), B)))
    assert first == ["lstm_0.kernel", "lstm_0.recurrent_kernel", "lstm_0.bias", "logits.kernel", "logits.bias"]


def test_weights_are_the_models_own_variables():
    model = build_model(config_of(), B)
    weights(model)["logits.bias"].assign(tf.fill([V], 7.0))
    assert model.get_layer("logits").get_weights()[1].tolist() == [7.0] * V


@pytest.mark.parametrize(
    ("cell", "names"),
    [("lstm", ["hidden_0", "cell_0", "hidden_1", "cell_1"]), ("gru", ["hidden_0", "hidden_1"])],
)
def test_state_names_and_zero_state_agree(cell, names):
    config = config_of(cell)
    state = zero_state(config, B)
    assert state_names(config) == names
    assert [part.shape for part in flat(state)] == [(B, H)] * len(names)
    assert not np.any(flat(state))
    _, after = forward(build_model(config, B), tf.constant(ids_of(B, T)), state)
    assert [len(layer) for layer in after] == [len(layer) for layer in state]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("size", "shards"), [(6, 3), (7, 3), (5, 1), (2, 4), (0, 2)])
def test_shards_are_in_order_and_sizes_differ_by_at_most_one(size, shards, dynamic):
    whole = tf.reshape(tf.range(2 * size), (size, 2))
    spec = tf.TensorSpec([None if dynamic else size, 2], tf.int32)
    cut = tf.function(
        lambda whole: [shard(whole, n, shards) for n in range(shards)], autograph=False, input_signature=[spec]
    )
    parts = [part.numpy() for part in cut(whole)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_text_of_lines_begins_with_exactly_one_newline():
    lines, plain = SimpleNamespace(line_start=4), SimpleNamespace()
    for text, expected in [([2, 3], [4, 2, 3]), ([4, 2], [4, 2]), ([4, 4], [4, 4]), ([], [4])]:
        ids = np.array(text, np.uint8)
        assert begun(lines, ids).tolist() == expected
        assert begun(lines, ids).dtype == np.uint8
        assert begun(plain, ids) is ids
