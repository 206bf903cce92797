"""`charrnn-tf export --format web`: one page that generates and scores text in any browser, without a network."""

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
from .weights import Array, PlainModel, plain

MOST_ADDED = 0.005  # nats per character that 8-bit weights may add to the loss; otherwise 16 bits are used
Stored = Mapping[str, Any]
Rounding = Callable[[Array], Stored]


class Page(NamedTuple):
    """A page and its rounding."""

    html: str
    bits: int  # per weight
    added: float | None  # loss added by rounding, nats per character; None: not measured
    characters: int  # that it was measured on


def export_checkpoint(checkpoint: str | Path, output: str | Path, held_out: Ids | None = None) -> str:
    """Write a checkpoint as a page; returns the loss added by rounding. Raises ConfigError if it can't be written."""
    page = web_page(checkpoint, held_out)
    write_file(output, page.html.encode())
    added = "pass `text` to measure the loss they add"
    if page.added is not None:
        added = f"they add {page.added:+.4f} nats per character, measured on {page.characters:,} characters"
    return f"{page.bits}-bit weights ({added}); {len(page.html) / 1e6:.1f} MB."


def web_page(checkpoint: str | Path, held_out: Ids | None) -> Page:
    """A checkpoint as a page. held_out: ids that the model was not trained on, for measuring the loss added by rounding."""
    model, record = load_model(checkpoint)
    known = held_out if held_out is not None and len(held_out) > 1 else None
    found = plain(model, record.model, record.vocabulary)
    weights = weights_of(found)
    evaluator = Evaluator(model, record.model, available_cores())
    exact = 0.0 if known is None else evaluator.evaluate(known).nats_per_character

    def added_by(rounding: Rounding) -> float | None:
        if known is None:
            return None
        model.set_weights(with_weights(found, {name: restored(rounding(each)) for name, each in weights.items()}).arrays())
        return evaluator.evaluate(known).nats_per_character - exact

    rounding, bits, added = as_int8, 8, added_by(as_int8)
    if added is None or added >= MOST_ADDED:
        rounding, bits, added = as_float16, 16, added_by(as_float16)
    spec = {
        "cell": record.model.cell,
        "gates": CELLS[record.model.cell].gates,
        "hidden": record.model.hidden_size,
        "layers": record.model.num_layers,
        "embedding": record.model.embedding_size,
        "bytes": isinstance(record.vocabulary, ByteVocabulary),
        "characters": [ord(character) for character in record.vocabulary.characters],
        "start": start_id(record.vocabulary),
        "line_start": record.line_start,
        "weights": {name: _encoded(rounding(each)) for name, each in weights.items()},
    }
    measured = 0 if known is None else len(known)
    html = render(
        __package__, "web.html", ["numbers.js", "network.js", "web.js"], title=f"Text from {record.name}", record=record,
        bits=bits, added=added, characters=measured, data=spec,
    )  # fmt: skip
    return Page(html, bits, added, measured)


def weights_of(found: PlainModel) -> dict[str, Array]:
    """Weights by the page's names; a matrix has one row per number that its product with a vector gives.

    `input` has one row per character: the embedding [V, E], or without one the first layer's kernel [V, G].
    """
    weights = {"input": found.layers[0][0] if found.embedding is None else found.embedding}
    for n, (kernel, recurrent, bias) in enumerate(found.layers):
        if n or found.embedding is not None:
            weights[f"kernel_{n}"] = kernel.T
        weights |= {f"recurrent_{n}": recurrent.T, f"bias_{n}": bias}
    return {**weights, "output": found.output[0].T, "output_bias": found.output[1]}


def with_weights(found: PlainModel, weights: Mapping[str, Array]) -> PlainModel:
    """Replace all weights of a model; the inverse of `weights_of`."""
    kernels = [weights[f"kernel_{n}"].T if f"kernel_{n}" in weights else weights["input"] for n in range(len(found.layers))]
    return replace(
        found,
        layers=[(kernel, weights[f"recurrent_{n}"].T, weights[f"bias_{n}"]) for n, kernel in enumerate(kernels)],
        output=(weights["output"].T, weights["output_bias"]),
        embedding=None if found.embedding is None else weights["input"],
    )


def as_int8(matrix: Array) -> Stored:
    """Integers from -127 to 127 with one scale per row; biases unchanged."""
    if _is_bias(matrix):
        return {"numbers": matrix}
    scales = np.maximum(np.abs(matrix).max(axis=1, keepdims=True) / 127, np.float32(1e-30)).astype(np.float32)
    return {"numbers": np.round(matrix / scales).astype(np.int8), "scales": scales}


def as_float16(matrix: Array) -> Stored:
    """Rounded to 16 bits; biases unchanged."""
    return {"numbers": matrix if _is_bias(matrix) else matrix.astype(np.float16)}


def restored(stored: Stored) -> Array:
    """The rounded weights, with which the page computes."""
    return stored["numbers"].astype(np.float32) * stored.get("scales", np.float32(1))


def _is_bias(matrix: Array) -> bool:
    return matrix.ndim < 2 or len(matrix) == 2  # a GRU's bias has two rows


def _encoded(stored: Stored) -> dict[str, Any]:
    return {"kind": stored["numbers"].dtype.name} | {name: packed(numbers) for name, numbers in stored.items()}
