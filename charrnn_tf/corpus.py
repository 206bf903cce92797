"""Files of text -> one array of ids.

A corpus is read in two passes over blocks of text, one that counts characters and one that encodes them, so that neither
needs more memory than a block beside the ids.
"""

from __future__ import annotations

import codecs
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .config import VOCABULARIES
from .errors import ConfigError, TextError, reason
from .files import open_file
from .vocabulary import Ids, Vocabulary, code_points

BLOCK_BYTES = 1 << 22
BUILT_IN = "built-in"
STANDARD_INPUT = "-"
CODE_POINTS = sys.maxunicode + 1


@dataclass(frozen=True)
class Source:
    """One file of a text, as it was read."""

    path: str  # absolute, or "-"
    sha256: str  # of its text's UTF-8 bytes, `limit_chars` applied
    characters: int


@dataclass(frozen=True)
class TextRecord:
    """What there is to recognise a text by."""

    sources: tuple[Source, ...]  # none: the built-in corpus
    sha256: str  # of the whole text's UTF-8 bytes
    characters: int  # read, skipped ones included

    def difference(self, other: TextRecord) -> str | None:
        """What differs in the content of another text; None: nothing. Where a file lies does not count."""
        if self.sha256 == other.sha256:
            return None
        sums = [[source.sha256 for source in text.sources] for text in (self, other)]
        if sorted(sums[0]) == sorted(sums[1]):
            return f"its files came in another order: {', '.join(repr(source.path) for source in self.sources)}"
        if len(self.sources) == len(other.sources):
            for then, now in zip(self.sources, other.sources, strict=True):
                if then.sha256 != now.sha256:
                    changed = f"{now.characters:,} characters, {then.characters:,} then"
                    same = "as many characters, but others"
                    what = same if now.characters == then.characters else changed
                    return f"{now.path!r} now holds {what}" + (f" in {then.path!r}" if then.path != now.path else "")
        return (
            f"{other.characters:,} characters from {len(other.sources)} files now, {self.characters:,} from "
            f"{len(self.sources)} then"
        )


@dataclass(frozen=True)
class Corpus:
    """A text as ids."""

    ids: Ids  # [characters kept]
    vocabulary: Vocabulary
    text: TextRecord


def load_corpus(
    sources: Sequence[str | Path] = (),
    *,
    vocabulary: str | Vocabulary = "corpus",
    unknown: str = "error",
    limit_chars: int | None = None,
    expected: TextRecord | None = None,
) -> Corpus:
    """Read texts as one and encode it.

    sources: paths of UTF-8 files, read one after another, a newline between those that don't end with one; `-` is standard
    input; none is the built-in corpus.
    vocabulary: "corpus" (the text's own characters), "printable" (string.printable) or a Vocabulary.
    unknown: what to do with characters outside the vocabulary, "error" or "skip".
    limit_chars: read only so many characters.
    expected: the text that it must be.

    Raises TextError for a text that can't be read, is empty, is not the expected one or has unknown characters.
    """
    names = tuple(str(source) for source in sources)
    text = _Text(names, limit_chars)
    counts = np.zeros(CODE_POINTS, dtype=np.int64)
    digest = hashlib.sha256()
    digests = [digest] if len(names) == 1 else [hashlib.sha256() for _ in names]  # a single file's is the whole text's
    lengths = [0] * len(names)
    for number, block in text.numbered_blocks():
        data = block.encode()
        counted = _count_ascii(data) if block.isascii() else np.bincount(code_points(block))
        counts[: len(counted)] += counted
        for each in {digest} if number is None else {digest, digests[number]}:
            each.update(data)
        if number is not None:
            lengths[number] += len(block)
    sums = (each.hexdigest() for each in digests)
    record = TextRecord(tuple(map(Source, map(_absolute, names), sums, lengths)), digest.hexdigest(), int(counts.sum()))
    if expected and (difference := expected.difference(record)):
        raise TextError(
            f"the text is not the one this run learns from: {difference}. Give the same text, or begin another run with "
            "--init-from."
        )
    if not counts.any():
        raise TextError(f"{text.title} is empty: there is nothing to learn from")
    if vocabulary == "corpus":
        vocabulary = Vocabulary(map(chr, np.flatnonzero(counts)))
    elif vocabulary == "printable":
        vocabulary = Vocabulary.printable()
    elif isinstance(vocabulary, str):
        raise ConfigError(f"vocabulary must be one of {VOCABULARIES}, got {vocabulary!r}")
    present = "".join(map(chr, np.flatnonzero(counts)))
    try:
        known = vocabulary.encode(present, unknown)
    except TextError as error:
        raise TextError(f"{text.title} has {error}") from error
    kept = int(counts[vocabulary.code_points[known]].sum())
    ids = np.empty(kept, dtype=vocabulary.dtype)
    position = 0
    for block in text.blocks():
        encoded = vocabulary.encode(block, unknown)
        ids[position : position + len(encoded)] = encoded
        position += len(encoded)
    if position != kept:
        raise TextError(f"{text.title} changed while it was read; start again")
    return Corpus(ids, vocabulary, record)


def _absolute(name: str) -> str:
    return name if name == STANDARD_INPUT else str(Path(name).resolve())


def _count_ascii(data: bytes) -> npt.NDArray[np.int64]:
    """How often each byte occurs, [256]: counted two at a time, which takes half the time."""
    pairs = np.bincount(np.frombuffer(data, np.uint16, len(data) // 2), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if len(data) % 2:
        counts[data[-1]] += 1
    return counts


def load_text(*sources: str | Path, limit_chars: int | None = None) -> str:
    """The texts of one or several UTF-8 files as one string; with no file, the built-in corpus.

    A newline is put between files that don't end with one. Raises TextError naming the file that can't be read.
    """
    return "".join(_Text(tuple(str(source) for source in sources), limit_chars).blocks())


class _Text:
    """Sources read as one text, as often as wanted; standard input is kept, since it can be read only once."""

    def __init__(self, sources: tuple[str, ...], limit_chars: int | None) -> None:
        if sources.count(STANDARD_INPUT) > 1:
            raise ConfigError("standard input (-) can be read only once; name it once")
        if limit_chars is not None and limit_chars < 1:
            raise ConfigError(f"limit_chars must be at least 1, got {limit_chars}")
        self.sources = sources
        self.limit_chars = limit_chars
        self.standard_input: list[str] | None = None

    @property
    def title(self) -> str:
        """The text's name in messages."""
        return ", ".join(map(repr, self.sources)) if self.sources else "the built-in corpus"

    def blocks(self) -> Iterator[str]:
        """The text in pieces, cut at `limit_chars`."""
        return (block for _, block in self.numbered_blocks())

    def numbered_blocks(self) -> Iterator[tuple[int | None, str]]:
        """The pieces with the number of the source that each is from; None for what stands between sources."""
        left = self.limit_chars
        for number, block in self._all_blocks():
            if left is not None and left <= len(block):
                yield number, block[:left]
                return
            left = left and left - len(block)
            yield number, block

    def _all_blocks(self) -> Iterator[tuple[int | None, str]]:
        if not self.sources:
            yield None, built_in_text()
            return
        last = "\n"
        for number, source in enumerate(self.sources):
            begins = True
            for block in self._source(source):
                if begins and last != "\n":
                    yield None, "\n"
                yield number, block
                begins, last = False, block[-1]

    def _source(self, source: str) -> Iterable[str]:
        if source != STANDARD_INPUT:
            return _file_blocks(source)
        if self.standard_input is None:
            self.standard_input = list(_decode(sys.stdin.buffer, "standard input"))
        return self.standard_input


def _file_blocks(path: str) -> Iterator[str]:
    try:
        with open_file(path) as file:
            yield from _decode(file, repr(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise TextError(f"can't read {path!r}: {why}") from error


def _decode(file: BinaryIO, name: str) -> Iterator[str]:
    """Blocks of a UTF-8 file's text, none of them empty; a byte order mark at the start is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0  # of the decoder's next undecoded byte
    first = True
    for data in _reads(file):
        held = len(decoder.getstate()[0])
        try:
            block = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            guess = "UTF-16" if offset == 0 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "LATIN1"
            raise TextError(
                f"{name} is not UTF-8: byte {offset - held + error.start} is 0x{bad:02X}. Convert it first, for example "
                f"with: iconv -f {guess} -t UTF-8"
            ) from None
        offset += len(data)
        if first and block:
            block, first = block.removeprefix("\ufeff"), False
        if block:
            yield block


def _reads(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes in blocks, then one empty block that ends it."""
    while data := file.read(BLOCK_BYTES):
        yield data
    yield b""


def built_in_text() -> str:
    """English that every Python holds: `pydoc_data.topics`, each paragraph once, ruled tables left out."""
    from pydoc_data.topics import topics  # noqa: PLC0415  (a megabyte that only this function needs)

    seen: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            if paragraph.strip() and not _is_ruled(paragraph):
                seen.setdefault(paragraph.strip("\n"))
    return "\n\n".join(seen) + "\n"


def _is_ruled(paragraph: str) -> bool:
    """Whether a paragraph is (part of) a table drawn with rules, `+---+`, `|` or `====`."""
    return any(line.strip().startswith(("+-", "+=", "|", "===", "---")) for line in paragraph.split("\n"))
