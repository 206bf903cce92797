"""Whether the end of a text resembles the rest."""

import numpy as np
import pytest

from charrnn_tf.text.likeness import unlike

random = np.random.default_rng(1)
WORDS = np.array([f"{a}{b}{c}" for a in "bdgkmn" for b in "aeiou" for c in "lrst"])
PROSE = " ".join(random.choice(WORDS, 6000))
INDEX = "\n".join(f"{word.upper()} .... {random.integers(999)}" for word in random.choice(WORDS, 300))


def parts(text, share=0.1):
    ids = np.array([ord(character) for character in text], np.uint16)
    cut = int(len(ids) * (1 - share))
    return ids[:cut], ids[cut:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, False),
        (PROSE[:3000], False),
        (PROSE + INDEX, True),
        (" ".join(sorted(PROSE.split())), True),
        ("a" * 5000, False),
        ("ab", False),
    ],
    ids=["prose", "little prose", "an appendix", "sorted", "one character", "two characters"],
)
def test_only_an_end_of_another_kind_is_unlike_the_rest(text, expected):
    assert unlike(*parts(text)) is expected


def test_a_text_without_a_held_out_part_is_not_unlike():
    assert not unlike(*parts(PROSE, share=0.0))
