"""Recognises by content the format or encoding of a file that is not plain text in the expected encoding."""

import bz2
import codecs
import lzma
import re
import unicodedata
import zlib
from collections import Counter
from contextlib import suppress

SAVE = "Save its text as a file of its own first"
UNPACK = "Unpack it first"
UNPACK_TAR = f"{UNPACK}, for example with: tar -xf"
LEAVE = "Leave it out"
# First bytes of files that are not plain text, their format, and advice
SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "a PDF document", SAVE),
    (b"{\\rtf", "an RTF document", SAVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", SAVE),
    (b"AT&TFORM", "a DjVu document", SAVE),
    (b"PK\3\4", "a ZIP archive or a document made of one, such as .docx, .odt or .epub", f"{UNPACK}, or save its text"),
    (b"PK\5\6", "an empty ZIP archive", UNPACK),
    (b"\x1f\x8b", "packed with gzip", f"{UNPACK}, or end its name in .gz"),
    *((b"BZh%d1AY&SY" % level, "packed with bzip2", f"{UNPACK}, or end its name in .bz2") for level in range(1, 10)),
    (b"\xfd7zXZ\0", "packed with xz", f"{UNPACK}, or end its name in .xz"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", f"{UNPACK}, for example with: unzstd"),
    (b"\4\x22\x4d\x18", "packed with LZ4", UNPACK),
    (b"LZIP", "packed with lzip", UNPACK),
    (b"\x1f\x9d", "packed with compress", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\7", "a RAR archive", UNPACK),
    (b"MSCF\0", "a cabinet archive", UNPACK),
    (b"!<arch>\n", "an ar archive", UNPACK),
    (b"070701", "a cpio archive", UNPACK),
    (b"070707", "a cpio archive", UNPACK),
    (b"SQLite format 3\0", "an SQLite database", SAVE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", SAVE),
    (b"\x93NUMPY", "a NumPy array", LEAVE),
    (b"PAR1", "a Parquet file", SAVE),
    (b"ARROW1", "an Arrow file", SAVE),
    (b"\x7fELF", "a program", LEAVE),
    (b"MZ\x90\0", "a program", LEAVE),
    (b"\0asm", "a program", LEAVE),
    (b"\xca\xfe\xba\xbe", "a program", LEAVE),
    (b"\x89PNG\r\n", "a picture", LEAVE),
    (b"\xff\xd8\xff", "a picture", LEAVE),
    (b"GIF87a", "a picture", LEAVE),
    (b"GIF89a", "a picture", LEAVE),
    (b"II*\0", "a picture", LEAVE),
    (b"MM\0*", "a picture", LEAVE),
    (b"RIFF", "a sound, picture or film", LEAVE),
    (b"OggS", "a sound or film", LEAVE),
    (b"ID3", "a sound", LEAVE),
    (b"fLaC", "a sound", LEAVE),
    (b"MThd\0", "a MIDI file", LEAVE),
)  # fmt: skip
BEGINNINGS = tuple(beginning for beginning, *_ in SIGNATURES)
TAR_HEADER, TAR_SUM = 512, slice(148, 156)  # bytes
CONTROLS = {chr(n) for n in (*range(32), 127, *range(0x80, 0xA0))} - set("\t\n\v\f\r\b\x1b\x85")
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
ISO_2022 = {"\x1b$B": "iso2022_jp", "\x1b$@": "iso2022_jp", "\x1b(J": "iso2022_jp", "\x1b$)C": "iso2022_kr"}
WIDE_SPACES = re.compile("[ \n\u3000-\u3002\uff00-\uff1f]")
COMMON = ("cp1252", "cp1251", "cp866", "cp932", "euc_jp", "gb18030", "big5", "cp949")  # instead of rarer equivalents
WIDE = ("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be")
EBCDIC = ("cp037", "cp273", "cp424", "cp500", "cp875", "cp1026", "cp1140")  # mainframe encodings, incompatible with ASCII
SAMPLE = 1 << 16  # bytes to recognise an encoding by
FEW = 16  # characters: a shorter text is taken as it is
COUNTED = 1 << 14  # characters of a text in which control characters are counted
MOST_NULS, MOST_CONTROLS = 0.1, 0.25  # of the characters of a text
WESTERN = set("àâäáãåæçéèêëíìîïñóòôöõøœúùûüÿßÀÂÄÁÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØŒÚÙÛÜ’‘“”„–—…«»°€£§¿¡ºª·\u00a0")  # noqa: RUF001


def signature(data: bytes) -> tuple[str, str] | None:
    """The format of a file with these first bytes, and advice; None if it may be plain text."""
    if data.startswith(BEGINNINGS):
        beginning, what, advice = next(each for each in SIGNATURES if data.startswith(each[0]))
        if what.startswith("packed") and _is_tar(_unpacked(data)):
            return f"a tar archive, {what}", UNPACK_TAR
        if not beginning.isalnum() or b"\0" in data[:512]:  # a text may begin with such a word, but has no NUL after it
            return what, advice
    return ("a tar archive", UNPACK_TAR) if _is_tar(data) else None


def _unpacked(data: bytes) -> bytes:
    """At most TAR_HEADER decompressed bytes of gzip, bzip2 or xz data; empty for other data."""
    for decompressor in (zlib.decompressobj(wbits=31), bz2.BZ2Decompressor(), lzma.LZMADecompressor()):
        with suppress(OSError, EOFError, zlib.error, lzma.LZMAError):
            return bytes(decompressor.decompress(data, TAR_HEADER))
    return b""


def _is_tar(data: bytes) -> bool:
    """Whether a tar header with a valid checksum comes first."""
    header = data[:TAR_HEADER]
    try:
        expected = int(header[TAR_SUM].strip(b" \0"), 8)
    except ValueError:
        return False
    spaces = bytes(header[: TAR_SUM.start]) + b" " * 8 + header[TAR_SUM.stop :]
    return len(header) == TAR_HEADER and sum(spaces) == expected


def not_plain(text: str) -> str | None:
    """The reason why a file's first decoded block is not plain text; None if it may be."""
    if len(text) < FEW:
        return None
    sample, found = text[:COUNTED], controls(text)
    for what, characters, most in (("NULs", {"\0"} & found, MOST_NULS), ("control characters", found, MOST_CONTROLS)):
        share = sum(map(sample.count, characters)) / len(sample)
        if share > most:
            return f"{share:.0%} of its characters are {what}"
    if "\x1b" in text and any(each in text for each in ISO_2022):
        return "it switches character sets by escape sequences"
    return None


def controls(text: str) -> set[str]:
    """The control characters, other than those of plain text, at the beginning of a text."""
    return CONTROLS & set(text[:COUNTED])


def wide_encoding(data: bytes) -> str | None:
    """Detect ISO-2022, UTF-16 or UTF-32, by escape sequences, byte order mark or NUL bytes; None for others."""
    for escape, encoding in ISO_2022.items():
        if escape.encode() in data:
            return encoding
    data = data[:SAMPLE]
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding
    for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        units = len(data) // width
        zeros = [data[place : units * width : width].count(0) for place in range(width)]
        if encoding.endswith("be"):
            zeros.reverse()  # the highest byte is the last
        text = data[: units * width].decode(encoding, "replace")
        if width == 4:
            may_be = zeros[3] >= max(0.99 * units, 2)
        else:  # NULs in one half of the bytes only; or, in Chinese and Japanese, many of their spaces and punctuation marks
            may_be = zeros[1] >= max(0.01 * units, 4) and zeros[0] <= zeros[1] / 50
            may_be = may_be or len(WIDE_SPACES.findall(text)) >= max(0.02 * units, 4)
        if may_be and _is_prose(text):
            return encoding
    return None


def _is_prose(text: str) -> bool:
    """Whether nearly all characters are assigned and visible, or white space."""
    shares: Counter[str] = Counter()
    for character, count in Counter(text).items():
        kind = "L" if character in "\t\n\v\f\r\ufeff\u200b" else unicodedata.category(character)
        shares["\ufffd" if character == "\ufffd" else kind[0]] += count
    return shares["C"] + shares["\ufffd"] <= 0.02 * len(text)


def looks_like(data: bytes, start: int = 0) -> str | None:
    """The likeliest encoding of a text that is not UTF-8 from the byte at `start` on; None if there is none.

    An encoding that decodes to control characters is not returned.
    """
    earliest = max(start - SAMPLE // 2, 0)
    data = data[data.find(b"\n", earliest, start) + 1 or start if earliest else 0 :]
    if len(data) > SAMPLE:
        data = data[: data.rfind(b"\n", 0, SAMPLE) + 1] or data[:SAMPLE]  # whole characters, in a text of lines
    if _is_western(data):
        return "cp1252"
    from charset_normalizer import from_bytes

    data = b"\n".join(line for line in data.split(b"\n") if not line.isascii()) or data  # ASCII fits every encoding
    others = [*WIDE, *EBCDIC, "utf_7", "utf_8", "ascii"]
    texts = {found.encoding: str(found) for found in from_bytes(data, cp_exclusion=others)}
    found = [name for name, text in texts.items() if not CONTROLS & set(text)]
    japanese = [name for name in found if _kana(texts[name]) > 0.2]  # no other language has them
    for best in (japanese or found)[:1]:
        same = (name for name in COMMON if data.decode(name, "replace") == texts[best])
        return codecs.lookup(next(same, best)).name
    return None


def _is_western(data: bytes) -> bool:
    """Whether cp1252 gives a text of mostly ASCII letters, with the accents and quotation marks of western Europe."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters = sum(map(str.isalpha, text))
    foreign = [character for character in text if character > "\x7f"]
    accents = sum(character in WESTERN for character in foreign)
    few = len(foreign) <= (0.25 * letters if len(text) >= FEW else len(text))  # a very short text tells nothing else
    return bool(foreign) and few and accents >= 0.97 * len(foreign)


def _kana(text: str) -> float:
    """The share of hiragana and katakana."""
    return sum("\u3040" <= character <= "\u30ff" for character in text) / max(len(text), 1)


def is_utf8(data: bytes) -> bool:
    """Whether a block of a file is UTF-8 with characters beyond ASCII."""
    with suppress(UnicodeDecodeError):
        text, _ = codecs.utf_8_decode(data, "strict", False)  # the block may end within a character
        return not text.isascii()
    return False


def is_damaged_utf8(data: bytes) -> bool:
    """Whether most of the characters beyond ASCII are UTF-8, so that no other encoding is likely."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - bad > 4 * bad
