"""`charrnn-tf export --format web`: the model in one page that writes and scores in any browser, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import write_file
from ..inference.evaluation import Evaluator
from ..inference.sampling import start_id
from ..machine.hardware import available_cores
from ..pages import packed, render
from ..runs.checkpoint import load_model
from ..settings.schema import CELLS
from ..text.vocabulary import ByteVocabulary, Ids
from .weights import Array, Foreign, put, take

MOST_COST = 0.005  # nats a character that 8-bit weights may cost
Stored = Mapping[str, Any]
Rounding = Callable[[Array], Stored]


class Page(NamedTuple):
    """What was made."""

    html: str
    bits: int  # of a stored weight
    cost: float | None  # nats a character more than with float32; None: no text was there to tell
    characters: int  # that told


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Ids | None = None) -> str:
    """Write a checkpoint as a page; returns what its rounding costs. Raises ConfigError where it can't be written."""
    page = web_page(checkpoint, held_out)
    write_file(output, page.html.encode())
    known = f" cost {page.cost:+.4f} nats a character, on {page.characters:,}" if page.characters else ""
    cost = known or " (what rounding costs is not known without --text)"
    return f"Weights of {page.bits} bits{cost}; {len(page.html) / 1e6:.1f} MB."


def web_page(checkpoint: str | Path, held_out: Ids | None) -> Page:
    """A saved model as a page. held_out: ids of a text the model was not trained on, which tells what rounding costs."""
    model, record = load_model(checkpoint)
    known = held_out if held_out is not None and len(held_out) > 1 else None
    found = take(model, record.model, record.vocabulary)
    weights = weights_of(found)
    evaluator = Evaluator(model, record.model, available_cores())
    exact = 0.0 if known is None else evaluator.evaluate(known).nats_per_character

    def cost_of(rounding: Rounding) -> float | None:
        if known is None:
            return None
        put(model, with_weights(found, {name: restored(rounding(each)) for name, each in weights.items()}))
        return evaluator.evaluate(known).nats_per_character - exact

    rounding, bits, cost = as_int8, 8, cost_of(as_int8)
    if cost is None or cost >= MOST_COST:
        rounding, bits, cost = as_float16, 16, cost_of(as_float16)
    spec = {
        "cell": record.model.cell,
        "gates": CELLS[record.model.cell].gates,
        "hidden": record.model.hidden_size,
        "layers": record.model.num_layers,
        "embedding": record.model.embedding_size,
        "bytes": isinstance(record.vocabulary, ByteVocabulary),
        "characters": [ord(character) for character in record.vocabulary.characters],
        "start": start_id(record.vocabulary),
        "weights": {name: _stored(each, rounding) for name, each in weights.items()},
    }
    html = render(
        __package__,
        "web.html",
        ["numbers.js", "network.js", "web.js"],
        title=f"{record.name}: a model that writes",
        record=record,
        bits=bits,
        cost=cost,
        characters=0 if known is None else len(known),
        data=spec,
    )
    return Page(html, bits, cost, 0 if known is None else len(known))


def weights_of(found: Foreign) -> dict[str, Array]:
    """The weights by the page's names; what multiplies a vector has a row for each number that comes out.

    `input` has a row for each character: an embedding's [V, E], or without one the first layer's kernel [V, G].
    """
    embedded = found.embedding is not None
    weights = {"input": found.layers[0][0] if found.embedding is None else found.embedding}
    for n, (kernel, recurrent, bias) in enumerate(found.layers):
        if n or embedded:
            weights[f"kernel_{n}"] = kernel.T
        weights |= {f"recurrent_{n}": recurrent.T, f"bias_{n}": bias}
    return {**weights, "output": found.output[0].T, "output_bias": found.output[1]}


def with_weights(found: Foreign, weights: Mapping[str, Array]) -> Foreign:
    """The mirror of `weights_of`."""
    embedded = found.embedding is not None
    kernels = [weights[f"kernel_{n}"].T if n or embedded else weights["input"] for n in range(len(found.layers))]
    return replace(
        found,
        layers=[(kernel, weights[f"recurrent_{n}"].T, weights[f"bias_{n}"]) for n, kernel in enumerate(kernels)],
        output=(weights["output"].T, weights["output_bias"]),
        embedding=weights["input"] if embedded else None,
    )


def as_int8(matrix: Array) -> Stored:
    """Whole numbers from -127 to 127 with a scale for each row; biases as they are."""
    if matrix.ndim < 2 or len(matrix) == 2:
        return {"numbers": matrix}
    scales = np.maximum(np.abs(matrix).max(axis=1, keepdims=True) / 127, np.float32(1e-30)).astype(np.float32)
    return {"numbers": np.round(matrix / scales).astype(np.int8), "scales": scales}


def as_float16(matrix: Array) -> Stored:
    """Rounded to 16 bits; biases as they are."""
    return {"numbers": matrix if matrix.ndim < 2 or len(matrix) == 2 else matrix.astype(np.float16)}


def restored(stored: Stored) -> Array:
    """What the page computes with."""
    return stored["numbers"].astype(np.float32) * stored.get("scales", np.float32(1))


def _stored(matrix: Array, rounding: Rounding) -> dict[str, Any]:
    stored = rounding(matrix)
    return {"kind": stored["numbers"].dtype.name} | {name: packed(numbers) for name, numbers in stored.items()}
