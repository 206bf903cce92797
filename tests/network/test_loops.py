"""The LSTM and GRU loops against NumPy, and their gradients against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network.loops import gru_gates, gru_scan, lstm_gates, lstm_scan

SCANS = {"lstm": lstm_scan, "gru": gru_scan}
both_cells = pytest.mark.parametrize("cell", SCANS)


def arguments_of(cell, T, B, H, dtype):
    """Arguments of a loop: projected, kernel, hidden and cell of an LSTM; projected, kernel, bias and hidden of a GRU."""
    G = {"lstm": 4, "gru": 3}[cell] * H
    shapes = [(T, B, G), (H, G), (B, H), (B, H)] if cell == "lstm" else [(T, B, G), (H, G), (H,), (B, H)]
    return [np.random.default_rng(n).uniform(-1, 1, shape).astype(dtype) for n, shape in enumerate(shapes)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(projected, kernel, hidden, cell):
    outputs = []
    for x in projected:
        i, f, g, o = np.split(x + hidden @ kernel, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def numpy_gru(projected, kernel, bias, hidden):
    outputs = []
    for x in projected:
        x_z, x_r, x_g = np.split(x, 3, axis=1)
        h_z, h_r, h_g = np.split(hidden @ kernel, 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        hidden = z * hidden + (1 - z) * np.tanh(x_g + r * (h_g + bias))
        outputs.append(hidden)
    return np.stack(outputs), hidden


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@both_cells
def test_a_loop_computes_the_equations(cell, graph):
    arguments = arguments_of(cell, 4, 2, 8, np.float32)
    expected = {"lstm": numpy_lstm, "gru": numpy_gru}[cell](*arguments)
    scan = tf.function(SCANS[cell], autograph=False) if graph else SCANS[cell]
    for found, each in zip(scan(*map(tf.constant, arguments)), expected, strict=True):
        np.testing.assert_allclose(found, each, rtol=1e-6, atol=1e-6)
        assert found.dtype == tf.float32


@pytest.mark.slow
@both_cells
def test_gradients_equal_finite_differences(cell):
    """Of outputs and states together, of the outputs alone, and of the states alone; in float64."""
    arguments = [tf.constant(each) for each in arguments_of(cell, 3, 2, 2, np.float64)]
    drawn = np.random.default_rng(9)

    @tf.function(autograph=False)
    def losses(*arguments):
        outputs, *state = SCANS[cell](*arguments)
        of_outputs, *of_state = (
            tf.reduce_sum(each * weight) for each, weight in zip((outputs, *state), weights, strict=True)
        )
        return tf.stack([of_outputs + tf.add_n(of_state), of_outputs, tf.add_n(of_state)])

    weights = [drawn.uniform(-1, 1, each.shape) for each in SCANS[cell](*arguments)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        values = losses(*arguments)
    assert values.dtype == tf.float64
    jacobians = tape.jacobian(values, arguments, experimental_use_pfor=False)  # [3, *shape] of each argument
    for n, argument in enumerate(arguments):
        expected = np.empty((3, *argument.shape))
        for place in np.ndindex(*argument.shape):
            nudge = np.zeros(argument.shape)
            nudge[place] = 1e-6
            above, below = (losses(*arguments[:n], argument + sign * nudge, *arguments[n + 1 :]) for sign in (1, -1))
            expected[:, *place] = (above - below) / 2e-6
        np.testing.assert_allclose(jacobians[n], expected, rtol=1e-7, atol=1e-8)
        assert (np.abs(expected).reshape(3, -1).max(axis=1) > 1e-3).all()  # the argument reaches all three losses


def step_by_step(cell, kept, projected, kernel, *rest):
    """The loop in single operations, which TensorFlow differentiates."""
    outputs, bias = [], rest[0]
    state = rest if cell == "lstm" else rest[1:]
    for x, keep in zip(projected, kept, strict=True):
        state = [part * keep for part in state]
        if cell == "lstm":
            state = lstm_gates(x + state[0] @ kernel, state[1])[:2]
        else:
            state = gru_gates(x, state[0] @ kernel, bias, state[0])[:1]
        outputs.append(state[0])
    return tf.stack(outputs), *state


@both_cells
def test_a_state_that_is_set_to_zero_inside_a_window_passes_nothing_on_in_either_direction(cell):
    arguments = [tf.constant(each) for each in arguments_of(cell, 5, 3, 2, np.float64)]
    kept = np.array([[0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]], np.float64)[..., None]
    found = []
    for scan in (lambda *each: SCANS[cell](*each, None, tf.constant(kept)), lambda *each: step_by_step(cell, kept, *each)):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = scan(*arguments)
            loss = tf.add_n([tf.reduce_sum(each * (1.5 + np.arange(each.shape[-2])[:, None])) for each in outputs])
        found.append([*outputs, *tape.gradient(loss, arguments)])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
    assert not np.any(found[0][-1][0])  # the gradient of the first stream's initial state
