"""Keras's own files of a stacked LSTM or GRU with a dense layer: `.keras` and `.weights.h5` read, `.keras` written.

A file is read as data, its settings as JSON and its numbers as HDF5: no layer is built from it, so nothing in it can run.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from ..errors import ConfigError
from ..files import appearing, write_file
from ..settings.schema import ModelConfig
from .weights import Array, Foreign, cell_of, of_checkpoint, step_in

ENDINGS = (".keras", ".weights.h5")
SETTINGS, WEIGHTS = "config.json", "model.weights.h5"
PLAIN_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
GATED: dict[str, list[Any]] = {
    "activation": ["tanh"], "recurrent_activation": ["sigmoid"], "use_bias": [True], "go_backwards": [False],
}  # fmt: skip
# What may stand in the stack, and what its settings may be
TAKEN: dict[str, dict[str, list[Any]]] = {
    "Embedding": {},
    "LSTM": GATED,
    "GRU": {**GATED, "reset_after": [True]},
    "Dense": {"activation": ["linear", "softmax"], "use_bias": [True]},
}
PASSED_OVER: dict[str, dict[str, list[Any]]] = {
    "InputLayer": {},
    "Dropout": {},
    "SpatialDropout1D": {},
    "Softmax": {},
    "Activation": {"activation": ["linear", "softmax"]},
    "CategoryEncoding": {"output_mode": ["one_hot"]},
    "Reshape": {"target_shape": [[-1, 1]]},
}
NO_STACK = "it is no stack of LSTM or of GRU layers with one dense layer after it"


def can_read(path: str | Path) -> bool:
    """Whether a file's name is one that Keras gives."""
    return str(path).endswith(ENDINGS)


def read(path: str | Path) -> Foreign:
    """The model in a file. Raises ConfigError for another kind of model."""
    try:
        if str(path).endswith(ENDINGS[1]):
            return _read_weights(path, path)
        with zipfile.ZipFile(path) as archive:
            _check(json.loads(archive.read(SETTINGS)))
            return _read_weights(io.BytesIO(archive.read(WEIGHTS)), path)
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{str(path)!r} can't be read as a Keras file: {why}") from error


def _check(settings: Any) -> None:
    """Raise ConfigError for a model that is another than its weights let see."""
    stack = []
    for layer in settings.get("config", {}).get("layers", []):
        inner = layer["config"]["layer"] if layer["class_name"] == "TimeDistributed" else layer
        kind, given = inner["class_name"], inner["config"]
        allowed = {**TAKEN, **PASSED_OVER}.get(kind)
        if allowed is None:
            raise ConfigError(f"{NO_STACK}: it has a layer {kind}")
        for name, values in allowed.items():
            if given.get(name, values[0]) not in values:
                raise ConfigError(f"its layer {kind} has {name} {given[name]!r}; only {values[0]!r} can be taken over")
        stack += [kind] if kind in TAKEN else []
    if not re.fullmatch("(Embedding )?((LSTM )+|(GRU )+)Dense", " ".join(stack)):
        raise ConfigError(NO_STACK)


def _read_weights(file: Any, path: str | Path) -> Foreign:
    """By shapes and the names' numbers: a recurrent cell has three arrays, a dense layer two, an embedding one."""
    groups: dict[str, list[Array]] = {}
    with h5py.File(file) as numbers:

        def visit(name: str, item: Any) -> None:
            place = name.replace("_layer_checkpoint_dependencies/", "layers/")  # as Keras 2.12 and 2.13 have it
            if not isinstance(item, h5py.Dataset) or place.startswith(("optimizer", "_")):
                return
            if item.external or item.is_virtual:
                raise ConfigError("its numbers lie in other files")
            if re.search(r"(^|/)vars/\d+$", place):
                groups.setdefault(place.rpartition("/vars/")[0], []).append(np.asarray(item, np.float32))

        numbers.visititems(visit)
    seeds = [name for name, arrays in groups.items() if len(arrays) == 1 and arrays[0].ndim < 2]
    named = [(name, groups[name]) for name in sorted(groups, key=_natural) if name not in seeds]
    cells = [arrays for name, arrays in named if name.endswith("/cell") and len(arrays) == 3]
    dense = [arrays for name, arrays in named if len(arrays) == 2 and not name.endswith("/cell")]
    embeddings = [arrays[0] for _, arrays in named if len(arrays) == 1 and arrays[0].ndim == 2]
    if not cells or len(dense) != 1 or len(embeddings) > 1 or len(named) != len(cells) + 1 + len(embeddings):
        raise ConfigError(NO_STACK)
    kernel, recurrent, bias = (cells[0][n] for n in range(3))
    if kernel.ndim != 2 or recurrent.ndim != 2 or bias.ndim > 2:
        raise ConfigError(NO_STACK)
    kind = cell_of(recurrent.shape[1], len(recurrent))
    return Foreign(
        kind, [(each[0], each[1], each[2]) for each in cells], (dense[0][0], dense[0][1]),
        embeddings[0] if embeddings else None, step=step_in(str(path)),
    )  # fmt: skip


def _natural(name: str) -> list[Any]:
    """Names in the order of their numbers: lstm, lstm_1, ..., lstm_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"[/_]", name)]


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as plain Keras layers, ids [N, T] -> probabilities of the next character [N, T, V].

    The characters go into a JSON file beside it. Returns nothing to say. Raises ConfigError where it can't be written, and
    for a name that does not end with .keras.
    """
    output = Path(output)
    if output.suffix != ENDINGS[0]:
        raise ConfigError(f"--output must end with {ENDINGS[0]}, got {str(output)!r}")
    found = of_checkpoint(checkpoint, "keras")
    with appearing(output) as place, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / output.name  # which ends as Keras wants it to
        _plain_model(found, found.config()).save(saved)
        shutil.copyfile(saved, place)
    characters = json.dumps({"characters": list(found.characters or ())})
    write_file(output.with_suffix(".vocabulary.json"), f"{characters}\n".encode())
    return ""


def _plain_model(found: Foreign, config: ModelConfig) -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    if config.embedding_size:
        x = keras.layers.Embedding(config.vocab_size, config.embedding_size, name="embedding")(ids)
    else:
        x = keras.layers.Reshape((-1, 1), name="columns")(ids)  # a last dimension of 1 is what CategoryEncoding drops
        x = keras.layers.CategoryEncoding(config.vocab_size, output_mode="one_hot", name="one_hot")(x)
    layers = []
    for n in range(config.num_layers):
        layers.append(PLAIN_LAYERS[config.cell](config.hidden_size, return_sequences=True, name=f"{config.cell}_{n}"))
        x = layers[-1](x)
    dense = keras.layers.Dense(config.vocab_size, activation="softmax", name="probabilities")
    model = keras.Model(ids, dense(x), name="charrnn")
    if found.embedding is not None:
        model.get_layer("embedding").set_weights([found.embedding])
    for layer, weights in zip(layers, found.layers, strict=True):
        layer.set_weights(list(weights))
    dense.set_weights(list(found.output))
    return model
