"""Reads a text line by line, in constant memory."""

from collections.abc import Iterator

from .sources import Text


def lines(text: Text) -> Iterator[str]:
    """The lines of a text without their newlines; after the last newline there is no further, empty line."""
    parts: list[str] = []  # of the line that has begun
    for block in text.blocks():
        first, *others = block.split("\n")
        parts.append(first)
        for other in others:
            yield "".join(parts)
            parts = [other]
    if any(parts):
        yield "".join(parts)
