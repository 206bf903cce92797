"""The LSTM and GRU layers against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network import products
from charrnn_tf.network.cells import GRU, LSTM

OURS = {"lstm": LSTM, "gru": GRU}
KERAS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
STATES = {"lstm": 2, "gru": 1}
GATES = {"lstm": 4, "gru": 3}

both_cells = pytest.mark.parametrize("cell", OURS)
B, T, F, H = 2, 4, 3, 8


def random(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def pair(cell, units, features, **arguments):
    """One of our layers and Keras's with the same weights, which depend on the sizes alone."""
    made = [kinds[cell](units, return_sequences=True, return_state=True, **arguments) for kinds in (OURS, KERAS)]
    for layer in made:
        layer.build((B, None, features))
        layer.set_weights([random(n, *weight.shape) / np.sqrt(units) for n, weight in enumerate(layer.get_weights())])
    return made


def one(cell, **arguments):
    return pair(cell, H, F, **arguments)[0]


def states_of(cell, seed, batch, units):
    return [tf.constant(random(seed + n, batch, units)) for n in range(STATES[cell])]


def assert_close(ours, theirs, tolerance):
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def outputs_and_gradients(compute, layer, inputs, state):
    """Outputs and states of `compute(inputs, state)`, and the gradients of a weighted sum of them.

    The gradients are those with respect to inputs, states and the layer's weights.
    """
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch([inputs, *state])
        results = tf.nest.flatten(compute(inputs, state))
        loss = tf.add_n([tf.reduce_sum(result * random(9 + n, *result.shape)) for n, result in enumerate(results)])
    return results, tape.gradient(loss, [inputs, *state, *(variable.value for variable in layer.trainable_variables)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "steps", "units", "features"), [(1, 1, 1, 1), (9, 1, 65, 2), (1, 12, 8, 9), (5, 40, 33, 1)]
)
@both_cells
def test_outputs_and_gradients_are_those_of_keras(cell, batch, steps, units, features):
    inputs, state = random(1, batch, steps, features), states_of(cell, 2, batch, units)
    (results, gradients), (expected_results, expected_gradients) = (
        outputs_and_gradients(lambda inputs, state, layer=layer: layer(inputs, initial_state=state), layer, inputs, state)
        for layer in pair(cell, units, features)
    )
    assert_close(results, expected_results, 1e-5)
    assert_close(gradients, expected_gradients, 1e-4)


@both_cells
def test_project_is_inputs_times_kernel_plus_input_bias(cell):
    layer = one(cell)
    kernel, _, bias = layer.get_weights()
    input_bias = bias if cell == "lstm" else bias[0] + [*bias[1, : 2 * H], *[0] * H]  # of z and r both biases
    for shape in [(F,), (B, F), (T, B, F)]:
        inputs = random(3, *shape)
        projected = layer.project(tf.constant(inputs))
        assert projected.shape == (*shape[:-1], GATES[cell] * H)
        assert_close(projected, inputs @ kernel + input_bias, 1e-6)
    assert_close(layer.add_bias(tf.constant(kernel)), kernel + input_bias, 1e-6)


@both_cells
def test_characters_one_by_one_equal_scan(cell):
    layer = one(cell)
    projected, state = tf.constant(random(1, T, B, GATES[cell] * H)), tuple(states_of(cell, 2, B, H))
    expected_outputs, expected_state = layer.scan(projected, state)
    outputs = []
    for t in range(T):
        output, state = layer.advance(projected[t], state)
        outputs.append(output)
    assert_close((tf.stack(outputs), state), (expected_outputs, expected_state), 1e-6)


@both_cells
def test_a_stateful_layer_carries_its_state_from_window_to_window(cell):
    ours, theirs = pair(cell, H, F, stateful=True)
    inputs = random(1, B, 3 * T, F)
    whole = [part.numpy() for part in one(cell)(inputs)]
    for layer in (ours, theirs):
        windows = [layer(inputs[:, start : start + T]) for start in range(0, 3 * T, T)]
        assert_close(np.concatenate([window[0] for window in windows], axis=1), whole[0], 1e-6)
        assert_close([state.value for state in layer.states], whole[1:], 1e-6)
    ours.reset_state()
    assert_close(ours(inputs[:, :T])[0], whole[0][:, :T], 1e-6)


@both_cells
def test_without_return_sequences_a_layer_returns_the_last_output(cell):
    inputs = random(1, B, T, F)
    layer = one(cell)
    outputs, *_ = layer(inputs)
    layer.return_sequences = layer.return_state = False
    assert_close(layer(inputs), outputs[:, -1], 0)


@both_cells
def test_ordinary_settings_use_the_fast_loop(cell, monkeypatch):
    def scan(self, projected, state):
        raise NotImplementedError("the fast loop")

    monkeypatch.setattr(OURS[cell], "scan", scan)
    with pytest.raises(NotImplementedError, match="the fast loop"):
        one(cell)(random(1, B, T, F))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("cell", "setting"),
    [
        *[
            (cell, setting)
            for cell in OURS
            for setting in (
                {"go_backwards": True},
                {"unroll": True},
                {"dropout": 0.5, "seed": 3},
                {"recurrent_dropout": 0.5, "seed": 3},
                {"use_bias": False},
                {"activation": "relu"},
                {"recurrent_activation": "hard_sigmoid"},
            )
        ],
        ("gru", {"reset_after": False}),
    ],
)
def test_unusual_settings_fall_back_to_keras_and_match_it(cell, setting, training, monkeypatch):
    monkeypatch.setattr(OURS[cell], "scan", None)  # must not be called
    ours, theirs = pair(cell, H, F, **setting)
    inputs = random(1, B, T, F)
    assert_close(list(ours(inputs, training=training)), list(theirs(inputs, training=training)), 1e-6)


@both_cells
def test_a_mask_falls_back_to_keras_and_matches_it(cell, monkeypatch):
    monkeypatch.setattr(OURS[cell], "scan", None)  # must not be called
    ours, theirs = pair(cell, H, F)
    inputs, mask = random(1, B, T, F), np.array([[True, True, False, False], [True, False, True, True]])
    masked, expected = ours(inputs, mask=mask), theirs(inputs, mask=mask)
    assert_close(list(masked), list(expected), 1e-6)
    assert_close(masked[0][0, 1], masked[0][0, 3], 0)  # a masked step repeats the output


@both_cells
def test_a_layer_survives_a_keras_file(cell, tmp_path, monkeypatch):
    model = keras.Sequential(
        [keras.Input(batch_shape=(B, T, F)), OURS[cell](H, return_sequences=True, stateful=True, name="recurrent")]
    )
    inputs = random(1, B, T, F)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    layer = loaded.get_layer("recurrent")
    assert type(layer) is OURS[cell]
    assert layer.get_config() == model.get_layer("recurrent").get_config()
    assert_close([loaded(inputs), loaded(inputs)], [model(inputs), model(inputs)], 0)
    monkeypatch.setattr(OURS[cell], "scan", None)
    with pytest.raises(TypeError, match="not callable"):
        layer(inputs)  # the fast loop again, not Keras's


@pytest.mark.slow
@both_cells
def test_a_layer_trains_in_an_ordinary_keras_model(cell):
    models = [keras.Sequential([keras.Input((T, F)), kinds[cell](H), keras.layers.Dense(1)]) for kinds in (OURS, KERAS)]
    models[1].set_weights(models[0].get_weights())
    losses = []
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), "mse")
        losses.append(model.fit(random(1, 8, T, F), random(2, 8, 1), epochs=3, shuffle=False, verbose=0).history["loss"])
    assert losses[0][-1] < losses[0][0]
    assert_close(losses[0], losses[1], 1e-5)


@both_cells
def test_scan_and_its_gradients_in_bfloat16_are_close_to_float32(cell):
    batch, steps, units, features = 16, 20, 32, 12
    layer, _ = pair(cell, units, features)
    inputs, state = random(1, steps, batch, features), states_of(cell, 2, batch, units)

    def run(precision):
        return outputs_and_gradients(
            lambda inputs, state: layer.scan(layer.project(inputs, precision), tuple(state), precision), layer, inputs, state
        )

    (exact, exact_gradients), (results, gradients) = run(None), run(tf.bfloat16)
    for result, other in zip(results, exact, strict=True):
        assert result.dtype == tf.float32
        assert 1e-4 < np.abs(result - other).max() < 0.02
    for gradient, other in zip(gradients, exact_gradients, strict=True):
        assert gradient.dtype == tf.float32
        a, b = np.ravel(gradient), np.ravel(other)
        assert 0.999 < a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) < 0.9999999
        assert np.linalg.norm(a) == pytest.approx(np.linalg.norm(b), rel=0.02)


@both_cells
def test_padded_columns_change_only_roundings(cell, monkeypatch):
    """On a CPU with AVX2 alone, factors whose rows map to the same cache sets are padded."""
    layer, _ = pair(cell, 128, 12)  # recurrent kernels whose rows are multiples of 128 numbers, both ways
    inputs, state = random(1, 6, 5, 12), states_of(cell, 2, 5, 128)
    widths = []
    monkeypatch.setattr(
        tf, "matmul", lambda a, b, *, matmul=tf.matmul, **how: widths.append(b.shape[1]) or matmul(a, b, **how)
    )

    def run(padded):
        monkeypatch.setattr(products, "only_avx2", lambda: padded)
        widths.clear()
        everything = outputs_and_gradients(
            lambda inputs, state: layer.scan(layer.project(inputs), tuple(state)), layer, inputs, state
        )
        return everything, any(width % 128 == products.SPARE_COLUMNS for width in widths)

    (plain, plain_gradients), padded = run(False)
    assert not padded
    (results, gradients), padded = run(True)
    assert padded
    assert_close((results, gradients), (plain, plain_gradients), 1e-5)


@both_cells
def test_keras_scan_equals_project_and_scan(cell, monkeypatch):
    layer = one(cell)
    inputs, state = random(1, 3 * T, B, F), states_of(cell, 2, B, H)
    expected = outputs_and_gradients(
        lambda inputs, state: layer.scan(layer.project(inputs), tuple(state)), layer, inputs, state
    )
    monkeypatch.setattr(OURS[cell], "scan", None)  # Keras's loop, not ours
    assert_close(outputs_and_gradients(layer.keras_scan, layer, inputs, state), expected, 1e-5)
