"""Files -> ids: how texts are joined and decoded, what is refused and in which words, and the built-in corpus."""

import hashlib
import io
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn_tf import corpus
from charrnn_tf.corpus import built_in_text, load_corpus, load_text
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.vocabulary import Vocabulary

MIXED = "한글 e\u0301 👩‍🚀\n\u00a0é"


@pytest.fixture
def write(tmp_path):
    """Writes files of bytes, or of text as UTF-8, and gives their paths."""

    def write_one(content, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_one


@pytest.fixture
def feed(monkeypatch):
    """Puts a standard input in place that can be read once."""

    def feed_one(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    return feed_one


def message_of(*arguments, **settings):
    """What both readers say about a text they refuse, which must be one line."""
    with pytest.raises(TextError) as caught:
        load_corpus(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (["one\n", "two\n"], "one\ntwo\n"),
        (["one", "two"], "one\ntwo"),
        (["one\n", "two", "three"], "one\ntwo\nthree"),
        (["one", "", "two"], "one\ntwo"),
        (["", "one", ""], "one"),
        (["one\r\n", "two\r", "three"], "one\r\ntwo\r\nthree"),
        (["one\n\n", "\ntwo"], "one\n\n\ntwo"),
    ],
)
def test_a_newline_comes_only_between_files_that_do_not_end_with_one(write, parts, joined):
    paths = [write(part, f"{number}.txt") for number, part in enumerate(parts)]
    assert load_text(*paths) == joined
    read = load_corpus(paths)
    assert read.vocabulary.decode(read.ids) == joined
    assert [source.path for source in read.text.sources] == list(map(str, paths))
    assert sum(source.characters for source in read.text.sources) == sum(map(len, parts))


def test_carriage_returns_are_kept(write):
    assert load_text(write("a\r\nb\rc\n")) == "a\r\nb\rc\n"


@pytest.mark.parametrize("block_bytes", [1, 4, 1 << 22])
def test_a_byte_order_mark_is_dropped_at_the_start_of_each_file_only(write, monkeypatch, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    first, second = write("\ufeffa\ufeffb", "1.txt"), write("\ufeff\ufeffc", "2.txt")
    assert load_text(first, second) == "a\ufeffb\n\ufeffc"


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 1 << 22])
def test_characters_cut_by_a_block_decode(write, monkeypatch, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    path = write("\ufeff" + MIXED)
    assert load_text(path, path) == f"{MIXED}\n{MIXED}"
    read = load_corpus([path])
    assert read.vocabulary.decode(read.ids) == MIXED
    assert read.text.characters == len(MIXED)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1), block_bytes=st.integers(1, 9))
def test_ids_vocabulary_and_sum_are_those_of_the_text(tmp_path, text, block_bytes):
    text = text.lstrip("\ufeff") or "a"
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BLOCK_BYTES", block_bytes)
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
def test_characters_are_counted_and_encoded_as_plain_python_does(write, monkeypatch, text, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    read = load_corpus([write(text)])
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    assert read.vocabulary.characters == "".join(places)
    assert read.ids.tolist() == [places[character] for character in text]
    assert read.text.characters == len(text)
    kept = load_corpus([write(text)], vocabulary=Vocabulary("nab"), unknown="skip")  # as many as were counted
    assert kept.ids.tolist() == ["nab".index(character) for character in text if character in "nab"]
    assert kept.text.characters == len(text)


@given(st.binary(min_size=1, max_size=50).map(lambda data: bytes(byte % 128 for byte in data)))
def test_bytes_are_counted_two_at_a_time(data):
    counted = corpus._count_ascii(data)
    assert {byte: count for byte, count in enumerate(counted) if count} == Counter(data)
    assert len(counted) == 256


@pytest.mark.parametrize("block_bytes", [1, 4, 1 << 22])
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 100])
def test_limit_chars_reads_the_first_characters(write, monkeypatch, limit, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    paths = [write("한글é", "1.txt"), write("xyz", "2.txt")]
    expected = "한글é\nxyz"[:limit]
    assert load_text(*paths, limit_chars=limit) == expected
    read = load_corpus(paths, limit_chars=limit)
    assert read.vocabulary.decode(read.ids) == expected
    assert read.text.sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert read.text.characters == len(expected)


def test_limit_chars_of_nothing_is_refused(write):
    with pytest.raises(ConfigError, match="limit_chars must be at least 1, got 0"):
        load_text(write("a"), limit_chars=0)


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


def test_unknown_characters_are_refused_in_the_vocabularys_words(write):
    message = message_of([write("aé…a")], vocabulary="printable")
    assert message.endswith("Leave them out, or use --unknown skip.")
    assert " has characters the model never saw: 'é' (U+00E9), '…' (U+2026)." in message


def test_another_vocabulary_is_refused_by_name(write):
    with pytest.raises(ConfigError, match=r"vocabulary must be one of .*got 'ascii'"):
        load_corpus([write("a")], vocabulary="ascii")


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 4, 5, 7, 1 << 22])
@pytest.mark.parametrize(
    ("content", "place", "byte"),
    [
        (b"ab\xffcd", 2, "FF"),
        ("한é".encode() + b"\xe9t\xe9", 5, "E9"),
        ("한글".encode()[:-1], 3, "EA"),  # ends within a character
        (b"abcd\xed\xa0\x80", 4, "ED"),  # a surrogate
        (b"\xef\xbb\xbfa\x80", 4, "80"),  # after a byte order mark
        ("🚀🚀".encode() + b"\xf0\x9f\x9a!", 8, "F0"),
    ],
)
def test_a_text_that_is_not_utf8_is_refused_with_the_place(write, monkeypatch, content, place, byte, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    path = write(content)
    message = message_of([path])
    assert message.startswith(f"{str(path)!r} is not UTF-8: byte {place} is 0x{byte}. Convert it first")
    assert content[place] == int(byte, 16)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.txt"
    assert message_of([path]) == f"can't read {str(path)!r}: no such file or directory"
    with pytest.raises(TextError, match=r"nowhere\.txt"):
        load_text(path)


def test_a_folder_is_named(tmp_path):
    assert message_of([tmp_path]).startswith(f"can't read {str(tmp_path)!r}: ")


def test_a_name_no_file_can_have_is_an_error_of_ours():
    assert message_of(["a\0b"]).startswith("can't read 'a\\x00b': ")


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(corpus, "open_file", refuse)
    assert message_of([write("a", "secret.txt")]).endswith("secret.txt': permission denied")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text_is_refused(write, content):
    path = write(content)
    assert message_of([path]) == f"{str(path)!r} is empty: there is nothing to learn from"
    assert message_of([path, path]) == f"{str(path)!r}, {str(path)!r} is empty: there is nothing to learn from"


def test_a_text_that_changes_between_the_passes_is_refused(write, monkeypatch):
    path = write("abc")
    encode = Vocabulary.encode

    def encode_and_cut(self, text, unknown="error"):
        path.write_bytes(b"ab")
        return encode(self, text, unknown)

    monkeypatch.setattr(Vocabulary, "encode", encode_and_cut)
    assert message_of([path]).endswith("changed while it was read; start again")


@pytest.mark.parametrize("block_bytes", [2, 1 << 22])
def test_standard_input_serves_both_passes(feed, monkeypatch, block_bytes):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", block_bytes)
    feed(MIXED.encode())
    read = load_corpus(["-"])
    assert read.vocabulary.decode(read.ids) == MIXED
    assert [source.path for source in read.text.sources] == ["-"]
    assert read.text.sources[0].sha256 == read.text.sha256


def test_standard_input_stands_beside_files(feed, write):
    feed(b"middle")
    assert load_text(write("first", "1.txt"), "-", write("last", "2.txt")) == "first\nmiddle\nlast"


def test_standard_input_twice_is_refused(feed):
    feed(b"text")
    with pytest.raises(ConfigError, match=r"standard input .* only once"):
        load_corpus(["-", "-"])


def test_standard_input_that_is_not_utf8_or_empty_is_refused(feed):
    feed(b"ab\xff")
    assert message_of(["-"]).startswith("standard input is not UTF-8: byte 2 is 0xFF.")
    feed(b"")
    assert message_of(["-"]) == "'-' is empty: there is nothing to learn from"


def test_the_built_in_corpus_is_read_when_no_file_is_given():
    text = load_text()
    read = load_corpus()
    assert text == built_in_text() == load_text()
    assert np.array_equal(read.ids, read.vocabulary.encode(text))
    assert read.text.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert read.text.sources == ()
    assert load_text(limit_chars=50) == text[:50]


def test_the_built_in_corpus_is_long_enough_and_says_nothing_twice():
    text = built_in_text()
    paragraphs = text.removesuffix("\n").split("\n\n")
    assert 300_000 <= len(text) <= 420_000
    assert len(set(paragraphs)) == len(paragraphs) > 1000
    assert all(paragraph.strip() for paragraph in paragraphs)
    assert not [line for line in text.split("\n") if line.lstrip().startswith(("+-", "+=", "|", "==="))]
