"""Texts that a notebook shows with each character coloured by its surprise."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sampling import Sampler

SHOWN = 5_000  # upper bound on characters that a notebook colours
WRAPPED = "white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; font-family: monospace"


class Sample(str):
    """A text with the model that generated or read it. A notebook shows each character coloured by its surprise."""

    sampler: "Sampler"
    seed: int | None = None  # that repeats it; None for a text that was not generated

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copies are plain strings."""
        return str, (str(self),)

    def _repr_html_(self) -> str:
        """The first SHOWN characters on a background from clear (0 bits) to orange (8 bits and more), and a key."""
        characters, bits = self.sampler.surprise(self[:SHOWN])
        ends = [f"{this}{after}" == "\r\n" for this, after in zip(characters, [*characters[1:], ""], strict=True)]
        spans = (
            f'<span title="{each:.2f} bits" style="background-color: {_orange(each)}">'
            f"{'' if end else html.escape(character)}</span>"
            for character, each, end in zip(characters, bits, ends, strict=True)
        )
        key = "".join(f'<span style="background-color: {_orange(each)}"> {each} </span>' for each in (0, 2, 4, 6, 8))
        seed = "" if self.seed is None else f"; seed {self.seed}"
        return (
            f'<pre style="{WRAPPED}">{"".join(spans)}</pre>'
            f'<div style="font-size: smaller; white-space: pre">surprise in bits:{key}or more{seed}</div>'
        )


class Samples(list[Sample]):
    """Several texts, which a notebook shows one below the other."""

    def _repr_html_(self) -> str:
        return "<hr>".join(each._repr_html_() for each in self)


def _orange(bits: float) -> str:
    """The background of a character with this surprise."""
    return f"rgb(213 94 0 / {0.8 * min(bits / 8, 1):.3f})"
