"""Characters <-> ids: the round trip, the order, the smallest type, unknown characters and one-hot rows."""

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.errors import ConfigError, TextError, describe_character
from charrnn_tf.text.vocabulary import Vocabulary, code_points, one_hot

ANY_TEXT = st.text(st.characters(exclude_categories=()), min_size=1)  # lone surrogates too
MIXED = "한글 e\u0301 👩‍🚀 \x00\r\n\U0010ffff"


def code_point_range(count):
    """A vocabulary of the first `count` code points from U+0100 on."""
    return Vocabulary(map(chr, range(0x100, 0x100 + count)))


@given(ANY_TEXT)
def test_decode_undoes_encode(text):
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert len(ids) == len(text)


@given(ANY_TEXT)
def test_an_id_is_the_characters_place(text):
    vocabulary = Vocabulary.from_text(text)
    assert vocabulary.encode(text).tolist() == [vocabulary.characters.index(character) for character in text]


@given(ANY_TEXT)
def test_from_text_holds_each_character_once_in_code_point_order(text):
    points = [ord(character) for character in Vocabulary.from_text(text).characters]
    assert points == sorted({ord(character) for character in text})


def test_lone_surrogates_keep_their_numbers():
    text = "a\ud800b\udfff\ud83d"
    vocabulary = Vocabulary.from_text(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert code_points(text).tolist() == [0x61, 0xD800, 0x62, 0xDFFF, 0xD83D]


def test_hangul_combining_marks_and_emoji_are_characters_of_their_own():
    vocabulary = Vocabulary.from_text(MIXED)
    assert len(vocabulary) == len(set(MIXED))
    assert vocabulary.decode(vocabulary.encode(MIXED)) == MIXED
    assert vocabulary.encode("e\u0301").tolist() == [vocabulary.characters.index("e"), vocabulary.characters.index("\u0301")]


def test_printable_is_pythons_printable_in_its_order():
    vocabulary = Vocabulary.printable()
    assert vocabulary.characters == string.printable
    assert len(vocabulary) == 100
    assert vocabulary.encode("0aA \x0c").tolist() == [0, 10, 36, 94, 99]


def test_code_points_are_those_of_ord():
    assert code_points(MIXED).tolist() == [ord(character) for character in MIXED]
    vocabulary = Vocabulary("zé👩")
    assert vocabulary.code_points.tolist() == [ord("z"), ord("é"), ord("👩")]


@pytest.mark.parametrize(
    ("count", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_ids_have_the_smallest_type_that_holds_them(count, dtype):
    vocabulary = code_point_range(count)
    ends = vocabulary.characters[0] + vocabulary.characters[-1]
    ids = vocabulary.encode(ends)
    assert vocabulary.dtype == ids.dtype == dtype
    assert ids.tolist() == [0, count - 1]
    assert vocabulary.decode(ids) == ends


def shuffled(characters, seed=1):
    """Each of the characters three times, in any order."""
    drawn = list(characters) * 3
    random.Random(seed).shuffle(drawn)
    return "".join(drawn)


@pytest.mark.parametrize("first", [0, 1, 0x80, 0x100], ids=hex)
@pytest.mark.parametrize("count", [1, 127, 255, 256, 257])
def test_ids_are_places_in_the_sorted_set_for_characters_of_any_width(first, count):
    text = shuffled(map(chr, range(first, first + count)))
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    ids = Vocabulary.from_text(text).encode(text)
    assert ids.tolist() == [places[character] for character in text]
    assert ids.dtype == ("uint8" if count <= 256 else "uint16")


@pytest.mark.parametrize("strangers", ["\x00", "\U0001f680", "\x00\u4e00", "\x00\ud800\U0001f680"], ids=ascii)
@pytest.mark.parametrize("count", [1, 254, 255, 256, 257])
def test_unknown_characters_of_any_width_are_found_in_vocabularies_of_any_size(count, strangers):
    known = [chr(point) for point in range(1, count + 1)]
    vocabulary, text = Vocabulary(reversed(known)), shuffled([*known, *strangers])
    ids = vocabulary.encode(text, unknown="skip")
    assert ids.tolist() == [count - ord(character) for character in text if character not in strangers]
    assert ids.dtype == vocabulary.dtype
    with pytest.raises(TextError) as caught:
        vocabulary.encode(text)
    told = ", ".join(describe_character(stranger) for stranger in strangers)
    assert str(caught.value).startswith(f"characters the model never saw: {told}. ")


@given(known=st.text(st.characters(max_codepoint=300), min_size=1), text=st.text(st.characters(max_codepoint=255)))
def test_texts_of_one_byte_characters_are_encoded_like_others(known, text):
    vocabulary = Vocabulary.from_text(known + "\n")  # a line is no file name
    wide = vocabulary.encode(text + "\U0001f680", unknown="skip")  # a character of more than a byte
    assert vocabulary.encode(text, unknown="skip").tolist() == wide.tolist()
    assert wide.tolist() == [vocabulary.characters.index(character) for character in text if character in known + "\n"]


def test_an_empty_text_has_no_ids():
    vocabulary = Vocabulary("ab")
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.encode("").dtype == vocabulary.dtype
    assert vocabulary.decode([]) == ""


def test_unknown_characters_are_named_with_their_code_points():
    with pytest.raises(TextError) as caught:
        Vocabulary.from_text("abc").encode("a…bé\né")
    assert str(caught.value) == (
        "characters the model never saw: '\\n' (U+000A), 'é' (U+00E9), '…' (U+2026). Leave them out, or use `unknown` skip."
    )


def test_only_the_first_five_unknown_characters_are_spelled_out():
    with pytest.raises(TextError) as caught:
        Vocabulary("z").encode("zabcdefg")
    assert str(caught.value) == (
        "characters the model never saw: 'a' (U+0061), 'b' (U+0062), 'c' (U+0063), 'd' (U+0064), 'e' (U+0065) and 2 more. "
        "Leave them out, or use `unknown` skip."
    )


@pytest.mark.parametrize("stranger", ["\x00", "b", "d", "\ud800", "\U0010ffff"])
def test_unknown_characters_below_between_and_above_the_known_are_found(stranger):
    vocabulary = Vocabulary("ace")
    with pytest.raises(TextError, match=rf"\(U\+{ord(stranger):04X}\)"):
        vocabulary.encode("a" + stranger)
    skipped = vocabulary.encode(f"e{stranger}ca{stranger}", unknown="skip")
    assert vocabulary.decode(skipped) == "eca"
    assert skipped.dtype == vocabulary.dtype


@given(known=ANY_TEXT, text=ANY_TEXT)
def test_skip_keeps_known_characters_in_order(known, text):
    vocabulary = Vocabulary.from_text(known)
    kept = "".join(character for character in text if character in known)
    assert vocabulary.decode(vocabulary.encode(text, unknown="skip")) == kept


def test_an_unknown_value_of_unknown_is_refused():
    with pytest.raises(ConfigError, match="`unknown` must be one of error, skip, got 'ignore'"):
        Vocabulary("ab").encode("ab", unknown="ignore")


def test_repeated_characters_are_refused():
    with pytest.raises(ConfigError, match="every character once"):
        Vocabulary("abca")


@pytest.mark.parametrize("make", [lambda: Vocabulary(""), lambda: Vocabulary.from_text("")])
def test_an_empty_vocabulary_is_refused(make):
    with pytest.raises(TextError, match="at least one character"):
        make()


def test_equal_vocabularies_have_the_same_characters_in_the_same_order():
    assert Vocabulary("ab") == Vocabulary(["a", "b"]) != Vocabulary("ba")
    assert hash(Vocabulary("ab")) == hash(Vocabulary("ab"))
    assert Vocabulary("ab") != "ab"


def test_decode_refuses_ids_outside_the_vocabulary():
    with pytest.raises(ConfigError):
        Vocabulary("ab").decode([0, 2])


def test_one_hot_rows_have_a_single_one_at_the_id():
    rows = one_hot([[2, 0], [1, 2]], 3)
    assert rows.dtype == np.float32
    assert rows.tolist() == [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]]
    assert one_hot(np.zeros((0,), np.uint8), 3).shape == (0, 3)


@pytest.mark.parametrize(("ids", "shown"), [([0, 3], "0..3"), ([-1, 2], "-1..2")])
def test_one_hot_refuses_ids_out_of_range(ids, shown):
    with pytest.raises(ConfigError) as caught:
        one_hot(ids, 3)
    assert str(caught.value) == f"ids must lie in 0..2, got {shown}"


@pytest.mark.parametrize(
    ("given", "message"),
    [({"a", "b"}, "a set of characters has no order"), (["ab", "c"], "single characters, got 'ab'"), ([1], "got 1")],
)
def test_what_is_not_a_sequence_of_characters_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Vocabulary(given)
