"""The recurrence over a window, with its gradient derived by hand: one product per time step, forward and backward.

`cells` has the equations. The inputs' part of the gates is computed for all steps before the loop, and the recurrent
kernel's gradient as one product after it. Loops are time-major: T steps, B streams, H units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from .products import Tensor, pad_columns, product, summed_product

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
    projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor, precision: tf.DType | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM over a window: projected [T, B, 4H], recurrent kernel [H, 4H] -> outputs [T, B, H], hidden, cell."""

    @tf.custom_gradient
    def scan(projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor) -> Any:
        factors = _recurrent_factors(kernel, precision)
        kept, hidden, cell = _lstm_forward(projected, factors, hidden, cell)

        def gradient(*d: Tensor) -> tuple[Tensor, ...]:
            return _lstm_backward(kept, factors, *d)

        return (kept.hiddens[1:], hidden, cell), gradient

    return scan(projected, kernel, hidden, cell)


def gru_scan(
    projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor, precision: tf.DType | None = None
) -> tuple[Tensor, Tensor]:
    """Run a GRU over a window: projected [T, B, 3H], recurrent kernel [H, 3H], bias of g -> outputs [T, B, H], hidden."""

    @tf.custom_gradient
    def scan(projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor) -> Any:
        factors = _recurrent_factors(kernel, precision)
        kept, hidden = _gru_forward(projected, factors, bias, hidden)

        def gradient(*d: Tensor) -> tuple[Tensor, ...]:
            return _gru_backward(kept, factors, *d)

        return (kept.hiddens[1:], hidden), gradient

    return scan(projected, kernel, bias, hidden)


class _Kept(NamedTuple):
    """What the backward loop reads of the forward one."""

    hiddens: Tensor  # [T + 1, B, H], the one before the first step included
    arrays: tuple[Any, ...]  # TensorArrays: gates by step; of an LSTM also the cells, [T + 1]


class _Factors(NamedTuple):
    """The recurrent kernel U [H, G] as both loops multiply by it, prepared once."""

    forward: Any  # x -> x U
    backward: Any  # y -> y U^T
    precision: tf.DType | None

    def round(self, tensor: Tensor) -> Tensor:
        """The tensor in the precision of products."""
        return tf.cast(tensor, self.precision) if self.precision else tensor


def _recurrent_factors(kernel: Tensor, precision: tf.DType | None) -> _Factors:
    if precision:  # bfloat16 products are faster with the second factor transposed, float32 ones are not
        kernel, turned = tf.cast(kernel, precision), tf.cast(tf.transpose(kernel), precision)
        return _Factors(
            lambda x: product(x, turned, precision, transpose_b=True),
            lambda y: product(y, kernel, precision, transpose_b=True),
            precision,
        )
    turned = tf.transpose(kernel)
    forth, back = pad_columns(kernel), pad_columns(turned)
    return _Factors(
        lambda x: tf.matmul(x, forth)[:, : kernel.shape[1]], lambda y: tf.matmul(y, back)[:, : turned.shape[1]], None
    )


def _array(like: Tensor, steps: Tensor) -> Any:
    return tf.TensorArray(like.dtype, steps, clear_after_read=False)  # a persistent tape reads twice


def _lstm_forward(projected: Tensor, factors: _Factors, hidden: Tensor, cell: Tensor) -> tuple[_Kept, Tensor, Tensor]:
    steps = tf.shape(projected)[0]

    def body(t: Tensor, hidden: Tensor, cell: Tensor, hiddens: Any, cells: Any, *gates: Any) -> Any:
        hidden, cell, *values = lstm_gates(projected[t] + factors.forward(hidden), cell)
        gates = tuple(gate.write(t, value) for gate, value in zip(gates, values, strict=True))
        return t + 1, hidden, cell, hiddens.write(t + 1, hidden), cells.write(t + 1, cell), *gates

    states = (_array(part, steps + 1).write(0, part) for part in (hidden, cell))  # step t reads [t], writes [t + 1]
    gates = (_array(hidden, steps) for _ in "ifgo")
    _, hidden, cell, hiddens, *arrays = tf.while_loop(
        lambda t, *_: t < steps, body, (0, hidden, cell, *states, *gates), parallel_iterations=1
    )
    return _Kept(hiddens.stack(), tuple(arrays)), hidden, cell


def _lstm_backward(
    kept: _Kept, factors: _Factors, d_hiddens: Tensor, d_hidden: Tensor, d_cell: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the loss by what `lstm_scan` takes, given those by what it returns."""
    cells, *gates = kept.arrays
    steps = tf.shape(kept.hiddens)[0] - 1
    d_hiddens = tf.convert_to_tensor(d_hiddens)  # IndexedSlices where the loss gathers steps

    def body(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_gates: Any) -> Any:
        i, f, g, o = (gate.read(t) for gate in gates)
        tanh_cell = tf.tanh(cells.read(t + 1))
        d_hidden += d_hiddens[t]
        d_cell += _tanh_gradient(y=tanh_cell, dy=d_hidden * o)
        d_i = _sigmoid_gradient(y=i, dy=d_cell * g)
        d_f = _sigmoid_gradient(y=f, dy=d_cell * cells.read(t))
        d_g = _tanh_gradient(y=g, dy=d_cell * i)
        d_o = _sigmoid_gradient(y=o, dy=d_hidden * tanh_cell)
        d_z = factors.round(tf.concat([d_i, d_f, d_g, d_o], axis=1))
        return t - 1, factors.backward(d_z), d_cell * f, d_gates.write(t, d_z)

    d_gates = _array(factors.round(d_hidden), steps)
    _, d_hidden, d_cell, d_gates = tf.while_loop(
        lambda t, *_: t >= 0, body, (steps - 1, d_hidden, d_cell, d_gates), parallel_iterations=1
    )
    d_projected = d_gates.stack()
    return d_projected, _kernel_gradient(kept, d_projected, factors), d_hidden, d_cell


def _gru_forward(projected: Tensor, factors: _Factors, bias: Tensor, hidden: Tensor) -> tuple[_Kept, Tensor]:
    steps = tf.shape(projected)[0]

    def body(t: Tensor, hidden: Tensor, hiddens: Any, *gates: Any) -> Any:
        hidden, *values = gru_gates(projected[t], factors.forward(hidden), bias, hidden)
        gates = tuple(gate.write(t, value) for gate, value in zip(gates, values, strict=True))
        return t + 1, hidden, hiddens.write(t + 1, hidden), *gates

    hiddens = _array(hidden, steps + 1).write(0, hidden)  # step t reads [t], writes [t + 1]
    gates = (_array(hidden, steps) for _ in ("z", "r", "g", "h_g"))
    _, hidden, hiddens, *arrays = tf.while_loop(
        lambda t, *_: t < steps, body, (0, hidden, hiddens, *gates), parallel_iterations=1
    )
    return _Kept(hiddens.stack(), tuple(arrays)), hidden


def _gru_backward(kept: _Kept, factors: _Factors, d_hiddens: Tensor, d_hidden: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the loss by what `gru_scan` takes, given those by what it returns."""
    hiddens, steps, units = kept.hiddens, tf.shape(kept.hiddens)[0] - 1, kept.hiddens.shape[2]
    d_hiddens = tf.convert_to_tensor(d_hiddens)  # IndexedSlices where the loss gathers steps

    def body(t: Tensor, d_hidden: Tensor, d_projected: Any, d_recurrent: Any) -> Any:
        z, r, g, h_g = (gate.read(t) for gate in kept.arrays)
        d_hidden += d_hiddens[t]
        d_z = _sigmoid_gradient(y=z, dy=d_hidden * (hiddens[t] - g))
        d_g = _tanh_gradient(y=g, dy=d_hidden * (1 - z))
        d_r = _sigmoid_gradient(y=r, dy=d_g * h_g)
        d_h = factors.round(tf.concat([d_z, d_r, d_g * r], axis=1))
        d_projected = d_projected.write(t, factors.round(tf.concat([d_z, d_r, d_g], axis=1)))
        return t - 1, d_hidden * z + factors.backward(d_h), d_projected, d_recurrent.write(t, d_h)

    arrays = (_array(factors.round(d_hidden), steps) for _ in range(2))
    _, d_hidden, d_projected, d_recurrent = tf.while_loop(
        lambda t, *_: t >= 0, body, (steps - 1, d_hidden, *arrays), parallel_iterations=1
    )
    d_recurrent = d_recurrent.stack()
    d_bias = tf.reduce_sum(tf.cast(d_recurrent[:, :, 2 * units :], d_hidden.dtype), axis=(0, 1))
    return d_projected.stack(), _kernel_gradient(kept, d_recurrent, factors), d_bias, d_hidden


def _kernel_gradient(kept: _Kept, d_gates: Tensor, factors: _Factors) -> Tensor:
    """The recurrent kernel's gradient [H, G]: hidden states before the steps by the gates' gradients [T, B, G]."""
    before = kept.hiddens[:-1]
    rows, columns = tf.reshape(before, (-1, before.shape[-1])), tf.reshape(d_gates, (-1, d_gates.shape[-1]))
    return summed_product(rows, columns, factors.precision)
