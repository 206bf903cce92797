"""Long texts: their ids are cached, mapped, found again, and read anew where the cache is damaged or can't be used."""

import errno
import gzip
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import filelock
import numpy as np
import pytest
from conftest import text_error

from charrnn_tf import errors
from charrnn_tf.files import size_of
from charrnn_tf.text import cache, corpus, sources
from charrnn_tf.text.corpus import load_corpus
from charrnn_tf.text.vocabulary import Vocabulary

MIXED = "한글 e\u0301 👩‍🚀\n\u00a0é"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The cache folder, empty; texts from ten characters on are cached."""
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
    monkeypatch.setattr(corpus._Reader, "read", None)  # fails if the text is read again
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
        {"encoding": "utf-8-sig"}, {"normalize": "nfc"},
        {"limit_chars": 12}, {"separator": "-"}, {"vocabulary": "bytes"}, {"min_count": 2}, {"unknown": "error"},
        {"vocabulary": Vocabulary("aeé한글")},
    ],
)  # fmt: skip
def test_another_way_of_reading_is_another_entry(small, write, change):
    path = write(MIXED * 3)
    first = load_corpus([path], unknown="skip")
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


def test_a_file_of_the_same_size_and_time_is_another_file(small, write, tmp_path):
    path = write("abc" * 10)
    first = load_corpus([path])
    other = write("bca" * 10, "other.txt")
    before = os.stat(path)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)  # as `mv` after `touch -r`
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    second = load_corpus([path])
    assert second.vocabulary.decode(second.ids) == "bca" * 10
    path.write_bytes(b"cab" * 10)  # as `cp -p` onto it
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    third = load_corpus([path])
    assert third.vocabulary.decode(third.ids) == "cab" * 10
    assert entries(small) == [third.kept] != [first.kept]


def test_where_inodes_and_times_say_nothing_some_blocks_are_compared(write, monkeypatch):
    monkeypatch.setattr(cache, "_status", lambda file: [file])
    content = bytearray(b"a" * 100_000)
    identities = {cache.identity(str(write(content)))[-1]}
    for place in (0, 50_000, 99_999):
        changed = content.copy()
        changed[place] = ord("b")
        identities.add(cache.identity(str(write(changed)))[-1])
    assert len(identities) == 4


def test_entries_of_changed_and_lost_files_go_and_others_stay(small, write):
    kept = [load_corpus([write(letter * 30, f"{letter}.txt")]).kept for letter in "abcd"]
    write("e" * 31, "a.txt")
    (small.parent.parent / "b.txt").unlink()
    (kept[2] / "text.json").write_text("{}")
    (small / ".0123.partial").mkdir()
    newest = load_corpus([write("e" * 30, "e.txt")]).kept
    assert set(entries(small)) == {kept[3], newest}
    assert len(list(small.glob(".*.lock"))) == 2


def test_the_cache_is_bounded_and_keeps_what_was_read_last(small, write, monkeypatch):
    paths = [write(letter * 3000, f"{letter}.txt") for letter in "abc"]
    first, second, third = (load_corpus([path]).kept for path in paths)
    for seconds, entry in enumerate((first, second, third)):
        os.utime(entry / "text.json", (seconds, seconds))
    load_corpus([paths[0]])
    monkeypatch.setattr(cache, "LARGEST", 2.5 * size_of(first))
    with filelock.FileLock(small / f".{third.name}.lock"):  # another process reads it
        newest = load_corpus([write("d" * 3000, "d.txt")]).kept
    assert set(entries(small)) == {third, newest}
    monkeypatch.setattr(cache, "LARGEST", 1)
    newest = load_corpus([write("e" * 3000, "e.txt")]).kept
    assert entries(small) == [newest]


@pytest.mark.parametrize("home", ["", "relative", None])
@pytest.mark.parametrize("xdg", ["", "relative", "~", None])
def test_without_an_absolute_path_nothing_is_cached(write, tmp_path, monkeypatch, caplog, home, xdg):
    monkeypatch.setattr(corpus, "MAPPED_FROM", 10)
    monkeypatch.chdir(tmp_path)
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if home is None:  # and the user is unknown
        monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    read = load_corpus([write("abc" * 10)])
    assert (read.kept, read.vocabulary.decode(read.ids)) == (None, "abc" * 10)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_relative_cache_home_gives_way_to_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "charrnn_tf"


def test_a_read_only_home_is_a_warning_that_names_what_to_set(write, monkeypatch, caplog):
    monkeypatch.setattr(corpus, "MAPPED_FROM", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    errors.warn.cache_clear()
    load_corpus([write("abc" * 10)])
    (said,) = caplog.messages
    assert said.startswith("Warning: the encoded text is not kept for the next run: can't use '/proc/nowhere")
    assert said.endswith("Set XDG_CACHE_HOME to a folder that can be written.")


@pytest.mark.parametrize("name", ["-", "long.txt"])
def test_without_a_temporary_folder_the_line_names_what_to_set(small, write, feed, monkeypatch, name):
    def refuse():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(sources, "IN_MEMORY", 4)
    monkeypatch.setattr(cache.tempfile, "gettempdir", refuse)
    feed(b"abc" * 10)
    message = text_error([write("abc" * 10) if name != "-" else name])
    assert "in a temporary folder: no usable temporary directory found in ['/tmp']. Make room, or set TMPDIR" in message


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
def test_a_damaged_entry_is_replaced(small, write, damage):
    path = write("abc" * 10)
    kept = load_corpus([path]).kept
    damage(kept)
    again = load_corpus([path])
    assert again.kept == kept
    assert again.vocabulary.decode(again.ids) == "abc" * 10
    assert cache.read(kept.name)


def test_leftovers_of_a_killed_run_are_no_entries(small, write, monkeypatch):
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


def test_a_full_disk_is_an_error_and_leaves_nothing(small, write, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", refuse)
    message = text_error([write("abc" * 10)])
    assert message == (
        f"can't keep the encoded text in {str(small)!r}: no space left on device. Make room, or set XDG_CACHE_HOME to "
        "another folder."
    )
    assert entries(small) == []


def test_without_a_cache_a_long_text_is_read_too(small, write, monkeypatch):
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


def test_the_expected_text_may_come_from_the_cache(small, write):
    path = write("abc" * 10)
    known = load_corpus([path]).text
    assert load_corpus([path], expected=known).text == known
    other = write("abd" * 10, "other")
    for _ in range(2):  # read, then from the cache
        assert "this is not the text that the run was trained on: " in text_error([other], expected=known)
        assert load_corpus([other]).text.sources[0].path == str(other)


def test_a_compressed_text_is_cached_by_an_estimate_of_its_length(small, write, monkeypatch):
    path = write(gzip.compress(b"abc" * 1000), "text.gz")
    size = path.stat().st_size
    for mapped_from, cached in [(16 * size + 1, False), (16 * size, True)]:
        monkeypatch.setattr(corpus, "MAPPED_FROM", mapped_from)
        assert bool(load_corpus([path]).kept) is cached


def test_a_run_waits_while_another_encodes_the_same_text(small, write, caplog):
    path = write("abc" * 10)
    entry = load_corpus([path]).kept
    with ThreadPoolExecutor() as pool, filelock.FileLock(small / f".{entry.name}.lock"):
        reading = pool.submit(load_corpus, [path])
        with pytest.raises(TimeoutError):
            reading.result(timeout=0.3)
    assert reading.result().kept == entry
    assert "Another run is encoding this text; waiting for its result." in caplog.messages
