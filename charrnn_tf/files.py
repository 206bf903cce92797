"""Opens files that a user names, and refuses what is none: a pipe would be waited for, a device may have no end. Sums."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | Path) -> BinaryIO:
    """A file, open to read bytes. Raises OSError for what can't be opened and for what is no ordinary file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if stat.S_ISFIFO(mode):
            raise OSError(errno.EINVAL, "is a pipe, which can be read only once: give it as standard input", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is a device, not a file with an end", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def sha256(file: Path) -> str:
    """The sum of a file's bytes, in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
