"""`charrnn-tf report`: one page on what a model was trained on, how well it predicts a text, and what its cells track."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..inference.sampling import Sampler
from ..pages import packed, picture, render
from ..runs.checkpoint import load_model
from ..runs.metrics import Row, nats
from ..runs.record import Record
from ..text.corpus import Progress, check_length
from ..text.vocabulary import ByteVocabulary, Ids, Vocabulary
from . import plots, trace

ROWS = 500  # upper bound on rows of the table of losses, validations not counted
CELLS = 256  # upper bound on cells that can be shown over the text
TEMPERATURES = (0.3, 0.7, 1.0, 1.3)
SAMPLED = 400  # characters per sample


def report(
    checkpoint: str | Path, ids: Ids, title: str, *, seed: int = 0, progress: Progress = lambda doing, done, total: None
) -> str:
    """The page of a checkpoint that reads a text's ids [characters] from a zero state.

    title: the text's name. Raises TextError for fewer than two characters.
    """
    check_length(ids)
    model, record = load_model(checkpoint)
    progress("Reading", 0, None)
    read = trace.read(model, record.model, ids)
    influence = trace.influence(model, read, progress=lambda done, total: progress("Looking back", done, total))
    text = "".join(record.vocabulary.characters[n] for n in read.ids)
    found = trace.correlations(read.cells, text)
    chosen = list(trace.clearest(found, CELLS))
    distances = _by_distance(influence)
    bits = read.nats[1:] / math.log(2)
    small, width = record.vocabulary.dtype, record.model.hidden_size
    try:
        run = plots.read_run(Path(checkpoint).parent)
    except CheckpointError:
        run = None
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
        losses=run and _pictures(lambda look: plots.draw([run], look=look)),
        samples=list(_samples(checkpoint, seed, progress)),
        features=list(trace.FEATURES),
        cells=[(f"layer {n // width + 1}, cell {n % width}", found[n].tolist(), feature) for n, feature in chosen],
        back=_pictures(lambda look: plots.draw_distances(distances, look=look)),
        distances=distances.tolist(),
        data={
            "labels": _labels(record.vocabulary),
            "id_bytes": small.itemsize,
            "ids": packed(read.ids.astype(small)),
            "bits": packed(np.concatenate([[0], bits]).astype(np.float32)),
            "likeliest": packed(read.likeliest.astype(small)),
            "probabilities": packed(np.round(np.nan_to_num(read.probabilities) * 65535).astype(np.uint16)),
            "activations": packed(np.round(read.cells[:, [cell for cell, _ in chosen]].T * 127).astype(np.int8)),
            "back": packed(_as_bytes(influence)),
            "distance": influence.shape[1],
        },
    )


def _labels(vocabulary: Vocabulary) -> list[str]:
    """Display text of each character; bytes outside printable ASCII as `\\x80`, lone surrogates as U+FFFD."""
    if not isinstance(vocabulary, ByteVocabulary):
        return [character if not "\ud800" <= character <= "\udfff" else "\ufffd" for character in vocabulary.characters]
    return [chr(n) if 32 <= n < 127 or n in (9, 10) else f"\\x{n:02x}" for n in range(256)]


def _facts(record: Record) -> list[tuple[str, str]]:
    """Model, text and losses, as names and values."""
    model, train = record.model, record.train
    kind = f"{model.cell.upper()}, {model.num_layers} x {model.hidden_size}"
    kind += f", embedding {model.embedding_size}" if model.embedding_size else ", one-hot input"
    facts = [
        ("Checkpoint", f"{record.name}, step {record.step:,}, epoch {record.epoch:.2f}"),
        ("Model", f"{kind}, dropout {model.dropout:g}, vocabulary of {model.vocab_size:,} characters"),
    ]
    if not record.text.characters:
        return [*facts, ("Trained by", "another tool")]
    left_out = f", {record.text.left_out:,} of them left out" if record.text.left_out else ""
    facts += [
        ("Trained on", f"{record.text.title}: {record.text.characters:,} characters{left_out}"),
        ("Batch", f"{train.batch_size} streams x {train.num_steps} characters, {train.optimizer}, {train.learning_rate:g}"),
        ("Time", f"{record.seconds:,.0f} s"),
    ]
    losses = {"Training loss": record.train_loss, "Validation loss": record.validation_loss}
    return facts + [(name, nats(loss)) for name, loss in losses.items() if loss is not None]


def _some(rows: Sequence[Row]) -> list[Row]:
    """Every validation, and evenly spaced other rows."""
    every = max(-(-len(rows) // ROWS), 1)
    return [row for n, row in enumerate(rows) if n % every == 0 or row.validation_loss is not None]


def _pictures(drawn: Callable[[str], Any]) -> dict[str, str]:
    """A picture for light and for dark backgrounds."""
    return {look: picture(plots.as_svg(drawn(look))) for look in plots.LOOKS}


def _samples(checkpoint: str | Path, seed: int, progress: Progress) -> Iterator[tuple[float, str]]:
    sampler = Sampler.from_checkpoint(checkpoint)
    for n, temperature in enumerate(TEMPERATURES):
        progress("Sampling", n, len(TEMPERATURES))
        yield temperature, sampler.sample(length=SAMPLED, top_n=0, temperature=temperature, seed=seed)


def _by_distance(influence: trace.Floats) -> trace.Floats:
    """Mean influence at each distance, over the characters that have an earlier one at that distance, [back]."""
    counts = np.maximum(len(influence) - np.arange(influence.shape[1]), 1)
    return (influence.sum(axis=0) / counts).astype(np.float32)


def _as_bytes(influence: trace.Floats) -> Any:
    """Each row scaled to 0 to 255 by its largest number."""
    largest = np.maximum(influence.max(axis=1, keepdims=True), 1e-30)
    return np.round(255 * influence / largest).astype(np.uint8)
