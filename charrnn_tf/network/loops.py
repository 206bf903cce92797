"""The recurrence over a window, with its gradient derived by hand: one product per time step, forward and backward.

`cells` has the equations. The inputs' part of the gates is computed for all steps before the loop, and the recurrent
kernel's gradient as one product after it. Loops are time-major: T steps, B streams, H units.

`kept` is [T, B, 1], 0 where a step of a stream starts from a zero state and 1 elsewhere; None keeps all.
"""

from typing import Any

import tensorflow as tf

from .gradients import custom_gradient
from .products import Precision, Tensor, repeated_product, summed_product

# Gradients of the activations, given their outputs: one operation each
_sigmoid_gradient, _tanh_gradient = tf.raw_ops.SigmoidGrad, tf.raw_ops.TanhGrad


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
    """One LSTM step: gates before activation [B, 4H], cell -> hidden, cell, and i, f, g, o for the gradient, each [B, H]."""
    i, f, g, o = tf.split(gates, 4, axis=1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    cell = f * cell + i * g
    return o * tf.tanh(cell), cell, i, f, g, o


def gru_gates(inputs: Tensor, recurrent: Tensor, bias: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    """One GRU step: both parts of the gates [B, 3H], bias of g, hidden -> hidden, and z, r, g, h_g for the gradient."""
    (x_z, x_r, x_g), (h_z, h_r, h_g) = tf.split(inputs, 3, axis=1), tf.split(recurrent, 3, axis=1)
    z, r, h_g = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r), h_g + bias
    g = tf.tanh(x_g + r * h_g)
    return g + z * (hidden - g), z, r, g, h_g


def lstm_scan(
    projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor, precision: Precision = None, kept: Tensor = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM over a window: projected [T, B, 4H], kernel [H, 4H], states [B, H] -> outputs [T, B, H], hidden, cell."""

    @custom_gradient
    def scan(projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor) -> Any:
        hiddens, arrays, *state = _lstm_forward(projected, kernel, hidden, cell, precision, kept)
        return (hiddens[1:], *state), lambda *d: _lstm_backward(hiddens, arrays, kernel, precision, kept, *d)

    return scan(projected, kernel, hidden, cell)


def gru_scan(
    projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor, precision: Precision = None, kept: Tensor = None
) -> tuple[Tensor, Tensor]:
    """Run a GRU over a window: projected [T, B, 3H], kernel [H, 3H], bias [H], state [B, H] -> outputs [T, B, H], hidden."""

    @custom_gradient
    def scan(projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor) -> Any:
        hiddens, arrays, *state = _gru_forward(projected, kernel, bias, hidden, precision, kept)
        return (hiddens[1:], *state), lambda *d: _gru_backward(hiddens, arrays, kernel, precision, kept, *d)

    return scan(projected, kernel, bias, hidden)


def _lstm_forward(
    projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor, precision: Precision, kept: Tensor
) -> Any:
    """Hidden states from the one before the first step on, [T + 1, B, H]; arrays of cells and gates; hidden, cell."""
    times_kernel, steps = repeated_product(kernel, precision), tf.shape(projected)[0]

    def body(t: Tensor, hidden: Tensor, cell: Tensor, hiddens: Any, cells: Any, *gates: Any) -> Any:
        hidden, cell = _keep(hidden, kept, t), _keep(cell, kept, t)
        hidden, cell, *values = lstm_gates(projected[t] + times_kernel(hidden), cell)
        gates = tuple(gate.write(t, value) for gate, value in zip(gates, values, strict=True))
        return t + 1, hidden, cell, hiddens.write(t + 1, hidden), cells.write(t + 1, cell), *gates

    states = (_array(part, steps + 1).write(0, part) for part in (hidden, cell))  # step t reads [t], writes [t + 1]
    gates = (_array(hidden, steps) for _ in "ifgo")
    _, hidden, cell, hiddens, *arrays = tf.while_loop(
        lambda t, *_: t < steps, body, (0, hidden, cell, *states, *gates), parallel_iterations=1
    )
    return hiddens.stack(), arrays, hidden, cell


def _lstm_backward(
    hiddens: Tensor,
    arrays: Any,
    kernel: Tensor,
    precision: Precision,
    kept: Tensor,
    d_outputs: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients with respect to the inputs of `lstm_scan`, given those with respect to its outputs."""
    cells, *gates = arrays
    times_transposed, steps = repeated_product(tf.transpose(kernel), precision), tf.shape(hiddens)[0] - 1
    d_outputs = tf.convert_to_tensor(d_outputs)  # IndexedSlices where the loss gathers steps

    def body(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_gates: Any) -> Any:
        i, f, g, o = (gate.read(t) for gate in gates)
        tanh_cell = tf.tanh(cells.read(t + 1))
        d_hidden += d_outputs[t]
        d_cell += _tanh_gradient(y=tanh_cell, dy=d_hidden * o)
        d_i = _sigmoid_gradient(y=i, dy=d_cell * g)
        d_f = _sigmoid_gradient(y=f, dy=d_cell * _keep(cells.read(t), kept, t))
        d_g = _tanh_gradient(y=g, dy=d_cell * i)
        d_o = _sigmoid_gradient(y=o, dy=d_hidden * tanh_cell)
        d_z = _rounded(tf.concat([d_i, d_f, d_g, d_o], axis=1), precision)
        return t - 1, _keep(times_transposed(d_z), kept, t), _keep(d_cell * f, kept, t), d_gates.write(t, d_z)

    d_gates = _array(_rounded(d_hidden, precision), steps)
    _, d_hidden, d_cell, d_gates = tf.while_loop(
        lambda t, *_: t >= 0, body, (steps - 1, d_hidden, d_cell, d_gates), parallel_iterations=1
    )
    d_projected = d_gates.stack()
    return d_projected, _kernel_gradient(hiddens, d_projected, precision, kept), d_hidden, d_cell


def _gru_forward(projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor, precision: Precision, kept: Tensor) -> Any:
    """Hidden states from the one before the first step on, [T + 1, B, H]; arrays of gates; hidden."""
    times_kernel, steps = repeated_product(kernel, precision), tf.shape(projected)[0]

    def body(t: Tensor, hidden: Tensor, hiddens: Any, *gates: Any) -> Any:
        hidden = _keep(hidden, kept, t)
        hidden, *values = gru_gates(projected[t], times_kernel(hidden), bias, hidden)
        gates = tuple(gate.write(t, value) for gate, value in zip(gates, values, strict=True))
        return t + 1, hidden, hiddens.write(t + 1, hidden), *gates

    hiddens = _array(hidden, steps + 1).write(0, hidden)  # step t reads [t], writes [t + 1]
    gates = (_array(hidden, steps) for _ in ("z", "r", "g", "h_g"))
    _, hidden, hiddens, *arrays = tf.while_loop(
        lambda t, *_: t < steps, body, (0, hidden, hiddens, *gates), parallel_iterations=1
    )
    return hiddens.stack(), arrays, hidden


def _gru_backward(
    hiddens: Tensor, arrays: Any, kernel: Tensor, precision: Precision, kept: Tensor, d_outputs: Tensor, d_hidden: Tensor
) -> tuple[Tensor, ...]:
    """Gradients with respect to the inputs of `gru_scan`, given those with respect to its outputs."""
    times_transposed, steps = repeated_product(tf.transpose(kernel), precision), tf.shape(hiddens)[0] - 1
    d_outputs = tf.convert_to_tensor(d_outputs)  # IndexedSlices where the loss gathers steps

    def body(t: Tensor, d_hidden: Tensor, d_projected: Any, d_recurrent: Any) -> Any:
        z, r, g, h_g = (gate.read(t) for gate in arrays)
        d_hidden += d_outputs[t]
        d_z = _sigmoid_gradient(y=z, dy=d_hidden * (_keep(hiddens[t], kept, t) - g))
        d_g = _tanh_gradient(y=g, dy=d_hidden * (1 - z))
        d_r = _sigmoid_gradient(y=r, dy=d_g * h_g)
        d_h = _rounded(tf.concat([d_z, d_r, d_g * r], axis=1), precision)
        d_projected = d_projected.write(t, _rounded(tf.concat([d_z, d_r, d_g], axis=1), precision))
        d_before = _keep(d_hidden * z + times_transposed(d_h), kept, t)
        return t - 1, d_before, d_projected, d_recurrent.write(t, d_h)

    d_arrays = (_array(_rounded(d_hidden, precision), steps) for _ in range(2))
    _, d_hidden, d_projected, d_recurrent = tf.while_loop(
        lambda t, *_: t >= 0, body, (steps - 1, d_hidden, *d_arrays), parallel_iterations=1
    )
    d_recurrent = d_recurrent.stack()
    d_bias = tf.reduce_sum(tf.cast(d_recurrent[:, :, 2 * hiddens.shape[2] :], d_hidden.dtype), axis=(0, 1))
    return d_projected.stack(), _kernel_gradient(hiddens, d_recurrent, precision, kept), d_bias, d_hidden


def _array(like: Tensor, steps: Tensor) -> Any:
    return tf.TensorArray(like.dtype, steps, clear_after_read=False)  # a persistent tape may run the gradient twice


def _rounded(tensor: Tensor, precision: Precision) -> Tensor:
    return tf.cast(tensor, precision or tensor.dtype)


def _keep(state: Tensor, kept: Tensor, t: Tensor) -> Tensor:
    """A state [B, H] before step t, or its gradient: zero where the step starts from a zero state."""
    return state if kept is None else state * kept[t]


def _kernel_gradient(hiddens: Tensor, d_gates: Tensor, precision: Precision, kept: Tensor) -> Tensor:
    """The recurrent kernel's gradient [H, G]: hidden states before the steps by the gates' gradients [T, B, G]."""
    before = hiddens[:-1] if kept is None else hiddens[:-1] * kept
    rows, columns = (tf.reshape(each, (-1, each.shape[-1])) for each in (before, d_gates))
    return summed_product(rows, columns, precision)
