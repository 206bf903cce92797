"""Lines of a text, whatever its blocks."""

import pytest

from charrnn_tf.text import sources
from charrnn_tf.text.linewise import lines
from charrnn_tf.text.sources import Text


def lines_of(*files, **how):
    with Text(tuple(map(str, files)), **how) as text:
        return list(lines(text))


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
        read = lines(text)
        assert next(read) == "ab"
        assert sources.sys.stdin.buffer.tell() == 4
        assert list(read) == ["cd", "ef"]


def test_bytes_are_lines_too(write):
    assert lines_of(write(b"\xff\n\xe9"), as_bytes=True) == ["\xff", "\xe9"]
