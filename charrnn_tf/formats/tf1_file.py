"""Checkpoints of the TensorFlow 1 "Anna Karenina" notebook, `i200_l512.ckpt`, read by TensorFlow's checkpoint reader.

`BasicLSTMCell` stores input and recurrent kernel as the rows of one matrix [F + H, 4H], gates i, j, f, o, and adds 1 to the
forget gate's bias when it runs. The output layer is `softmax/Variable` [H, V] and `softmax/Variable_1` [V].
"""

import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..errors import ConfigError, reason
from ..files import literal_prefix
from .weights import Array, PlainModel, cell_of, step_in

FORGET_BIAS = 1.0
CELL = re.compile(r"multi_rnn_cell/cell_(\d+)/basic_lstm_cell/(?:(kernel|weights)|bias(?:es)?)$")
OUTPUT = ("softmax/Variable", "softmax/Variable_1")
OBJECT_BASED = "_CHECKPOINTABLE_OBJECT_GRAPH"  # in checkpoints of tf.train.Checkpoint, whose names follow its objects
PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def read(path: str | Path) -> PlainModel:
    """The notebook's model. Raises ConfigError for a checkpoint of another model."""
    prefix = PART.sub("", str(path))  # also given by one of its files
    try:
        with literal_prefix(prefix) as place:
            reader = tf.train.load_checkpoint(place)
            names = sorted(reader.get_variable_to_shape_map())
            found: dict[int, dict[str, Array]] = {}
            for name in names:
                if match := CELL.search(name):
                    found.setdefault(int(match[1]), {})["kernel" if match[2] else "bias"] = reader.get_tensor(name)
            output = [reader.get_tensor(name) for end in OUTPUT for name in names if f"/{name}".endswith(f"/{end}")]
    except (tf.errors.OpError, OSError, ValueError) as error:
        why = reason(error).partition("\n")[0]
        raise ConfigError(f"{prefix!r} can't be read as a TensorFlow checkpoint: {why}") from error
    if OBJECT_BASED in names:
        raise ConfigError(
            f"{prefix!r} is a checkpoint of tf.train.Checkpoint, such as Keras 2's save_weights writes, whose names don't "
            "tell its layers. Load it into its model and save that as .weights.h5."
        )
    if not found or len(output) != len(OUTPUT) or any(len(layer) != 2 for layer in found.values()):
        raise ConfigError(
            f"{prefix!r} is not a checkpoint of the notebook, which has multi_rnn_cell/cell_0/basic_lstm_cell and softmax"
        )
    try:
        layers = [_layer(**found[n]) for n in sorted(found)]
    except (ConfigError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{prefix!r}: {error}") from error
    return PlainModel("lstm", layers, (output[0], output[1]), step=step_in(prefix))


def _layer(kernel: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Kernel, recurrent kernel and bias in Keras's order i, f, g, o (TensorFlow 1 calls g j)."""
    hidden = kernel.shape[1] // 4
    cell_of(kernel.shape[1], hidden)

    def ordered(columns: Array) -> Array:
        i, j, f, o = np.split(columns, 4, axis=-1)
        return np.concatenate([i, f, j, o], axis=-1)

    kernel, bias = ordered(kernel), ordered(bias)
    bias[hidden : 2 * hidden] += FORGET_BIAS
    return kernel[:-hidden], kernel[-hidden:], bias
