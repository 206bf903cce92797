"""A run's folder while it trains: locked against a second run, which checkpoints it keeps, its metrics.csv."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import checkpoint, record
from .errors import CheckpointError, reason
from .metrics import METRICS, MetricsFile, NoMetrics
from .record import (
    LOCK,
    Record,
    check_empty,
    find_record,
    identity,
    iteration,
    list_checkpoints,
    read_record,
    read_records,
    warn,
    without_checkpoints,
)


class RunDirectory:
    """The folder of one run while it trains."""

    def __init__(self, path: str | Path, keep: int, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready.

        Raises CheckpointError where it holds a run and neither resume nor overwrite is given, and while another run goes on.

        With resume, `records` hold at least one checkpoint, or CheckpointError is raised; those that are damaged are put
        aside under a name of their own, and a warning tells.
        """
        self.path = Path(path)
        self._keep = keep
        self._lock = FileLock(self.path / LOCK, timeout=0, thread_local=False)
        self._metrics: MetricsFile | None = None
        if resume and not list_checkpoints(self.path):
            raise without_checkpoints(self.path)
        with self._locked(), self._errors():
            if overwrite:
                checkpoint.remove_run(self.path)
            elif not resume:
                check_empty(self.path)
            checkpoint.clean(self.path)
            found = list_checkpoints(self.path)
            self.records = read_records(found)
            for damaged in sorted(set(found) - set(self.records)):
                checkpoint.put_aside(damaged)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One run at a time: the system frees the lock when a process ends, however it ends."""
        self._acquire()
        try:
            yield
        finally:
            with suppress(OSError):  # a folder that was removed, or that may not be written to any more
                (self.path / LOCK).unlink(missing_ok=True)  # while it is held: whoever waits for it then notices
            self._lock.release()

    def _acquire(self) -> None:
        with self._errors():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        self._locked_file = identity(self.path / LOCK)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Timeout:
            raise CheckpointError(
                f"another run is writing to {str(self.path)!r}. Wait for it, stop it, or use another --checkpoint-dir."
            ) from None
        except OSError as error:
            raise CheckpointError(f"can't use the folder {str(self.path)!r}: {reason(error)}") from error

    @property
    def latest(self) -> Path:
        """Of the saved, the one of the highest step."""
        return max(self.records, key=iteration)

    @property
    def best(self) -> Record | None:
        """Of the saved, the one that validated best; None before the first validation."""
        found = self.records[record.best(self.records)] if self.records else None
        return found if found and found.validation_loss is not None else None

    @contextmanager
    def open(self, step: int) -> Iterator[MetricsFile]:
        """Lock the folder for a run that goes on from a step -> its metrics.csv.

        Raises CheckpointError where another run writes to the folder, or has written since this one was prepared.
        """
        with self._locked():
            if list_checkpoints(self.path) != sorted(self.records, key=iteration):
                raise CheckpointError(f"another run has written to {str(self.path)!r} meanwhile. Start again.")
            self._metrics = MetricsFile(self.path / METRICS, keep_to_step=step)
            try:
                yield self._metrics
            finally:
                self._metrics.close()
                self._metrics = None

    def save(self, saved: Record, variables: dict[str, Any]) -> Path:
        """Write a checkpoint, all rows before it being on the disk, and remove what need not be kept.

        A folder that was removed or emptied meanwhile is made again, with metrics.csv.
        """
        if self._metrics:
            lock_is_gone = identity(self.path / LOCK) != self._locked_file
            if lock_is_gone:
                self._lock.release(force=True)
                self._acquire()
            if lock_is_gone or not (self.path / METRICS).exists():
                warn(f"{str(self.path)!r} was removed or emptied while the run writes to it, and is made again.")
                self._metrics.write_anew()
            self._metrics.to_disk()
        self.records = {path: left for path, left in self.records.items() if path.exists()}
        path = checkpoint.write(self.path, saved, variables)
        self.records[path] = read_record(path)  # as the disk has it: a loss that is no number is None there
        with self._errors():
            self._prune()
        return path

    def _prune(self) -> None:
        """Keep the newest `keep`, the best and the latest; what was saved only for being best goes when it no longer is."""
        paths = sorted(self.records, key=iteration)
        regular = [path for path in paths if not self.records[path].only_while_best]
        kept = {*regular[-self._keep :], paths[-1], record.best(self.records)}
        doomed = [path for path in paths if path not in kept]
        for path in doomed:
            with suppress(PermissionError):  # on Windows while somebody reads it: the next save tries again
                checkpoint.remove(path)
                del self.records[path]
        if doomed:
            checkpoint.write_index(self.path)


class ElsewhereDirectory(RunDirectory):
    """A run's folder in a process that leaves it to another to write there."""

    def __init__(self, path: str | Path, *, resume: bool) -> None:
        """With resume, `records` hold the latest checkpoint; raises CheckpointError where there is none."""
        self.path = Path(path)
        self.records = dict([find_record("latest", path)]) if resume else {}

    @contextmanager
    def open(self, step: int) -> Iterator[MetricsFile]:
        """Rows that go nowhere."""
        yield NoMetrics()
