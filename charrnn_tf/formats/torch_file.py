"""Files of PyTorch models, such as the "Anna Karenina" notebooks' `rnn_20_epoch.net`: read, and written as the notebooks do.

    n_hidden, n_layers    numbers
    state_dict            lstm.weight_ih_l0 [4H, V] and so on, gates i, f, g, o, two biases per layer;
                          fc.weight [V, H] and fc.bias [V]
    tokens                the characters by id

A state_dict alone is read too, its modules may have any names, and an embedding [V, E] may come before the layers.
A GRU is stored under `gru.` with gates r, z, n (PyTorch's documentation of nn.GRU); Keras's order is z, r, n.
"""

import io
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray  # as pickles of NumPy 2 call it

from ..errors import ConfigError, reason
from ..files import open_file, write_file
from .weights import Array, PlainModel, cell_of, characters_by_id, read_checkpoint

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
OUTPUT = ("fc.weight", "fc.bias")  # of the dense layer
FIRST = re.compile(r"(.*\.)?weight_ih_l0")
WRAPPER = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")  # of DataParallel and torch.compile
STATE_DICTS = ("state_dict", "model_state_dict", "model")


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ConfigError("PyTorch files need the package torch: pip install 'charrnn-tf[torch]'") from None
    return torch


def _safe() -> list[Any]:
    """Classes and functions in pickled NumPy arrays and scalars, which `weights_only` refuses by default."""
    made = ("_reconstruct", "scalar")
    named = [(getattr(multiarray, name), f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name in made]
    dtypes = np.dtypes.StrDType, np.dtypes.ObjectDType, np.dtypes.Int64DType, np.dtypes.Int32DType
    return [*named, np.ndarray, np.dtype, *dtypes]


def read(path: str | Path) -> PlainModel:
    """A model in a file; `weights_only` executes no code from it. Raises ConfigError for another kind of model."""
    torch = _torch()
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # PyTorch warns about files that it then refuses
            torch.serialization.safe_globals(_safe()),
            open_file(path) as file,
        ):
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a file of weights from torch.save: it is damaged, or contains more than numbers and "
            "texts, such as a whole module. Store the weights alone: torch.save(model.state_dict(), FILE)"
        ) from error
    try:
        parts = {WRAPPER.sub("", name): tensor.detach().float().numpy() for name, tensor in _state_dict(saved).items()}
        tokens = next((saved[name] for name in CHARACTERS if saved.get(name) is not None), None)
        return _plain(parts, None if tokens is None else characters_by_id(tokens), saved.get("n_layers"))
    except (ConfigError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


CHARACTERS = ("tokens", "chars", "characters", "int2char", "itos", "char2int", "stoi")  # names that notebooks give them


def _state_dict(saved: Any) -> Mapping[str, Any]:
    """The state_dict in a file of `torch.save`: under a key, or the whole. Raises ConfigError if it has none."""
    if isinstance(saved, Mapping):
        found = next((saved[name] for name in STATE_DICTS if name in saved), saved)
        if isinstance(found, Mapping) and found and all(hasattr(tensor, "detach") for tensor in found.values()):
            return found
    raise ConfigError("it has no state_dict. Store one there: torch.save(model.state_dict(), FILE)")


def _plain(parts: dict[str, Array], characters: list[str] | None, count: Any) -> PlainModel:
    stacks = [found[1] or "" for name in parts if (found := FIRST.fullmatch(name))]
    if not stacks:
        transformer = ", but those of a transformer such as nanoGPT's" if any("attn" in name for name in parts) else ""
        raise ConfigError(f"it has no LSTM or GRU layers{transformer}. Train again on its text: charrnn-tf train FILE")
    if len(stacks) > 1:
        raise ConfigError(f"it has several stacks of recurrent layers: {', '.join(stacks)}; only one can be imported")
    layers: list[tuple[Array, Array, Array]] = []
    stack, cell, used = stacks[0], "lstm", set[str]()
    while f"{stack}{NAMES[0]}_l{len(layers)}" in parts:
        names = [f"{stack}{name}_l{len(layers)}" for name in NAMES]
        rows = _named(parts, names)
        used |= set(names)
        cell = cell_of(len(rows[1]), rows[1].shape[1])
        by_input, by_hidden, input_bias, hidden_bias = map(_reordered, rows) if cell == "gru" else rows
        bias = input_bias + hidden_bias if cell == "lstm" else np.stack([input_bias, hidden_bias])
        layers.append((by_input.T, by_hidden.T, bias))
    if count is not None and count != len(layers):
        raise ConfigError(f"it has {len(layers)} layers, and its n_layers is {count!r}")
    rest = [name for name in parts if name not in used]
    weights = [name for name in rest if name.endswith("weight")]
    dense = [name for name in weights if f"{name.removesuffix('weight')}bias" in rest]
    embedding = [name for name in weights if name not in dense]
    if len(dense) != 1 or len(embedding) > 1 or len(rest) != 2 + len(embedding):
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        raise ConfigError(
            f"beside its recurrent layers it has {', '.join(rest[:5]) or 'nothing'}{more}, where weight and bias of one "
            "dense layer belong, and at most the weight of one embedding"
        )
    output = parts[dense[0]].T, parts[f"{dense[0].removesuffix('weight')}bias"]
    return PlainModel(cell, layers, output, parts[embedding[0]] if embedding else None, characters)


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
