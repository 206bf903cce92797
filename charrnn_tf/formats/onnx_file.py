"""Writes ONNX files, in which a model is made of the standard's own LSTM or GRU operators.

    inputs      ids int64[N, T]; hidden_0, cell_0, ... float32[N, H]
    outputs     logits float32[N, T, V]; hidden_0_out, cell_0_out, ... float32[N, H]
    metadata    characters: JSON list by id, a byte model's are U+0000 to U+00FF; charrnn_tf: version

Equations and layouts are those of ONNX's operator reference: gates i, o, f, g in an LSTM and z, r, g in a GRU, which
multiplies by r after the matrix product (`linear_before_reset`); kernels [1, gates, inputs], the bias of the inputs before
that of the hidden state, inputs [T, N, F].
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError
from ..files import write_file
from ..runs.checkpoint import load_model
from ..settings.schema import CELLS
from .weights import Array, PlainModel, plain

OPSET, IR_VERSION = 9, 4  # the first with OneHot, and the format of the release that brought it, ONNX 1.4
LIMIT = 2**31 - 2**20  # bytes of weights and characters; a protobuf message holds 2 GiB, and names need less than 1 MiB
OPERATORS: dict[str, tuple[str, dict[str, int]]] = {"lstm": ("LSTM", {}), "gru": ("GRU", {"linear_before_reset": 1})}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ConfigError("ONNX files need the package onnx: pip install 'charrnn-tf[onnx]'") from None
    return onnx


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Any = None) -> str:
    """Write a checkpoint as an ONNX file of opset 9.

    Returns an empty string. Raises ConfigError for a model of more than 2.14 GB, and for an output that can't be written.
    """
    onnx = _onnx()
    model, record = load_model(checkpoint)
    found = plain(model, record.model, record.vocabulary)
    characters = json.dumps(found.characters)
    size = sum(weight.nbytes for weight in found.arrays()) + len(characters)
    if size > LIMIT:
        raise ConfigError(
            f"the model has {size / 1e9:.2f} GB, and an ONNX file holds at most 2.14 GB. Use `format` savedmodel."
        )
    opset = onnx.helper.make_opsetid("", OPSET)
    made = onnx.helper.make_model(
        _graph(onnx, found), producer_name="charrnn_tf", producer_version=__version__, opset_imports=[opset],
        ir_version=IR_VERSION,
    )  # fmt: skip
    onnx.helper.set_model_props(made, {"characters": characters, "charrnn_tf": __version__})
    write_file(output, made.SerializeToString())
    return ""


def _graph(onnx: Any, found: PlainModel) -> Any:
    """The network, time before batch between the two outer transpositions."""
    config, (operator, settings) = found.config(), OPERATORS[found.cell]
    hidden = config.hidden_size
    nodes: list[Any] = []
    arrays: dict[str, Any] = {}

    def add(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> None:
        nodes.append(onnx.helper.make_node(kind, inputs, outputs, name=f"{kind}_{len(nodes)}", **attributes))

    def values(name: str, *shape: str | int, kind: Any = onnx.TensorProto.FLOAT) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    add("Transpose", ["ids"], "ids_by_time", perm=[1, 0])
    if found.embedding is None:
        arrays |= {"depth": np.array(config.vocab_size), "off_and_on": np.array([0, 1], np.float32)}
        add("OneHot", ["ids_by_time", "depth", "off_and_on"], "inputs_0")
    else:
        arrays["embedding"] = found.embedding
        add("Gather", ["embedding", "ids_by_time"], "inputs_0")
    states = []
    for n, weights in enumerate(found.layers):
        arrays |= {f"{name}_{n}": weight for name, weight in zip("WRB", _as_onnx(found.cell, weights), strict=True)}
        own = [f"{name}_{n}" for name in CELLS[found.cell].states]
        for name in own:
            add("Unsqueeze", [name], f"{name}_before", axes=[0])
        inputs = [f"inputs_{n}", f"W_{n}", f"R_{n}", f"B_{n}", "", *(f"{name}_before" for name in own)]
        outputs = [f"outputs_{n}", *(f"{name}_after" for name in own)]
        add(operator, inputs, *outputs, hidden_size=hidden, **settings)
        for name in own:
            add("Squeeze", [f"{name}_after"], f"{name}_out", axes=[0])
        add("Squeeze", [f"outputs_{n}"], f"inputs_{n + 1}", axes=[1])  # the axis of directions
        states += own
    arrays |= dict(zip(("kernel", "bias"), found.output, strict=True))
    add("MatMul", [f"inputs_{config.num_layers}", "kernel"], "products")
    add("Add", ["products", "bias"], "logits_by_time")
    add("Transpose", ["logits_by_time"], "logits", perm=[1, 0, 2])
    return onnx.helper.make_graph(
        nodes,
        "charrnn",
        [values("ids", "N", "T", kind=onnx.TensorProto.INT64), *(values(name, "N", hidden) for name in states)],
        [values("logits", "N", "T", config.vocab_size), *(values(f"{name}_out", "N", hidden) for name in states)],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in arrays.items()],
    )


def _as_onnx(cell: str, weights: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """A layer's kernel, recurrent kernel and bias in Keras's layout as the operator's W, R and B."""
    kernel, recurrent, bias = weights
    if cell == "lstm":
        kernel, recurrent, bias = map(_reordered, weights)
        bias = np.stack([bias, np.zeros_like(bias)])
    return kernel.T[None], recurrent.T[None], bias.reshape(1, -1)


def _reordered(weights: Array) -> Array:
    """An LSTM's gates i, f, g, o along the last axis as i, o, f, g."""
    i, f, g, o = np.split(weights, 4, axis=-1)
    return np.concatenate([i, o, f, g], axis=-1)
