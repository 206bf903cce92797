"""Texts -> ids: counting, encoding, vocabularies, unknown characters, and how another text differs."""

import dataclasses
import gzip
import hashlib
from collections import Counter

import numpy as np
import pytest
from conftest import text_error
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.text import corpus, sources
from charrnn_tf.text.built_in import built_in_text
from charrnn_tf.text.corpus import Source, TextRecord, load_corpus, load_text
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary


@settings(max_examples=30)
@given(text=st.text(min_size=1), block_bytes=st.integers(1, 9))
def test_ids_vocabulary_and_sum_are_those_of_the_text(tmp_path, text, block_bytes):
    text = text.lstrip("\ufeff") or "a"
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", block_bytes)
        read = load_corpus([path])
    vocabulary = Vocabulary.from_text(text)
    assert read.vocabulary == vocabulary
    assert np.array_equal(read.ids, vocabulary.encode(text))
    assert read.ids.dtype == vocabulary.dtype
    assert read.text.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert read.text.characters == len(text)


@pytest.mark.parametrize("block_bytes", [1, 4, 7, 1 << 22])
@pytest.mark.parametrize(
    "text",
    ["a", "é", "ab", "abc", "aab\x00\x7f\x7f\x7f", "naïve café ÿÿ", "\x80\xff", "plain then naïve then plain", "é한a" * 5],
    ids=ascii,
)
def test_characters_are_counted_and_encoded_as_in_plain_python(write, monkeypatch, text, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    read = load_corpus([write(text)])
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    assert read.vocabulary.characters == "".join(places)
    assert read.ids.tolist() == [places[character] for character in text]
    assert read.text.characters == len(text)
    kept = load_corpus([write(text)], vocabulary=Vocabulary("nabé\x80"), unknown="skip")  # as many as were counted
    assert kept.ids.tolist() == ["nabé\x80".index(character) for character in text if character in "nabé\x80"]
    assert kept.text.characters == len(text)


@given(st.binary(min_size=1, max_size=50))
def test_bytes_are_counted_two_at_a_time(data):
    counted = corpus._count_bytes(data)
    assert {byte: count for byte, count in enumerate(counted) if count} == Counter(data)
    assert len(counted) == 256


def test_a_vocabulary_may_be_given_and_others_skipped(write):
    path = write("cab dé")
    read = load_corpus([path], vocabulary=Vocabulary("abc"), unknown="skip")
    assert read.ids.tolist() == [2, 0, 1]
    assert (read.text.characters, read.vocabulary.characters) == (6, "abc")
    assert read.text.sha256 == hashlib.sha256("cab dé".encode()).hexdigest()


def test_the_printable_vocabulary(write):
    read = load_corpus([write("Éa1")], vocabulary="printable", unknown="skip")
    assert read.vocabulary == Vocabulary.printable()
    assert read.ids.tolist() == [10, 1]


def test_unknown_characters_are_named(write):
    message = text_error([write("aé…a")], vocabulary="printable")
    assert message.endswith("Leave them out, or use `unknown` skip.")
    assert " has characters the model never saw: 'é' (U+00E9), '…' (U+2026)." in message


@pytest.mark.parametrize("mapped_from", [1, 1 << 22])
def test_a_text_without_a_known_character_is_refused(write, monkeypatch, mapped_from):
    monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
    with pytest.raises(TextError, match="has no character of the vocabulary"):
        load_corpus([write("日本")], vocabulary="printable", unknown="skip")


def test_another_vocabulary_is_refused_by_name(write):
    with pytest.raises(ConfigError, match="`vocabulary` must be one of corpus, printable, bytes, got 'ascii'"):
        load_corpus([write("a")], vocabulary="ascii")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text_is_refused(write, content):
    path = write(content)
    assert text_error([path]) == f"{str(path)!r} is empty"
    assert text_error([path, path]) == f"{str(path)!r}, {str(path)!r} is empty"


@pytest.mark.parametrize("changed", [b"ab", b"abcabc"])
def test_a_text_that_changes_between_the_passes_is_refused(write, monkeypatch, changed):
    path = write("abc")
    encode = Vocabulary.encode_characters

    def encode_and_change(self, text, unknown="error"):
        path.write_bytes(changed)
        return encode(self, text, unknown)

    monkeypatch.setattr(Vocabulary, "encode_characters", encode_and_change)
    assert text_error([path]).endswith("changed while it was read; start again")


def test_min_count_leaves_rarer_characters_out(write):
    path = write("aaabbc…")
    read = load_corpus([path], min_count=2)
    assert (read.vocabulary.characters, read.ids.tolist(), read.text.characters) == ("ab", [0, 0, 0, 1, 1], 7)
    assert load_corpus([path], min_count=3).vocabulary.characters == "a"
    assert "has characters the model never saw: 'c' (U+0063), '…' (U+2026)." in text_error(
        [path], min_count=2, unknown="error"
    )
    assert text_error([path], min_count=4) == f"no character of {str(path)!r} occurs 4 times. Use a lower `min_count`."
    with pytest.raises(ConfigError, match="use it only with `vocabulary` corpus"):
        load_corpus([path], min_count=2, vocabulary="printable")


@pytest.mark.parametrize("mapped_from", [1, 1 << 22])
def test_what_is_left_out_is_counted_and_named(write, monkeypatch, caplog, mapped_from):
    monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
    path = write("a" * 960 + "éèêëîï" + "é" * 34)
    for _ in range(2):  # read, then from the cache
        read = load_corpus([path], vocabulary="printable", unknown="skip")
        assert str(read.left_out) == (
            "40 of 1,000 characters (4.0%) are left out, most often 'é' (U+00E9) 35 times, 'è' (U+00E8) 1 time, "
            "'ê' (U+00EA) 1 time, 'ë' (U+00EB) 1 time, 'î' (U+00EE) 1 time"
        )
        assert read.text.left_out == 40
    assert not caplog.messages
    assert load_corpus([write("abc")]).left_out is None


def test_much_that_is_left_out_is_a_warning(write, caplog):
    path = write("a" * 900 + "é" * 100)
    load_corpus([path], vocabulary="printable", unknown="skip", may_skip_most=False)
    assert caplog.messages == [
        f"Warning: {str(path)!r}: 100 of 1,000 characters (10.0%) are left out, 'é' (U+00E9) 100 times."
    ]


@pytest.mark.parametrize("mapped_from", [1, 1 << 22])
def test_a_text_is_not_reduced_to_its_spaces(write, monkeypatch, caplog, mapped_from):
    monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
    path = write("日月火水木金土 " * 20)
    accepted = load_corpus([path], vocabulary="printable", unknown="skip")  # asked for
    assert "140 of 160 characters (87.5%) are left out" in caplog.messages[0]
    for _ in range(2):
        message = text_error([path], vocabulary="printable", unknown="skip", may_skip_most=False)
        assert message.startswith(
            f"{str(path)!r}: 140 of 160 characters (87.5%) are left out, most often '土' (U+571F) 20 times, "
        )
        assert "pass `unknown` skip to leave them out all the same" in message
    assert "Use a lower `min_count`" in text_error([write("日月火水木金土  " * 20, "2.txt")], min_count=30)
    known = load_corpus([path], vocabulary="printable", unknown="skip", may_skip_most=False, expected=accepted.text)
    assert len(known.ids) == 20  # a run that was begun goes on


@given(data=st.binary(min_size=1), block_bytes=st.sampled_from([1, 3, 1 << 22]))
def test_any_file_can_be_read_as_bytes(tmp_path, data, block_bytes):
    path = tmp_path / "data"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", block_bytes)
        read = load_corpus([path], vocabulary="bytes", limit_chars=7)
    assert read.vocabulary == ByteVocabulary()
    assert (read.ids.dtype, read.ids.tobytes()) == (np.uint8, data[:7])
    assert read.text.sha256 == hashlib.sha256(data[:7]).hexdigest()
    assert read.text.characters == min(len(data), 7)


def test_the_built_in_corpus_and_standard_input_can_be_read_as_bytes(feed):
    assert load_corpus(vocabulary="bytes").ids.tobytes() == built_in_text().encode()
    feed(b"\xff\xfe\x00")
    assert load_corpus(["-"], vocabulary="bytes").ids.tobytes() == b"\xff\xfe\x00"


def test_the_built_in_corpus_is_read_when_no_file_is_given():
    text = load_text()
    read = load_corpus()
    assert text == built_in_text() == load_text()
    assert np.array_equal(read.ids, read.vocabulary.encode(text))
    assert read.text.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert read.text.sources == ()
    assert load_text(limit_chars=50) == text[:50]


def test_the_difference_of_a_text_without_files_is_named(write):
    record = load_corpus().text
    other = dataclasses.replace(record, sha256="0" * 64)
    assert record.difference(record) is None
    assert record.difference(other) == "that was the built-in corpus, which differs in this version of Python"
    assert record.difference(load_corpus([write("a")]).text) == "that was the built-in corpus"
    assert (
        dataclasses.replace(record, sha256="").difference(record)
        == "the run was trained on a text passed from Python that is not recorded"
    )


def test_progress_is_reported_in_both_passes(write):
    path, packed = write("abc" * 10, "1"), write(gzip.compress(b"xyz" * 1000), "2.gz")
    told = []
    load_corpus([path, packed], progress=lambda *what: told.append(what))
    total = path.stat().st_size + packed.stat().st_size
    assert [doing for doing, *_ in told] == ["Counting", "Counting", "Encoding", "Encoding"]
    assert [done for _, done, _ in told] == [30, total, 30, total]
    assert {of for *_, of in told} == {total}


def test_every_file_has_its_own_sum_and_length(write):
    parts = ["naïve\n", "one", "two"]
    read = load_corpus([write(part, f"{n}.txt") for n, part in enumerate(parts)], separator="--")
    assert [(source.sha256, source.characters) for source in read.text.sources] == [
        (hashlib.sha256(part.encode()).hexdigest(), len(part)) for part in parts
    ]
    assert read.text.sha256 == hashlib.sha256("--".join(parts).encode()).hexdigest()
    assert read.text.characters == len("--".join(parts))


def record(*files, sha256="whole"):
    """A text of files, each given as path, sum and length."""
    return TextRecord(tuple(Source(*file) for file in files), sha256, sum(length for *_, length in files))


@pytest.mark.parametrize(
    ("then", "now", "difference"),
    [
        ([("a", "1", 5)], [("a", "2", 7)], "'a' has changed from 5 to 7 characters"),
        ([("a", "1", 5)], [("a", "2", 5)], "'a' has changed"),
        ([("a", "1", 1985)], [("b", "2", 1115)], "that was 'a' (1,985 characters), this is 'b' (1,115)"),
        ([("a", "1", 5), ("b", "2", 6)], [("a", "1", 5), ("b", "3", 8)], "'b' has changed from 6 to 8 characters"),
        ([("a", "1", 5), ("b", "2", 6)], [("b", "2", 6), ("a", "1", 5)], "its files were read in another order: 'a', 'b'"),
        ([("a", "1", 5), ("b", "2", 6)], [("a", "1", 5)], "that had 11 characters in 2 files, this has 5 in 1"),
    ],
)
def test_the_difference_of_files_is_named(then, now, difference):
    assert record(*then).difference(record(*now, sha256="other")) == difference
    assert record(*then).difference(record(*now)) is None  # the same content, in other files
