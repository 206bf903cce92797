"""Caches the ids of long texts on disk, so that a second run need not read the text again; ids are memory-mapped.

    $XDG_CACHE_HOME/charrnn_tf/KEY/ids         the ids, in the vocabulary's integer type
                                  /text.json   dtype, count and SHA-256 of the ids, the files, and facts about the text

An entry is written under a name that begins with a dot and renamed once it is complete. Any entry can be deleted: it is
written again when needed. Writing one removes the entries of changed or missing files, and then the least recently read
ones until the cache takes at most LARGEST bytes; the new one is kept.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np

from ..errors import TextError, reason, warn
from ..files import open_file, sha256, size_of, temporary_folder
from .vocabulary import Ids

FORMAT = 2
BLOCK = 1 << 12  # bytes of a file's beginning, middle and end that belong to its identity
LARGEST = 10e9  # bytes of all entries
IDS, DESCRIPTION = "ids", "text.json"


def folder() -> Path:
    """The folder of all entries. Raises OSError where no absolute path is known; a relative XDG_CACHE_HOME is ignored."""
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if not os.path.isabs(base):
        if os.environ.get("HOME") == "" or not os.path.isabs(home):
            raise OSError(errno.ENOENT, "no home folder is known", home)
        base = os.path.join(home, ".cache")
    return Path(base) / "charrnn_tf"


def identity(file: str) -> list[Any]:
    """Path, size, times, inode and a hash of some blocks, which distinguish a file from others of the same name.

    Size and modification time alone would not: `cp -p`, `touch -r` and archives restore them.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_file(file) as stream:
            status = os.fstat(stream.fileno())
            for place in sorted({0, max(status.st_size - BLOCK, 0) // 2, max(status.st_size - BLOCK, 0)}):
                stream.seek(place)
                digest.update(stream.read(BLOCK))
    except OSError:
        return [file]  # an error when the file is read
    return [*_status(file), digest.hexdigest()]


def _status(file: str) -> list[Any]:
    status = os.stat(file)
    return [file, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def key(description: Any) -> str:
    """The name of an entry: a hash of everything its ids depend on, given as JSON data."""
    return hashlib.sha256(json.dumps([FORMAT, description]).encode()).hexdigest()[:32]


@contextmanager
def held(name: str) -> Iterator[str | None]:
    """Lock an entry while it is read or written, so that two runs do not encode the same text at once.

    Yields the name, or None if the folder can't be written: then nothing is cached, and a warning says so.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder() / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.getLogger("charrnn_tf").warning("Another run is encoding this text; waiting for its result.")
            lock.acquire()
    except OSError as error:
        place = error.filename or str(folder())
        remedy = "Set XDG_CACHE_HOME to a folder that can be written."
        warn(f"the encoded text is not kept for the next run: can't use {place!r}: {reason(error)}. {remedy}")
        yield None
        return
    try:
        yield name
    finally:
        lock.release()


def read(name: str) -> tuple[Ids, dict[str, Any]] | None:
    """The ids of an entry and the facts about its text; None if there is no entry or it is damaged."""
    entry = folder() / name
    try:
        known = json.loads((entry / DESCRIPTION).read_text(encoding="utf-8"))
        ids = _mapped(entry / IDS, known["dtype"], known["count"])
        intact = sha256(entry / IDS) == known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with suppress(OSError):
        os.utime(entry / DESCRIPTION)  # the time of the last use
    return ids, dict(known["text"])


def write(name: str | None, dtype: Any, blocks: Iterator[Ids], text: dict[str, Any]) -> Ids:
    """Write blocks of ids to an entry, all or nothing, and map them; without a name, to a temporary file.

    Raises TextError if the disk is full or can't be written.
    """
    try:
        if name is None:
            with tempfile.TemporaryFile() as file:
                count, _ = _write_blocks(file, dtype, blocks)
                return _mapped(file, dtype, count)
        partial = folder() / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        try:
            partial.mkdir(parents=True)
            with open(partial / IDS, "wb") as file:
                count, digest = _write_blocks(file, dtype, blocks)
                file.flush()
                os.fsync(file.fileno())
            known = {"dtype": np.dtype(dtype).name, "count": count, "sha256": digest, "text": text}
            (partial / DESCRIPTION).write_text(json.dumps(known), encoding="utf-8")
            partial.rename(folder() / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            _tidy(folder() / name)
        return _mapped(folder() / name / IDS, dtype, count)
    except OSError as error:
        place, variable = (repr(str(folder())), "XDG_CACHE_HOME") if name else (temporary_folder(), "TMPDIR")
        remedy = f"Make room, or set {variable} to another folder."
        raise TextError(f"can't keep the encoded text in {place}: {reason(error)}. {remedy}") from error


def _tidy(newest: Path) -> None:
    """Remove entries of changed files and, above LARGEST bytes, those that were not read for longest."""
    used: dict[Path, tuple[float, int]] = {}  # time of the last use, bytes
    for entry in newest.parent.iterdir():
        if entry.name.endswith(".partial"):  # of a run that was killed
            _remove(entry, entry.name[1 : -len(".partial")])
        if entry.name.startswith(".") or entry == newest:
            continue
        try:
            known = json.loads((entry / DESCRIPTION).read_text(encoding="utf-8"))
            current = all(_status(file) == [file, *about] for file, *about, _ in known["text"]["files"])
            used[entry] = (entry / DESCRIPTION).stat().st_mtime, size_of(entry)
        except (OSError, ValueError, KeyError, TypeError):  # files are gone, or an older version wrote it
            current = False
        if not current and _remove(entry, entry.name):
            used.pop(entry, None)
    total = size_of(newest) + sum(size for _, size in used.values())
    for entry, (_, size) in sorted(used.items(), key=lambda item: item[1]):
        if total > LARGEST and _remove(entry, entry.name):
            total -= size


def _remove(entry: Path, name: str) -> bool:
    """Remove an entry, or what is left of one, unless another process reads or writes it."""
    with suppress(OSError, filelock.Timeout), filelock.FileLock(entry.with_name(f".{name}.lock"), timeout=0) as lock:
        shutil.rmtree(entry, ignore_errors=True)
        os.unlink(lock.lock_file)
    return not entry.exists()


def _write_blocks(file: IO[bytes], dtype: Any, blocks: Iterator[Ids]) -> tuple[int, str]:
    """Write ids -> their number and SHA-256."""
    digest, count = hashlib.sha256(), 0
    for block in blocks:
        data = np.ascontiguousarray(block, dtype).data
        digest.update(data)
        file.write(data)
        count += len(block)
    return count, digest.hexdigest()


def _mapped(file: Path | IO[bytes], dtype: Any, count: int) -> Ids:
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,))
