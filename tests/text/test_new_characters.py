"""`unknown` add: a text's new characters follow those of a model's vocabulary, and are counted and named."""

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.text import corpus
from charrnn_tf.text.corpus import load_corpus
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

OLD = Vocabulary("ba\n")
TEXT = "abc\nx\U0001d11ea\u00e9\u00e9\n"


@pytest.mark.parametrize("mapped_from", [1, 1000])
def test_new_characters_follow_the_old_ones_in_code_point_order(write, monkeypatch, mapped_from):
    monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
    path = write(TEXT)
    for _ in range(2):  # the second time, a long text comes from the cache
        read = load_corpus([path], vocabulary=OLD, unknown="add")
        assert read.vocabulary == Vocabulary("ba\ncx\u00e9\U0001d11e")
        assert read.vocabulary.decode(read.ids) == TEXT
        assert str(read.added) == (
            "4 characters that the model did not know are added to its vocabulary, 'é' (U+00E9) 2 times, 'c' (U+0063) 1 "
            "time, 'x' (U+0078) 1 time, '\U0001d11e' (U+1D11E) 1 time"
        )
        assert read.left_out is None
    assert load_corpus([path], vocabulary=read.vocabulary, unknown="add").added is None
    assert load_corpus([path], vocabulary=OLD, unknown="skip").vocabulary == OLD


def test_of_many_new_characters_the_most_frequent_are_named(write):
    added = load_corpus([write("a" + "".join(chr(300 + n) * n for n in range(1, 9)))], vocabulary=OLD, unknown="add").added
    assert added.count == 8
    assert [count for _, count in added.most] == [8, 7, 6, 5, 4]
    assert "most often" in str(added)


@pytest.mark.parametrize("vocabulary", ["corpus", "printable", "bytes"])
def test_nothing_can_be_added_without_another_model(write, vocabulary):
    with pytest.raises(
        ConfigError, match="`unknown` add extends the vocabulary of another model: pass one with `init_from`"
    ):
        load_corpus([write(TEXT)], vocabulary=vocabulary, unknown="add")


def test_nothing_can_be_added_to_bytes(write):
    with pytest.raises(ConfigError, match="`unknown` add has nothing to add: the model learned bytes"):
        load_corpus([write(TEXT)], vocabulary=ByteVocabulary(), unknown="add")
    assert ByteVocabulary().extended("\u0100") == ByteVocabulary()
