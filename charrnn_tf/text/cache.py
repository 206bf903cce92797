"""Long texts as ids on disk, mapped into memory a page at a time, so that a second run need not read them again.

    $XDG_CACHE_HOME/charrnn_tf/KEY/ids         the ids, in the vocabulary's integer type
                                  /text.json   what they were made from, and the sum of the ids

An entry is written under a name that begins with a dot and renamed when it is complete. Removing any of it loses nothing but
time.
"""

from __future__ import annotations

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

FORMAT = 1
IDS, DESCRIPTION = "ids", "text.json"


def folder() -> Path:
    """Where encoded texts are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "charrnn_tf"


def key(description: Any) -> str:
    """The name of an entry: the sum of what it depends on, which JSON can hold."""
    return hashlib.sha256(json.dumps([FORMAT, description]).encode()).hexdigest()[:32]


@contextmanager
def held(name: str) -> Iterator[str | None]:
    """Hold an entry while it is looked for and written, so that two runs do not make it at once.

    Gives its name again, or None where the folder can't be written: then nothing is kept.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder() / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.getLogger("charrnn_tf").warning("Another run is reading this text; waiting for what it keeps.")
            lock.acquire()
    except OSError:
        yield None
        return
    try:
        yield name
    finally:
        lock.release()


def read(name: str) -> tuple[Ids, dict[str, Any]] | None:
    """The ids of an entry and what is known of their text; None where there is no entry or it is damaged."""
    entry = folder() / name
    try:
        known = json.loads((entry / DESCRIPTION).read_text(encoding="utf-8"))
        ids = _mapped(entry / IDS, known["dtype"], known["count"])
        whole = sha256(entry / IDS) == known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return ids, dict(known["text"])


def write(name: str | None, dtype: Any, blocks: Iterator[Ids], text: dict[str, Any]) -> Ids:
    """Keep blocks of ids under a name, complete or not at all, and map them; with no name for this process only.

    Raises TextError where the disk refuses.
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
        place = str(folder()) if name else tempfile.gettempdir()
        variable = "XDG_CACHE_HOME" if name else "TMPDIR"
        raise TextError(
            f"can't keep the encoded text in {place!r}: {reason(error)}. Make room, or set {variable} to another folder."
        ) from error


def _write_blocks(file: IO[bytes], dtype: Any, blocks: Iterator[Ids]) -> tuple[int, str]:
    """How many ids were written, and their sum."""
    digest, count = hashlib.sha256(), 0
    for block in blocks:
        data = np.ascontiguousarray(block, dtype).data
        digest.update(data)
        file.write(data)
        count += len(block)
    return count, digest.hexdigest()


def _mapped(file: Path | IO[bytes], dtype: Any, count: int) -> Ids:
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,))
