"""The TensorFlow 1 "Anna Karenina" notebook's checkpoints, `i200_l512.ckpt`: read by TensorFlow's own reader.

`BasicLSTMCell` keeps the kernels of inputs and hidden state as the rows of one matrix [F + H, 4H], gates i, j, f, o, and its
graph adds 1 to the forget gate's bias; the output is `softmax/Variable` [H, V] and `softmax/Variable_1` [V].
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..errors import ConfigError
from .weights import Array, Foreign, cell_of, step_in

FORGET_BIAS = 1.0
CELL = re.compile(r"multi_rnn_cell/cell_(\d+)/basic_lstm_cell/(kernel|weights|bias|biases)$")
OUTPUT = ("softmax/Variable", "softmax/Variable_1")
PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def _prefix(path: str | Path) -> str:
    """The checkpoint that a path means: its prefix, or any of its files."""
    return PART.sub("", str(path))


def can_read(path: str | Path) -> bool:
    """Whether there is a checkpoint of TensorFlow's under this prefix, or this is one of its files."""
    return os.path.isfile(_prefix(path) + ".index") or bool(PART.search(str(path)))


def read(path: str | Path) -> Foreign:
    """The notebook's model. Raises ConfigError for a checkpoint of another kind."""
    prefix = _prefix(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = sorted(reader.get_variable_to_shape_map())
        found: dict[int, dict[str, Array]] = {}
        for name in names:
            if match := CELL.search(name):
                found.setdefault(int(match[1]), {})[match[2][:4].replace("weig", "kern")] = reader.get_tensor(name)
        output = [reader.get_tensor(name) for end in OUTPUT for name in names if f"/{name}".endswith(f"/{end}")]
    except (tf.errors.OpError, ValueError) as error:
        raise ConfigError(f"{prefix!r} can't be read as a TensorFlow checkpoint: {str(error).splitlines()[0]}") from error
    if not found or len(output) != len(OUTPUT) or any(set(parts) != {"kern", "bias"} for parts in found.values()):
        raise ConfigError(
            f"{prefix!r} is no notebook's checkpoint: it needs multi_rnn_cell/cell_0/basic_lstm_cell and softmax"
        )
    try:
        layers = [_layer(found[n]["kern"], found[n]["bias"]) for n in sorted(found)]
    except (ConfigError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{prefix!r}: {error}") from error
    return Foreign("lstm", layers, (output[0], output[1]), step=step_in(prefix))


def _layer(matrix: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Kernel, recurrent kernel and bias in Keras's order i, f, g, o."""
    hidden = matrix.shape[1] // 4
    cell_of(matrix.shape[1], hidden)

    def ordered(columns: Array) -> Array:
        i, j, f, o = np.split(columns, 4, axis=-1)
        return np.concatenate([i, f, j, o], axis=-1)

    full = ordered(bias)
    full[hidden : 2 * hidden] += FORGET_BIAS
    kernel = ordered(matrix)
    return kernel[:-hidden], kernel[-hidden:], full
