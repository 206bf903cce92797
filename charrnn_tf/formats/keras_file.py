"""Keras files of stacked LSTM or GRU layers with a dense layer: reads `.keras`, `.weights.h5` and `.h5`, writes `.keras`.

Files are read as data, settings as JSON and numbers as HDF5; no layer is built from them, so loading never executes code.
"""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from ..errors import ConfigError, warn
from ..files import appearing, open_file, write_file
from ..settings.schema import ModelConfig
from .weights import Array, PlainModel, cell_of, read_checkpoint, step_in

SUFFIX = ".keras"
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins
SETTINGS, WEIGHTS = "config.json", "model.weights.h5"  # in a .keras archive
PLAIN_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
GATED: dict[str, list[Any]] = {
    "activation": ["tanh"], "recurrent_activation": ["sigmoid"], "use_bias": [True], "go_backwards": [False],
}  # fmt: skip
# Layers that may be in a model, with and without weights, and the settings they may have; the first is Keras's default
WEIGHTED: dict[str, dict[str, list[Any]]] = {
    "Embedding": {},
    "LSTM": GATED,
    "GRU": {**GATED, "reset_after": [True]},
    "Dense": {"activation": ["linear", "softmax"], "use_bias": [True]},
}
SKIPPED: dict[str, dict[str, list[Any]]] = {
    "InputLayer": {}, "Dropout": {}, "SpatialDropout1D": {}, "Softmax": {},
    "Activation": {"activation": ["linear", "softmax"]},
    "CategoryEncoding": {"output_mode": ["one_hot"]},
    "Reshape": {"target_shape": [[-1, 1]]},
}  # fmt: skip
# Layer settings in a file that we write, all known to Keras 3.4; those left out have Keras's defaults
WRITTEN = (
    "name", "dtype", "batch_shape", "target_shape", "num_tokens", "output_mode", "input_dim", "output_dim", "units",
    "activation", "return_sequences",
)  # fmt: skip
NO_STACK = "it is not a stack of LSTM or of GRU layers followed by one dense layer"


def read(path: str | Path) -> PlainModel:
    """The model in a file. Raises ConfigError for another kind of model."""
    try:
        with open_file(path) as file:
            if file.read(len(HDF5)) == HDF5:
                return _read_weights(file, path)
            with zipfile.ZipFile(file) as archive:
                _check(json.loads(archive.read(SETTINGS)))
                return _read_weights(io.BytesIO(archive.read(WEIGHTS)), path)
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{str(path)!r} can't be read as a Keras file: {why}") from error


def _check(settings: Any) -> None:
    """Raise ConfigError for layers or layer settings that this package does not implement."""
    stack = []
    config = settings.get("config", {})
    for layer in config if isinstance(config, list) else config.get("layers", []):  # a list before Keras 2.2.3
        inner = layer["config"]["layer"] if layer["class_name"] == "TimeDistributed" else layer
        kind, given = inner["class_name"], inner["config"]
        allowed = {**WEIGHTED, **SKIPPED}.get(kind)
        if allowed is None:
            raise ConfigError(f"{NO_STACK}: it has a layer {kind}")
        for name, values in allowed.items():
            if given.get(name, values[0]) not in values:
                raise ConfigError(f"its layer {kind} has {name} {given[name]!r}; only {values[0]!r} can be imported")
        stack += [kind] if kind in WEIGHTED else []
    if not re.fullmatch("(Embedding )?((LSTM )+|(GRU )+)Dense", " ".join(stack)):
        raise ConfigError(NO_STACK)


def _read_weights(file: Any, path: str | Path) -> PlainModel:
    """Read layers by their shapes: a recurrent cell has three arrays, a dense layer two, an embedding one."""
    with h5py.File(file) as numbers:
        items = {"": numbers}
        numbers.visititems(items.__setitem__)  # follows no links out of the file
        whole = "model_weights" in items
        if "model_config" in numbers.attrs:
            _check(json.loads(_text(numbers.attrs["model_config"])))
        by_layers = "layer_names" in items["model_weights" if whole else ""].attrs
        found = [*(_layers(items, "model_weights/" if whole else "") if by_layers else _objects(items))]
        version = re.match(r"(\d+)\.(\d+)", _text(numbers.attrs.get("keras_version", "")))
        if by_layers and not whole and version and (int(version[1]), int(version[2])) < (2, 3):
            warn(
                f"{str(path)!r} is of Keras {version[0]}, whose layers had recurrent_activation hard_sigmoid unless told "
                "otherwise; here it is sigmoid."
            )
    cells = [(each[0], each[1], each[2]) for is_cell, each in found if is_cell and len(each) == 3]
    dense = [(each[0], each[1]) for is_cell, each in found if len(each) == 2 and not is_cell]
    embeddings = [each[0] for _, each in found if len(each) == 1]
    if not cells or len(dense) != 1 or len(embeddings) > 1 or len(found) != len(cells) + 1 + len(embeddings):
        raise ConfigError(NO_STACK)
    kernel, recurrent, bias = cells[0]
    if kernel.ndim != 2 or recurrent.ndim != 2 or bias.ndim > 2 or any(each.ndim != 2 for each in embeddings):
        raise ConfigError(NO_STACK)
    kind = cell_of(recurrent.shape[1], len(recurrent))
    return PlainModel(kind, cells, dense[0], embeddings[0] if embeddings else None, step=step_in(str(path)))


def _layers(items: dict[str, Any], root: str) -> Iterator[tuple[bool, list[Array]]]:
    """Layers of a `.h5` file, which lists them by name: whether each is a recurrent cell, and its arrays."""
    names = [_text(name) for name in items[root.rstrip("/")].attrs["layer_names"]]
    if {"rnn_1", "attention"} <= set(names):
        raise ConfigError(f"{NO_STACK}, but textgenrnn's network. Train again on its text: charrnn-tf train FILE")
    for name in names:
        weights = [_text(weight) for weight in items[f"{root}{name}"].attrs["weight_names"]]
        if weights:
            arrays = [_numbers(items[f"{root}{name}/{weight}"]) for weight in weights]
            yield any("recurrent_kernel" in weight for weight in weights), arrays


def _objects(items: dict[str, Any]) -> Iterator[tuple[bool, list[Array]]]:
    """Layers of a `.weights.h5` file, as in `_layers`; `layers/NAME/vars/0`, `1`, ... are the arrays of a layer."""
    groups: dict[str, list[Array]] = {}
    for name, item in items.items():
        place = name.replace("_layer_checkpoint_dependencies/", "layers/")  # as written by Keras 2.12 and 2.13
        if not place.startswith(("optimizer", "_")) and re.search(r"(^|/)vars/\d+$", place):
            groups.setdefault(place.rpartition("/vars/")[0], []).append(_numbers(item))
    for name in sorted(groups, key=_natural):
        if len(groups[name]) > 1 or groups[name][0].ndim > 1:  # otherwise the seed of a dropout
            yield name.endswith("/cell"), groups[name]


def _numbers(item: Any) -> Array:
    if item.external or item.is_virtual:
        raise ConfigError("its numbers are stored in other files")
    return np.asarray(item, np.float32)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _natural(name: str) -> list[Any]:
    """Sort key that orders names by their numbers: lstm, lstm_1, ..., lstm_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"[/_]", name)]


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as Keras's own layers, ids [N, T] -> probabilities of the next character [N, T, V].

    The characters go into a JSON file beside it. Returns an empty string. Raises ConfigError for a name that does not end
    with .keras, and for an output that can't be written.
    """
    output = Path(output)
    if output.suffix != SUFFIX:
        raise ConfigError(f"`output` must end with {SUFFIX}, got {str(output)!r}")
    found = read_checkpoint(checkpoint, "keras")
    model = _keras_model(found.config())
    model.set_weights(found.arrays())
    with appearing(output) as place, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / f"model{SUFFIX}"  # Keras requires the suffix, and UTF-8
        model.save(saved)
        _write_for_all_versions(saved, place)
    characters = json.dumps({"characters": list(found.characters or ())})
    write_file(output.with_suffix(".vocabulary.json"), f"{characters}\n".encode())
    return ""


def _write_for_all_versions(saved: Path, place: Path) -> None:
    """Copy a `.keras` file without layer settings that older versions refuse even at their defaults; Keras 3.4 reads it."""
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(place, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == SETTINGS:
                settings = json.loads(content)
                for layer in settings["config"]["layers"]:
                    kept = {key: value for key, value in layer["config"].items() if key in WRITTEN}
                    dtype = kept["dtype"]
                    layer["config"] = kept | {"dtype": dtype if isinstance(dtype, str) else dtype["config"]["name"]}
                content = json.dumps(settings).encode()
            copy.writestr(name, content)


def _keras_model(config: ModelConfig) -> keras.Model:
    real = {"dtype": "float32"}
    ids = keras.Input((None,), dtype="int32", name="ids")
    if config.embedding_size:
        x = keras.layers.Embedding(config.vocab_size, config.embedding_size, name="embedding", **real)(ids)
    else:
        x = keras.layers.Reshape((-1, 1), name="columns", **real)(ids)  # CategoryEncoding drops a last dimension of 1
        x = keras.layers.CategoryEncoding(config.vocab_size, output_mode="one_hot", name="one_hot", **real)(x)
    for n in range(config.num_layers):
        x = PLAIN_LAYERS[config.cell](config.hidden_size, return_sequences=True, name=f"{config.cell}_{n}", **real)(x)
    dense = keras.layers.Dense(config.vocab_size, activation="softmax", name="probabilities", **real)
    return keras.Model(ids, dense(x), name="charrnn")
