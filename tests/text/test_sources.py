"""Reading files as one text: joining, decoding, globs, compression, standard input, and refusals."""

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import sys
import tempfile

import pytest
from conftest import text_error

from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.text import names, sources
from charrnn_tf.text.corpus import load_corpus, load_text
from charrnn_tf.text.sources import Text

MIXED = "한글 e\u0301 👩‍🚀\n\u00a0é"


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
    with pytest.raises(ConfigError, match="`limit_chars` must be a whole number of at least 1"):
        load_text(write("a"), limit_chars=0)


def test_a_separator_must_be_utf8(write):
    with pytest.raises(ConfigError, match="`separator` must be UTF-8"):
        load_corpus([write("a")], separator="\udcff")


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
    message = text_error([path])
    assert message.startswith(f"{str(path)!r} is not UTF-8: byte {place} is 0x{byte}. ")
    assert content[place] == int(byte, 16)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.txt"
    assert text_error([path]) == f"can't read {str(path)!r}: no such file or directory"
    with pytest.raises(TextError, match=r"nowhere\.txt"):
        load_text(path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / ".hidden").write_text("a")
    assert text_error([tmp_path]) == f"can't read {str(tmp_path)!r}: the folder holds no files"


def test_a_name_with_a_nul_character_is_refused():
    assert text_error(["a\0b"]) == "can't read 'a\\x00b': it contains a NUL character, which file names can't"


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(sources, "open_file", refuse)
    assert text_error([write("a", "secret.txt")]).endswith("secret.txt': permission denied")


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
    """An endless stream that repeats the same bytes and counts them."""

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
def test_only_the_beginning_of_an_endless_standard_input_is_read(monkeypatch, content, limit):
    endless = Endless(content.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless, 16), encoding="ascii"))
    assert load_text("-", limit_chars=limit) == (content * limit)[:limit]
    assert endless.given <= 4 * limit + 3 + 16


def test_a_byte_order_mark_of_standard_input_does_not_count(feed):
    feed("\ufeff😀😀😀😀".encode())
    assert load_text("-", limit_chars=3) == "😀😀😀"


def test_a_closed_or_failing_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert text_error(["-"]) == "standard input is closed"
    broken = Endless(b"a")
    broken.readinto = lambda buffer: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(broken), encoding="ascii"))
    assert text_error(["-"]) == "can't read standard input: input/output error"


@pytest.mark.parametrize("length", [100, 100_000], ids=["at-the-end", "before"])
def test_standard_input_that_does_not_fit_the_temporary_folder_is_an_error(monkeypatch, feed, length):
    feed(b"a" * length)
    full = io.BufferedWriter(Full())
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda size: full)
    assert text_error(["-"]) == (
        f"can't keep standard input in {tempfile.gettempdir()!r}: no space left on device. Make room, or set TMPDIR to "
        "another folder."
    )


def test_standard_input_twice_is_refused(feed):
    feed(b"text")
    with pytest.raises(ConfigError, match=r"standard input .* only once"):
        load_corpus(["-", "-"])


def test_standard_input_that_is_not_utf8_or_empty_is_refused(feed):
    feed(b"ab\xff")
    assert text_error(["-"]).startswith("standard input is not UTF-8: byte 2 is 0xFF.")
    feed(b"")
    assert text_error(["-"]) == "'-' is empty"


def test_a_folder_is_its_files_in_the_order_of_their_paths(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.md", ".git/config", "a/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"<{name}>")
    assert load_text(tmp_path) == "<a/b/c.md>\n<a/z.txt>\n<b.txt>"
    read = load_corpus([tmp_path])
    assert [source.path for source in read.text.sources] == [
        str(tmp_path / name) for name in ("a/b/c.md", "a/z.txt", "b.txt")
    ]


def test_linked_folders_are_followed_and_loops_end(tmp_path, monkeypatch):
    (tmp_path / "texts" / "inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "texts" / "inner" / "1.txt").write_text("one")
    (tmp_path / "other" / "2.txt").write_text("two")
    (tmp_path / "texts" / "again").symlink_to(tmp_path / "texts" / "inner")
    (tmp_path / "texts" / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "texts" / "inner" / "loop").symlink_to(tmp_path / "texts")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "texts")
    assert load_text(tmp_path / "texts") == "two\none"
    assert load_text(tmp_path / "texts" / "inner" / "**" / "*.txt") == "one\ntwo"
    monkeypatch.chdir(tmp_path / "other")
    assert load_text("**/[12].txt") == "two\none"
    assert load_text("**") == load_text(".") == "two\none"


@pytest.mark.parametrize("target", ["nowhere", "broken.txt"], ids=["missing", "itself"])
@pytest.mark.parametrize("name", ["texts", "texts/*.txt"])
def test_a_broken_link_is_named(tmp_path, monkeypatch, target, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.txt").write_text("one")
    (tmp_path / "texts" / "broken.txt").symlink_to(target)
    assert text_error([name]).startswith(f"can't read 'texts/broken.txt' in {name!r}: a broken link.")


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "open" / "1.txt").write_text("one")
    scandir = names.os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(names.os, "scandir", refuse)
    assert text_error([tmp_path]) == f"can't read {str(tmp_path / 'locked')!r}: permission denied"


def test_a_glob_is_the_files_that_match_unless_a_file_has_that_very_name(tmp_path):
    for name in ("2.txt", "1.txt", "1.md", "deep/er/3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert load_text(tmp_path / "*.txt") == "1.txt\n2.txt"
    assert load_text(tmp_path / "**" / "*.txt") == "1.txt\n2.txt\ndeep/er/3.txt"
    (tmp_path / "*.txt").write_text("itself")
    assert load_text(tmp_path / "*.txt") == "itself"
    pattern = str(tmp_path / "*.rst")
    assert text_error([pattern]) == f"can't read {pattern!r}: no file matches"


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("GZ", gzip.compress)]
)
@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 22])
def test_compressed_files_are_read_as_their_content(write, monkeypatch, ending, compress, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    path = write(compress(("\ufeff" + MIXED).encode()), f"text.{ending}")
    read = load_corpus([path])
    assert read.vocabulary.decode(read.ids) == MIXED
    assert read.text.sha256 == hashlib.sha256(MIXED.encode()).hexdigest()


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no archive at all", lambda data: data[:-5] + b"12345"]
)
def test_a_damaged_compressed_file_is_named(write, ending, compress, damage):
    path = write(damage(compress(MIXED.encode() * 500)), f"text.{ending}")
    assert text_error([path]).startswith(f"{str(path)!r} is damaged or not of the format in its name: ")


@pytest.mark.parametrize(
    ("separator", "joined"), [("", "onetwo\nthree"), ("\n\n", "one\n\ntwo\n\n\nthree"), ("<é>", "one<é>two\n<é>three")]
)
def test_a_separator_stands_between_all_files_that_are_not_empty(write, separator, joined):
    paths = [write(part, f"{number}.txt") for number, part in enumerate(["", "one", "two\n", "", "three", ""])]
    assert load_text(*paths, separator=separator) == joined
    read = load_corpus(paths, separator=separator)
    assert read.vocabulary.decode(read.ids) == joined
    read = load_corpus(paths, separator=separator, vocabulary="bytes")
    assert bytes(read.ids) == joined.encode()


def lines_of(*files, **how):
    with Text(tuple(map(str, files)), **how) as text:
        return list(text.lines())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("\n\nab\ncd", ["", "", "ab", "cd"]),
        ("a\r\nb\x0bc\u2028d\x85e\n", ["a\r", "b\x0bc\u2028d\x85e"]),  # only newlines end lines
        ("é\n" + "ab" * 20 + "\nc", ["é", "ab" * 20, "c"]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_lines_do_not_depend_on_the_blocks(write, monkeypatch, content, expected, block):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block)
    assert lines_of(write(content)) == expected
    assert lines_of(write(content), write("z", "other.txt")) == [*expected, "z"]


def test_standard_input_is_read_as_it_comes_without_a_copy(feed, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4)
    monkeypatch.setattr(sources.tempfile, "SpooledTemporaryFile", None)
    feed(b"ab\ncd\nef")
    with Text(("-",), once=True) as text:
        read = text.lines()
        assert next(read) == "ab"
        assert sources.sys.stdin.buffer.tell() == 4
        assert list(read) == ["cd", "ef"]


def test_bytes_are_lines_too(write):
    assert lines_of(write(b"\xff\n\xe9"), as_bytes=True) == ["\xff", "\xe9"]
