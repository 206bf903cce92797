"""`charrnn-tf report`: one page that shows what a model was trained on, how well, and what its cells have learnt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.sampling import Sampler
from ..pages import packed, picture, render
from ..runs.checkpoint import load_model
from ..runs.metrics import Row, nats
from ..runs.record import Record
from ..text.corpus import Progress, check_length
from ..text.vocabulary import ByteVocabulary, Ids, Vocabulary
from . import plots
from . import trace as insight

ROWS = 500  # of the losses' table
CELLS = 256  # that can be shown over the text
TEMPERATURES = (0.3, 0.7, 1.0, 1.3)
SAMPLED = 400  # characters at each temperature


def report(
    checkpoint: str | Path, ids: Ids, title: str, *, seed: int = 0, progress: Progress = lambda doing, done, total: None
) -> str:
    """The page, of a saved model and of a text's ids [characters] that it reads from a zero state.

    title: what the text is called. Raises TextError where fewer than two characters are known.
    """
    check_length(ids)
    model, record = load_model(checkpoint)
    progress("Reading", 0, None)
    read = insight.trace(model, record.model, ids)
    back = insight.looks_back(model, read, progress=lambda done, total: progress("Looking back", done, total))
    shown = _shown(record.vocabulary)
    text = "".join(record.vocabulary.characters[n] for n in read.ids)
    found = insight.correlations(read.cells, text)
    chosen = list(insight.clearest(found, CELLS))
    distances = _distances(back)
    bits = read.nats[1:] / math.log(2)
    run = plots.run_or_none(Path(checkpoint).parent)
    small = record.vocabulary.dtype
    return render(
        __package__,
        "report.html",
        ["numbers.js", "report.js"],
        facts=_facts(record),
        title=f"{record.name} reads {title}",
        made=time.strftime("%Y-%m-%d"),
        bits=float(bits.mean()),
        characters=len(ids),
        rows=_some(run.rows) if run else [],
        losses=_pictures(None if run is None else lambda look: plots.draw([run], look=look)),
        samples=list(_samples(checkpoint, seed, progress)),
        features=list(insight.FEATURES),
        cells=[(_name(record, cell), found[cell].tolist(), feature) for cell, feature in chosen],
        back=_pictures(lambda look: plots.draw_distances(distances, look=look)),
        distances=distances.tolist(),
        data={
            "labels": shown,
            "id_bytes": small.itemsize,
            "ids": packed(read.ids.astype(small)),
            "bits": packed(np.concatenate([[0], bits]).astype(np.float32)),
            "likeliest": packed(read.likeliest.astype(small)),
            "probabilities": packed(np.round(np.nan_to_num(read.probabilities) * 65535).astype(np.uint16)),
            "activations": packed(np.round(read.cells[:, [cell for cell, _ in chosen]].T * 127).astype(np.int8)),
            "back": packed(_as_bytes(back)),
            "distance": back.shape[1],
        },
    )


def _shown(vocabulary: Vocabulary) -> list[str]:
    """How each of the vocabulary's characters is shown; bytes that are no printable ASCII as `\\x80`."""
    if not isinstance(vocabulary, ByteVocabulary):
        return [character if not "\ud800" <= character <= "\udfff" else "\ufffd" for character in vocabulary.characters]
    return [chr(n) if 32 <= n < 127 or n in (9, 10) else f"\\x{n:02x}" for n in range(256)]


def _facts(record: Record) -> list[tuple[str, str]]:
    """What a reader wants to know first."""
    model, train = record.model, record.train
    kind = f"{model.cell.upper()}, {model.num_layers} x {model.hidden_size}"
    kind += f", embedding {model.embedding_size}" if model.embedding_size else ", one-hot input"
    facts = [
        ("Checkpoint", f"{record.name}, step {record.step:,}, epoch {record.epoch:.2f}"),
        ("Model", f"{kind}, dropout {model.dropout:g}, {model.vocab_size:,} characters known"),
    ]
    if not record.text.characters:
        return [*facts, ("Trained by", "another tool")]
    facts += [
        ("Trained on", f"{record.text.title}: {record.text.characters:,} characters"),
        ("Batch", f"{train.batch_size} streams x {train.num_steps} characters, {train.optimizer}, {train.learning_rate:g}"),
        ("Time", f"{record.seconds:,.0f} s"),
    ]
    for name, loss in ("Training loss", record.train_loss), ("Validation loss", record.validation_loss):
        if loss is not None:
            facts.append((name, nats(loss)))
    return facts


def _some(rows: Sequence[Row]) -> list[Row]:
    """Every validation, and of the other rows so many as a table can hold."""
    every = max(-(-len(rows) // ROWS), 1)
    return [row for n, row in enumerate(rows) if n % every == 0 or row.validation_loss is not None]


def _pictures(drawn: Callable[[str], Any] | None) -> dict[str, str] | None:
    """A picture on light and on dark ground."""
    return drawn and {look: picture(plots.as_svg(drawn(look))) for look in plots.LOOKS}


def _samples(checkpoint: str | Path, seed: int, progress: Progress) -> Any:
    sampler = Sampler.from_checkpoint(checkpoint)
    for n, temperature in enumerate(TEMPERATURES):
        progress("Sampling", n, len(TEMPERATURES))
        yield temperature, sampler.sample(length=SAMPLED, top_n=0, temperature=temperature, seed=seed)


def _name(record: Record, cell: int) -> str:
    layer, place = divmod(cell, record.model.hidden_size)
    return f"layer {layer + 1}, cell {place}"


def _distances(back: insight.Floats) -> insight.Floats:
    """Mean length of the gradient at each distance, over the characters that have one so far before them, [back]."""
    counts = np.maximum(len(back) - np.arange(back.shape[1]), 1)
    return (back.sum(axis=0) / counts).astype(np.float32)


def _as_bytes(back: insight.Floats) -> Any:
    """Each row as shares of its largest number, 0 to 255."""
    largest = np.maximum(back.max(axis=1, keepdims=True), 1e-30)
    return np.round(255 * back / largest).astype(np.uint8)
