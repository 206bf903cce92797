"""Export formats by name; each is a module of this room with a function `export_checkpoint`. Needs no TensorFlow."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import ConfigError
from ..text.vocabulary import Ids

FORMATS = {"savedmodel": "savedmodel", "keras": "keras_file", "torch": "torch_file", "web": "web_page"}  # name -> module


def export_checkpoint(checkpoint: str | Path, output: str | Path, format: str, held_out: Ids | None = None) -> str:
    """Write a checkpoint in a format; returns a remark for the user, or nothing.

    held_out: ids for measuring the loss added by rounding, for `web` only.
    Raises ConfigError for an unknown format and a place that can't be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}")
    module = import_module(f".{FORMATS[format]}", __package__)
    return str(module.export_checkpoint(checkpoint, output, held_out))
