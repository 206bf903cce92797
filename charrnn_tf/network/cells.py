r"""Keras's LSTM and GRU layers with a faster inner loop, and the equations they compute.

LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), gates in Keras's order i, f, g, o along the last axis:

    i, f, o = sigmoid(x W + h U + b)    g = tanh(x W + h U + b)
    c' = f c + i g                      h' = o tanh(c')

GRU (Cho et al. 2014) in the form of cuDNN and PyTorch (`reset_after=True`), gates in Keras's order z, r, g along the last
axis, with one bias for the inputs (b) and one for the hidden state (b_h):

    z, r = sigmoid(x W + b + h U + b_h)    g = tanh(x W + b + r (h U + b_h))
    h' = z h + (1 - z) g

The layers keep Keras's weights, states and configuration. `project`, `scan` and `advance` are pure functions of inputs,
state and weights: training, sampling, evaluation and export call them with states of their own. Keras's stateful `call`
is a thin wrapper (`inner_loop`, the hook where Keras itself switches to cuDNN), so the layers work in any Keras model.
"""

import enum
from typing import Any

import keras
import tensorflow as tf

from ..machine import startup
from .loops import gru_gates, gru_scan, lstm_gates, lstm_scan
from .products import Precision, Tensor, linear

startup.check_backend()  # for code that imports this module without the public names

State = tuple[Tensor, ...]  # of one layer: (hidden, cell) for LSTM, (hidden,) for GRU; each [B, H]


class Engine(enum.Enum):
    """Implementation of the recurrent layers in training and evaluation."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"  # products with bfloat16 factors, everything else float32
    CUDNN = "cudnn"  # Keras's own loop, which uses cuDNN on a GPU

    @property
    def precision(self) -> Precision:
        """Dtype that the factors of matrix products are rounded to; None keeps float32."""
        return tf.bfloat16 if self is Engine.BFLOAT16 else None


class _Recurrent:
    """Shared part of LSTM and GRU: the input projection, and Keras's inner loop in terms of `project` and `scan`.

    A cell adds `scan` (a window in one loop: [T, B, G] -> [T, B, H]), `advance` (one character: [B, G] -> [B, H]) and
    `_input_bias`. precision: dtype of the factors of products; everything else stays in the weights' dtype, except gate
    gradients, which the loop returns already rounded. kernel: recurrent kernel to use instead of the layer's own. kept: see
    `loops`.
    """

    cell: Any
    scan: Any
    _input_bias: Any

    def project(self, inputs: Tensor, precision: Precision = None) -> Tensor:
        """Inputs times kernel plus bias: [..., F] -> [..., G], where G is H times the number of gates."""
        kernel = tf.convert_to_tensor(self.cell.kernel)
        flat = linear(tf.reshape(inputs, (-1, kernel.shape[0])), kernel, self._input_bias(), precision)
        return tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], [kernel.shape[1]]], 0))

    def add_bias(self, products: Tensor) -> Tensor:
        """Products with the kernel plus the input bias, [..., G]; the products of one-hot inputs are the kernel's rows."""
        return products + self._input_bias()

    def keras_scan(self, inputs: Tensor, state: State, kernel: Tensor = None) -> tuple[Tensor, State]:
        """`project` and `scan` by Keras's own loop: [T, B, F] and state -> [T, B, H] and state."""
        sequences = tf.transpose(inputs, (1, 0, 2))
        mapping = [] if kernel is None else [(self.cell.recurrent_kernel, kernel)]
        with keras.StatelessScope(state_mapping=mapping):  # Keras's loop has no argument for the kernel
            _, outputs, after = super().inner_loop(sequences, list(state), None)  # type: ignore[misc]
        return tf.transpose(outputs, (1, 0, 2)), tuple(after)

    def _recurrent_kernel(self, given: Tensor = None) -> Tensor:
        return tf.convert_to_tensor(self.cell.recurrent_kernel if given is None else given)

    def _needs_keras_loop(self, mask: Tensor) -> bool:
        """Whether the layer is configured in a way that only Keras's own loop supports."""
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
        if self._needs_keras_loop(mask):
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        outputs, state = self.scan(
            self.project(tf.transpose(sequences, (1, 0, 2))), tuple(map(tf.convert_to_tensor, initial_state))
        )
        return outputs[-1], tf.transpose(outputs, (1, 0, 2)), list(state)


@keras.saving.register_keras_serializable("charrnn_tf")
class LSTM(_Recurrent, keras.layers.LSTM):
    """`keras.layers.LSTM` with the loop of `loops.lstm_scan`; takes the same arguments."""

    def scan(
        self, projected: Tensor, state: State, precision: Precision = None, kernel: Tensor = None, kept: Tensor = None
    ) -> tuple[Tensor, State]:
        """Run over a window: [T, B, 4H] and (hidden, cell) -> hidden states [T, B, H] and (hidden, cell)."""
        hidden, cell = state
        outputs, hidden, cell = lstm_scan(projected, self._recurrent_kernel(kernel), hidden, cell, precision, kept)
        return outputs, (hidden, cell)

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one character: [B, 4H] and (hidden, cell) -> hidden state [B, H] and (hidden, cell)."""
        hidden, cell = state
        hidden, cell, *_ = lstm_gates(projected + tf.matmul(hidden, self._recurrent_kernel()), cell)
        return hidden, (hidden, cell)

    def _input_bias(self) -> Tensor:
        return tf.convert_to_tensor(self.cell.bias)


@keras.saving.register_keras_serializable("charrnn_tf")
class GRU(_Recurrent, keras.layers.GRU):
    """`keras.layers.GRU` (`reset_after=True`) with the loop of `loops.gru_scan`; takes the same arguments."""

    def scan(
        self, projected: Tensor, state: State, precision: Precision = None, kernel: Tensor = None, kept: Tensor = None
    ) -> tuple[Tensor, State]:
        """Run over a window: [T, B, 3H] and (hidden,) -> hidden states [T, B, H] and (hidden,)."""
        recurrent, bias = self._recurrent_kernel(kernel), self._hidden_bias()
        outputs, hidden = gru_scan(projected, recurrent, bias, state[0], precision, kept)
        return outputs, (hidden,)

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one character: [B, 3H] and (hidden,) -> hidden state [B, H] and (hidden,)."""
        (hidden,) = state
        hidden, *_ = gru_gates(projected, tf.matmul(hidden, self._recurrent_kernel()), self._hidden_bias(), hidden)
        return hidden, (hidden,)

    def _hidden_bias(self) -> Tensor:
        """The hidden state's bias of g, [H]; `_input_bias` contains those of z and r."""
        return tf.convert_to_tensor(self.cell.bias)[1, 2 * self.units :]

    def _input_bias(self) -> Tensor:
        inputs, hidden = tf.unstack(tf.convert_to_tensor(self.cell.bias))
        return inputs + tf.concat([hidden[: 2 * self.units], tf.zeros_like(hidden[2 * self.units :])], 0)


LAYERS: dict[str, Any] = {"lstm": LSTM, "gru": GRU}  # the classes behind the names in `settings.schema.CELLS`
