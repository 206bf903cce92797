"""A model's weights as plain arrays: what every other format is read into and written from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

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
class PlainModel:
    """Weights in Keras's order and shapes: L layers of H cells, V characters."""

    cell: str  # "lstm" or "gru"
    layers: Sequence[tuple[Array, Array, Array]]  # kernel, recurrent kernel and bias of each, from the input on
    output: tuple[Array, Array]  # dense kernel [H, V] and bias [V]
    embedding: Array | None = None  # [V, E]; None: one-hot input
    characters: Sequence[str] | None = None  # by id; None: not in the file
    step: int = 0

    def without_unknown(self) -> Self:
        """Remove id 0 of an embedding, which TensorFlow's tutorial reserves for unknown characters."""
        assert self.embedding is not None
        return replace(self, embedding=self.embedding[1:], output=(self.output[0][:, 1:], self.output[1][1:]))

    def config(self) -> ModelConfig:
        """The model's shape. Raises ConfigError for weights that don't fit each other."""
        kernel, bias = self.output
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            raise ConfigError(f"the output has a kernel of {_size(kernel.shape)} and a bias of {_size(bias.shape)}")
        hidden, vocab_size = kernel.shape
        width = 0 if self.embedding is None else self.embedding.shape[1]
        inputs = width or vocab_size
        cell = CELLS[self.cell]
        gates = hidden * cell.gates
        bias_shape = (gates,) if cell.bias_rows == 1 else (cell.bias_rows, gates)
        for n, weights in enumerate(self.layers):
            found = [weight.shape for weight in weights]
            fitting = [(hidden if n else inputs, gates), (hidden, gates), bias_shape]
            if found != fitting:
                sizes, expected = (", ".join(map(_size, shapes)) for shapes in (found, fitting))
                raise ConfigError(
                    f"layer {n + 1} has weights of {sizes} instead of {expected}: all layers must have the same width, and "
                    f"the first reads {inputs} numbers"
                )
        if self.embedding is not None and len(self.embedding) != vocab_size:
            raise ConfigError(f"the embedding is {_size(self.embedding.shape)}, the output has {vocab_size} characters")
        if not all(np.isfinite(weights).all() for weights in self.arrays()):
            raise ConfigError("its weights are not all finite numbers: it comes from a training that failed")
        return ModelConfig(
            vocab_size, self.cell, hidden_size=hidden, num_layers=len(self.layers), dropout=0.0, embedding_size=width
        )

    def arrays(self) -> list[Array]:
        """All weights, as a Keras model's `set_weights` takes them."""
        embedding = [] if self.embedding is None else [self.embedding]
        return [*embedding, *chain.from_iterable(self.layers), *self.output]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def plain(model: keras.Model, config: ModelConfig, vocabulary: Vocabulary) -> PlainModel:
    """The weights of a Keras model of this package."""
    return PlainModel(
        config.cell,
        [tuple(layer.get_weights()) for layer in recurrent_layers(model)],
        tuple(model.get_layer("logits").get_weights()),
        model.get_layer("embedding").get_weights()[0] if config.embedding_size else None,
        list(vocabulary.characters),
    )


def read_checkpoint(checkpoint: str | Path, format: str) -> PlainModel:
    """A checkpoint's weights for a format that knows characters only. Raises ConfigError for a byte model."""
    model, record = load_model(checkpoint)
    if isinstance(record.vocabulary, ByteVocabulary):
        others = "savedmodel, onnx or web"
        raise ConfigError(f"format {format} supports characters only, and this model reads bytes. Use {others}.")
    return plain(model, record.model, record.vocabulary)


def characters_by_id(found: Any) -> list[str]:
    """Characters from a list, tuple, array or text of them by id, or from a dictionary between characters and ids.

    Raises ConfigError for a set, which has no order, and for anything else.
    """
    if isinstance(found, set | frozenset):
        raise ConfigError("a set of characters has no order, so their ids are lost: store them as a list by id")
    try:
        if isinstance(found, Mapping):
            by_id = {int(k if isinstance(v, str) else v): v if isinstance(v, str) else k for k, v in found.items()}
            found = [by_id[n] for n in range(len(found))]
        characters = list(found)
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError("characters must be a list by id, or a dictionary with the ids 0 to V - 1") from error
    if not all(isinstance(character, str) and len(character) == 1 for character in characters):
        raise ConfigError("not all of the vocabulary's entries are single characters")
    return characters


def step_in(name: str) -> int:
    """The iteration in a file name such as i200_l512.ckpt, else 0."""
    found = re.match(r"i(\d{1,18})_l\d+", Path(name).name)
    return int(found[1]) if found else 0


def cell_of(gates: int, hidden: int) -> str:
    """Name of the cell that has this many gate rows. Raises ConfigError if there is none."""
    for name, cell in CELLS.items():
        if hidden and gates == cell.gates * hidden:
            return name
    raise ConfigError(f"{gates} gate rows for {hidden} units fit neither an LSTM nor a GRU")
