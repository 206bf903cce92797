"""Stop texts: where a generated text ends before its full length."""

from collections.abc import Sequence

from ..errors import ConfigError


def check_stop(stop: object) -> None:
    """Raise ConfigError unless a stop text is None or a text that is not empty."""
    if stop is not None and not (isinstance(stop, str) and stop):
        raise ConfigError(f"`stop` must be a text that is not empty, got {stop!r}")


class Stopping:
    """Ends a text that arrives in pieces before its first stop text; withholds an end that may begin one.

    The first stop text is the one completed first, so the result does not depend on how the text is split.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.ended = False
        self._stops = stops
        self._most_held = max(map(len, stops), default=1) - 1
        self._held = ""

    def add(self, piece: str) -> None:
        """Take the next piece; ignored once the text has ended."""
        if self.ended:
            return
        self._held += piece
        found = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self._held = self._held[: min(found)[1]]
            self.ended = True

    def take(self, last: bool = False) -> str:
        """The part that can be shown now."""
        held = 0 if last or self.ended else self._most_held
        shown = self._held[: max(len(self._held) - held, 0)]
        self._held = self._held[len(shown) :]
        return shown
