"""Texts -> one array of ids.

A text is read in two passes over blocks, one that counts characters and one that encodes them, so that neither needs more
memory than a block. The ids of a long text go to a file in the cache, from which they are mapped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, TextError
from ..settings.schema import VOCABULARIES
from . import cache
from .sources import Text
from .vocabulary import ByteVocabulary, Ids, Vocabulary, code_points

CODE_POINTS = sys.maxunicode + 1
MAPPED_FROM = 1 << 22  # characters: longer texts are encoded into a file
Progress = Callable[[str, int, int | None], None]  # told of each block: what is done, bytes done, and bytes in all if known


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

    @classmethod
    def from_json(cls, sources: list[dict[str, Any]], sha256: str, characters: int) -> TextRecord:
        """A record from what `dataclasses.asdict` and JSON made of it."""
        return cls(tuple(Source(**source) for source in sources), sha256, characters)

    @property
    def title(self) -> str:
        """What a reader may call it."""
        if self.sources:
            return ", ".join(source.path for source in self.sources)
        return "the built-in corpus" if self.sha256 else "a text that is not recorded"

    def difference(self, other: TextRecord) -> str | None:
        """What differs in the content of another text; None: nothing. Where a file lies does not count."""
        if self.sha256 == other.sha256:
            return None
        if not self.sources:
            if not self.sha256:
                return "that was given in Python and is not recorded"
            return "that was the built-in corpus" + ("" if other.sources else ", which this version of Python has otherwise")
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

    ids: Ids  # [characters kept]; of a long text a mapped file
    vocabulary: Vocabulary
    text: TextRecord
    kept: Path | None = None  # the entry of the cache that the ids are mapped from


def load_corpus(
    names: Sequence[str | Path] = (),
    *,
    vocabulary: str | Vocabulary = "corpus",
    unknown: str | None = None,
    min_count: int = 1,
    separator: str | None = None,
    limit_chars: int | None = None,
    expected: TextRecord | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> Corpus:
    """Read texts as one and encode it.

    names: UTF-8 files, folders and globs, read one after another, packed ones (.gz, .bz2, .xz) too; `-` is standard input;
    none is the built-in corpus.
    vocabulary: "corpus" (the text's own characters), "printable" (string.printable), "bytes" or a Vocabulary.
    unknown: what to do with characters outside the vocabulary, "error" or "skip"; None is "skip" under a min_count.
    min_count: characters of the text that are rarer are left out of its vocabulary.
    separator: what stands between two files; None is a newline after those that don't end with one.
    limit_chars: read only so many characters.
    expected: the text that it must be.

    Raises TextError for a text that can't be read, is empty, is not the expected one or has unknown characters.
    """
    if isinstance(vocabulary, str) and vocabulary not in VOCABULARIES:
        raise ConfigError(f"vocabulary must be one of {', '.join(VOCABULARIES)}, got {vocabulary!r}")
    if min_count > 1 and vocabulary != "corpus":
        raise ConfigError("min_count chooses among the text's own characters: it goes with the vocabulary corpus only")
    as_bytes = vocabulary == "bytes" or isinstance(vocabulary, ByteVocabulary)
    unknown = unknown or ("skip" if min_count > 1 else "error")
    with Text(tuple(map(str, names)), separator=separator, limit_chars=limit_chars, as_bytes=as_bytes) as text:
        reader = _Reader(text, vocabulary, unknown, min_count, progress)
        if not text.can_be_kept or text.size < MAPPED_FROM:
            return reader.read(None, expected)
        with cache.held(cache.key(reader.description())) as name:
            return (reader.kept(name, expected) if name else None) or reader.read(name, expected)


class _Reader:
    """Reads one text with one choice of vocabulary."""

    def __init__(self, text: Text, vocabulary: str | Vocabulary, unknown: str, min_count: int, progress: Progress) -> None:
        self.text = text
        self.vocabulary = vocabulary
        self.unknown = unknown
        self.min_count = min_count
        self.progress = progress

    def description(self) -> list[Any]:
        """What the ids depend on, files by their path, size and time of change."""
        text, vocabulary = self.text, self.vocabulary
        files = list(zip(text.paths, text.status, strict=True))
        known = vocabulary if isinstance(vocabulary, str) else [type(vocabulary).__name__, vocabulary.characters]
        return [files, text.separator, text.limit_chars, known, self.unknown, self.min_count]

    def kept(self, name: str, expected: TextRecord | None) -> Corpus | None:
        """The text as the cache holds it; None where it does not."""
        found = cache.read(name)
        if found is None:
            return None
        ids, known = found
        vocabulary = ByteVocabulary() if self.text.as_bytes else Vocabulary(known["vocabulary"])
        record = TextRecord.from_json(**known["record"])
        _check(record, expected)
        return Corpus(ids, vocabulary, record, cache.folder() / name)

    def read(self, name: str | None, expected: TextRecord | None) -> Corpus:
        """Count, then encode. name: of the entry of the cache to keep the ids in, if the text is long."""
        counts, record = self._count()
        _check(record, expected)
        if not counts.any():
            raise TextError(f"{self.text.title} is empty: there is nothing to learn from")
        vocabulary = self._vocabulary(counts)
        present = "".join(map(chr, np.flatnonzero(counts)))
        try:
            known = vocabulary.encode_characters(present, self.unknown)
        except TextError as error:
            raise TextError(f"{self.text.title} has {error}") from error
        size = int(counts[vocabulary.code_points[known]].sum())
        if not size:
            raise TextError(f"{self.text.title} has no character of the vocabulary")
        if record.characters < MAPPED_FROM:
            ids = np.empty(size, dtype=vocabulary.dtype)
            end = 0
            for block in self._encoded(vocabulary, size):
                ids[end : (end := end + len(block))] = block
            return Corpus(ids, vocabulary, record)
        about = {"vocabulary": vocabulary.characters, "record": dataclasses.asdict(record)}
        ids = cache.write(name, vocabulary.dtype, self._encoded(vocabulary, size), about)
        return Corpus(ids, vocabulary, record, cache.folder() / name if name else None)

    def _count(self) -> tuple[npt.NDArray[np.int64], TextRecord]:
        """How often each code point occurs, and the record of the text."""
        paths = self.text.paths
        counts = np.zeros(CODE_POINTS, dtype=np.int64)
        digest = hashlib.sha256()
        digests = [digest] if len(paths) == 1 else [hashlib.sha256() for _ in paths]  # a single file's is the whole text's
        lengths = [0] * len(paths)
        for number, block in self.text.numbered_blocks(self._progress("Counting")):
            data = self.text.bytes_of(block)
            counted = _count_bytes(data) if len(data) == len(block) else np.bincount(code_points(block))
            counts[: len(counted)] += counted
            for each in {digest} if number is None else {digest, digests[number]}:
                each.update(data)
            if number is not None:
                lengths[number] += len(block)
        sums = (each.hexdigest() for each in digests)
        return counts, TextRecord(tuple(map(Source, paths, sums, lengths)), digest.hexdigest(), int(counts.sum()))

    def _vocabulary(self, counts: npt.NDArray[np.int64]) -> Vocabulary:
        if isinstance(self.vocabulary, Vocabulary):
            return self.vocabulary
        if self.vocabulary == "corpus":
            frequent = np.flatnonzero(counts >= max(self.min_count, 1))
            if not len(frequent):
                raise TextError(
                    f"no character of {self.text.title} occurs {self.min_count:,} times. Use a lower --min-count."
                )
            return Vocabulary(map(chr, frequent))
        return Vocabulary.printable() if self.vocabulary == "printable" else ByteVocabulary()

    def _encoded(self, vocabulary: Vocabulary, size: int) -> Iterator[Ids]:
        """The ids in blocks, `size` of them together."""
        left = size
        for block in self.text.blocks(self._progress("Encoding")):
            ids = vocabulary.encode_characters(block, self.unknown)
            left -= len(ids)
            if left < 0:
                break
            yield ids
        if left:
            raise TextError(f"{self.text.title} changed while it was read; start again")

    def _progress(self, doing: str) -> Callable[[int], None]:
        total = sum(size for size, _ in self.text.status) if self.text.can_be_kept else None
        return lambda done: self.progress(doing, done, total)


def _check(record: TextRecord, expected: TextRecord | None) -> None:
    if expected and (difference := expected.difference(record)):
        raise TextError(
            f"the text is not the one this run learns from: {difference}. Give the same text, or begin another run with "
            "--init-from."
        )


def _count_bytes(data: bytes) -> npt.NDArray[np.int64]:
    """How often each byte occurs, [256]: counted two at a time, which is quicker (`tests/benchmarks/parts.py`)."""
    pairs = np.bincount(np.frombuffer(data, np.uint16, len(data) // 2), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if len(data) % 2:
        counts[data[-1]] += 1
    return counts


def check_length(ids: Ids, title: str = "the text") -> None:
    """Raise TextError for ids of which none has another before it, so that there is nothing to predict."""
    if len(ids) < 2:
        raise TextError(f"{title} has fewer than two characters that the model knows: there is nothing to score")


def load_text(*names: str | Path, separator: str | None = None, limit_chars: int | None = None) -> str:
    """The texts of files, folders and globs as one string; with no name, the built-in corpus.

    A newline is put between files that don't end with one, or the separator between all. Raises TextError naming the file
    that can't be read.
    """
    with Text(tuple(map(str, names)), separator=separator, limit_chars=limit_chars) as text:
        return "".join(text.blocks())
