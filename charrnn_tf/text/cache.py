"""Caches the ids of long texts on disk, so that a second run need not read the text again; ids are memory-mapped.

    $XDG_CACHE_HOME/charrnn_tf/KEY/ids         the ids, in the vocabulary's integer type
                                  /text.json   dtype, count and SHA-256 of the ids, and facts about the text

An entry is written under a name that begins with a dot and renamed once it is complete. Any entry can be deleted: it is
written again when needed.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np

from ..errors import TextError, reason
from ..files import sha256
from .vocabulary import Ids

FORMAT = 2
IDS, DESCRIPTION = "ids", "text.json"


def folder() -> Path:
    """The folder of all entries."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "charrnn_tf"


def key(description: Any) -> str:
    """The name of an entry: a hash of everything its ids depend on, given as JSON data."""
    return hashlib.sha256(json.dumps([FORMAT, description]).encode()).hexdigest()[:32]


@contextmanager
def held(name: str) -> Iterator[str | None]:
    """Lock an entry while it is read or written, so that two runs do not encode the same text at once.

    Yields the name, or None if the folder can't be written: then nothing is cached.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder() / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.getLogger("charrnn_tf").warning("Another run is encoding this text; waiting for its result.")
            lock.acquire()
    except OSError:
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
        return _mapped(folder() / name / IDS, dtype, count)
    except OSError as error:
        place, variable = (folder(), "XDG_CACHE_HOME") if name else (tempfile.gettempdir(), "TMPDIR")
        remedy = f"Make room, or set {variable} to another folder."
        raise TextError(f"can't keep the encoded text in {str(place)!r}: {reason(error)}. {remedy}") from error


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
