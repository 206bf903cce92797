"""The fast LSTM and GRU against Keras's own, against NumPy and against finite differences; products in bfloat16."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn_tf.network import cells as layers
from charrnn_tf.network.cells import GRU, LSTM
from charrnn_tf.network.products import dense_losses, linear, product

OURS = {"lstm": LSTM, "gru": GRU}
KERAS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
STATES = {"lstm": 2, "gru": 1}
GATES = {"lstm": 4, "gru": 3}

both_cells = pytest.mark.parametrize("cell", OURS)
B, T, F, H = 2, 4, 3, 8


def random(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def pair(cell, units, features, **arguments):
    """One of our layers and Keras's with the same weights, drawn from the sizes alone."""
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


def outputs_and_gradients(layer, inputs, state, weights_of_loss):
    """Outputs and states, and the gradients of their weighted sum with respect to inputs, states and weights."""
    inputs = tf.convert_to_tensor(inputs)
    with tf.GradientTape() as tape:
        tape.watch([inputs, *state])
        results = layer(inputs, initial_state=state)
        loss = tf.add_n([tf.reduce_sum(result * w) for result, w in zip(results, weights_of_loss, strict=True)])
    return results, tape.gradient(loss, [inputs, *state, *(variable.value for variable in layer.trainable_variables)])


@pytest.mark.slow
@both_cells
@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 9), steps=st.integers(1, 40), units=st.integers(1, 65), features=st.integers(1, 9))
def test_outputs_and_gradients_are_those_of_keras(cell, batch, steps, units, features):
    inputs, state = random(1, batch, steps, features), states_of(cell, 2, batch, units)
    of_loss = [random(5, batch, steps, units), *(random(6 + n, batch, units) for n in range(STATES[cell]))]
    ours, theirs = pair(cell, units, features)
    results, gradients = outputs_and_gradients(ours, inputs, state, of_loss)
    expected_results, expected_gradients = outputs_and_gradients(theirs, inputs, state, of_loss)
    assert_close(results, list(expected_results), 1e-5)
    assert_close(gradients, expected_gradients, 1e-4)


def gradients_of(compute, layer, inputs, state):
    """Outputs and states of `compute(inputs, state)`, and the gradients of their weighted sum as above."""
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch([inputs, *state])
        results = tf.nest.flatten(compute(inputs, state))
        loss = tf.add_n([tf.reduce_sum(result * random(9 + n, *result.shape)) for n, result in enumerate(results)])
    return results, tape.gradient(loss, [inputs, *state, *(variable.value for variable in layer.trainable_variables)])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(projected, kernel, hidden, cell):
    outputs = []
    for x in projected:
        i, f, g, o = np.split(x + hidden @ kernel, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs), (hidden, cell)


def numpy_gru(projected, kernel, bias, hidden):
    outputs = []
    for x in projected:
        x_z, x_r, x_g = np.split(x, 3, axis=1)
        h_z, h_r, h_g = np.split(hidden @ kernel + bias, 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        hidden = z * hidden + (1 - z) * np.tanh(x_g + r * h_g)
        outputs.append(hidden)
    return np.stack(outputs), (hidden,)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@both_cells
def test_scan_is_the_equations(cell, graph):
    layer = one(cell)
    projected, state = random(1, T, B, GATES[cell] * H), tuple(states_of(cell, 2, B, H))
    _, recurrent, bias = layer.get_weights()
    arrays = [part.numpy() for part in state]
    expected = (
        numpy_lstm(projected, recurrent, *arrays)
        if cell == "lstm"
        else numpy_gru(projected, recurrent, [*[0] * 2 * H, *bias[1, 2 * H :]], *arrays)
    )
    scan = tf.function(layer.scan, autograph=False) if graph else layer.scan
    outputs, after = scan(tf.constant(projected), state)
    assert_close((outputs, after), expected, 1e-6)
    assert outputs.dtype == tf.float32


@both_cells
def test_project_is_the_kernels_product_plus_the_inputs_bias(cell):
    layer = one(cell)
    kernel, _, bias = layer.get_weights()
    input_bias = bias if cell == "lstm" else bias[0] + [*bias[1, : 2 * H], *[0] * H]  # what adds to the products alone
    for shape in [(F,), (B, F), (T, B, F)]:
        inputs = random(3, *shape)
        projected = layer.project(tf.constant(inputs))
        assert projected.shape == (*shape[:-1], GATES[cell] * H)
        assert_close(projected, inputs @ kernel + input_bias, 1e-6)
    assert_close(layer.add_bias(tf.constant(kernel)), kernel + input_bias, 1e-6)


def tiny(cell):
    """The loop's function and its arguments as float64: three steps, two streams, two units."""
    shapes = {"projected": (3, 2, 2 * GATES[cell]), "kernel": (2, 2 * GATES[cell])}
    shapes |= {"hidden": (2, 2), "cell": (2, 2)} if cell == "lstm" else {"bias": (2,), "hidden": (2, 2)}
    function = (layers._lstm if cell == "lstm" else layers._gru)(None)
    return function, [random(n, *shape, dtype=np.float64) for n, shape in enumerate(shapes.values())]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["everything", "outputs", "state"])
@both_cells
def test_the_gradient_is_that_of_finite_differences(cell, part):
    function, arguments = tiny(cell)
    drawn = [random(9 + n, *shape, dtype=np.float64) for n, shape in enumerate([(3, 2, 2), *[(2, 2)] * STATES[cell]])]
    of_loss = [w * (part == "everything" or (part == "outputs") == (n == 0)) for n, w in enumerate(drawn)]

    @tf.function(autograph=False)
    def loss(*arguments):
        return tf.add_n([tf.reduce_sum(result * w) for result, w in zip(function(*arguments), of_loss, strict=True)])

    tensors = [tf.constant(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(*tensors)
    gradients = tape.gradient(value, tensors)
    assert value.dtype == tf.float64
    for n, argument in enumerate(arguments):
        expected = np.empty_like(argument)
        for place in np.ndindex(argument.shape):
            nudged = argument.copy()
            nudged[place] += 1e-6
            above = loss(*tensors[:n], tf.constant(nudged), *tensors[n + 1 :])
            nudged[place] -= 2e-6
            below = loss(*tensors[:n], tf.constant(nudged), *tensors[n + 1 :])
            expected[place] = (above - below) / 2e-6
        np.testing.assert_allclose(gradients[n], expected, rtol=1e-7, atol=1e-8)
        assert np.abs(expected).max() > 1e-3  # the argument does reach the loss


@both_cells
def test_steps_one_by_one_equal_scan(cell):
    layer = one(cell)
    projected, state = tf.constant(random(1, T, B, GATES[cell] * H)), tuple(states_of(cell, 2, B, H))
    expected_outputs, expected_state = layer.scan(projected, state)
    outputs = []
    for t in range(T):
        output, state = layer.step(projected[t], state)
        outputs.append(output)
    assert_close((tf.stack(outputs), state), (expected_outputs, expected_state), 1e-6)


@both_cells
def test_a_stateful_layer_goes_on_where_it_stopped(cell):
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
def test_without_return_sequences_the_last_output_comes(cell):
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
    assert_close(masked[0][0, 1], masked[0][0, 3], 0)  # what is masked leaves the output as it was


@both_cells
def test_a_layer_in_a_keras_file_comes_back_as_ours_with_its_weights(cell, tmp_path, monkeypatch):
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


# What computes: products in bfloat16, Keras's own loops


def rounded(array):
    return tf.cast(tf.cast(array, tf.bfloat16), tf.float32)


@pytest.mark.parametrize("transposed", [{}, {"transpose_a": True}, {"transpose_b": True}])
def test_a_product_in_bfloat16_is_that_of_the_rounded_factors(transposed):
    a, b = random(1, 32, 32), random(2, 32, 32)
    result = product(a, b, tf.bfloat16, **transposed)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, tf.matmul(rounded(a), rounded(b), **transposed), rtol=2**-7, atol=1e-5)
    assert np.abs(result - tf.matmul(a, b, **transposed)).max() > 0.005


def test_a_product_without_a_precision_keeps_the_factors_type():
    a, b = random(1, 5, 6, dtype=np.float64), random(2, 6, 7, dtype=np.float64)
    result = product(tf.constant(a), tf.constant(b))
    assert result.dtype == tf.float64
    np.testing.assert_allclose(result, a @ b, rtol=1e-12, atol=1e-12)


@both_cells
def test_scan_in_bfloat16_is_close_to_float32_and_so_are_the_gradients(cell):
    batch, steps, units, features = 16, 20, 32, 12
    layer, _ = pair(cell, units, features)
    inputs, state = random(1, steps, batch, features), states_of(cell, 2, batch, units)

    def run(precision):
        return gradients_of(
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
def test_columns_to_spare_change_nothing_but_roundings(cell, monkeypatch):
    """Where rows collide in the cache of a processor with AVX2 alone, products are of padded factors."""
    layer, _ = pair(cell, 128, 12)  # recurrent kernels whose rows are multiples of 128 numbers, both ways
    inputs, state = random(1, 6, 5, 12), states_of(cell, 2, 5, 128)
    widths = []
    monkeypatch.setattr(
        tf, "matmul", lambda a, b, *, matmul=tf.matmul, **how: widths.append(b.shape[1]) or matmul(a, b, **how)
    )

    def run(padded):
        monkeypatch.setattr(layers, "only_avx2", lambda: padded)
        widths.clear()
        everything = gradients_of(
            lambda inputs, state: layer.scan(layer.project(inputs), tuple(state)), layer, inputs, state
        )
        return everything, any(width % 128 == layers.SPARE_COLUMNS for width in widths)

    (plain, plain_gradients), padded = run(False)
    assert not padded
    (results, gradients), padded = run(True)
    assert padded
    assert_close((results, gradients), (plain, plain_gradients), 1e-5)


def test_linears_gradients_are_those_of_a_product_plus_a_bias():
    tensors = [tf.constant(random(n, *shape, dtype=np.float64)) for n, shape in enumerate([(5, 3), (3, 4), (4,)])]
    found = []
    for function in (linear(None), lambda x, kernel, bias: x @ kernel + bias):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
            loss = tf.reduce_sum(outputs * random(5, 5, 4, dtype=np.float64))
        found.append((outputs, tape.gradient(loss, tensors)))
    assert_close(*found, 1e-12)


@both_cells
def test_keras_scan_is_project_and_scan(cell, monkeypatch):
    layer = one(cell)
    inputs, state = random(1, 3 * T, B, F), states_of(cell, 2, B, H)
    expected = gradients_of(lambda inputs, state: layer.scan(layer.project(inputs), tuple(state)), layer, inputs, state)
    monkeypatch.setattr(OURS[cell], "scan", None)  # Keras's loop, not ours
    assert_close(gradients_of(layer.keras_scan, layer, inputs, state), expected, 1e-5)


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])  # at 60 the likeliest of some rows have all the probability
@pytest.mark.parametrize("precision", [None, tf.bfloat16])
def test_losses_of_a_large_vocabulary_are_those_of_tensorflows_own_operation(scale, precision):
    draw = np.random.default_rng(0)
    inputs, kernel, bias = (tf.constant(draw.normal(size=size) * scale, tf.float32) for size in ((12, 5), (5, 40), (40,)))
    targets, weights = tf.constant(draw.integers(40, size=12), tf.int32), tf.constant(draw.random(12), tf.float32)

    def plain(inputs, kernel, bias):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, linear(precision)(inputs, kernel, bias))

    def ours(inputs, kernel, bias):
        return dense_losses(precision)(inputs, kernel, bias, targets)

    @tf.function(autograph=False)
    def derived(losses):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel, bias))
            nats = losses(inputs, kernel, bias)
            total = tf.reduce_sum(weights * nats)
        return nats, *tape.gradient(total, (inputs, kernel, bias))

    for name, expected, found in zip(("nats", "inputs", "kernel", "bias"), derived(plain), derived(ours), strict=True):
        atol = np.abs(expected).max() * (1e-5 if precision is None else 1e-2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol, err_msg=name)
