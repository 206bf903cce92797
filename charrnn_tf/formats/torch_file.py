"""The PyTorch "Anna Karenina" notebooks' `rnn_*_epoch.net`: a dictionary that `torch.save` wrote, read and written.

    n_hidden, n_layers    numbers
    state_dict            lstm.weight_ih_l0 [4H, V] and so on, gates i, f, g, o, two biases a layer; fc.weight [V, H] and
                          fc.bias
    tokens                the characters by id

A GRU is the same under `gru.`, gates r, z, n (PyTorch's documentation of nn.GRU), where Keras has z, r, n.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, reason
from ..files import write_file
from .weights import Array, Foreign, cell_of, of_checkpoint

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
OUTPUT = "fc"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ConfigError("PyTorch files need the package torch: pip install 'charrnn-tf[torch]'") from None
    return torch


def can_read(path: str | Path) -> bool:
    """Whether a file is one that `torch.save` wrote: a zip archive with a data.pkl, or by its name an older one."""
    if Path(path).suffix in (".net", ".pt", ".pth"):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile):  # none, or a damaged one
        return False


def read(path: str | Path) -> Foreign:
    """A notebook's model; nothing in the file can run (`weights_only`). Raises ConfigError for another kind of file."""
    torch = _torch()
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(path)!r} is no file of weights that torch.save wrote: it is damaged, or holds more than numbers and texts"
        ) from error
    try:
        parts = {name: tensor.detach().float().numpy() for name, tensor in saved["state_dict"].items()}
        characters, count = list(saved["tokens"]), int(saved["n_layers"])
        if not all(isinstance(character, str) and len(character) == 1 for character in characters):
            raise ValueError("tokens are not single characters")
    except (TypeError, LookupError, AttributeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{str(path)!r} is no notebook's file: it needs n_layers, state_dict and tokens ({error!r})"
        ) from error
    try:
        return _foreign(parts, characters, count)
    except (ConfigError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


def _foreign(parts: dict[str, Array], characters: list[str], count: int) -> Foreign:
    prefix = next((name.partition(".")[0] for name in parts if ".weight_ih_l0" in name), "lstm")
    layers = []
    cell = "lstm"
    for n in range(count):
        by_input, by_hidden, input_bias, hidden_bias = _named(parts, [f"{prefix}.{name}_l{n}" for name in NAMES])
        cell = cell_of(len(by_hidden), by_hidden.shape[1])
        if cell == "lstm":
            layers.append((by_input.T, by_hidden.T, input_bias + hidden_bias))
        else:
            by_input, by_hidden, input_bias, hidden_bias = map(_swapped, (by_input, by_hidden, input_bias, hidden_bias))
            layers.append((by_input.T, by_hidden.T, np.stack([input_bias, hidden_bias])))
    if f"{prefix}.{NAMES[0]}_l{count}" in parts:
        raise ConfigError(f"it has more layers than its n_layers, {count}")
    weight, bias = _named(parts, [f"{OUTPUT}.weight", f"{OUTPUT}.bias"])
    return Foreign(cell, layers, (weight.T, bias), None, characters)


def _named(parts: dict[str, Array], names: list[str]) -> tuple[Array, ...]:
    """Arrays by name. Raises ConfigError for one that is missing."""
    if missing := [name for name in names if name not in parts]:
        raise ConfigError(f"{', '.join(missing)} is missing")
    return tuple(parts[name] for name in names)


def _swapped(rows: Array) -> Array:
    """A GRU's gates r, z, n as z, r, n, and back."""
    first, second, third = np.split(rows, 3)
    return np.concatenate([second, first, third])


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as a file that the notebooks load, the mirror of `read`; returns nothing to say.

    An embedding is multiplied into the first layer's kernel. Raises ConfigError where it can't be written.
    """
    found = of_checkpoint(checkpoint, "torch")
    torch = _torch()
    state: dict[str, Any] = {}
    for n, (kernel, recurrent, bias) in enumerate(found.layers):
        by_input = (found.embedding @ kernel if n == 0 and found.embedding is not None else kernel).T
        rows = [by_input, recurrent.T, bias, np.zeros_like(bias)]
        if found.cell == "gru":
            rows = [_swapped(each) for each in (by_input, recurrent.T, bias[0], bias[1])]
        for name, each in zip(NAMES, rows, strict=True):
            state[f"{found.cell}.{name}_l{n}"] = torch.from_numpy(np.ascontiguousarray(each))
    weight, bias = found.output
    state |= {f"{OUTPUT}.weight": torch.from_numpy(np.ascontiguousarray(weight.T)), f"{OUTPUT}.bias": torch.from_numpy(bias)}
    saved = {
        "n_hidden": int(weight.shape[0]), "n_layers": len(found.layers), "state_dict": state,
        "tokens": tuple(found.characters or ()),
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    write_file(output, buffer.getvalue())
    return ""
