"""Text that a model was not trained on, for measuring the loss added by rounding its weights. Needs no TensorFlow."""

from __future__ import annotations

from ..errors import TextError
from ..runs.record import Record
from ..text.corpus import check_length, load_corpus
from ..text.sources import STANDARD_INPUT
from ..text.vocabulary import Ids

HELD_OUT = 100_000  # upper bound on characters


def held_out_ids(record: Record, text: str | None) -> Ids | None:
    """The first ids of a text, or of the part that the run held out of its own; None where its files are gone.

    Raises TextError for a text with fewer than two characters that the model knows.
    """
    if text is not None:
        ids = load_corpus([text], vocabulary=record.vocabulary, unknown="skip", limit_chars=HELD_OUT).ids
        check_length(ids, repr(text))
        return ids
    sources = [source.path for source in record.text.sources]
    if STANDARD_INPUT in sources:
        return None
    train = record.train
    try:
        corpus = load_corpus(
            sources, vocabulary=record.vocabulary, unknown=train.unknown, separator=train.separator,
            limit_chars=train.limit_chars, expected=record.text,
        )  # fmt: skip
    except TextError:
        return None
    begin = train.training_characters(len(corpus.ids))
    return corpus.ids[begin : begin + HELD_OUT]
