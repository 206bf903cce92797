"""A text that is being generated: the ids that its row reads next, and the pieces for its reader."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..inference.stopping import Stopping
from ..text.vocabulary import Vocabulary

CHUNK = 16  # characters of every row per compiled call
Ids = npt.NDArray[np.int32]


class Scores(NamedTuple):
    """Log-probabilities of a row's characters in a chunk, in nats, before any cut."""

    chosen: npt.NDArray[np.float32]  # [CHUNK]
    likeliest: npt.NDArray[np.int32]  # ids of the likeliest characters at each place, [CHUNK, K]
    likeliest_logprobs: npt.NDArray[np.float32]  # [CHUNK, K]


class Token(NamedTuple):
    """A character, its log-probability (None for the first, which nothing predicts) and the likeliest at its place."""

    character: str
    logprob: float | None
    likeliest: dict[str, float]
    offset: int  # characters of the text before it


class Piece(NamedTuple):
    """The next part of a text; the last one has a finish: "stop", "length" or "error"."""

    text: "Text"
    written: str = ""
    tokens: Sequence[Token] = ()
    finish: str | None = None


class Text:
    """A text to write, and how far it is.

    prime: as the model reads it. ids: of the prime, at least one. length: characters to write. number: of the sample, from
    0. cuts: arguments of `Cuts.of`. scored: pieces have tokens, with `echo` those of the prime too.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prime: str,
        ids: Ids,
        length: int,
        seed: int,
        *,
        number: int = 0,
        cuts: Mapping[str, Any],
        stops: Sequence[str] = (),
        echo: bool = False,
        scored: bool = False,
    ) -> None:
        self.prime, self.ids, self.length, self.seed, self.number, self.cuts = prime, ids, length, seed, number, cuts
        self.echo, self.scored = echo, scored
        self.cancelled = False
        self.begun = 0.0  # when it took a row, in seconds of `time.monotonic`
        self.characters = 0  # written and shown
        self._vocabulary = vocabulary
        self._decode, self._decode_prime = vocabulary.decoder(), vocabulary.decoder()
        self._stopping = Stopping(stops)
        self._reading = len(ids) - 1  # characters that are read before the first one is written
        self._steps = self._reading + length if length or (echo and scored) else 0
        self._done = 0  # steps
        self._shown = len(prime) if echo else 0  # characters handed out
        self._decoded = 0  # characters that tokens stand for
        self._tokens: list[Token] = []  # not handed out yet
        if echo and scored and prime:
            self._add_token(int(ids[0]), None, {}, self._decode_prime)

    @property
    def position(self) -> int:
        """Characters written before the next step; negative while it reads."""
        return self._done - self._reading

    def following(self) -> Ids:
        """The characters to read after the next steps [CHUNK], -1 where they are to be drawn."""
        known = self.ids[self._done + 1 : self._done + 1 + CHUNK]
        return np.pad(known, (0, CHUNK - len(known)), constant_values=-1)

    def take(self, ids: Ids, scores: Scores | None) -> Piece:
        """The piece that a chunk adds: ids that followed [CHUNK], and their scores where `scored`."""
        begin, self._done = self._done, min(self._done + len(ids), self._steps)
        read, count = max(min(self._reading - begin, len(ids)), 0), self._done - begin
        complete = self._done == self._steps
        if scores and self.scored:
            self._add_tokens(ids[:count], scores, read)
        else:
            self._stopping.add(self._decode(ids[read:count]) if count > read else "")
        if complete:
            self._stopping.add(self._decode(ids[:0]))
        finish = "stop" if self._stopping.ended else "length" if complete else None
        written = self._stopping.take(last=finish is not None)
        self._shown += len(written)
        self.characters = min(self.characters + len(self._vocabulary.encode(written, "skip")), self.length)
        shown = len(self._tokens) if finish == "length" else sum(token.offset < self._shown for token in self._tokens)
        tokens, self._tokens = self._tokens[:shown], self._tokens[shown:]
        return Piece(self, written, tokens, finish)

    def _add_tokens(self, ids: Ids, scores: Scores, read: int) -> None:
        """Decode character by character, for the offset of each; those of the prime only where it is echoed."""
        for n, id in enumerate(ids):
            if n < read and not self.echo:
                continue
            pairs = zip(scores.likeliest[n], scores.likeliest_logprobs[n], strict=True)
            likeliest = {self._name(other): float(logprob) for other, logprob in pairs}
            decode = self._decode_prime if n < read else self._decode
            characters = self._add_token(int(id), float(scores.chosen[n]), likeliest, decode)
            if n >= read:
                self._stopping.add(characters)

    def _add_token(
        self, id: int, logprob: float | None, likeliest: dict[str, float], decode: Callable[[npt.ArrayLike], str]
    ) -> str:
        self._tokens.append(Token(self._name(id), logprob, likeliest, self._decoded))
        characters = decode([id])
        self._decoded += len(characters)
        return characters

    def _name(self, id: int) -> str:
        return self._vocabulary.decode([id], "backslashreplace")
