"""Export formats by name. Needs no TensorFlow until a model is written."""

from importlib import import_module
from pathlib import Path

from ..errors import ConfigError, TextError
from ..runs.record import Record
from ..text.corpus import check_length, load_corpus
from ..text.lines import arranged
from ..text.sources import STANDARD_INPUT
from ..text.vocabulary import Ids

FORMATS = {  # name -> module
    "savedmodel": "savedmodel", "keras": "keras_file", "torch": "torch_file", "onnx": "onnx_file", "web": "web_page",
}  # fmt: skip
HELD_OUT = 100_000  # upper bound on characters that `held_out_ids` returns


def export_checkpoint(checkpoint: str | Path, output: str | Path, format: str, held_out: Ids | None = None) -> str:
    """Write a checkpoint in a format; returns a remark for the user, or an empty string.

    held_out: ids for measuring the loss added by rounding, for `web` only.
    Raises ConfigError for an unknown format or an output that can't be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}")
    module = import_module(f".{FORMATS[format]}", __package__)
    return str(module.export_checkpoint(checkpoint, output, held_out))


def held_out_ids(record: Record, text: str | None, encoding: str | None = None, normalize: str | None = None) -> Ids | None:
    """The first ids of a text, or else of the part that a run held out; None if its files have changed or are gone.

    encoding, normalize: how to read the text; None is as the run's own.
    Raises TextError for a text with fewer than two characters that the model knows.
    """
    if text is not None:
        ids = load_corpus(
            [text],
            vocabulary=record.vocabulary,
            unknown="skip",
            limit_chars=HELD_OUT,
            may_skip_most=False,
            **record.reading(encoding, normalize),
        ).ids
        check_length(ids, repr(text))
        return ids
    sources, train = [source.path for source in record.text.sources], record.train
    if STANDARD_INPUT in sources or record.text.unlisted:
        return None
    try:
        ids = load_corpus(
            sources, vocabulary=record.vocabulary, unknown=train.unknown, separator=train.separator,
            limit_chars=train.limit_chars, expected=record.text, **record.reading(),
        ).ids  # fmt: skip
    except TextError:
        return None
    ids = arranged(ids, record.vocabulary, train)
    return ids[train.training_characters(len(ids)) :][:HELD_OUT]
