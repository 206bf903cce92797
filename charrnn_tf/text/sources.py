"""Reads the files that a user names as one text, in blocks, as often as needed.

A name is a file, a folder (all its files, ordered by path), a glob, or `-` for standard input; no name at all means the
built-in corpus. Files that end in .gz, .bz2 or .xz are decompressed while they are read.
"""

import bz2
import codecs
import gzip
import io
import lzma
import os
import sys
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self

from ..errors import ConfigError, TextError, describe_character, listed, reason, warn
from ..files import open_file, temporary_folder
from ..settings.schema import NORMAL_FORMS, text_encoding, whole_number
from . import detection, names
from .built_in import built_in_text
from .names import cannot_read, expand, shown
from .vocabulary import normalized

BLOCK_BYTES = 1 << 18  # small enough to stay in a core's own cache between two passes over a block
STANDARD_INPUT = names.STANDARD_INPUT
GIVEN = "<text>"  # stands for a text that was passed as a string
GIVEN_IDS = "<ids>"  # stands for ids that were passed to a Trainer
IN_MEMORY = 1 << 26  # bytes of standard input to keep in memory; a longer one goes to a temporary file
MOST_COMPRESSED = 16  # assumed bytes of text per byte of a compressed file
DECOMPRESS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
OR_BYTES = "or learn its bytes with `vocabulary` bytes"
JAMO = set(map(chr, range(0x1160, 0x1200)))  # vowels and final consonants, which join the syllable before them
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)  # raised while decompressing, besides an OSError without a number


@dataclass(eq=False)
class Text:
    """Files read as one text; a context manager, which closes its copy of standard input at the end.

    Raises TextError for a name that matches no file, and ConfigError if standard input is named twice.
    """

    names: tuple[str, ...] = ()  # as the user gives them; none: the built-in corpus
    separator: str | None = None  # put between two files; None: a newline after files that lack one
    limit_chars: int | None = None  # length to read
    as_bytes: bool = False  # read each byte as a character, U+0000 to U+00FF, instead of decoding UTF-8
    content: str | None = None  # the text itself, instead of names
    encoding: str = "utf-8"  # of the files
    normalize: str = "none"  # Unicode normalization form for each file: "none", "nfc" or "nfd"
    once: bool = False  # read standard input as it comes, only once, instead of keeping a copy

    def __post_init__(self) -> None:
        if self.limit_chars is not None:
            whole_number("limit_chars", self.limit_chars, least=1)
        if self.normalize not in NORMAL_FORMS:
            raise ConfigError(f"`normalize` must be one of {', '.join(NORMAL_FORMS)}, got {self.normalize!r}")
        self.encoding = text_encoding("encoding", self.encoding)
        if self.as_bytes and (self.encoding, self.normalize) != ("utf-8", "none"):
            raise ConfigError("`vocabulary` bytes reads bytes as they are: leave out `encoding` and `normalize`")
        if any("\ud800" <= character <= "\udfff" for character in self.separator or ""):
            raise ConfigError(f"`separator` must be UTF-8, got {self.separator!r}")
        if self.names.count(STANDARD_INPUT) > 1:
            raise ConfigError("standard input (-) can be read only once; name it once")
        self.files = (GIVEN,) if self.content is not None else tuple(file for name in self.names for file in expand(name))
        self._standard_input: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._standard_input:
            with suppress(OSError):  # a full disk, which was reported when writing
                self._standard_input.close()
            self._standard_input = None

    @property
    def title(self) -> str:
        """The text's name in messages."""
        if self.content is not None:
            return "the text"
        return listed(self.names) if self.names else "the built-in corpus"

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Absolute paths of the files; `-` for standard input, `<text>` for a string."""
        return tuple(file if file in (STANDARD_INPUT, GIVEN) else os.path.realpath(file) for file in self.files)

    @property
    def cacheable(self) -> bool:
        """Whether the text is only files, which `cache.identity` recognises."""
        return bool(self.files) and not {STANDARD_INPUT, GIVEN} & set(self.files)

    @cached_property
    def status(self) -> list[tuple[int, int]]:
        """Size and modification time of each file; zeros if unavailable, which is an error when the file is read."""
        return [_status(file) for file in self.files]

    @property
    def size(self) -> int:
        """Bytes of text; for compressed files an upper estimate."""
        sizes = zip(self.files, self.status, strict=True)
        return sum(size * (MOST_COMPRESSED if _decompressor(file) else 1) for file, (size, _) in sizes)

    def bytes_of(self, block: str) -> bytes:
        """The bytes that a block was read from."""
        try:
            return block.encode("latin-1" if self.as_bytes else "utf-8")
        except UnicodeEncodeError as error:  # as `encoding` unicode_escape may give
            character = describe_character(block[error.start])
            raise TextError(f"{self.title} has {character}, half of a pair of surrogates, as a character") from error

    def blocks(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        """The text in blocks, up to `limit_chars`; `progress` receives the number of file bytes read so far."""
        return (block for _, block in self.numbered_blocks(progress))

    def lines(self) -> Iterator[str]:
        """Yield the lines without their newlines, one in memory at a time; a final newline adds no empty line."""
        parts: list[str] = []  # of the line that has begun
        for block in self.blocks():
            first, *others = block.split("\n")
            parts.append(first)
            for other in others:
                yield "".join(parts)
                parts = [other]
        if any(parts):
            yield "".join(parts)

    def numbered_blocks(self, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int | None, str]]:
        """The blocks, each with the index of its file; None for a separator and for the built-in corpus.

        Raises TextError naming the file that can't be read.
        """
        left = self.limit_chars
        for number, block in self._all_blocks(progress or (lambda done: None)):
            if left is not None and left <= len(block):
                yield number, block[:left]
                return
            left = left and left - len(block)
            yield number, block

    def _all_blocks(self, progress: Callable[[int], None]) -> Iterator[tuple[int | None, str]]:
        if not self.files:
            text = normalized(built_in_text(), self.normalize)
            yield None, text.encode().decode("latin-1") if self.as_bytes else text
            return
        last: str | None = None  # character read
        before = 0  # bytes of the previous files
        for number, file in enumerate(self.files):
            with self._open(file) as (stream, raw):
                encoding = "utf-8" if file == GIVEN else self.encoding
                blocks = _as_characters(stream) if self.as_bytes else _decode(stream, shown(file), encoding)
                if self.normalize != "none":
                    blocks = _normalized(blocks, self.normalize)
                first = True
                for block in _named_errors(file, blocks):
                    if first and last is not None and (between := self._between(last)):
                        yield None, between
                    yield number, block
                    first, last = False, block[-1]
                    progress(before + raw.tell())
                before += raw.tell()

    def _between(self, last: str) -> str:
        """The separator after a file that ends with this character."""
        if self.separator is None:
            return "" if last == "\n" else "\n"
        return self.separator.encode().decode("latin-1") if self.as_bytes else self.separator

    @contextmanager
    def _open(self, file: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Open a file: a stream of its decompressed bytes, and the file itself, whose position measures progress."""
        if file == STANDARD_INPUT and self.once:
            pipe: Any = _StandardInput()
            yield pipe, pipe
            return
        if file == STANDARD_INPUT:
            if self._standard_input is None:  # kept, since it can be read only once
                self._standard_input = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  (closed with the text)
                self._copy_standard_input(self._standard_input)
            self._standard_input.seek(0)
            yield self._standard_input, self._standard_input
            return
        if self.content is not None:
            content = io.BytesIO(self.content.encode("utf-8", "surrogatepass"))
            yield content, content
            return
        try:
            raw = open_file(file)
        except OSError as error:
            raise cannot_read(file, error) from error
        with raw:
            decompress = _decompressor(file)
            with decompress(raw) if decompress else nullcontext(raw) as stream:
                yield stream, raw

    def _copy_standard_input(self, copy: IO[bytes]) -> None:
        """Copy enough of it for `limit_chars` characters and a byte order mark."""
        bytes_each = 4 if (self.encoding, self.normalize) == ("utf-8", "none") else 16
        left = sys.maxsize if self.limit_chars is None else bytes_each * self.limit_chars + len(codecs.BOM_UTF8)
        try:
            while block := _read_standard_input(min(BLOCK_BYTES, left)):
                copy.write(block)
                left -= len(block)
            copy.flush()
        except OSError as error:
            raise TextError(
                f"can't keep standard input in {temporary_folder()}: {reason(error)}. Make room, or set TMPDIR to "
                "another folder."
            ) from error


def _read_standard_input(size: int) -> bytes:
    if sys.stdin is None:
        raise TextError("standard input is closed")
    try:
        return sys.stdin.buffer.read(size)
    except OSError as error:
        raise cannot_read(STANDARD_INPUT, error) from error


class _StandardInput:
    """Standard input as a file, also where it has no position."""

    def __init__(self) -> None:
        self._position = 0

    def read(self, size: int) -> bytes:
        data = _read_standard_input(size)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position


def _decompressor(file: str) -> Callable[[Any], Any] | None:
    return DECOMPRESS.get(Path(file).suffix.lower())


def _status(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _named_errors(file: str, blocks: Iterator[str]) -> Iterator[str]:
    """Yield the blocks; an error while reading or decompressing becomes a TextError that names the file."""
    try:
        yield from blocks
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_read(file, error) from error
        raise TextError(f"{shown(file)} is damaged or not of the format in its name: {error}") from error


def _as_characters(file: IO[bytes]) -> Iterator[str]:
    """Blocks of a file's bytes, each byte as a character."""
    while data := file.read(BLOCK_BYTES):
        yield data.decode("latin-1")


def _decode(file: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """Blocks of a file's text, none empty; a byte order mark at the start is dropped.

    Raises TextError for a file that is not plain text in this encoding, with what it seems to be.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    expected = encoding.upper() if encoding.startswith("utf") else encoding
    offset = 0  # of the next byte to read
    first, data = True, b""
    while True:
        before, data = data, file.read(BLOCK_BYTES)
        if offset == 0 and (kind := detection.signature(data)):
            raise TextError(f"{name} is {kind[0]}, not plain text. {kind[1]}, {OR_BYTES}")
        pending = len(decoder.getstate()[0])
        try:
            block = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            where = f"byte {offset - pending + error.start} is 0x{error.object[error.start]:02X}"
            advice = _advice(before + data, encoding, len(before) - pending + error.start)
            raise TextError(f"{name} is not {expected}: {where}. {advice}, {OR_BYTES}") from None
        except UnicodeError as error:  # without a place: no byte order mark
            raise TextError(f"{name} is not {expected}: {error}. {_advice(data, encoding)}, {OR_BYTES}") from None
        offset += len(data)
        if first and block:
            if name != repr(GIVEN):
                _check_plain(block, data, name, encoding, expected)
            block, first = block.removeprefix("\ufeff"), False
        if block:
            yield block
        if not data:
            return


def _check_plain(block: str, data: bytes, name: str, encoding: str, expected: str) -> None:
    """Raise TextError if the first block of a file is no plain text, and warn if it may be in another encoding."""
    if why := detection.not_plain(block):
        raise TextError(f"{name} is not plain text in {expected}: {why}. {_advice(data, encoding)}, {OR_BYTES}")
    if not encoding.startswith("utf") and detection.is_utf8(data):
        warn(f"{name} is read as {encoding}, but its bytes are UTF-8.")
    elif controls := [control for control in detection.controls(block) if control >= "\x7f"]:
        other = detection.looks_like(data)
        better = f"; it looks like {other}" if other not in (None, encoding) else ""
        warn(f"{name}, read as {expected}, has control characters such as {describe_character(min(controls))}{better}.")


def _advice(data: bytes, encoding: str, start: int = 0) -> str:
    """Advice for a file whose bytes are not in this encoding from `start` on."""
    other = detection.wide_encoding(data) or ("utf-8" if encoding != "utf-8" and detection.is_utf8(data) else None)
    if not other and encoding == "utf-8" and detection.is_damaged_utf8(data):
        return "It looks like UTF-8 that is damaged there: mend it, for example with: iconv -c -f UTF-8 -t UTF-8"
    if not other and b"\0" in data:
        return f"It does not seem to be plain text: {detection.SAVE[0].lower()}{detection.SAVE[1:]}"
    other = other or detection.looks_like(data, start)
    if other and other != encoding:
        return f"It looks like {other}: pass `encoding` {other}"
    return "Pass the `encoding` that it has"


def _normalized(blocks: Iterator[str], form: str) -> Iterator[str]:
    """The blocks in a normalization form; each ends before a character that the next block may combine with."""
    held = ""
    for block in blocks:
        text = held + block
        end = len(text) - 1
        while end and (unicodedata.category(text[end])[0] == "M" or text[end] in JAMO):
            end -= 1
        held = text[end:]
        if end:
            yield normalized(text[:end], form)
    if held:
        yield normalized(held, form)
