"""Initial weights: as in Keras, PyTorch, the PyTorch notebooks and TensorFlow 1 (`--init`), and for further characters."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ..settings.schema import ModelConfig

DTYPE = "float32"  # of the drawn numbers, whatever Keras's default is
SHARE = 5e-4  # upper bound on the probability, relative to that of all old characters, that the new ones get together


def initialize(model: keras.Model, config: ModelConfig, seed: int) -> None:
    """Draw all weights from a seed, by `config.init`.

    keras: Keras's defaults: Glorot-uniform kernels, orthogonal recurrent kernels, forget bias 1, embedding U(-0.05, 0.05).
    pytorch: PyTorch's defaults: recurrent layers and dense U(-1/sqrt(H), 1/sqrt(H)), embedding N(0, 1). PyTorch has two
        biases per layer: the one bias of an LSTM here is the sum of two draws, a GRU has both.
    wide: pytorch, but dense weights U(-1, 1) and dense bias 0, as in the PyTorch "Anna Karenina" notebooks.
    default: wide, and the forget bias of an LSTM is 1 (Jozefowicz, Zaremba and Sutskever 2015).
    tf1: TensorFlow 1's: input and recurrent kernel as one Glorot-uniform matrix, bias 0 plus 1 for the forget gate (for a
        GRU's two gates), dense weights from a normal of 0.1 truncated at two deviations, embedding U(-0.05, 0.05).
    """
    draw = np.random.default_rng(seed)
    if config.embedding_size:
        shape = (config.vocab_size, config.embedding_size)
        normal = config.init in ("pytorch", "wide", "default")
        embedding = draw.normal(size=shape) if normal else draw.uniform(-0.05, 0.05, shape)
        model.get_layer("embedding").set_weights([embedding])
    for n in range(config.num_layers):
        layer = model.get_layer(f"{config.cell}_{n}")
        layer.set_weights(_recurrent_weights(draw, config, [weight.shape for weight in layer.get_weights()]))
    dense = model.get_layer("logits")
    dense.set_weights(_dense_weights(draw, config, [weight.shape for weight in dense.get_weights()]))


def _recurrent_weights(draw: np.random.Generator, config: ModelConfig, shapes: Sequence[Any]) -> list[Any]:
    """Kernel, recurrent kernel and bias of a recurrent layer."""
    kernel, recurrent, bias = shapes
    H = config.hidden_size
    if config.init in ("pytorch", "wide", "default"):
        limit = 1 / math.sqrt(H)
        second = draw.uniform(-limit, limit, bias) if config.cell == "lstm" else 0
        *kernels, first = (draw.uniform(-limit, limit, shape) for shape in shapes)
        biases = first + second
        if config.init == "default" and config.cell == "lstm":
            biases[H : 2 * H] = 1
        return [*kernels, biases]
    ones = np.zeros(bias)
    if config.cell == "lstm":
        ones[H : 2 * H] = 1
    elif config.init == "tf1":
        ones[0, : 2 * H] = 1
    if config.init == "keras":
        glorot = keras.initializers.GlorotUniform(_seed(draw))(kernel, DTYPE)
        return [glorot, keras.initializers.Orthogonal(seed=_seed(draw))(recurrent, DTYPE), ones]
    limit = math.sqrt(6 / (kernel[0] + recurrent[0] + recurrent[1]))
    return [draw.uniform(-limit, limit, kernel), draw.uniform(-limit, limit, recurrent), ones]


def _dense_weights(draw: np.random.Generator, config: ModelConfig, shapes: Sequence[Any]) -> list[Any]:
    """Kernel and bias of the output layer."""
    kernel, bias = shapes
    if config.init == "pytorch":
        limit = 1 / math.sqrt(config.hidden_size)
        return [draw.uniform(-limit, limit, shape) for shape in shapes]
    if config.init in ("wide", "default"):
        return [draw.uniform(-1, 1, kernel), np.zeros(bias)]
    if config.init == "keras":
        return [keras.initializers.GlorotUniform(_seed(draw))(kernel, DTYPE), np.zeros(bias)]
    return [keras.initializers.TruncatedNormal(stddev=0.1, seed=_seed(draw))(kernel, DTYPE), np.zeros(bias)]


def _seed(draw: np.random.Generator) -> int:
    return int(draw.integers(2**31))


def grown(old: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """A weight with rows or columns for K more characters behind those of V old ones; any other weight as it is.

    shape: of the new weight. It differs from the old one along the characters: input kernel or embedding [V, ...], output
    kernel [H, V], output bias [V].

    Each new row or column is the mean of the old ones, and the new biases are lower than the mean by log(V SHARE / K)
    where that is negative. A new logit is then the mean of the old logits plus at most log(V SHARE / K). Since exp of a
    mean is at most the mean of exp, K new characters add at most SHARE to the sum of exp over the old ones, whatever was
    read: the old characters lose at most log(1 + SHARE) < 0.0005 nats each. Equal logits alone would cost log(1 + K / V).
    """
    axes = [axis for axis, sizes in enumerate(zip(old.shape, shape, strict=True)) if sizes[0] != sizes[1]]
    if not axes:
        return old
    (axis,) = axes
    count, added = old.shape[axis], shape[axis] - old.shape[axis]
    mean = old.mean(axis, dtype=np.float64, keepdims=True)
    if old.ndim == 1:
        mean += min(math.log(SHARE * count / added), 0.0)
    return np.concatenate([old, np.repeat(mean, added, axis).astype(old.dtype)], axis)
