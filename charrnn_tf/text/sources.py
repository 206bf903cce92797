"""What a user names -> one text, read in blocks as often as wanted.

A name is a file, a folder (all files in it, in the order of their paths), a glob, `-` for standard input, or none at all for
the built-in corpus. Files that end in .gz, .bz2 or .xz are unpacked while they are read.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import lzma
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ..errors import ConfigError, TextError, reason
from ..files import open_file
from ..settings.schema import whole_number

BLOCK_BYTES = 1 << 18  # so much stays in a core's own cache from one pass over it to the next
STANDARD_INPUT = "-"
IN_MEMORY = 1 << 26  # bytes of standard input that are kept in memory; what is longer goes to a temporary file
MOST_PACKED = 16  # bytes of text that a byte of a packed file stands for
UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (EOFError, zlib.error, lzma.LZMAError)  # what unpacking raises, beside an OSError without a number


class Text:
    """Files read as one text; a context, at whose end what was kept of standard input goes.

    names: what a user names; none is the built-in corpus.
    separator: what stands between two files; None is a newline after those that don't end with one.
    limit_chars: read only so many characters.
    as_bytes: take each byte for a character, of those from U+0000 to U+00FF, instead of decoding UTF-8.

    Raises TextError for a name that stands for no file, and ConfigError for standard input named twice.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        separator: str | None = None,
        limit_chars: int | None = None,
        as_bytes: bool = False,
    ) -> None:
        self.names = tuple(names)
        self.separator = separator
        self.limit_chars = limit_chars
        self.as_bytes = as_bytes
        if limit_chars is not None:
            whole_number("limit_chars", limit_chars, least=1)
        if any("\ud800" <= character <= "\udfff" for character in self.separator or ""):
            raise ConfigError(f"separator must be UTF-8, got {self.separator!r}")
        if self.names.count(STANDARD_INPUT) > 1:
            raise ConfigError("standard input (-) can be read only once; name it once")
        self.files = tuple(file for name in self.names for file in _expand(name))
        self._standard_input: IO[bytes] | None = None

    def __enter__(self) -> Text:
        return self

    def __exit__(self, *error: object) -> None:
        if self._standard_input:
            with suppress(OSError):  # a full disk, which writing has told
                self._standard_input.close()
            self._standard_input = None

    @property
    def title(self) -> str:
        """The text's name in messages."""
        return ", ".join(map(repr, self.names)) if self.names else "the built-in corpus"

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Where the files are: absolute, or `-`."""
        return tuple(file if file == STANDARD_INPUT else os.path.realpath(file) for file in self.files)

    @property
    def can_be_kept(self) -> bool:
        """Whether it consists of files, which can be known again by their paths, sizes and times of change."""
        return bool(self.files) and STANDARD_INPUT not in self.files

    @cached_property
    def status(self) -> list[tuple[int, int]]:
        """Size and time of change of each file; zeros where it can't be asked, which reading tells."""
        return [_status(file) for file in self.files]

    @property
    def size(self) -> int:
        """Bytes of text, of packed files a guess that is rather too high."""
        sizes = zip(self.files, self.status, strict=True)
        return sum(size * (MOST_PACKED if _unpack(file) else 1) for file, (size, _) in sizes)

    def bytes_of(self, block: str) -> bytes:
        """The bytes that a block was read from."""
        return block.encode("latin-1" if self.as_bytes else "utf-8")

    def blocks(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        """The text in pieces, cut at `limit_chars`; `progress` is told how many bytes of the files have been read."""
        return (block for _, block in self.numbered_blocks(progress))

    def numbered_blocks(self, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int | None, str]]:
        """The pieces with the number of the file that each is from; None for what stands between files.

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
            text = built_in_text()
            yield None, text.encode().decode("latin-1") if self.as_bytes else text
            return
        last: str | None = None  # character of what was read
        before = 0  # bytes of the files read to their end
        for number, file in enumerate(self.files):
            with self._open(file) as (stream, raw):
                decode = _as_characters(stream) if self.as_bytes else _decode(stream, _shown(file))
                begins = True
                for block in _errors(file, decode):
                    if begins and last is not None and (between := self._between(last)):
                        yield None, between
                    yield number, block
                    begins, last = False, block[-1]
                    progress(before + raw.tell())
                before += raw.tell()

    def _between(self, last: str) -> str:
        """What stands between a file that ends with this character and the next."""
        if self.separator is None:
            return "" if last == "\n" else "\n"
        return self.separator.encode().decode("latin-1") if self.as_bytes else self.separator

    @contextmanager
    def _open(self, file: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """What a file's bytes are read from, unpacked, and the file itself, which tells how far it is read."""
        if file == STANDARD_INPUT:
            if self._standard_input is None:  # kept, since it can be read only once
                self._standard_input = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  (open as long as the text)
                self._copy_standard_input(self._standard_input)
            self._standard_input.seek(0)
            yield self._standard_input, self._standard_input
            return
        try:
            raw = open_file(file)
        except OSError as error:
            raise _cannot_read(file, error) from error
        with raw:
            unpack = _unpack(file)
            with unpack(raw) if unpack else nullcontext(raw) as stream:
                yield stream, raw

    def _copy_standard_input(self, copy: IO[bytes]) -> None:
        """As much of it as `limit_chars` characters can have, and a byte order mark before them."""
        left = sys.maxsize if self.limit_chars is None else 4 * self.limit_chars + len(codecs.BOM_UTF8)
        try:
            while block := _read_standard_input(min(BLOCK_BYTES, left)):
                copy.write(block)
                left -= len(block)
            copy.flush()
        except OSError as error:
            raise TextError(
                f"can't keep standard input in {tempfile.gettempdir()!r}: {reason(error)}. Make room, or set TMPDIR to "
                "another folder."
            ) from error


def _read_standard_input(size: int) -> bytes:
    if sys.stdin is None:
        raise TextError("standard input is closed")
    try:
        return sys.stdin.buffer.read(size)
    except OSError as error:
        raise _cannot_read(STANDARD_INPUT, error) from error


def _unpack(file: str) -> Callable[[Any], Any] | None:
    return UNPACK.get(Path(file).suffix.lower())


def _status(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _shown(file: str) -> str:
    return "standard input" if file == STANDARD_INPUT else repr(file)


def _cannot_read(file: str, error: OSError) -> TextError:
    return TextError(f"can't read {_shown(file)}: {reason(error)}")


def _errors(file: str, blocks: Iterator[str]) -> Iterator[str]:
    """The blocks; what reading and unpacking raise becomes a TextError that names the file."""
    try:
        yield from blocks
    except (OSError, *BROKEN) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _cannot_read(file, error) from error
        raise TextError(f"{_shown(file)} is damaged or not what its name says: {error}") from error


def _expand(name: str) -> list[str]:
    """The files that a name stands for."""
    if name == STANDARD_INPUT:
        return [name]
    if "\0" in name:
        raise TextError(f"can't read {name!r}: no file's name holds a NUL")
    if os.path.isdir(name):
        found = [os.path.join(folder, file) for folder, _, files in os.walk(name) for file in files]
        files = sorted(file for file in found if not _hidden(os.path.relpath(file, name)) and os.path.isfile(file))
        if not files:
            raise TextError(f"can't read {name!r}: the folder holds no files")
        return files
    if any(sign in name for sign in "*?[") and not os.path.lexists(name):
        files = sorted(file for file in glob.glob(name, recursive=True) if os.path.isfile(file))
        if not files:
            raise TextError(f"can't read {name!r}: no file has such a name")
        return files
    return [name]


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in Path(path).parts)


def _as_characters(file: IO[bytes]) -> Iterator[str]:
    """Blocks of a file's bytes, each byte a character."""
    return (data.decode("latin-1") for data in _reads(file) if data)


def _decode(file: IO[bytes], name: str) -> Iterator[str]:
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
            advice = f"Convert it first, for example with: iconv -f {guess} -t UTF-8"
            if guess == "LATIN1" and (b"\0" in data or data.startswith(b"%PDF")):
                advice = "It seems to be no plain text: save its text as a file of its own first"
            raise TextError(
                f"{name} is not UTF-8: byte {offset - held + error.start} is 0x{bad:02X}. {advice}, or learn its bytes with "
                "--vocabulary bytes"
            ) from None
        offset += len(data)
        if first and block:
            block, first = block.removeprefix("\ufeff"), False
        if block:
            yield block


def _reads(file: IO[bytes]) -> Iterator[bytes]:
    """The file's bytes in blocks, then one empty block that ends it."""
    while data := file.read(BLOCK_BYTES):
        yield data
    yield b""


def built_in_text() -> str:
    """English that every Python holds: `pydoc_data.topics`, each paragraph once, ruled tables left out."""
    from pydoc_data.topics import topics  # a megabyte that only this function needs

    seen: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            if paragraph.strip() and not _is_ruled(paragraph):
                seen.setdefault(paragraph.strip("\n"))
    return "\n\n".join(seen) + "\n"


def _is_ruled(paragraph: str) -> bool:
    """Whether a paragraph is (part of) a table drawn with rules, `+---+`, `|` or `====`."""
    return any(line.strip().startswith(("+-", "+=", "|", "===", "---")) for line in paragraph.split("\n"))
