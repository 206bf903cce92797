"""Opens, writes and hashes the files that a user names; a written file appears only once it is complete."""

import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigError, reason


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file to read bytes. Raises OSError for a folder, pipe or device, and for one that can't be opened."""
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


@contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` after the block; for a device or pipe, yield `path` itself.

    Raises ConfigError if it can't be written.
    """
    target = Path(path)
    try:
        special = target.exists() and not target.is_file()
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        partial = target if special else target.with_name(f".{target.name}.partial")
        try:
            yield partial
            if not special:
                partial.replace(target)
        finally:
            if not special:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"can't write {str(path)!r}: {reason(error)}") from error


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file, complete or not at all. Raises ConfigError if it can't be written."""
    with appearing(path) as place, open(place, "wb", opener=without_waiting) as file:
        file.write(content)


def without_waiting(path: str, flags: int) -> int:
    """Opener for `open` that fails at once, instead of waiting, for a pipe without a reader."""
    if not hasattr(os, "O_NONBLOCK"):  # Windows
        return os.open(path, flags, 0o666)
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


@contextmanager
def literal_prefix(prefix: str | Path) -> Iterator[str]:
    """Yield a prefix under which TensorFlow finds the files of a checkpoint, PREFIX.index and PREFIX.data-*.

    TensorFlow reads a prefix as UTF-8 and as a glob pattern. A prefix that it would not find is replaced by one in a
    temporary folder, with links to the files (copies where links are not allowed). Raises ConfigError without such a folder.
    """
    if tensorflow_reads(prefix):
        yield str(prefix)
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="charrnn-tf-")
    except OSError as error:
        raise ConfigError(f"can't read {str(prefix)!r} without a temporary folder: {reason(error)}. Set TMPDIR.") from error
    with temporary as folder:
        if not tensorflow_reads(folder):
            raise ConfigError(f"TensorFlow can't read the temporary folder {folder!r}. Set TMPDIR to a plain path.")
        for file in glob.glob(f"{glob.escape(str(prefix))}.*"):
            link = os.path.join(folder, "variables" + Path(file).name.removeprefix(Path(prefix).name))
            try:
                os.symlink(os.path.abspath(file), link)
            except OSError:
                shutil.copyfile(file, link)
        yield os.path.join(folder, "variables")


def tensorflow_reads(path: str | Path) -> bool:
    """Whether TensorFlow can open an existing path: it must be UTF-8, and match itself as a glob pattern."""
    signs = "[" if os.name == "nt" else "[\\"
    return not any(character in signs or "\ud800" <= character <= "\udfff" for character in str(path))


def temporary_folder() -> str:
    """The folder of temporary files, for messages."""
    try:
        return repr(tempfile.gettempdir())
    except OSError:  # none can be written
        return "a temporary folder"


def size_of(folder: Path) -> int:
    """Total size of the files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.iterdir())


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
