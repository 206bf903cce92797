"""The Keras model and the pure forward pass agree, and weights begin as each `init` says."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network import model as model_module
from charrnn_tf.network.cells import Engine
from charrnn_tf.network.initializers import initialize
from charrnn_tf.network.model import (
    _rows,
    build_model,
    character_losses,
    forward,
    input_table,
    shard,
    state_names,
    step,
    weights,
    zero_state,
)
from charrnn_tf.settings.schema import INITS, ModelConfig

V, H, L, B, T = 11, 8, 2, 2, 4

both_cells = pytest.mark.parametrize("cell", ["lstm", "gru"])
both_inputs = pytest.mark.parametrize("embedding_size", [0, 5], ids=["one-hot", "embedding"])
both_sizes = pytest.mark.parametrize("large", [False, True], ids=["small", "large"])


def config_of(cell="lstm", **changes):
    # pytorch: of all the inits the one whose recurrent biases are not zero
    return ModelConfig(**{"vocab_size": V, "cell": cell, "hidden_size": H, "num_layers": L, "init": "pytorch"} | changes)


def ids_of(*shape, seed=0, vocab_size=V):
    return np.random.default_rng(seed).integers(vocab_size, size=shape, dtype=np.int32)


def flat(state):
    return [part.numpy() for part in tf.nest.flatten(state)]


def call_large(monkeypatch, large):
    """Makes the test's vocabulary count as a large one."""
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
def test_forwards_gradient_is_that_of_the_stateful_call(cell, embedding_size, large, monkeypatch):
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
def test_the_gradient_of_rows_is_that_of_gather(large, monkeypatch):
    call_large(monkeypatch, large)
    table, ids = tf.random.stateless_normal((V, 3), (1, 2)), tf.constant(ids_of(T, B))
    ids = tf.concat([ids, ids[:1], ids[:1]], axis=0)  # characters that come again
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


@both_inputs
@both_cells
def test_steps_character_by_character_equal_forward(cell, embedding_size):
    config = config_of(cell, embedding_size=embedding_size)
    model, ids = build_model(config, B), ids_of(B, 3 * T)
    expected, expected_state = forward(model, tf.constant(ids), zero_state(config, B))
    table, state, logits = input_table(model), zero_state(config, B), []
    for t in range(3 * T):
        outputs, state = step(model, table, tf.constant(ids[:, t]), state)
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
    for engine in (Engine(), Engine(cudnn=True)):
        with tf.GradientTape() as tape:
            logits, after = forward(model, ids, state, lambda n, outputs: outputs * (n + 0.5), engine)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        found.append(flat([logits, after]) + [tf.convert_to_tensor(gradient).numpy() for gradient in gradients])
        monkeypatch.setattr(type(model_module.recurrent_layers(model)[0]), "scan", None)  # must not be called
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_dropout_is_given_each_layers_number_and_outputs_and_changes_what_goes_on():
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


@pytest.mark.slow
@pytest.mark.parametrize("init", INITS)
@both_cells
def test_the_same_weights_at_any_batch_size(cell, init):
    config = config_of(cell, init=init, embedding_size=5)
    one, many = build_model(config, 1, seed=3), build_model(config, 6, seed=3)
    for ours, theirs in zip(one.get_weights(), many.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ids = ids_of(6, T)
    alone = [forward(one, tf.constant(row[None]), zero_state(config, 1))[0] for row in ids]
    together = tf.reshape(forward(many, tf.constant(ids), zero_state(config, 6))[0], (T, 6, V))
    np.testing.assert_allclose(tf.stack(alone, axis=1), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("init", INITS)
@both_cells
def test_a_seed_reproduces_the_weights_and_another_changes_them(cell, init):
    config = config_of(cell, init=init, embedding_size=5)
    model = build_model(config, B, seed=1)
    first = model.get_weights()
    initialize(model, config, 2)
    second = model.get_weights()
    tf.random.set_seed(9)  # what was drawn elsewhere does not count
    initialize(model, config, 1)
    names = list(weights(model))
    for name, a, b, again in zip(names, first, second, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, again)
        assert np.array_equal(a, b) == (not np.unique(a - a.round()).any()), name  # only constants are the same


@pytest.mark.parametrize("init", INITS)
@both_cells
def test_no_two_weights_are_drawn_alike(cell, init):
    model = build_model(config_of(cell, init=init, vocab_size=H, embedding_size=H), B)
    kernels = [value.numpy() for name, value in weights(model).items() if "kernel" in name or "embeddings" in name]
    assert len(kernels) == 2 * L + 2
    for a, b in itertools.combinations(kernels, 2):
        shared = min(a.shape[1], b.shape[1])
        assert abs(np.corrcoef(a[:, :shared].ravel(), b[:, :shared].ravel())[0, 1]) < 0.7


# Sizes at which moments are sure enough: H=64, V=50, E=40.
WIDE = {"vocab_size": 50, "hidden_size": 64, "num_layers": 2, "embedding_size": 40}


def drawn(cell, init):
    """All weights by name as arrays, of a model wide enough for their moments."""
    values = weights(build_model(ModelConfig(cell=cell, init=init, **WIDE), 1, seed=5))
    return {name: value.numpy() for name, value in values.items()}


def assert_uniform(values, limit):
    """Bounds and standard deviation of U(-limit, limit)."""
    assert 0.9 * limit < np.abs(values).max() <= limit * (1 + 1e-6)
    assert abs(values.mean()) < 5 * limit / math.sqrt(3 * values.size)
    assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.15 if values.size < 1000 else 0.05)


def glorot(shape):
    return math.sqrt(6 / sum(shape))


def forget_bias(cell, of):
    """Zeros but for ones at the LSTM's forget gate, or at both of a GRU's gates (in the inputs' bias)."""
    bias = np.zeros_like(of)
    if cell == "lstm":
        bias[64:128] = 1
    else:
        bias[0, :128] = 1
    return bias


@both_cells
def test_keras_init(cell):
    values = drawn(cell, "keras")
    assert_uniform(values["embedding.embeddings"], 0.05)
    for n in range(2):
        kernel, recurrent = values[f"{cell}_{n}.kernel"], values[f"{cell}_{n}.recurrent_kernel"]
        assert_uniform(kernel, glorot(kernel.shape))
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(64), atol=1e-5)
        bias = values[f"{cell}_{n}.bias"]
        np.testing.assert_array_equal(bias, forget_bias(cell, bias) if cell == "lstm" else np.zeros_like(bias))
    assert_uniform(values["logits.kernel"], glorot((64, 50)))
    assert not values["logits.bias"].any()


@pytest.mark.parametrize("init", ["pytorch", "wide"])
@both_cells
def test_pytorch_and_wide_init(cell, init):
    values, limit = drawn(cell, init), 1 / 8
    embeddings = values["embedding.embeddings"]
    assert embeddings.std() == pytest.approx(1, rel=0.05)
    assert 3 < np.abs(embeddings).max() < 6
    for n in range(2):
        assert_uniform(values[f"{cell}_{n}.kernel"], limit)
        assert_uniform(values[f"{cell}_{n}.recurrent_kernel"], limit)
        bias = values[f"{cell}_{n}.bias"]
        if cell == "gru":
            assert bias.shape == (2, 192)
            for row in bias:
                assert_uniform(row, limit)
        else:  # the sum of two draws
            assert limit < np.abs(bias).max() <= 2 * limit
            assert bias.std() == pytest.approx(limit * math.sqrt(2 / 3), rel=0.15)
            assert abs(bias[64:128].mean()) < limit / 2  # no forget bias of 1
    if init == "wide":
        assert_uniform(values["logits.kernel"], 1)
        assert not values["logits.bias"].any()
    else:
        assert_uniform(values["logits.kernel"], limit)
        assert 0 < np.abs(values["logits.bias"]).max() <= limit
        assert np.unique(values["logits.bias"]).size == 50


@both_cells
def test_tf1_init(cell):
    values, gates = drawn(cell, "tf1"), 4 if cell == "lstm" else 3
    assert_uniform(values["embedding.embeddings"], 0.05)
    for n, inputs in enumerate([40, 64]):
        limit = math.sqrt(6 / (inputs + 64 + gates * 64))  # of inputs and hidden state as one matrix
        assert_uniform(values[f"{cell}_{n}.kernel"], limit)
        assert_uniform(values[f"{cell}_{n}.recurrent_kernel"], limit)
        bias = values[f"{cell}_{n}.bias"]
        np.testing.assert_array_equal(bias, forget_bias(cell, bias))
    dense = values["logits.kernel"]
    assert 0.15 < np.abs(dense).max() <= 0.2  # cut at two deviations
    assert dense.std() == pytest.approx(0.088, rel=0.05)  # of a normal of 0.1 so cut: 0.8796 of it
    assert not values["logits.bias"].any()


@pytest.mark.parametrize("init", INITS)
def test_one_hot_input_is_drawn_by_the_same_rule(init):
    kernel = weights(build_model(config_of(init=init, vocab_size=50, hidden_size=64), 1))["lstm_0.kernel"].numpy()
    limit = {"keras": glorot((50, 256)), "tf1": math.sqrt(6 / (50 + 64 + 256))}.get(init, 1 / 8)
    assert_uniform(kernel, limit)


def test_weights_have_names_of_our_own():
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
def test_state_names_and_zero_state_go_together(cell, names):
    config = config_of(cell)
    state = zero_state(config, B)
    assert state_names(config) == names
    assert [part.shape for part in flat(state)] == [(B, H)] * len(names)
    assert not np.any(flat(state))
    _, after = forward(build_model(config, B), tf.constant(ids_of(B, T)), state)
    assert [len(layer) for layer in after] == [len(layer) for layer in state]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("size", "shards"), [(6, 3), (7, 3), (5, 1), (2, 4), (0, 2)])
def test_shards_are_the_whole_in_order_and_nearly_equal(size, shards, dynamic):
    whole = tf.reshape(tf.range(2 * size), (size, 2))
    spec = tf.TensorSpec([None if dynamic else size, 2], tf.int32)
    cut = tf.function(
        lambda whole: [shard(whole, n, shards) for n in range(shards)], autograph=False, input_signature=[spec]
    )
    parts = [part.numpy() for part in cut(whole)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
