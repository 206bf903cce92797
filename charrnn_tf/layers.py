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

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .runtime import only_avx2

Tensor = Any
SPARE_COLUMNS = 16
State = tuple[Tensor, ...]  # of one layer: (hidden, cell) for LSTM, (hidden,) for GRU; each [B, H]


class Engine(NamedTuple):
    """What computes the layers."""

    precision: tf.DType | None = None  # of products, see `product`
    cudnn: bool = False  # Keras's own loops, which take cuDNN on a GPU; products are float32 then


PLAIN = Engine()


def product(a: Tensor, b: Tensor, precision: tf.DType | None = None, **transposed: bool) -> Tensor:
    """`tf.matmul(a, b)`; with a precision (bfloat16) of factors rounded to it, the result float32."""
    if precision is None:
        return tf.matmul(a, b, **transposed)
    return tf.cast(tf.matmul(tf.cast(a, precision), tf.cast(b, precision), **transposed), tf.float32)


def summed_product(rows: Tensor, columns: Tensor, precision: tf.DType | None = None) -> Tensor:
    """The sum over N of outer products, a kernel's gradient: rows [N, F], columns [N, G] -> [F, G]."""
    padded = columns if precision else _apart(columns)
    return product(rows, padded, precision, transpose_a=True)[:, : columns.shape[1]]


def _apart(factor: Tensor) -> Tensor:
    """The second factor of a product, with some columns of zeros more where its rows would collide in the cache.

    Rows whose length is a multiple of 512 bytes fall on few sets of it: with AVX2 alone, products of 64 x 512 x 2048 took
    one and a half to two times the time (`tests/benchmarks/parts.py`).
    """
    return tf.pad(factor, ((0, 0), (0, SPARE_COLUMNS))) if only_avx2() and factor.shape[1] % 128 == 0 else factor


class _Recurrent:
    """What LSTM and GRU share: weights as tensors, and Keras's inner loop in terms of `project` and `scan`.

    A cell adds `scan`, all steps in order: [T, B, G] and the state before -> hidden states [T, B, H] and the state after;
    `step`, the same of one step without a loop: [B, G] -> [B, H]; and `_input_bias`. Methods take a precision of products,
    see `product`; all else keeps the weights' type, but that gradients of gates pass from a loop to the products before it
    rounded to it already.
    """

    units: int
    cell: Any
    scan: Any
    step: Any
    _input_bias: Any

    def project(self, inputs: Tensor, precision: tf.DType | None = None) -> Tensor:
        """Inputs by kernel plus bias, [..., F] -> [..., G], where G is H times the number of gates."""
        kernel = tf.convert_to_tensor(self.cell.kernel)
        flat = linear(precision)(tf.reshape(inputs, (-1, kernel.shape[0])), kernel, self._input_bias())
        return tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], [kernel.shape[1]]], 0))

    def add_bias(self, products: Tensor) -> Tensor:
        """Products with the kernel plus the inputs' bias, [..., G]; rows of the kernel are those of one-hot inputs."""
        return products + self._input_bias()

    def keras_scan(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """`project` and `scan` by Keras's own loop: [T, B, F] and the state before -> [T, B, H] and the state after."""
        sequences = tf.transpose(inputs, (1, 0, 2))
        _, outputs, after = super().inner_loop(sequences, list(state), None)  # type: ignore[misc]
        return tf.transpose(outputs, (1, 0, 2)), tuple(after)

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

    def scan(self, projected: Tensor, state: State, precision: tf.DType | None = None) -> tuple[Tensor, State]:
        """All steps in order: [T, B, 4H] and (hidden, cell) -> hidden states [T, B, H] and (hidden, cell)."""
        outputs, hidden, cell = _lstm(precision)(projected, tf.convert_to_tensor(self.cell.recurrent_kernel), *state)
        return outputs, (hidden, cell)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: [B, 4H] and (hidden, cell) -> hidden state [B, H] and (hidden, cell)."""
        hidden, cell = state
        gates = projected + tf.matmul(hidden, tf.convert_to_tensor(self.cell.recurrent_kernel))
        hidden, cell, *_ = _lstm_step(gates, cell)
        return hidden, (hidden, cell)

    def _input_bias(self) -> Tensor:
        return tf.convert_to_tensor(self.cell.bias)


@keras.saving.register_keras_serializable("charrnn_tf")
class GRU(_Recurrent, keras.layers.GRU):
    """`keras.layers.GRU` (`reset_after=True`) with the module's inner loop; the arguments are Keras's."""

    def scan(self, projected: Tensor, state: State, precision: tf.DType | None = None) -> tuple[Tensor, State]:
        """All steps in order: [T, B, 3H] and (hidden,) -> hidden states [T, B, H] and (hidden,)."""
        outputs, hidden = _gru(precision)(projected, *self._recurrent_weights(), *state)
        return outputs, (hidden,)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: [B, 3H] and (hidden,) -> hidden state [B, H] and (hidden,)."""
        (hidden,) = state
        kernel, bias = self._recurrent_weights()
        hidden, *_ = _gru_step(projected, tf.matmul(hidden, kernel), bias, hidden)
        return hidden, (hidden,)

    def _recurrent_weights(self) -> tuple[Tensor, Tensor]:
        """The recurrent kernel [H, 3H] and the hidden state's bias of g [H]; those of z and r just add to the inputs'."""
        bias = tf.convert_to_tensor(self.cell.bias)[1]
        return tf.convert_to_tensor(self.cell.recurrent_kernel), bias[2 * self.units :]

    def _input_bias(self) -> Tensor:
        inputs, hidden = tf.unstack(tf.convert_to_tensor(self.cell.bias))
        return inputs + tf.concat([hidden[: 2 * self.units], tf.zeros_like(hidden[2 * self.units :])], 0)


LAYERS: dict[str, Any] = {"lstm": LSTM, "gru": GRU}  # the classes behind the names of `config.CELLS`


def _lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
    """Gates before their activations [B, 4H] and the cell -> hidden, cell, and i, f, g, o for the gradient, each [B, H]."""
    i, f, g, o = tf.split(gates, 4, axis=1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    cell = f * cell + i * g
    return o * tf.tanh(cell), cell, i, f, g, o


def _gru_step(inputs: Tensor, recurrent: Tensor, bias: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    """Inputs' and hidden state's part of the gates [B, 3H], the latter's bias of g, and the hidden state -> hidden, and
    z, r, g, h_g for the gradient, each [B, H].
    """
    (x_z, x_r, x_g), (h_z, h_r, h_g) = tf.split(inputs, 3, axis=1), tf.split(recurrent, 3, axis=1)
    z, r, h_g = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r), h_g + bias
    g = tf.tanh(x_g + r * h_g)
    return g + z * (hidden - g), z, r, g, h_g


# The gradients of the activations, given what they returned: each is a single operation.
_sigmoid_gradient, _tanh_gradient = tf.raw_ops.SigmoidGrad, tf.raw_ops.TanhGrad


def _lstm(precision: tf.DType | None) -> Any:
    """The LSTM's loop: projected [T, B, 4H], recurrent kernel [H, 4H] -> hidden states [T, B, H], hidden, cell."""

    @tf.custom_gradient
    def loop(projected: Tensor, kernel: Tensor, hidden: Tensor, cell: Tensor) -> Any:
        steps = tf.shape(projected)[0]
        rounded = _rounding(precision)
        forth, back = _factors(kernel, precision)

        def forward(t: Tensor, hidden: Tensor, cell: Tensor, hiddens: Any, cells: Any, *gates: Any) -> Any:
            z = projected[t] + forth(hidden)
            hidden, cell, *saved = _lstm_step(z, cell)
            gates = tuple(gate.write(t, value) for gate, value in zip(gates, saved, strict=True))
            return t + 1, hidden, cell, hiddens.write(t + 1, hidden), cells.write(t + 1, cell), *gates

        states = (_array(part, steps + 1).write(0, part) for part in (hidden, cell))  # step t reads [t], writes [t + 1]
        gates = (_array(hidden, steps) for _ in "ifgo")
        _, hidden, cell, hiddens, cells, *gates = tf.while_loop(
            lambda t, *_: t < steps, forward, (0, hidden, cell, *states, *gates), parallel_iterations=1
        )
        hiddens = hiddens.stack()

        def gradient(d_hiddens: Tensor, d_hidden: Tensor, d_cell: Tensor) -> tuple[Tensor, ...]:
            d_hiddens = tf.convert_to_tensor(d_hiddens)  # IndexedSlices where the loss gathers steps

            def backward(t: Tensor, d_hidden: Tensor, d_cell: Tensor, d_gates: Any) -> Any:
                i, f, g, o = (gate.read(t) for gate in gates)
                tanh_cell = tf.tanh(cells.read(t + 1))
                d_hidden += d_hiddens[t]
                d_cell += _tanh_gradient(y=tanh_cell, dy=d_hidden * o)
                d_i = _sigmoid_gradient(y=i, dy=d_cell * g)
                d_f = _sigmoid_gradient(y=f, dy=d_cell * cells.read(t))
                d_g = _tanh_gradient(y=g, dy=d_cell * i)
                d_o = _sigmoid_gradient(y=o, dy=d_hidden * tanh_cell)
                d_z = rounded(tf.concat([d_i, d_f, d_g, d_o], axis=1))
                d_hidden = back(d_z)
                return t - 1, d_hidden, d_cell * f, d_gates.write(t, d_z)

            _, d_hidden, d_cell, d_gates = tf.while_loop(
                lambda t, *_: t >= 0,
                backward,
                (steps - 1, d_hidden, d_cell, _array(rounded(projected[0]), steps)),
                parallel_iterations=1,
            )
            d_gates = d_gates.stack()
            return d_gates, _kernel_gradient(hiddens[:-1], d_gates, precision), d_hidden, d_cell

        return (hiddens[1:], hidden, cell), gradient

    return loop


def _gru(precision: tf.DType | None) -> Any:
    """The GRU's loop: projected [T, B, 3H], recurrent kernel [H, 3H], bias of g [H] -> hidden states [T, B, H], hidden."""

    @tf.custom_gradient
    def loop(projected: Tensor, kernel: Tensor, bias: Tensor, hidden: Tensor) -> Any:
        steps = tf.shape(projected)[0]
        rounded = _rounding(precision)
        forth, back = _factors(kernel, precision)

        def forward(t: Tensor, hidden: Tensor, hiddens: Any, *gates: Any) -> Any:
            recurrent = forth(hidden)
            hidden, *saved = _gru_step(projected[t], recurrent, bias, hidden)
            gates = tuple(gate.write(t, value) for gate, value in zip(gates, saved, strict=True))
            return t + 1, hidden, hiddens.write(t + 1, hidden), *gates

        hiddens = _array(hidden, steps + 1).write(0, hidden)  # step t reads [t], writes [t + 1]
        gates = (_array(hidden, steps) for _ in ("z", "r", "g", "h_g"))
        _, hidden, hiddens, *gates = tf.while_loop(
            lambda t, *_: t < steps, forward, (0, hidden, hiddens, *gates), parallel_iterations=1
        )
        hiddens = hiddens.stack()

        def gradient(d_hiddens: Tensor, d_hidden: Tensor) -> tuple[Tensor, ...]:
            d_hiddens = tf.convert_to_tensor(d_hiddens)  # IndexedSlices where the loss gathers steps

            def backward(t: Tensor, d_hidden: Tensor, d_projected: Any, d_recurrent: Any) -> Any:
                z, r, g, h_g = (gate.read(t) for gate in gates)
                d_hidden += d_hiddens[t]
                d_z = _sigmoid_gradient(y=z, dy=d_hidden * (hiddens[t] - g))
                d_g = _tanh_gradient(y=g, dy=d_hidden * (1 - z))
                d_r = _sigmoid_gradient(y=r, dy=d_g * h_g)
                d_h = rounded(tf.concat([d_z, d_r, d_g * r], axis=1))
                d_projected = d_projected.write(t, rounded(tf.concat([d_z, d_r, d_g], axis=1)))
                d_hidden = d_hidden * z + back(d_h)
                return t - 1, d_hidden, d_projected, d_recurrent.write(t, d_h)

            _, d_hidden, d_projected, d_recurrent = tf.while_loop(
                lambda t, *_: t >= 0,
                backward,
                (steps - 1, d_hidden, *(_array(rounded(projected[0]), steps) for _ in range(2))),
                parallel_iterations=1,
            )
            d_recurrent = d_recurrent.stack()
            d_bias = tf.reduce_sum(tf.cast(d_recurrent[:, :, 2 * hidden.shape[1] :], bias.dtype), axis=(0, 1))
            d_kernel = _kernel_gradient(hiddens[:-1], d_recurrent, precision)
            return d_projected.stack(), d_kernel, d_bias, d_hidden

        return (hiddens[1:], hidden), gradient

    return loop


def _array(like: Tensor, steps: Tensor) -> Any:
    return tf.TensorArray(like.dtype, steps, clear_after_read=False)  # a persistent tape reads twice


def _rounding(precision: tf.DType | None) -> Any:
    return (lambda tensor: tf.cast(tensor, precision)) if precision else tf.identity


def linear(precision: tf.DType | None) -> Any:
    """x W + b: inputs [N, F], kernel [F, G], bias [G] -> [N, G]."""

    @tf.custom_gradient
    def linear(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Any:
        def gradient(d: Tensor) -> tuple[Tensor, ...]:
            ones = tf.ones((1, tf.shape(d)[0]), d.dtype)  # as a product the sum is quicker than `tf.reduce_sum`
            d_inputs = product(d, kernel, precision, transpose_b=True)
            return d_inputs, summed_product(inputs, d, precision), product(ones, d, precision)[0]

        return product(inputs, kernel, precision) + bias, gradient

    return linear


def dense_losses(precision: tf.DType | None) -> Any:
    """-log softmax(x W + b)[target]: inputs [N, H], kernel [H, V], bias [V], targets [N] -> nats [N], for large V.

    As `linear` and `sparse_softmax_cross_entropy_with_logits`, but that [N, V] numbers are written and read fewer times: all
    are exponentiated once, by softmax; the gradient's factors for each row are put to the rows of the products' other side.
    log sum exp(logits) is the largest logit less the log of the largest probability, which is at least 1 / V.
    """

    @tf.custom_gradient
    def losses(inputs: Tensor, kernel: Tensor, bias: Tensor, targets: Tensor) -> Any:
        logits = tf.nn.bias_add(product(inputs, kernel, precision), bias)
        largest, own = tf.reduce_max(logits, axis=1), tf.gather(logits, targets, batch_dims=1)
        with tf.control_dependencies([largest, own]):  # then softmax may take the logits' place
            probabilities = tf.nn.softmax(logits)
        nats = largest - tf.math.log(tf.reduce_max(probabilities, axis=1)) - own

        def gradient(d_nats: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
            places = tf.stack([tf.range(tf.shape(targets)[0]), targets], axis=1)
            with tf.control_dependencies([nats]):  # then 1 is taken off in place
                d = tf.tensor_scatter_nd_sub(probabilities, places, tf.ones_like(d_nats))
            d = d if precision is None else tf.cast(d, precision)
            rows = d_nats[:, None]
            d_inputs = rows * product(d, kernel, precision, transpose_b=True)
            return (
                d_inputs,
                product(rows * inputs, d, precision, transpose_a=True),
                product(d_nats[None], d, precision)[0],
                None,
            )

        return nats, gradient

    return losses


def _factors(kernel: Tensor, precision: tf.DType | None) -> tuple[Any, Any]:
    """What the loops multiply by: x -> x U and y -> y U^T, for the recurrent kernel U [H, G], cast and turned once.

    Products with bfloat16 are quicker with the second factor's rows side by side (`transpose_b`), those with float32 not.
    """
    rounded = _rounding(precision)
    kernel, turned = rounded(kernel), rounded(tf.transpose(kernel))
    if precision:
        return (
            lambda x: product(x, turned, precision, transpose_b=True),
            lambda y: product(y, kernel, precision, transpose_b=True),
        )
    forth, back = _apart(kernel), _apart(turned)
    return lambda x: tf.matmul(x, forth)[:, : kernel.shape[1]], lambda y: tf.matmul(y, back)[:, : turned.shape[1]]


def _kernel_gradient(before: Tensor, d_gates: Tensor, precision: tf.DType | None) -> Tensor:
    """The recurrent kernel's gradient, [H, G]: the hidden states before the steps [T, B, H] by the gates' gradients."""
    rows, columns = tf.reshape(before, (-1, before.shape[-1])), tf.reshape(d_gates, (-1, d_gates.shape[-1]))
    return summed_product(rows, columns, precision)
