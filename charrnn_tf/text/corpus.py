"""Encodes texts as one array of ids.

A text is read twice in blocks, first to count characters and then to encode them, so neither pass needs more memory than a
block. The ids of a long text go to a file in the cache and are memory-mapped.
"""

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, TextError, concise, listed, warn
from ..settings.schema import ADD, VOCABULARIES
from . import cache
from .detection import FEW, MOST_NULS
from .new_characters import NAMED, Added, check_can_add, check_line_ends, most_frequent, occurrences
from .sources import GIVEN, Text
from .vocabulary import ByteVocabulary, Ids, Vocabulary, code_points

CODE_POINTS = sys.maxunicode + 1
MUCH, MOST = 0.05, 0.5  # skipped share of a text: a warning from MUCH on, an error above MOST
MOST_SOURCES = 100  # files of a text that each checkpoint names; more go to a list beside the checkpoints
MAPPED_FROM = 1 << 22  # characters; longer texts are encoded into a file
Progress = Callable[[str, int, int | None], None]  # called after each block: activity, bytes done, total bytes if known


@dataclass(frozen=True)
class Source:
    """One file of a text, as it was read."""

    path: str  # absolute, or "-"
    sha256: str  # of its text's UTF-8 bytes, up to `limit_chars`
    characters: int


@dataclass(frozen=True)
class TextRecord:
    """Identifies the text of a run."""

    sources: tuple[Source, ...]  # none: the built-in corpus
    sha256: str  # of the whole text's UTF-8 bytes; empty: a text given in Python
    characters: int  # read, skipped ones included
    left_out: int = 0  # characters skipped, since the vocabulary lacks them
    unlisted: int = 0  # number of files, where the run's list of them is missing: then there are no sources

    @property
    def title(self) -> str:
        """The text's name for people to read."""
        if self.unlisted:
            return f"{self.unlisted:,} files"
        if self.sources:
            return listed([source.path for source in self.sources], shown=str)
        return "the built-in corpus" if self.sha256 else "a text that is not recorded"

    def difference(self, other: Self) -> str | None:
        """The difference of another text, as the end of a message; None if its content is the same, under any name."""
        if self.sha256 == other.sha256:
            return None
        if not self.sources and not self.unlisted:
            built_in = "that was the built-in corpus" + (
                "" if other.sources else ", which differs in this version of Python"
            )
            return built_in if self.sha256 else "the run was trained on a text passed from Python that is not recorded"
        sums = [[source.sha256 for source in text.sources] for text in (self, other)]
        if sorted(sums[0]) == sorted(sums[1]):
            return f"its files were read in another order: {listed([source.path for source in self.sources])}"
        if len(self.sources) == len(other.sources):
            for then, now in zip(self.sources, other.sources, strict=True):
                if then.sha256 != now.sha256:
                    if then.path != now.path:
                        was = f"that was {then.path!r} ({then.characters:,} characters)"
                        return f"{was}, this is {now.path!r} ({now.characters:,})"
                    lengths = f" from {then.characters:,} to {now.characters:,} characters"
                    return f"{now.path!r} has changed" + (lengths if then.characters != now.characters else "")
        was = f"that had {self.characters:,} characters in {self.unlisted or len(self.sources):,} files"
        return f"{was}, this has {other.characters:,} in {len(other.sources):,}"


@dataclass(frozen=True)
class LeftOut:
    """The characters of a text that are skipped, since the vocabulary lacks them."""

    count: int
    characters: int  # of the whole text
    most: tuple[tuple[str, int], ...]  # the most frequent of them, and how often each occurs

    @classmethod
    def of(cls, text: str, vocabulary: Vocabulary) -> Self:
        """Those of a string."""
        if isinstance(vocabulary, ByteVocabulary):
            return cls(0, len(text), ())
        unknown = Counter(text)
        for known in vocabulary.characters:
            del unknown[known]
        return cls(unknown.total(), len(text), tuple(unknown.most_common(NAMED)))

    @property
    def share(self) -> float:
        """Part of the text, 0 to 1."""
        return self.count / max(self.characters, 1)

    def __str__(self) -> str:
        percent = f"{self.share:.1%}" if self.share >= 0.001 else "under 0.1%"
        which = "most often " if self.count > sum(count for _, count in self.most) else ""
        return f"{self.count:,} of {self.characters:,} characters ({percent}) are left out, {which}{occurrences(self.most)}"

    def warn(self, title: str) -> None:
        """Log a warning if they are many."""
        if self.share >= MUCH:
            warn(f"{title}: {self}.")


@dataclass(frozen=True)
class Corpus:
    """A text as ids."""

    ids: Ids  # [characters kept]; a memory-mapped file if the text is long
    vocabulary: Vocabulary
    text: TextRecord
    kept: Path | None = None  # cache entry of the ids
    left_out: LeftOut | None = None  # None: no characters were left out
    added: Added | None = None  # None: no characters were added


def load_corpus(
    names: Sequence[str | Path] = (),
    *,
    content: str | None = None,
    vocabulary: str | Vocabulary = "corpus",
    unknown: str | None = None,
    min_count: int = 1,
    separator: str | None = None,
    limit_chars: int | None = None,
    encoding: str = "utf-8",
    normalize: str = "none",
    expected: TextRecord | None = None,
    may_skip_most: bool | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> Corpus:
    """Read one or several texts as one and encode it.

    names: files, folders and globs, read in this order, also compressed (.gz, .bz2, .xz); `-` is standard input; none
    means the built-in corpus.
    content: the text itself, instead of names.
    vocabulary: "corpus" (the text's own characters), "printable" (string.printable), "bytes" or a Vocabulary.
    unknown: "error" or "skip" for characters outside the vocabulary, or "add" for a Vocabulary to be extended by them; None
    means "skip" if min_count is above 1.
    min_count: the vocabulary leaves out characters that occur fewer times.
    separator: text to put between two files; None means a newline after files that lack one.
    limit_chars: length to read.
    encoding: of the files, any text codec of Python.
    normalize: Unicode normalization form for each file: "nfc", "nfd" or "none".
    expected: the text that this must be.
    may_skip_most: accept a text of which more than half is skipped; None means: if `unknown` is given as "skip".

    A warning says what is skipped, from 5% of the text on. Raises TextError for a text that can't be read, is empty, is not
    the expected one or has unknown characters.
    """
    if isinstance(vocabulary, str) and vocabulary not in VOCABULARIES:
        raise ConfigError(f"`vocabulary` must be one of {', '.join(VOCABULARIES)}, got {vocabulary!r}")
    if min_count > 1 and vocabulary != "corpus":
        raise ConfigError("`min_count` selects among the text's own characters: use it only with `vocabulary` corpus")
    as_bytes = vocabulary == "bytes" or isinstance(vocabulary, ByteVocabulary)
    if unknown == ADD:
        check_can_add(vocabulary)
    if may_skip_most is None:
        may_skip_most = unknown == "skip"
    unknown = unknown or ("skip" if min_count > 1 else "error")
    with Text(tuple(map(str, names)), separator, limit_chars, as_bytes, content, encoding, normalize) as text:
        reader = _Reader(text, vocabulary, unknown, min_count, progress)
        if not text.cacheable or text.size < MAPPED_FROM:
            corpus = reader.read(None, expected)
        else:
            with cache.held(cache.key(reader.description())) as name:
                corpus = (reader.cached(name, expected) if name else None) or reader.read(name, expected)
        if corpus.left_out:
            _check_left_out(corpus.left_out, text.title, min_count, allowed=may_skip_most or expected is not None)
    return corpus


def _check_left_out(left_out: LeftOut, title: str, min_count: int, allowed: bool) -> None:
    """Warn if much of a text is skipped; raise TextError if it is most of it, unless that is allowed."""
    if left_out.share > MOST and left_out.characters >= FEW and not allowed:
        remedy = "Use a lower `min_count`" if min_count > 1 else "Use another `vocabulary` or model"
        raise TextError(f"{title}: {left_out}. {remedy}, or pass `unknown` skip to leave them out all the same.")
    left_out.warn(title)


@dataclass
class _Reader:
    """Reads and encodes a text."""

    text: Text
    vocabulary: str | Vocabulary
    unknown: str
    min_count: int
    progress: Progress

    @cached_property
    def files(self) -> list[list[Any]]:
        """The identities of the files, before they are read."""
        return [cache.identity(path) for path in self.text.paths]

    @property
    def handling(self) -> str:
        """What happens to characters outside the vocabulary, once it is extended."""
        return "error" if self.unknown == ADD else self.unknown

    def description(self) -> list[Any]:
        """Everything that the ids depend on."""
        text, vocabulary = self.text, self.vocabulary
        known = vocabulary if isinstance(vocabulary, str) else [type(vocabulary).__name__, vocabulary.characters]
        how = [text.separator, text.limit_chars, text.encoding, text.normalize]
        return [self.files, how, known, self.unknown, self.min_count]

    def cached(self, name: str, expected: TextRecord | None) -> Corpus | None:
        """Load the text from a cache entry, if it exists."""
        found = cache.read(name)
        if found is None:
            return None
        ids, known = found
        vocabulary = ByteVocabulary() if self.text.as_bytes else Vocabulary(known["vocabulary"])
        about = dict(known["record"])
        record = TextRecord(tuple(Source(**source) for source in about.pop("sources")), **about)
        _check(record, expected)
        left_out = LeftOut(record.left_out, record.characters, tuple(map(tuple, known["most_left_out"])))
        added = Added.of(self.vocabulary, vocabulary, known.get("most_added", ()))
        return Corpus(ids, vocabulary, record, cache.folder() / name, left_out if left_out.count else None, added)

    def read(self, name: str | None, expected: TextRecord | None) -> Corpus:
        """Count, then encode. name: cache entry for the ids of a long text."""
        counts, record = self._count()
        _check(record, expected)
        if not counts.any():
            raise TextError(f"{self.text.title} is empty")
        nuls = counts[0] / record.characters
        if nuls > MOST_NULS and record.characters >= FEW and self.text.files != (GIVEN,) and not self.text.as_bytes:
            raise TextError(f"{self.text.title} is not plain text: {nuls:.0%} of its characters are NULs")
        vocabulary = self._vocabulary(counts)
        most_added = most_frequent(counts, vocabulary) if self.unknown == ADD else ()
        if most_added:
            vocabulary = vocabulary.extended(map(chr, np.flatnonzero(counts)))
        added = Added.of(self.vocabulary, vocabulary, most_added)
        present = "".join(map(chr, np.flatnonzero(counts)))
        check_line_ends(self.vocabulary, present, self.text.title)
        try:
            known = vocabulary.encode_characters(present, self.handling)
        except TextError as error:
            raise TextError(f"{self.text.title} has {error}") from error
        size = int(counts[vocabulary.code_points[known]].sum())
        if not size:
            raise TextError(f"{self.text.title} has no character of the vocabulary")
        most = most_frequent(counts, vocabulary)
        left_out = LeftOut(record.characters - size, record.characters, most) if most else None
        record = dataclasses.replace(record, left_out=record.characters - size)
        if record.characters < MAPPED_FROM:
            ids = np.concatenate(list(self._encoded(vocabulary, size)))
            return Corpus(ids, vocabulary, record, left_out=left_out, added=added)
        about = {"vocabulary": vocabulary.characters, "record": dataclasses.asdict(record), "most_left_out": most}
        about |= {"files": self.files if name else [], "most_added": most_added}
        ids = cache.write(name, vocabulary.dtype, self._encoded(vocabulary, size), about)
        return Corpus(ids, vocabulary, record, cache.folder() / name if name else None, left_out, added)

    def _count(self) -> tuple[npt.NDArray[np.int64], TextRecord]:
        """The number of occurrences of each code point, and the record of the text."""
        paths = self.text.paths
        counts = np.zeros(CODE_POINTS, dtype=np.int64)
        digest = hashlib.sha256()
        digests = [digest] if len(paths) == 1 else [hashlib.sha256() for _ in paths]  # a single file is the whole text
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
        if self.vocabulary != "corpus":
            return Vocabulary.printable() if self.vocabulary == "printable" else ByteVocabulary()
        frequent = np.flatnonzero(counts >= max(self.min_count, 1))
        if not len(frequent):
            raise TextError(f"no character of {self.text.title} occurs {self.min_count:,} times. Use a lower `min_count`.")
        return Vocabulary(map(chr, frequent))

    def _encoded(self, vocabulary: Vocabulary, size: int) -> Iterator[Ids]:
        """The ids in blocks; raises TextError unless they are `size` in total."""
        left = size
        for block in self.text.blocks(self._progress("Encoding")):
            ids = vocabulary.encode_characters(block, self.handling)
            if (left := left - len(ids)) < 0:
                break
            yield ids
        if left:
            raise TextError(f"{self.text.title} changed while it was read; start again")

    def _progress(self, doing: str) -> Callable[[int], None]:
        total = sum(size for size, _ in self.text.status) if self.text.cacheable else None
        return lambda done: self.progress(doing, done, total)


def _check(record: TextRecord, expected: TextRecord | None) -> None:
    if expected and (difference := expected.difference(record)):
        raise TextError(
            f"this is not the text that the run was trained on: {difference}. Pass the same text, or start another run with "
            "`init_from`."
        )


def _count_bytes(data: bytes) -> npt.NDArray[np.int64]:
    """The number of occurrences of each byte, [256]; counts in pairs, which is faster (`tests/benchmarks/parts.py`)."""
    pairs = np.bincount(np.frombuffer(data, np.uint16, len(data) // 2), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if len(data) % 2:
        counts[data[-1]] += 1
    return counts


def check_length(ids: Ids, title: str = "the text") -> None:
    """Raise TextError for fewer than two ids, where no character has a preceding one to predict it from."""
    if len(ids) < 2:
        raise TextError(f"{title} has fewer than two characters that the model knows: there is nothing to score")


@concise
def load_text(
    *names: str | Path, separator: str | None = None, limit_chars: int | None = None, encoding: str = "utf-8",
    normalize: str = "none",
) -> str:  # fmt: skip
    """The text of files, folders and globs as one string; without a name, the built-in corpus.

    separator: between two files; None means a newline after files that lack one. limit_chars: length to read. encoding: any
    text codec of Python. normalize: "nfc", "nfd" or "none". Raises TextError, naming the file.
    """
    with Text(tuple(map(str, names)), separator, limit_chars, encoding=encoding, normalize=normalize) as text:
        return "".join(text.blocks())
