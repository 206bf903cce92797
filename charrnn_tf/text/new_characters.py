"""The characters that `unknown` add gives to the vocabulary of a model that a run starts from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, describe_character, warn
from .vocabulary import ByteVocabulary, Vocabulary

NAMED = 5  # characters that a message names
Most = tuple[tuple[str, int], ...]  # the most frequent characters, and how often each occurs


@dataclass(frozen=True)
class Added:
    """Characters of a text that its vocabulary was extended by."""

    count: int
    most: Most  # of them

    @classmethod
    def of(cls, old: Any, new: Vocabulary, most: Iterable[tuple[str, int]]) -> Self | None:
        """The characters that `new` has and `old` lacks; None if there are none. most: see `most_frequent`."""
        most = tuple((character, count) for character, count in most)
        return cls(len(new) - len(old), most) if most else None

    def __str__(self) -> str:
        noun = "characters that the model did not know are" if self.count > 1 else "character that the model did not know is"
        which = "most often " if self.count > len(self.most) else ""
        return f"{self.count:,} {noun} added to its vocabulary, {which}{occurrences(self.most)}"


def occurrences(most: Most) -> str:
    """Characters and how often each occurs, for a message."""
    return ", ".join(
        f"{describe_character(character)} {count:,} time{'s' if count > 1 else ''}" for character, count in most
    )


def check_can_add(vocabulary: Any, model: str = "the model") -> None:
    """Raise ConfigError unless `vocabulary` is that of another model, and characters can be added to it."""
    if isinstance(vocabulary, ByteVocabulary):
        raise ConfigError(
            f"`unknown` add has nothing to add: {model} learned bytes, which spell every character. Leave it out."
        )
    if not isinstance(vocabulary, Vocabulary):
        raise ConfigError("`unknown` add extends the vocabulary of another model: pass one with `init_from`")


def most_frequent(counts: npt.NDArray[np.int64], vocabulary: Vocabulary) -> Most:
    """The most frequent characters outside a vocabulary. counts: occurrences of each code point, [code points]."""
    others = counts.copy()
    others[vocabulary.code_points] = 0
    present = np.flatnonzero(others)
    return tuple((chr(n), int(others[n])) for n in present[np.argsort(-others[present], kind="stable")][:NAMED])


def check_line_ends(known: Vocabulary | str, present: str, title: str) -> None:
    """Warn if a text has other line ends than the text of an existing model: its characters are all known, but rarely met.

    known: the model's vocabulary; a string for a new model. present: the text's characters.
    """
    if isinstance(known, str | ByteVocabulary) or known.characters == Vocabulary.printable().characters:
        return
    if "\r" in known.characters and "\n" in present and "\r" not in present:
        warn(f"lines of {title} end in \\n, those of the model's own text in \\r\\n: the model expects \\r before each \\n.")
