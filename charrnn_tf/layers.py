r"""Keras's LSTM and GRU with the same weights, states and configuration, and a quicker inner loop.

Keras multiplies inputs and states by their kernels inside the loop over steps and lets TensorFlow derive the gradient. Here

- the inputs of all steps are multiplied by the kernel in one product before the loop (`project`);
- the loop (`scan`) has one product a step, hidden state by recurrent kernel;
- the gradient is derived by hand: going back, again one product a step, and the recurrent kernel's gradient is a single
  product over all steps afterwards.

`project` and `scan` are pure functions of inputs, state and weights: training, sampling, evaluation and export call them
with states of their own. The Keras `call` is a thin wrapper round them (`inner_loop`, the place where Keras itself swaps in
cuDNN), so the layers work in any Keras model. Both loops are time-major: T steps, B streams, H units.

LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), gates in Keras's order i, f, g, o along the last axis:

    i, f, o = sigmoid(x W + h U + b)    g = tanh(x W + h U + b)
    c' = f c + i g                      h' = o tanh(c')

GRU (Cho et al. 2014) in the form of cuDNN and PyTorch, `reset_after=True`, gates in Keras's order z, r, g along the last
axis, with one bias for the inputs and one (b_h) for the hidden state:

    z, r = sigmoid(x W + b + h U + b_h)    g = tanh(x W + b + r (h U + b_h))
    h' = z h + (1 - z) g
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

Tensor = Any
State = tuple[Tensor, ...]  # of one layer: (hidden, cell) for LSTM, (hidden,) for GRU; each [B, H]


class _Recurrent:
    """What LSTM and GRU share: weights as tensors, and Keras's inner loop in terms of `project` and `scan`."""

    units: int
    cell: Any

    def project(self, inputs: Tensor) -> Tensor:
        """Inputs by kernel plus bias, [..., F] -> [..., G], where G is H times the number of gates."""
        kernel = tf.convert_to_tensor(self.cell.kernel)
        flat = self.add_bias(tf.matmul(tf.reshape(inputs, (-1, kernel.shape[0])), kernel))
        return tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], [kernel.shape[1]]], 0))

    def add_bias(self, products: Tensor) -> Tensor:
        """Products with the kernel plus the inputs' bias, [..., G]; rows of the kernel are those of one-hot inputs."""
        return products + self._input_bias()

    def scan(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps in order: [T, B, G] and the state before -> hidden states [T, B, H] and the state after."""
        raise NotImplementedError

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, as in `scan` but without a loop: [B, G] and the state before -> hidden state [B, H], state after."""
        raise NotImplementedError

    def _input_bias(self) -> Tensor:
        raise NotImplementedError

    def _as_keras_derived_it(self, mask: Tensor) -> bool:
        """Whether the layer is set up in a way that only Keras's own loop serves."""
        layer: Any = self
        return bool(
            mask is not None
            or layer.go_backwards
            or layer.unroll
            or layer.dropout
            or layer.recurrent_dropout
            or not layer.use_bias
            or layer.activation is not keras.activations.tanh
            or layer.recurrent_activation is not keras.activations.sigmoid
            or not getattr(layer, "reset_after", True)
        )

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Keras's hook: batch-major sequences [B, T, F] -> last output, outputs [B, T, H], states."""
        if self._as_keras_derived_it(mask):
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        outputs, state = self.scan(
            self.project(tf.transpose(sequences, (1, 0, 2))), tuple(map(tf.convert_to_tensor, initial_state))
        )
        return outputs[-1], tf.transpose(outputs, (1, 0, 2)), list(state)


@keras.saving.register_keras_serializable("charrnn_tf")
class LSTM(_Recurrent, keras.layers.LSTM):
    """`keras.layers.LSTM` with the module's inner loop; the arguments are Keras's."""

    def scan(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps in order: [T, B, 4H] and (hidden, cell) -> hidden states [T, B, H] and (hidden, cell)."""
        outputs, hidden, cell = _lstm(projected, tf.convert_to_tensor(self.cell.recurrent_kernel), *state)
        return outputs, (hidden, cell)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: [B, 4H] and (hidden, cell) -> hidden state [B, H] and (hidden, cell)."""
        hidden, cell = state
        hidden, cell, _ = _lstm_step(projected + tf.matmul(hidden, tf.convert_to_tensor(self.cell.recurrent_kernel)), cell)
        return hidden, (hidden, cell)

    def _input_bias(self) -> Tensor:
        return tf.convert_to_tensor(self.cell.bias)


@keras.saving.register_keras_serializable("charrnn_tf")
class GRU(_Recurrent, keras.layers.GRU):
    """`keras.layers.GRU` (`reset_after=True`) with the module's inner loop; the arguments are Keras's."""

    def scan(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps in order: [T, B, 3H] and (hidden,) -> hidden states [T, B, H] and (hidden,)."""
        outputs, hidden = _gru(projected, *self._recurrent_weights(), *state)
        return outputs, (hidden,)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: [B, 3H] and (hidden,) -> hidden state [B, H] and (hidden,)."""
        (hidden,) = state
        kernel, bias = self._recurrent_weights()
        hidden, _ = _gru_step(projected, tf.matmul(hidden, kernel) + bias, hidden)
        return hidden, (hidden,)

    def _recurrent_weights(self) -> tuple[Tensor, Tensor]:
        return tf.convert_to_tensor(self.cell.recurrent_kernel), tf.convert_to_tensor(self.cell.bias)[1]

    def _input_bias(self) -> Tensor:
        return tf.convert_to_tensor(self.cell.bias)[0]


def _lstm_step(z: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates before their activations [B, 4H] and the cell -> hidden, cell, and i, f, g, o [B, 4H] for the gradient."""
    i, f, g, o = tf.split(z, 4, axis=1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    cell = f * cell + i * g
    return o * tf.tanh(cell), cell, tf.concat([i, f, g, o], axis=1)


def _gru_step(x: Tensor, h: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs' and hidden state's part of the gates [B, 3H] -> hidden, and z, r, g, h_g [B, 4H] for the gradient."""
    x_zr, x_g = tf.split(x, [2 * hidden.shape[1], hidden.shape[1]], axis=1)
    h_zr, h_g = tf.split(h, [2 * hidden.shape[1], hidden.shape[1]], axis=1)
    zr = tf.sigmoid(x_zr + h_zr)
    z, r = tf.split(zr, 2, axis=1)
    g = tf.tanh(x_g + r * h_g)
    return g + z * (hidden - g), tf.concat([zr, g, h_g], axis=1)


@tf.custom_gradient
def _lstm(projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor) -> Any:
    """The LSTM's loop: projected [T, B, 4H], recurrent kernel [H, 4H] -> hidden states [T, B, H], hidden, cell."""
    steps = tf.shape(projected)[0]
    first = hidden, cell
    hiddens, cells, gates = (_array(projected, steps) for _ in range(3))

    def forward(t: Tensor, hidden: Tensor, cell: Tensor, hiddens: Any, cells: Any, gates: Any) -> Any:
        hidden, cell, saved = _lstm_step(projected[t] + tf.matmul(hidden, kernel), cell)
        return t + 1, hidden, cell, hiddens.write(t, hidden), cells.write(t, cell), gates.write(t, saved)

    _, hidden, cell, hiddens, cells, gates = tf.while_loop(
        lambda t, *_: t < steps, forward, (0, hidden, cell, hiddens, cells, gates), maximum_iterations=steps
    )
    outputs = hiddens.stack()
    cells_before = tf.concat([first[1][None], cells.stack()], axis=0)  # step t reads c[t] and wrote c[t + 1]

    def gradient(d_outputs: Tensor, d_hidden: Tensor, d_cell: Tensor) -> tuple[Tensor, ...]:
        transposed = tf.transpose(kernel)
        d_outputs = tf.convert_to_tensor(d_outputs)  # IndexedSlices where the loss gathers steps

        def backward(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_projected: Any) -> Any:
            i, f, g, o = tf.split(gates.read(t), 4, axis=1)
            tanh_cell = tf.tanh(cells_before[t + 1])
            d_hidden += d_outputs[t]
            d_cell += d_hidden * o * (1 - tanh_cell * tanh_cell)
            d_z = tf.concat(
                [
                    d_cell * g * i * (1 - i),
                    d_cell * cells_before[t] * f * (1 - f),
                    d_cell * i * (1 - g * g),
                    d_hidden * tanh_cell * o * (1 - o),
                ],
                axis=1,
            )
            return t - 1, tf.matmul(d_z, transposed), d_cell * f, d_projected.write(t, d_z)

        _, d_hidden, d_cell, d_projected = tf.while_loop(
            lambda t, *_: t >= 0,
            backward,
            (steps - 1, d_hidden, d_cell, _array(projected, steps)),
            maximum_iterations=steps,
        )
        d_projected = d_projected.stack()
        return d_projected, _kernel_gradient(first[0], outputs, d_projected), d_hidden, d_cell

    return (outputs, hidden, cell), gradient


@tf.custom_gradient
def _gru(projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor) -> Any:
    """The GRU's loop: projected [T, B, 3H], recurrent kernel [H, 3H], bias [3H] -> hidden states [T, B, H], hidden."""
    steps = tf.shape(projected)[0]
    first = hidden
    hiddens, gates = (_array(projected, steps) for _ in range(2))

    def forward(t: Tensor, hidden: Tensor, hiddens: Any, gates: Any) -> Any:
        hidden, saved = _gru_step(projected[t], tf.matmul(hidden, kernel) + bias, hidden)
        return t + 1, hidden, hiddens.write(t, hidden), gates.write(t, saved)

    _, hidden, hiddens, gates = tf.while_loop(
        lambda t, *_: t < steps, forward, (0, hidden, hiddens, gates), maximum_iterations=steps
    )
    outputs = hiddens.stack()

    def gradient(d_outputs: Tensor, d_hidden: Tensor) -> tuple[Tensor, ...]:
        transposed = tf.transpose(kernel)
        d_outputs = tf.convert_to_tensor(d_outputs)  # IndexedSlices where the loss gathers steps
        hiddens_before = tf.concat([first[None], outputs[:-1]], axis=0)

        def backward(t: Tensor, d_hidden: Tensor, d_projected: Any, d_recurrent: Any) -> Any:
            z, r, g, h_g = tf.split(gates.read(t), 4, axis=1)
            d_hidden += d_outputs[t]
            d_g = d_hidden * (1 - z) * (1 - g * g)
            d_zr = tf.concat([d_hidden * (hiddens_before[t] - g) * z * (1 - z), d_g * h_g * r * (1 - r)], axis=1)
            d_h = tf.concat([d_zr, d_g * r], axis=1)
            d_projected = d_projected.write(t, tf.concat([d_zr, d_g], axis=1))
            return t - 1, d_hidden * z + tf.matmul(d_h, transposed), d_projected, d_recurrent.write(t, d_h)

        _, d_hidden, d_projected, d_recurrent = tf.while_loop(
            lambda t, *_: t >= 0,
            backward,
            (steps - 1, d_hidden, _array(projected, steps), _array(projected, steps)),
            maximum_iterations=steps,
        )
        d_recurrent = d_recurrent.stack()
        d_bias = tf.reduce_sum(d_recurrent, axis=(0, 1))
        return d_projected.stack(), _kernel_gradient(first, outputs, d_recurrent), d_bias, d_hidden

    return (outputs, hidden), gradient


def _array(like: Tensor, steps: Tensor) -> Any:
    return tf.TensorArray(like.dtype, steps, clear_after_read=False)  # a persistent tape reads twice


def _kernel_gradient(first: Tensor, outputs: Tensor, d_gates: Tensor) -> Tensor:
    """The recurrent kernel's gradient, [H, G]: the hidden state before each step by the step's gate gradients [T, B, G]."""
    before = tf.concat([first[None], outputs[:-1]], axis=0)
    return tf.matmul(
        tf.reshape(before, (-1, before.shape[-1])), tf.reshape(d_gates, (-1, d_gates.shape[-1])), transpose_a=True
    )
