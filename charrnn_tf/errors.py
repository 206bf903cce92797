"""The package's exceptions.

CharRNNError            a mistake the caller can mend; the command shows its message as one line
├── ConfigError         settings that are out of range or contradict each other
├── TextError           a text that can't be read, encoded or cut into windows
├── CheckpointError     a checkpoint or a run's folder that is missing or can't be used
├── DivergedError       a run whose losses are no numbers any more
└── PeerError           another worker of a run that is missing or has ended
"""

from __future__ import annotations


class CharRNNError(Exception):
    """Base of all errors that say what is wrong and what to do about it."""


class ConfigError(CharRNNError):
    """A setting is out of range, or two settings contradict each other."""


class TextError(CharRNNError):
    """A text can't be read, encoded or cut into windows."""


class CheckpointError(CharRNNError):
    """A checkpoint or a run's folder is missing, incomplete or of another shape."""


class DivergedError(CharRNNError):
    """Losses or gradients are not finite, step after step."""


class PeerError(CharRNNError):
    """Another worker of the same run is missing, means another run, or has ended."""


def describe_character(character: str) -> str:
    """The character as a person can read it and look it up: `'é' (U+00E9)`, control characters escaped."""
    return f"{character!r} (U+{ord(character):04X})"


def reason(error: Exception) -> str:
    """What an error says; of one of the operating system's in the words of a sentence: `permission denied`."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
