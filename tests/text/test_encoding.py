"""Other encodings than UTF-8 and normalization forms of Unicode: texts read as if they had been converted before."""
# ruff: noqa: RUF001

import unicodedata

import pytest
from conftest import text_error
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.settings.schema import TrainConfig
from charrnn_tf.text import sources
from charrnn_tf.text.corpus import load_corpus, load_text
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

CYRILLIC = "Все семьи\r\nпохожи"
MIXED = "한글 e\u0301 é 日本 a\u0327\u0301\n"
ENCODINGS = (
    "cp1251",
    "koi8-r",
    "utf-16",
    "utf-16-be",
    "utf-32",
    "utf-7",
    "utf-8-sig",
    "gb18030",
    "iso2022_jp_2",
    "mac-cyrillic",
)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1 << 22])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_the_same_in_every_encoding(write, monkeypatch, encoding, block_bytes):
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    plain, other = write(CYRILLIC, "1.txt"), write(CYRILLIC.encode(encoding), "2.txt")
    assert load_text(other, other, encoding=encoding) == f"{CYRILLIC}\n{CYRILLIC}"
    assert load_text(other, encoding=encoding, limit_chars=5) == CYRILLIC[:5]
    assert load_corpus([other], encoding=encoding).text.sha256 == load_corpus([plain]).text.sha256


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_beginning_of_standard_input_is_enough_in_every_encoding(feed, encoding):
    feed((CYRILLIC * 50).encode(encoding))
    assert load_text("-", encoding=encoding, limit_chars=40) == (CYRILLIC * 50)[:40]


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13", "", "utf 8\0"])
def test_an_unknown_encoding_is_refused_by_name(write, name):
    for read in (lambda: load_text(write("a"), encoding=name), lambda: TrainConfig(encoding=name)):
        with pytest.raises(ConfigError, match="`encoding` must be a text encoding that Python knows") as caught:
            read()
        assert repr(name) in str(caught.value)


def test_an_encoding_has_one_name_whatever_it_is_called():
    assert {TrainConfig(encoding=name).encoding for name in ("CP1251", "windows-1251", "cp1251")} == {"cp1251"}
    assert TrainConfig().encoding == TrainConfig(encoding="UTF8").encoding == "utf-8"


def test_a_text_in_another_encoding_than_given_is_refused_with_the_place(write):
    path = write(("a" * 300 + CYRILLIC * 20).encode())
    assert "is not ascii: byte 300 is 0xD0. It looks like utf-8: pass `encoding` utf-8, " in text_error(
        [path], encoding="ascii"
    )
    assert " is not UTF-16: UTF-16 stream does not start with BOM. " in text_error([write(b"abcd" * 20)], encoding="utf-16")


def test_mojibake_is_a_warning(write, caplog):
    load_corpus([write(CYRILLIC * 9, "1.txt")], encoding="koi8-r")
    assert "1.txt' is read as koi8-r, but its bytes are UTF-8." in caplog.text
    load_corpus([write(("The “cat” and the “dog”. " * 9).encode("cp1252"), "2.txt")], encoding="latin-1")
    assert "2.txt', read as iso8859-1, has control characters such as '\\x93' (U+0093); it looks like cp1252." in caplog.text


def test_bytes_have_no_encoding_and_no_form(write):
    for how in ({"encoding": "cp1251"}, {"normalize": "nfc"}):
        for vocabulary in ("bytes", ByteVocabulary()):
            with pytest.raises(ConfigError, match="leave out `encoding` and `normalize`"):
                load_corpus([write("a")], vocabulary=vocabulary, **how)


def test_half_a_surrogate_pair_is_no_character(write):
    assert "has '\\ud83d' (U+D83D), half of a pair of surrogates" in text_error(
        [write(rb"abc\ud83d and so on")], encoding="unicode_escape"
    )


@pytest.mark.parametrize("form", ["nfc", "nfd"])
@given(
    text=st.text(st.sampled_from("ae\u0301\u0327\u0323é가ㄱᄀ\u1161\u11a8\u09c7\u09be日\n"), min_size=1, max_size=30),
    block_bytes=st.integers(1, 9),
)
def test_a_text_is_normalized_whole_however_it_is_read(tmp_path, form, text, block_bytes):
    (tmp_path / "text.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", block_bytes)
        assert load_text(tmp_path / "text.txt", normalize=form) == unicodedata.normalize(form.upper(), text)


def test_strings_and_the_built_in_corpus_are_normalized_too():
    assert load_corpus(content=MIXED, normalize="nfd").text == load_corpus(content=unicodedata.normalize("NFD", MIXED)).text
    assert load_text(normalize="nfd", limit_chars=1000) == load_text(limit_chars=1000)
    with pytest.raises(ConfigError, match="`normalize` must be one of none, nfc, nfd, got 'nfkc'"):
        load_text(normalize="nfkc")


@pytest.mark.parametrize(
    ("known", "asked", "form"),
    [
        ("e\u0301 ", "é", "nfd"),
        ("é ", "e\u0301", "nfc"),
        ("eé ", "e\u0301", "nfc"),
        ("가", "\u1100\u1161", "nfc"),
        ("e ", "é", None),
    ],
)
def test_characters_known_in_the_other_form_are_told(known, asked, form):
    with pytest.raises(TextError) as caught:
        Vocabulary(known).encode(asked)
    hint = f"It knows them in the form `normalize` {form}." if form else "Leave them out, or use `unknown` skip."
    assert str(caught.value).endswith(hint)
