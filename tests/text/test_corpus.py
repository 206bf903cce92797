"""Files -> ids: how texts are joined and decoded, what is refused and in which words, and the built-in corpus."""

import bz2
import dataclasses
import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import sys
import tempfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.files import size_of
from charrnn_tf.text import cache, corpus, sources
from charrnn_tf.text.corpus import load_corpus, load_text
from charrnn_tf.text.sources import built_in_text
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

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
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    first, second = write("\ufeffa\ufeffb", "1.txt"), write("\ufeff\ufeffc", "2.txt")
    assert load_text(first, second) == "a\ufeffb\n\ufeffc"


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 1 << 22])
def test_characters_cut_by_a_block_decode(write, monkeypatch, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
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
def test_characters_are_counted_and_encoded_as_plain_python_does(write, monkeypatch, text, block_bytes):
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


@pytest.mark.parametrize("block_bytes", [1, 4, 1 << 22])
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 100])
def test_limit_chars_reads_the_first_characters(write, monkeypatch, limit, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    paths = [write("한글é", "1.txt"), write("xyz", "2.txt")]
    expected = "한글é\nxyz"[:limit]
    assert load_text(*paths, limit_chars=limit) == expected
    read = load_corpus(paths, limit_chars=limit)
    assert read.vocabulary.decode(read.ids) == expected
    assert read.text.sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert read.text.characters == len(expected)


def test_limit_chars_of_nothing_is_refused(write):
    with pytest.raises(ConfigError, match="limit_chars must be a whole number of at least 1"):
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


@pytest.mark.parametrize("mapped_from", [1, 1 << 22])
def test_a_text_without_a_known_character_is_refused(write, monkeypatch, mapped_from):
    monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
    with pytest.raises(TextError, match="has no character of the vocabulary"):
        load_corpus([write("日本")], vocabulary="printable", unknown="skip")


def test_a_separator_that_is_no_utf8_is_refused(write):
    with pytest.raises(ConfigError, match="separator must be UTF-8"):
        load_corpus([write("a")], separator="\udcff")


def test_a_text_without_files_that_is_another_now_is_told(write):
    record = load_corpus().text
    other = dataclasses.replace(record, sha256="0" * 64)
    assert record.difference(record) is None
    assert record.difference(other) == "that was the built-in corpus, which this version of Python has otherwise"
    assert record.difference(load_corpus([write("a")]).text) == "that was the built-in corpus"
    assert dataclasses.replace(record, sha256="").difference(record) == "that was given in Python and is not recorded"


def test_another_vocabulary_is_refused_by_name(write):
    with pytest.raises(ConfigError, match="vocabulary must be one of corpus, printable, bytes, got 'ascii'"):
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
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    path = write(content)
    message = message_of([path])
    assert message.startswith(f"{str(path)!r} is not UTF-8: byte {place} is 0x{byte}. Convert it first")
    assert content[place] == int(byte, 16)


@pytest.mark.parametrize("data", [b"%PDF-1.4\n%\xe2\xe3\n", b"\x7fELF\0\xff"])
def test_what_is_no_plain_text_is_not_to_be_converted(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    message = message_of([tmp_path / "file"])
    assert "It seems to be no plain text: save its text as a file of its own first" in message
    assert "iconv" not in message


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.txt"
    assert message_of([path]) == f"can't read {str(path)!r}: no such file or directory"
    with pytest.raises(TextError, match=r"nowhere\.txt"):
        load_text(path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / ".hidden").write_text("a")
    assert message_of([tmp_path]) == f"can't read {str(tmp_path)!r}: the folder holds no files"


def test_a_name_no_file_can_have_is_an_error_of_ours():
    assert message_of(["a\0b"]).startswith("can't read 'a\\x00b': ")


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(sources, "open_file", refuse)
    assert message_of([write("a", "secret.txt")]).endswith("secret.txt': permission denied")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text_is_refused(write, content):
    path = write(content)
    assert message_of([path]) == f"{str(path)!r} is empty: there is nothing to learn from"
    assert message_of([path, path]) == f"{str(path)!r}, {str(path)!r} is empty: there is nothing to learn from"


def test_a_text_that_changes_between_the_passes_is_refused(write, monkeypatch):
    path = write("abc")
    encode = Vocabulary.encode_characters

    def encode_and_cut(self, text, unknown="error"):
        path.write_bytes(b"ab")
        return encode(self, text, unknown)

    monkeypatch.setattr(Vocabulary, "encode_characters", encode_and_cut)
    assert message_of([path]).endswith("changed while it was read; start again")


@pytest.mark.parametrize("block_bytes", [2, 1 << 22])
def test_standard_input_serves_both_passes(feed, monkeypatch, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    feed(MIXED.encode())
    read = load_corpus(["-"])
    assert read.vocabulary.decode(read.ids) == MIXED
    assert [source.path for source in read.text.sources] == ["-"]
    assert read.text.sources[0].sha256 == read.text.sha256


def test_standard_input_stands_beside_files(feed, write):
    feed(b"middle")
    assert load_text(write("first", "1.txt"), "-", write("last", "2.txt")) == "first\nmiddle\nlast"


class Endless(io.RawIOBase):
    """Gives the same bytes again and again, and counts them."""

    def __init__(self, content):
        self._content = content
        self.given = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        for n in range(len(buffer)):
            buffer[n] = self._content[(self.given + n) % len(self._content)]
        self.given += len(buffer)
        return len(buffer)


class Full(io.RawIOBase):
    """A file on a disk without space."""

    def writable(self):
        return True

    def write(self, data):
        raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("content", ["a", "aé€😀", "😀"])
def test_of_a_standard_input_without_end_only_the_beginning_is_read(monkeypatch, content, limit):
    endless = Endless(content.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless, 16), encoding="ascii"))
    assert load_text("-", limit_chars=limit) == (content * limit)[:limit]
    assert endless.given <= 4 * limit + 3 + 16


def test_a_byte_order_mark_of_standard_input_does_not_count(feed):
    feed("\ufeff😀😀😀😀".encode())
    assert load_text("-", limit_chars=3) == "😀😀😀"


def test_standard_input_that_is_closed_or_breaks_is_told(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert message_of(["-"]) == "standard input is closed"
    broken = Endless(b"a")
    broken.readinto = lambda buffer: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(broken), encoding="ascii"))
    assert message_of(["-"]) == "can't read standard input: input/output error"


@pytest.mark.parametrize("length", [100, 100_000], ids=["at-the-end", "before"])
def test_standard_input_that_the_temporary_folder_can_not_hold_is_told(monkeypatch, feed, length):
    feed(b"a" * length)
    full = io.BufferedWriter(Full())
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda size: full)
    assert message_of(["-"]) == (
        f"can't keep standard input in {tempfile.gettempdir()!r}: no space left on device. Make room, or set TMPDIR to "
        "another folder."
    )


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


# Folders, globs, packed files, separators


def test_a_folder_is_its_files_in_the_order_of_their_paths(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.md", ".git/config", "a/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"<{name}>")
    assert load_text(tmp_path) == "<a/b/c.md>\n<a/z.txt>\n<b.txt>"
    read = load_corpus([tmp_path])
    assert [source.path for source in read.text.sources] == [
        str(tmp_path / name) for name in ("a/b/c.md", "a/z.txt", "b.txt")
    ]


def test_a_glob_is_the_files_of_such_names_unless_a_file_is_called_so(tmp_path):
    for name in ("2.txt", "1.txt", "1.md", "deep/er/3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert load_text(tmp_path / "*.txt") == "1.txt\n2.txt"
    assert load_text(tmp_path / "**" / "*.txt") == "1.txt\n2.txt\ndeep/er/3.txt"
    (tmp_path / "*.txt").write_text("itself")
    assert load_text(tmp_path / "*.txt") == "itself"
    pattern = str(tmp_path / "*.rst")
    assert message_of([pattern]) == f"can't read {pattern!r}: no file has such a name"


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("GZ", gzip.compress)]
)
@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 22])
def test_packed_files_are_read_as_what_is_in_them(write, monkeypatch, ending, pack, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    path = write(pack(("\ufeff" + MIXED).encode()), f"text.{ending}")
    read = load_corpus([path])
    assert read.vocabulary.decode(read.ids) == MIXED
    assert read.text.sha256 == hashlib.sha256(MIXED.encode()).hexdigest()


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no archive at all", lambda data: data[:-5] + b"12345"]
)
def test_a_packed_file_that_is_damaged_is_named(write, ending, pack, damage):
    path = write(damage(pack(MIXED.encode() * 500)), f"text.{ending}")
    assert message_of([path]).startswith(f"{str(path)!r} is damaged or not what its name says: ")


@pytest.mark.parametrize(
    ("separator", "joined"), [("", "onetwo\nthree"), ("\n\n", "one\n\ntwo\n\n\nthree"), ("<é>", "one<é>two\n<é>three")]
)
def test_a_separator_stands_between_all_files_that_hold_anything(write, separator, joined):
    paths = [write(part, f"{number}.txt") for number, part in enumerate(["", "one", "two\n", "", "three", ""])]
    assert load_text(*paths, separator=separator) == joined
    read = load_corpus(paths, separator=separator)
    assert read.vocabulary.decode(read.ids) == joined
    read = load_corpus(paths, separator=separator, vocabulary="bytes")
    assert bytes(read.ids) == joined.encode()


# Rare characters, bytes


def test_min_count_leaves_rarer_characters_out(write):
    path = write("aaabbc…")
    read = load_corpus([path], min_count=2)
    assert (read.vocabulary.characters, read.ids.tolist(), read.text.characters) == ("ab", [0, 0, 0, 1, 1], 7)
    assert load_corpus([path], min_count=3).vocabulary.characters == "a"
    assert "has characters the model never saw: 'c' (U+0063), '…' (U+2026)." in message_of(
        [path], min_count=2, unknown="error"
    )
    assert message_of([path], min_count=4) == f"no character of {str(path)!r} occurs 4 times. Use a lower --min-count."
    with pytest.raises(ConfigError, match="vocabulary corpus only"):
        load_corpus([path], min_count=2, vocabulary="printable")


@pytest.mark.slow
@pytest.mark.parametrize("block_bytes", [1, 3, 1 << 22])
@given(data=st.binary(min_size=1))
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


# Long texts: ids in the cache


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Texts of ten characters are long, and the cache is empty."""
    monkeypatch.setattr(corpus, "MAPPED_FROM", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "charrnn_tf"


def entries(folder):
    return [path for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_a_long_texts_ids_are_kept_and_found_again(small, write, monkeypatch):
    path = write(MIXED * 3)
    first = load_corpus([path])
    assert isinstance(first.ids, np.memmap)
    assert entries(small) == [first.kept]
    monkeypatch.setattr(corpus._Reader, "read", None)  # the text is not read again
    second = load_corpus([path])
    assert (second.vocabulary, second.text, second.kept) == (first.vocabulary, first.text, first.kept)
    assert second.vocabulary.decode(second.ids) == MIXED * 3
    assert size_of(first.kept) == sum(file.stat().st_size for file in first.kept.iterdir())


def test_short_texts_are_not_kept(small, write):
    read = load_corpus([write("nine char")])
    assert (read.kept, isinstance(read.ids, np.memmap), small.exists()) == (None, False, False)


@pytest.mark.parametrize(
    "change",
    [
        {"limit_chars": 12}, {"separator": "-"}, {"vocabulary": "bytes"}, {"min_count": 2}, {"unknown": "skip"},
        {"vocabulary": Vocabulary("aeé한글")},
    ],
)  # fmt: skip
def test_another_way_of_reading_is_another_entry(small, write, change):
    path = write(MIXED * 3)
    first = load_corpus([path])
    second = load_corpus([path], **{"unknown": "skip", **change})
    assert second.kept not in (None, first.kept)
    assert len(entries(small)) == 2


def test_a_changed_file_is_read_again(small, write):
    path = write("abc" * 10)
    first = load_corpus([path])
    write("bca" * 10)
    os.utime(path, ns=(0, 12345))  # as long as before
    second = load_corpus([path])
    assert second.kept != first.kept
    assert second.vocabulary.decode(second.ids) == "bca" * 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "ids").write_bytes(b"\0" * 30),
        lambda entry: (entry / "ids").write_bytes(b"\0\1\2"),
        lambda entry: (entry / "ids").unlink(),
        lambda entry: (entry / "text.json").unlink(),
        lambda entry: (entry / "text.json").write_text("{"),
        lambda entry: (entry / "text.json").write_text("{}"),
        lambda entry: (entry / "text.json").write_bytes(b"\xff"),
    ],
)
def test_a_damaged_entry_is_made_anew(small, write, damage):
    path = write("abc" * 10)
    kept = load_corpus([path]).kept
    damage(kept)
    again = load_corpus([path])
    assert again.kept == kept
    assert again.vocabulary.decode(again.ids) == "abc" * 10
    assert cache.read(kept.name)


def test_what_a_killed_run_left_is_no_entry(small, write, monkeypatch):
    path = write("abc" * 10)

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            load_corpus([path])
    assert entries(small) == []
    leftover = small / f".{cache.key('another')}.partial"
    leftover.mkdir()
    read = load_corpus([path])
    (small / f".{read.kept.name}.partial").mkdir()  # a kill leaves it
    shutil.rmtree(read.kept)
    assert load_corpus([path]).vocabulary.decode(read.ids) == "abc" * 10


def test_a_full_disk_is_told_and_leaves_nothing(small, write, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", refuse)
    message = message_of([write("abc" * 10)])
    assert message == (
        f"can't keep the encoded text in {str(small)!r}: no space left on device. Make room, or set XDG_CACHE_HOME to "
        "another folder."
    )
    assert entries(small) == []


def test_without_a_cache_a_long_text_is_read_all_the_same(small, write, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    read = load_corpus([write("abc" * 10)])
    assert (read.kept, isinstance(read.ids, np.memmap)) == (None, True)
    assert read.vocabulary.decode(read.ids) == "abc" * 10


def test_long_standard_input_is_mapped_and_not_kept(small, feed, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY", 4)
    feed(b"abc" * 10)
    read = load_corpus(["-"])
    assert (read.kept, isinstance(read.ids, np.memmap), small.exists()) == (None, True, False)
    assert read.vocabulary.decode(read.ids) == "abc" * 10


def test_progress_is_told_of_both_passes(write):
    path, packed = write("abc" * 10, "1"), write(gzip.compress(b"xyz" * 1000), "2.gz")
    told = []
    load_corpus([path, packed], progress=lambda *what: told.append(what))
    total = path.stat().st_size + packed.stat().st_size
    assert [doing for doing, *_ in told] == ["Counting", "Counting", "Encoding", "Encoding"]
    assert [done for _, done, _ in told] == [30, total, 30, total]
    assert {of for *_, of in told} == {total}


def test_the_text_of_a_resumed_run_may_come_from_the_cache(small, write):
    path = write("abc" * 10)
    known = load_corpus([path]).text
    assert load_corpus([path], expected=known).text == known
    other = write("abd" * 10, "other")
    for _ in range(2):  # read, then from the cache
        assert "is not the one this run learns from" in message_of([other], expected=known)
