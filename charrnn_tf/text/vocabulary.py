"""Characters and their ids."""

import codecs
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, TextError, describe_character
from ..settings.schema import UNKNOWN
from .names import check_text

NO_ID = 255  # entry for unknown bytes in a table of 256 ids
Ids = npt.NDArray[Any]  # any unsigned integer type, the smallest that fits the vocabulary


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The text's code points, [characters], lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")


def normalized(text: str, form: str) -> str:
    """A text in a Unicode normalization form: "nfc" (composed), "nfd" (decomposed) or "none" (as it is)."""
    return text if form == "none" or text.isascii() else unicodedata.normalize(cast(Any, form.upper()), text)


def _one_each(characters: Iterable[str]) -> Iterator[str]:
    """Yield the characters; raise ConfigError for an item that is not a single character."""
    for character in characters:
        if not isinstance(character, str) or len(character) != 1:
            raise ConfigError(f"a vocabulary must consist of single characters, got {character!r}")
        yield character


class Vocabulary:
    """The characters that a model knows; an id is a position among them.

    >>> vocabulary = Vocabulary.from_text("hello")
    >>> vocabulary.characters
    'ehlo'
    >>> vocabulary.decode(vocabulary.encode("hole"))
    'hole'
    """

    def __init__(self, characters: Iterable[str]) -> None:
        if isinstance(characters, set | frozenset):
            raise ConfigError("a set of characters has no order: sort them, or pass the text to Vocabulary.from_text")
        self.characters = "".join(_one_each(characters))
        if not self.characters:
            raise TextError("a vocabulary needs at least one character")
        if len(set(self.characters)) != len(self.characters):
            raise ConfigError("a vocabulary must contain every character once, but some are repeated")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The text's distinct characters in code-point order. Raises ConfigError for the name of a file."""
        check_text(text)
        return cls(sorted(set(text)))

    @classmethod
    def printable(cls) -> Self:
        """`string.printable`: 100 ASCII characters, in Python's order."""
        return cls(string.printable)

    def extended(self, characters: Iterable[str]) -> "Vocabulary":
        """This vocabulary followed by those of the characters that it lacks, in code-point order."""
        return Vocabulary(self.characters + "".join(sorted(set(characters) - set(self.characters))))

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and type(self) is type(other) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash((type(self), self.characters))

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    @cached_property
    def code_points(self) -> npt.NDArray[np.uint32]:
        """The code point of each id, [V]."""
        return code_points(self.characters)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer type that holds every id."""
        return np.min_scalar_type(len(self) - 1)

    @cached_property
    def _id_of_code_point(self) -> npt.NDArray[np.int32]:
        table = np.full(int(self.code_points.max()) + 2, -1, dtype=np.int32)  # the last entry serves all above
        table[self.code_points] = np.arange(len(self), dtype=np.int32)
        return table

    @cached_property
    def _id_of_byte(self) -> bytes:
        """The id of each of the first 256 code points, for `bytes.translate`; NO_ID for unknown ones."""
        ids = np.take(self._id_of_code_point, range(256), mode="clip")
        return np.where(ids < 0, NO_ID, ids).astype(np.uint8).tobytes()

    def encode(self, text: str, unknown: str = "error") -> Ids:
        """The ids of the text's characters, [characters], in the smallest type that fits.

        unknown: "error" raises TextError for characters outside the vocabulary, "skip" drops them; others raise ConfigError.
        """
        return self.encode_characters(text, unknown)

    def encode_characters(self, text: str, unknown: str = "error") -> Ids:
        """Like `encode`, except that a byte vocabulary takes each byte as a character, U+0000 to U+00FF."""
        if unknown not in UNKNOWN:
            raise ConfigError(f"`unknown` must be one of {', '.join(UNKNOWN)}, got {unknown!r}")
        data = None
        if len(self) <= NO_ID:
            with suppress(UnicodeEncodeError):
                data = text.encode("latin-1")
        if data is not None:  # gives the same ids several times as fast
            ids = np.frombuffer(data.translate(self._id_of_byte), np.uint8)
            known = ids != NO_ID
        else:
            ids = np.take(self._id_of_code_point, code_points(text), mode="clip")
            known = ids >= 0
        if known.all():
            return ids.astype(self.dtype)
        if unknown == "error":
            strangers = [chr(point) for point in np.unique(code_points(text)[~known])]
            shown = ", ".join(describe_character(c) for c in strangers[:5])
            more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
            form = self._form_of(strangers)
            remedy = f"It knows them in the form `normalize` {form}" if form else "Leave them out, or use `unknown` skip"
            windows = " Lines of this text end as on Windows, in \\r\\n." if "\r" in strangers and "\n" in text else ""
            raise TextError(f"characters the model never saw: {shown}{more}.{windows} {remedy}.")
        return ids[known].astype(self.dtype)

    def _form_of(self, characters: Iterable[str]) -> str | None:
        """The normalization form in which the vocabulary has all of these characters; None if there is none."""
        known = set(self.characters)
        if set(normalized("".join(characters), "nfd")) <= known:
            return "nfd"
        return "nfc" if set(characters) <= set(normalized(self.characters, "nfd")) - known else None

    def decode(self, ids: npt.ArrayLike, errors: str = "replace") -> str:
        """The text of an array of ids. errors: handling of bytes that are not UTF-8, as in `bytes.decode`."""
        points = self.code_points[_checked_ids(ids, len(self))]
        return points.astype("<u4").tobytes().decode("utf-32-le", errors="surrogatepass")

    def decoder(self, errors: str = "replace") -> Callable[[npt.ArrayLike], str]:
        """A function that decodes a text part by part; called without ids at the end, it returns what it held back."""
        return self.decode


class ByteVocabulary(Vocabulary):
    """All 256 bytes; text is encoded and decoded as UTF-8.

    >>> vocabulary = ByteVocabulary()
    >>> vocabulary.encode("é")
    array([195, 169], dtype=uint8)
    >>> vocabulary.decode([195, 169, 195])
    'é\ufffd'

    To preserve bytes that are not UTF-8, decode with the error handler "surrogateescape", which `encode` reverses.
    """

    def __init__(self) -> None:
        super().__init__(map(chr, range(256)))

    def __repr__(self) -> str:
        return "ByteVocabulary()"

    def extended(self, characters: Iterable[str]) -> "Vocabulary":
        """This vocabulary itself: bytes spell every character."""
        return self

    def encode(self, text: str, unknown: str = "error") -> Ids:
        """The UTF-8 bytes of a text, uint8 [bytes]; `unknown` has no effect."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)

    def encode_characters(self, text: str, unknown: str = "error") -> Ids:
        """The bytes that characters from U+0000 to U+00FF stand for, uint8 [characters]; others raise UnicodeEncodeError."""
        return np.frombuffer(text.encode("latin-1"), np.uint8)

    def decode(self, ids: npt.ArrayLike, errors: str = "replace") -> str:
        """The text of bytes of any shape. errors: as in `bytes.decode`. Raises ConfigError for ids out of range."""
        return _checked_ids(ids, len(self)).astype(np.uint8).tobytes().decode("utf-8", errors)

    def decoder(self, errors: str = "replace") -> Callable[[npt.ArrayLike], str]:
        """A function that decodes bytes part by part and holds back those that may begin a character."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors)

        def decode(ids: npt.ArrayLike) -> str:
            data = _checked_ids(ids, len(self)).astype(np.uint8).tobytes()
            return decoder.decode(data, final=not data)

        return decode


def one_hot(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[np.float32]:
    """One-hot rows of ids: [...] -> float32 [..., vocab_size]. Raises ConfigError for ids out of range."""
    array = _checked_ids(ids, vocab_size)
    rows = np.zeros((*array.shape, vocab_size), dtype=np.float32)
    np.put_along_axis(rows, array[..., None], 1, axis=-1)
    return rows


def _checked_ids(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[np.int64]:
    array = np.asarray(ids)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(f"ids must be whole numbers, got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= vocab_size):
        raise ConfigError(f"ids must lie in 0..{vocab_size - 1}, got {array.min()}..{array.max()}")
    return array.astype(np.int64)
