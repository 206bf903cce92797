"""The package's exceptions, its warnings, and helpers for messages.

CharRNNError            a mistake that the caller can correct; the command shows its message as one line
├── ConfigError         settings that are out of range or contradict each other
├── TextError           a text that can't be read, encoded or cut into windows
├── CheckpointError     a checkpoint or a run's folder that is missing or can't be used
├── DivergedError       a run whose losses are no longer finite
└── PeerError           another worker of the run is missing or has ended

Messages name settings and arguments as Python does, in backticks (`hidden_size`); the command turns these into options.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class CharRNNError(Exception):
    """Base of all errors; the message says what is wrong and what to do about it."""


class ConfigError(CharRNNError):
    """A setting is out of range, or two settings contradict each other."""


class TextError(CharRNNError):
    """A text can't be read, encoded or cut into windows."""


class CheckpointError(CharRNNError):
    """A checkpoint or a run's folder is missing, incomplete or does not fit."""


class DivergedError(CharRNNError):
    """Losses or gradients are not finite, step after step."""


class PeerError(CharRNNError):
    """Another worker of the same run is missing, trains something else, or has ended."""


def concise(function: Function) -> Function:
    """Shorten the traceback of a CharRNNError to the caller's frames: its message names the caller's mistake."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True  # of IPython
        try:
            return function(*arguments, **named)
        except CharRNNError as error:
            raise error.with_traceback(None) from None

    return call  # type: ignore[return-value]


@functools.cache
def warn(message: str) -> None:
    """Log a warning, each message once; without a logging setup it goes to standard error."""
    logging.getLogger("charrnn_tf").warning("Warning: %s", message)


def describe_character(character: str) -> str:
    """A character with its code point, `'é' (U+00E9)`; control characters are escaped."""
    return f"{character!r} (U+{ord(character):04X})"


def listed(names: Collection[str], most: int = 3, shown: Callable[[str], str] = repr) -> str:
    """Join names for a message, only the first `most` of more: `'a', 'b', 'c' and 19,997 more`."""
    first = ", ".join(map(shown, itertools.islice(names, most)))
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first


def reason(error: Exception) -> str:
    """An error's message; for an OSError only the cause, in lower case: `permission denied`."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
