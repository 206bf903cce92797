"""Output of generated texts: standard output, or a file that appears when it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..files import appearing, without_waiting
from .streams import check_output

if TYPE_CHECKING:
    from ..inference.sampling import Sampler


@contextmanager
def open_output(path: str | None) -> Iterator[Callable[[str], object]]:
    """A function that writes to standard output, or to a file that appears when it is complete.

    Bytes that are not UTF-8, as characters from U+DC80 to U+DCFF, are written to a file unchanged.
    """
    if path is None:
        check_output()
        yield lambda text: click.echo(replaced(text), nl=False)
        return
    with (
        appearing(path) as place,
        open(place, "w", encoding="utf-8", errors="surrogateescape", newline="", opener=without_waiting) as file,
    ):
        yield file.write


def replaced(text: str) -> str:
    """A text that is UTF-8, with U+FFFD for bytes that are not."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_samples(
    sampler: Sampler, write: Callable[[str], object], prime: str, stop: str | None, end: str = "\n", **draw: Any
) -> None:
    """Write each text after its prime: the first as it is generated, the others after it.

    Several texts get a heading each; `end` follows a single one.
    """
    texts = [_Stopping(stop) for _ in range(sampler.batch_size)]
    chunks = sampler.chunks(prime, errors="surrogateescape", **draw)
    if sampler.batch_size > 1:
        write("--- sample 1 ---\n")
    write(prime)
    for pieces in chunks:
        for text, piece in zip(texts, pieces, strict=True):
            text.add(piece)
        write(texts[0].take())
        if all(text.ended for text in texts):
            break
    write(texts[0].take(last=True) + (end if sampler.batch_size == 1 else "\n"))
    for number, text in enumerate(texts[1:], 2):
        write(f"--- sample {number} ---\n{prime}{text.take(last=True)}\n")


def write_completions(
    sampler: Sampler, write: Callable[[str], object], primes: Sequence[str], num_samples: int, as_json: bool, **draw: Any
) -> None:
    """Write the texts after each prime, each under a heading, or each as a line of JSON."""
    for n, each in enumerate(sampler.sample_many(primes, num_samples, errors="surrogateescape", **draw)):
        heading = f"prime {n // num_samples + 1}" + (f", sample {each.sample}" if num_samples > 1 else "")
        as_object = {**each._asdict(), "prime": replaced(each.prime), "text": replaced(each.text)}
        write(f"{json.dumps(as_object)}\n" if as_json else f"--- {heading} ---\n{each.prime}{each.text}\n")


class _Stopping:
    """A text that arrives in pieces and ends before a stop text; holds back its end, where that text may begin."""

    def __init__(self, stop: str | None) -> None:
        self.ended = False
        self._stop = stop
        self._held = ""

    def add(self, piece: str) -> None:
        if not self.ended:
            self._held += piece
            if self._stop and self._stop in self._held:
                self._held = self._held.partition(self._stop)[0]
                self.ended = True

    def take(self, last: bool = False) -> str:
        """The part that can be shown now."""
        held = 0 if last or self.ended or not self._stop else len(self._stop) - 1
        shown = self._held[: max(len(self._held) - held, 0)]
        self._held = self._held[len(shown) :]
        return shown
