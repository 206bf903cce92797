"""Files that are no plain text in UTF-8: recognised by their content, and refused with advice that fits."""
# ruff: noqa: RUF001

import bz2
import codecs
import gzip
import io
import lzma
import re
import tarfile
import zipfile

import pytest
from conftest import text_error

from charrnn_tf.text import detection
from charrnn_tf.text.corpus import load_corpus, load_text

ENGLISH = "All happy families are alike; each unhappy family is unhappy in its own way.\n" * 20
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n" * 20
FRENCH = "Les familles heureuses se ressemblent toutes ; où est le café près de la forêt ? Là-bas, à côté.\n" * 20
GERMAN = "Alle glücklichen Familien ähneln einander; jede unglückliche aber ist auf ihre Art unglücklich.\n" * 20
POLISH = "Wszystkie szczęśliwe rodziny są do siebie podobne, każda nieszczęśliwa na swój sposób.\n" * 20
CHINESE = "幸福的家庭都是相似的，不幸的家庭各有各的不幸。奥布朗斯基家里一切都混乱了。\n" * 20
JAPANESE = "幸福な家庭はすべて互いに似かよったものであり、不幸な家庭はどこもその不幸のおもむきが異なっている。\n" * 20
KOREAN = "행복한 가정은 모두 모습이 비슷하고, 불행한 가정은 모두 제각각의 불행을 안고 있다.\n" * 20


def tar(format=tarfile.GNU_FORMAT):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        about = tarfile.TarInfo("text.txt")
        about.size = len(ENGLISH)
        archive.addfile(about, io.BytesIO(ENGLISH.encode()))
    return packed.getvalue()


def old_tar():
    """A tar archive as it was before POSIX: without the word ustar."""
    header = bytearray(tar()[:512])
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + ENGLISH.encode()


def zipped():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("text.txt", ENGLISH)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "what", "advice"),
    [
        (tar(), "a.txt", "a tar archive", "Unpack it first, for example with: tar -xf"),
        (tar(tarfile.USTAR_FORMAT), "a.tar", "a tar archive", "Unpack"),
        (tar(tarfile.PAX_FORMAT), "a.tar", "a tar archive", "Unpack"),
        (old_tar(), "a.tar", "a tar archive", "Unpack"),
        (gzip.compress(tar()), "a.tar.gz", "a tar archive", "tar -xf"),
        (bz2.compress(tar()), "a.tar.bz2", "a tar archive", "tar -xf"),
        (lzma.compress(tar()), "a.tar.xz", "a tar archive", "tar -xf"),
        (gzip.compress(tar()), "a.tgz", "a tar archive, packed with gzip", "tar -xf"),
        (bz2.compress(tar()), "a.tbz", "a tar archive, packed with bzip2", "tar -xf"),
        (lzma.compress(tar()), "a", "a tar archive, packed with xz", "tar -xf"),
        (gzip.compress(ENGLISH.encode()), "a.txt", "packed with gzip", "Unpack it first, or end its name in .gz"),
        (gzip.compress(gzip.compress(ENGLISH.encode())), "a.gz", "packed with gzip", "Unpack"),
        (bz2.compress(ENGLISH.encode(), 3), "a.txt", "packed with bzip2", "Unpack"),
        (lzma.compress(ENGLISH.encode()), "a.txt", "packed with xz", "Unpack"),
        (b"\x28\xb5\x2f\xfd\x24\x20", "a.zst", "packed with Zstandard", "unzstd"),
        (zipped(), "a.txt", "a ZIP archive", "Unpack"),
        (b"%PDF-1.4\n1 0 obj\n" + ENGLISH.encode(), "a.txt", "a PDF document", "Save its text"),
        (b"{\\rtf1\\ansi " + ENGLISH.encode() + b"}", "a.txt", "an RTF document", "Save its text"),
        (b"\x7fELF\2\1\1\0", "a", "a program", "Leave it out"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a.wav", "a sound, picture or film", "Leave it out"),
        (b"SQLite format 3\0" + ENGLISH.encode(), "a.db", "an SQLite database", "Save its text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_refused_by_its_name(write, content, name, what, advice):
    path = write(content, name)
    message = text_error([path])
    assert message.startswith(f"{str(path)!r} is {what}")
    assert ", not plain text. " in message
    assert advice in message
    assert message.endswith(", or learn its bytes with `vocabulary` bytes")
    assert load_corpus([path], vocabulary="bytes").text.characters > 0


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, CHINESE, JAPANESE, ENGLISH + RUSSIAN], ids="erzjm")
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32"])
def test_utf_16_and_32_are_recognised_without_a_mark_and_with_one(write, text, encoding):
    path = write(text.encode(encoding))
    message = text_error([path])
    assert f"It looks like {encoding}: pass `encoding` {encoding}, " in message
    assert load_text(path, encoding=encoding) == text


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (RUSSIAN, "cp1251", "cp1251"), (RUSSIAN, "koi8-r", "koi8-r"), (RUSSIAN, "cp866", "cp866"),
        (FRENCH, "latin-1", "cp1252"), (GERMAN, "latin-1", "cp1252"), (ENGLISH + "It’s “open”.\n", "cp1252", "cp1252"),
        (FRENCH + "Œuvre\n", "cp1252", "cp1252"), (POLISH, "cp1250", "cp1250"), (CHINESE, "gbk", "gb18030"),
        (JAPANESE, "shift_jis", "cp932"), (JAPANESE, "euc_jp", "euc_jp"), (JAPANESE, "iso2022_jp", "iso2022_jp"),
        (KOREAN, "euc_kr", "cp949"), ("a café, late " * 9 + "\n", "latin-1", "cp1252"),
        ("all is well in the café", "latin-1", "cp1252"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 200_000], ids=["at once", "late"])
def test_another_encoding_is_named_and_reads_the_text(write, text, encoding, named, before):
    data = ENGLISH.encode() * (before // len(ENGLISH)) + text.encode(encoding)
    path = write(data)
    assert f"It looks like {named}: pass `encoding` {named}, " in text_error([path])
    assert load_text(path, encoding=named) == data.decode(encoding)


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\x81\x8d\x8f\x90\x9d" * 50, b"\xfe\xff\1\2" * 9])
def test_no_encoding_is_advised_that_gives_control_characters(data):
    named = detection.looks_like(data)
    assert named is None or not set(data.decode(named)) & set(detection.CONTROLS)


def test_damage_to_a_utf_8_text_is_not_taken_for_another_encoding(write):
    data = RUSSIAN.encode()
    message = text_error([write(data[:700] + b"\xff" + data[700:])])
    assert "It looks like UTF-8 that is damaged there" in message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(5000), "100% of its characters are NULs"), (ENGLISH.encode() + bytes(300_000), "NULs"),
        (ENGLISH.encode() * 200 + bytes(300_000), "NULs"), (bytes(n % 32 for n in range(3000)), "control characters"),
    ],
)  # fmt: skip
def test_nuls_and_control_characters_are_no_text(write, data, why):
    path = write(data)
    message = text_error([path])
    assert message.startswith(f"{str(path)!r} is not plain text")
    assert why in message


@pytest.mark.parametrize(
    "text",
    [
        "RIFF RAFF\n" * 9, "MZ\n", "GIF89a is a format\n" * 9, "BZh", "070701 is a number\n" * 30, "PK\n", "ID3\n",
        "some/path/to/a/file\0" * 20, "\x1b[31mred\x1b[0m\n" * 9, "a\0b", "%!PS-Adobe-3.0\n" * 9, "\x0c\x08\t" * 9,
    ],
    ids=ascii,
)  # fmt: skip
def test_unusual_texts_are_read(write, text):
    assert load_corpus([write(text)]).text.characters == len(text)


def test_every_sign_of_a_kind_is_told_apart():
    beginnings = [beginning for beginning, *_ in detection.SIGNATURES]
    for n, beginning in enumerate(beginnings):
        assert not any(beginning.startswith(other) for other in beginnings[:n])
    assert all(codecs.lookup(name) for name in detection.COMMON)
    assert all(re.fullmatch("[A-Z].*[^.]", advice) for *_, advice in detection.SIGNATURES)
