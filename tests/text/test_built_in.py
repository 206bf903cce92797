"""The built-in corpus: prose, each paragraph once."""

import pytest

from charrnn_tf.text.built_in import built_in_text, is_prose


def test_the_built_in_corpus_is_long_enough_and_has_each_paragraph_once():
    text = built_in_text()
    paragraphs = text.removesuffix("\n").split("\n\n")
    assert 200_000 <= len(text) <= 320_000
    assert len(set(paragraphs)) == len(paragraphs) > 800
    assert all(map(is_prose, paragraphs))


def test_the_built_in_corpus_can_be_read():
    lines = built_in_text().split("\n")
    assert lines[1::2] == [""] * (len(lines) // 2)
    assert not [line for line in lines if line != " ".join(line.split()) or "::=" in line or ">>>" in line]


@pytest.mark.parametrize(
    "paragraph",
    [
        "Return true if all characters in the string are decimal characters and there is at least one character.",
        '* If this raises "AttributeError", the class pattern has failed, and so on:',
        "“No,” she said at last, “they have not come back from the other side.” (They had.)",
    ],
)
def test_prose(paragraph):
    assert is_prose(paragraph)


@pytest.mark.parametrize(
    "paragraph",
    [
        "",
        "New in version 3.5.",  # too short to learn sentences from
        "The first of the words and then nothing that ends it",
        "Compound_stmt ::= if_stmt | while_stmt | for_stmt and so on and on to the end.",
        ">>> print(2) and then the rest of a long session with the interpreter.",
        "object.__add__(self, other) object.__sub__(self, other) object.__mul__(self, other)",
        "for i in range(10): print(i) i = 5  # this will not affect the loop, because i will be overwritten",
        "+-----+ | The table of all the things that there are in the world. | +-----+",
        "With Statement Context Managers and Other Things of Many Words **************************************",
    ],
)
def test_no_prose(paragraph):
    assert not is_prose(paragraph)
