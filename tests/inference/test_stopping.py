"""Where a text ends at its stop texts, whatever pieces it arrives in."""

import pytest

from charrnn_tf.inference.stopping import Stopping


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["one"], ""),
        ("one two three", ["three"], "one two "),
        ("one two three", ["x"], "one two three"),
        ("one two thr", ["three"], "one two thr"),
        ("aaab ab", ["aab"], "a"),
        ("nananas", ["nas"], "nana"),
        ("one two two", ["two"], "one "),
        ("one two", [], "one two"),
        ("one two three", ["three", "two", "e "], "on"),
        ("abcdef", ["bcde", "d"], "abc"),  # the first that is complete, not the first that begins
        ("abcdef", ["d", "bcd", "cd"], "a"),
        ("abcdef", ["x", "efg"], "abcdef"),
    ],
)
def test_stopping_holds_back_what_may_begin_the_word(text, stops, expected, size):
    stopping, shown = Stopping(stops), ""
    for begin in range(0, len(text), size):
        stopping.add(text[begin : begin + size])
        shown += stopping.take()
        assert expected.startswith(shown)
    assert stopping.ended == (len(expected) < len(text))
    assert shown + stopping.take(last=True) == expected


def test_stopping_shows_all_but_the_words_length():
    stopping = Stopping(["stop"])
    stopping.add("0123456789")
    assert stopping.take() == "0123456"
