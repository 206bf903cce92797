"""Texts of which every line is a text of its own: how lines are shuffled and cut."""

import numpy as np
import pytest

from charrnn_tf.errors import TextError
from charrnn_tf.settings.schema import TrainConfig
from charrnn_tf.text.lines import arranged, line_start, parts
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

LINES = [*(f"line {n} " + "x" * (n % 7) for n in range(60)), ""]
TEXT = "\n".join(LINES) + "\n"
VOCABULARY = Vocabulary.from_text(TEXT)
CONFIG = TrainConfig(lines=True, batch_size=4, num_steps=8, seed=1)


def shuffled(text, config=CONFIG):
    vocabulary = ByteVocabulary()
    return vocabulary.decode(arranged(vocabulary.encode(text), vocabulary, config))


@pytest.mark.parametrize("end", ["", "\n"])
def test_every_line_stands_once_after_its_newline(end):
    found = shuffled("\n".join(LINES[:-1]) + end)
    assert (found[0], found[-1] == "\n") == ("\n", False)
    assert sorted(found[1:].split("\n")) == sorted(LINES[:-1])
    assert found[1:].split("\n") != LINES[:-1]


def test_the_order_of_lines_follows_from_the_seed():
    assert shuffled(TEXT) == shuffled(TEXT)
    assert shuffled(TEXT) != shuffled(TEXT, TrainConfig(lines=True, seed=2))
    assert shuffled(TEXT, TrainConfig()) == TEXT
    assert shuffled("") == ""
    assert [shuffled(text) for text in ("\n", "\n\n", "a", "a\n", "a\n\n")][:4] == ["\n", "\n\n", "\na", "\na"]


def test_streams_and_the_held_out_part_begin_before_a_line():
    ids = arranged(VOCABULARY.encode(TEXT), VOCABULARY, CONFIG)
    newline = line_start(VOCABULARY, CONFIG)
    streams, training, validation = parts(ids, VOCABULARY, CONFIG)
    assert (ids[streams.starts] == newline).all()
    assert (np.diff(streams.starts) > 0).all()
    assert streams.length == CONFIG.steps_per_epoch(len(ids)) * 8
    assert len(training) == CONFIG.training_characters(len(ids))
    assert validation[0] == newline
    lines = VOCABULARY.decode(validation)[1:].split("\n")
    assert len(lines) > 2
    assert set(lines) <= set(LINES)
    assert len(lines) + VOCABULARY.decode(training).count("\n") in (len(LINES), len(LINES) + 1)


def test_a_line_longer_than_a_stream_is_read_by_several_streams():
    ids = ByteVocabulary().encode("\n" + "abcdefgh" * 100)
    streams, training, validation = parts(ids, ByteVocabulary(), CONFIG)
    assert streams.starts.tolist() == [0, streams.length, 2 * streams.length, 3 * streams.length]
    assert len(training) + len(validation) == len(ids)


def test_a_vocabulary_without_a_newline_is_refused():
    with pytest.raises(
        TextError, match="`lines` needs a text of several lines, and the vocabulary of this one has no newline"
    ):
        line_start(Vocabulary("abc"), CONFIG)
    assert line_start(Vocabulary("abc"), TrainConfig()) is None
