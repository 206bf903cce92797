"""Finds the files that a name stands for: a file, a folder, a glob or standard input."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterator

from ..errors import ConfigError, TextError, listed, reason

STANDARD_INPUT = "-"
NAME = re.compile(r"[^\s]*\.[A-Za-z][A-Za-z0-9]{1,4}")  # one word with a file suffix, which is rarely a text


def expand(name: str) -> list[str]:
    """The files that a name stands for."""
    if name == STANDARD_INPUT:
        return [name]
    if "\0" in name:
        raise TextError(f"can't read {name!r}: it contains a NUL character, which file names can't")
    if name.startswith("~") and not os.path.lexists(name):
        name = os.path.expanduser(name)
    if os.path.isdir(name):
        files = sorted(_files_in(name))
    elif any(sign in name for sign in "*?[") and not os.path.lexists(name):
        files = sorted(file for file in _matching(name) if not os.path.isdir(file))
    else:
        return [name]
    if broken := [file for file in files if not os.path.exists(file)]:
        raise TextError(
            f"can't read {listed(broken)} in {name!r}: a broken link. Remove it, or name the files that are to be read."
        )
    files = [file for file in files if os.path.isfile(file)]
    if not files:
        raise TextError(f"can't read {name!r}: {'the folder holds no files' if os.path.isdir(name) else 'no file matches'}")
    return files


def check_text(text: object) -> None:
    """Raise ConfigError if `text` is not a string or looks like the name of a file."""
    if not isinstance(text, str):
        raise ConfigError(f"a text must be a string, got {type(text).__name__}")
    if NAME.fullmatch(text):
        raise ConfigError(
            f"{text!r} looks like the name of a file, where a text is meant: read it with charrnn_tf.load_text({text!r})"
        )


def _files_in(folder: str) -> Iterator[str]:
    """All files below a folder except hidden ones; linked folders are followed, each folder once.

    Raises TextError for a folder that can't be read.
    """

    def refuse(error: OSError) -> None:
        raise cannot_read(error.filename, error) from error

    def is_new(path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError as error:
            raise cannot_read(path, error) from error
        identity = status.st_dev, status.st_ino
        known = identity in seen
        seen.add(identity)
        return not known

    seen: set[tuple[int, int]] = set()
    is_new(folder)
    for path, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inner = sorted((os.path.join(path, each) for each in folders if not each.startswith(".")), key=_links_last)
        folders[:] = [os.path.basename(each) for each in inner if is_new(each)]
        yield from (os.path.join(path, file) for file in files if not file.startswith("."))


def _matching(pattern: str) -> Iterator[str]:
    """The paths that a glob matches; `**` enters each linked folder once, so that cyclic links end."""
    parts = pattern.replace(os.path.altsep or os.path.sep, os.path.sep).split(os.path.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index("**")
    base = os.path.sep.join(parts[:first]) or (os.path.sep if first else "")
    for folder in glob.iglob(base) if base else [""]:
        for file in _files_in(folder or os.path.curdir):
            inner = os.path.relpath(file, folder or None)
            if _fits(inner.split(os.path.sep), parts[first:]):
                yield os.path.join(folder, inner)


def _fits(path: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a glob."""
    if not pattern or not path:
        return not path and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(path, pattern[1:]) or _fits(path[1:], pattern)
    return fnmatch.fnmatch(path[0], pattern[0]) and _fits(path[1:], pattern[1:])


def _links_last(path: str) -> tuple[bool, str]:
    return os.path.islink(path), path


def shown(file: str) -> str:
    """A file's name in messages."""
    return "standard input" if file == STANDARD_INPUT else repr(file)


def cannot_read(file: str, error: OSError) -> TextError:
    """The error for a file or folder that the system refuses to read."""
    return TextError(f"can't read {shown(file)}: {reason(error)}")
