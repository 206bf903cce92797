"""Files of the PyTorch "Anna Karenina" notebooks, `rnn_20_epoch.net`: a dictionary stored by `torch.save`, read and written.

    n_hidden, n_layers    numbers
    state_dict            lstm.weight_ih_l0 [4H, V] and so on, gates i, f, g, o, two biases per layer;
                          fc.weight [V, H] and fc.bias [V]
    tokens                the characters by id

A GRU is stored under `gru.` with gates r, z, n (PyTorch's documentation of nn.GRU); Keras's order is z, r, n.
"""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, reason
from ..files import write_file
from .weights import Array, PlainModel, cell_of, read_checkpoint

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
OUTPUT = ("fc.weight", "fc.bias")  # of the dense layer


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ConfigError("PyTorch files need the package torch: pip install 'charrnn-tf[torch]'") from None
    return torch


def can_read(path: str | Path) -> bool:
    """Whether `torch.save` wrote a file: a zip archive with a data.pkl, or by its suffix an older format."""
    if Path(path).suffix in (".net", ".pt", ".pth"):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile):  # another or a damaged file
        return False


def read(path: str | Path) -> PlainModel:
    """A notebook's model; `weights_only` executes no code from the file. Raises ConfigError for another kind of file."""
    torch = _torch()
    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch warns about files that it then refuses
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a file of weights from torch.save: it is damaged, or contains more than numbers and texts"
        ) from error
    try:
        parts = {name: tensor.detach().float().numpy() for name, tensor in saved["state_dict"].items()}
        characters, count = list(saved["tokens"]), int(saved["n_layers"])
        if not all(isinstance(character, str) and len(character) == 1 for character in characters):
            raise ValueError("tokens are not single characters")
    except (TypeError, LookupError, AttributeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a notebook's file, which has n_layers, state_dict and tokens ({error!r})"
        ) from error
    try:
        return _plain(parts, characters, count)
    except (ConfigError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


def _plain(parts: dict[str, Array], characters: list[str], count: int) -> PlainModel:
    prefix = next((name.partition(".")[0] for name in parts if ".weight_ih_l0" in name), "lstm")
    layers, cell = [], "lstm"
    for n in range(count):
        rows = _named(parts, [f"{prefix}.{name}_l{n}" for name in NAMES])
        cell = cell_of(len(rows[1]), rows[1].shape[1])
        by_input, by_hidden, input_bias, hidden_bias = map(_reordered, rows) if cell == "gru" else rows
        bias = input_bias + hidden_bias if cell == "lstm" else np.stack([input_bias, hidden_bias])
        layers.append((by_input.T, by_hidden.T, bias))
    if f"{prefix}.{NAMES[0]}_l{count}" in parts:
        raise ConfigError(f"it has more layers than its n_layers, {count}")
    weight, bias = _named(parts, OUTPUT)
    return PlainModel(cell, layers, (weight.T, bias), None, characters)


def _named(parts: dict[str, Array], names: Sequence[str]) -> list[Array]:
    """Arrays by name. Raises ConfigError if any is missing."""
    if missing := [name for name in names if name not in parts]:
        raise ConfigError(f"{', '.join(missing)} is missing")
    return [parts[name] for name in names]


def _reordered(rows: Array) -> Array:
    """A GRU's gates r, z, n as z, r, n, or the other way round."""
    first, second, third = np.split(rows, 3)
    return np.concatenate([second, first, third])


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as a file that the notebooks load, with an embedding multiplied into the first layer's kernel.

    Returns an empty string. Raises ConfigError for an output that can't be written.
    """
    found = read_checkpoint(checkpoint, "torch")
    torch = _torch()
    arrays = dict(zip(OUTPUT, (found.output[0].T, found.output[1]), strict=True))
    for n, (kernel, recurrent, bias) in enumerate(found.layers):
        by_input = (found.embedding @ kernel if n == 0 and found.embedding is not None else kernel).T
        rows = [by_input, recurrent.T, bias, np.zeros_like(bias)]
        if found.cell == "gru":
            rows = [_reordered(each) for each in (by_input, recurrent.T, bias[0], bias[1])]
        arrays |= {f"{found.cell}.{name}_l{n}": each for name, each in zip(NAMES, rows, strict=True)}
    saved = {
        "n_hidden": len(found.output[0]), "n_layers": len(found.layers), "tokens": tuple(found.characters or ()),
        "state_dict": {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()},
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    write_file(output, buffer.getvalue())
    return ""
