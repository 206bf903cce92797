"""What is read of another tool's model and written as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..network.model import recurrent_layers
from ..runs.checkpoint import load_model
from ..settings.schema import CELLS, ModelConfig
from ..text.vocabulary import ByteVocabulary, Vocabulary

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Foreign:
    """A model as another tool saved it, its weights in Keras's order and shapes."""

    cell: str  # "lstm" or "gru"
    layers: Sequence[tuple[Array, Array, Array]]  # kernel, recurrent kernel, bias of each, from the input on
    output: tuple[Array, Array]  # dense kernel [H, V] and bias [V]
    embedding: Array | None = None  # [V, E]; None: one-hot input
    characters: Sequence[str] | None = None  # by id; None: the file doesn't say
    step: int = 0

    def without_first(self) -> Foreign:
        """A model with an embedding without its id 0, which stands for unknown characters in TensorFlow's own tutorial."""
        assert self.embedding is not None
        return replace(self, embedding=self.embedding[1:], output=(self.output[0][:, 1:], self.output[1][1:]))

    def config(self) -> ModelConfig:
        """The model's shape. Raises ConfigError where parts don't fit each other."""
        kernel, bias = self.output
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            raise ConfigError(f"the output has a kernel of {_by(kernel.shape)} and a bias of {_by(bias.shape)}")
        hidden, vocab_size = kernel.shape
        embedding_size = 0 if self.embedding is None else self.embedding.shape[1]
        inputs = embedding_size or vocab_size
        cell = CELLS[self.cell]
        gates = hidden * cell.gates
        for n, weights in enumerate(self.layers):
            found = [weight.shape for weight in weights]
            fitting = [
                (hidden if n else inputs, gates),
                (hidden, gates),
                (gates,) if cell.bias_rows == 1 else (cell.bias_rows, gates),
            ]
            if found != fitting:
                raise ConfigError(
                    f"layer {n + 1} has weights of {', '.join(map(_by, found))}; {', '.join(map(_by, fitting))} would fit: "
                    f"all layers are of one width, and the first reads {inputs} numbers"
                )
        if self.embedding is not None and len(self.embedding) != vocab_size:
            raise ConfigError(f"the embedding is {_by(self.embedding.shape)}, the output has {vocab_size} characters")
        return ModelConfig(
            vocab_size,
            self.cell,
            hidden_size=hidden,
            num_layers=len(self.layers),
            dropout=0.0,
            embedding_size=embedding_size,
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def put(model: keras.Model, found: Foreign) -> None:
    """Give a Keras model of this package a foreign model's weights."""
    if found.embedding is not None:
        model.get_layer("embedding").set_weights([found.embedding])
    for layer, weights in zip(recurrent_layers(model), found.layers, strict=True):
        layer.set_weights(list(weights))
    model.get_layer("logits").set_weights(list(found.output))


def take(model: keras.Model, config: ModelConfig, vocabulary: Vocabulary) -> Foreign:
    """The mirror of `put`."""
    layers = [tuple(layer.get_weights()) for layer in recurrent_layers(model)]
    embedding = model.get_layer("embedding").get_weights()[0] if config.embedding_size else None
    return Foreign(
        config.cell, layers, tuple(model.get_layer("logits").get_weights()), embedding, list(vocabulary.characters)
    )


def of_checkpoint(checkpoint: str | Path, kind: str) -> Foreign:
    """A checkpoint's model, to be written as a format that is called `kind`. Raises ConfigError for a model of bytes."""
    model, record = load_model(checkpoint)
    if isinstance(record.vocabulary, ByteVocabulary):
        raise ConfigError(f"the format {kind} knows characters only, and this model reads bytes. Use savedmodel or web.")
    return take(model, record.model, record.vocabulary)


def step_in(name: str) -> int:
    """The iteration in a file's name such as i200_l512.ckpt; 0 where there is none."""
    found = re.match(r"i(\d{1,18})_l\d+", Path(name).name)
    return int(found[1]) if found else 0


def cell_of(gates: int, hidden: int) -> str:
    """Which cell has so many rows or columns of gates. Raises ConfigError for none."""
    for name, cell in CELLS.items():
        if hidden and gates == cell.gates * hidden:
            return name
    raise ConfigError(f"{gates} numbers for {hidden} units are neither an LSTM's gates nor a GRU's")
