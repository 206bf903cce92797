"""A run's folder during training: locks it against a second run, writes metrics.csv, saves and prunes checkpoints."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import CheckpointError, reason, warn
from ..machine.startup import forked
from . import checkpoint, find
from .find import (
    LOCK,
    check_empty,
    find_record,
    holds_run,
    identity,
    list_checkpoints,
    read_records,
    without_checkpoints,
)
from .metrics import METRICS, MetricsFile, Row, read_rows
from .record import Record, iteration, read_record, read_versions, to_json

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # as some network file systems answer


class RunDirectory:
    """The folder of one run while it trains."""

    def __init__(self, path: str | Path, keep: int, resume: bool = False, overwrite: bool = False) -> None:
        """Prepare the folder.

        overwrite: replace the run in the folder, which stays until the first checkpoint of the new one is complete;
        `replaces` is True until then.
        Raises CheckpointError if it holds a run and neither `resume` nor `overwrite` is given, if it has no undamaged
        checkpoint to resume from, or if another run is writing to it. Damaged checkpoints are renamed with a warning.
        """
        self.path = Path(path)
        self.records: dict[Path, Record] = {}
        self.replaces = False  # whether this run takes the place of another, which stays until this one saves
        self._replaced: list[Path] = []  # the other's checkpoints
        self._keep = keep
        self._lock = FileLock(self.path / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
        self._metrics: MetricsFile | None = None
        if resume and not list_checkpoints(self.path):
            raise without_checkpoints(self.path)
        with self._locked(), self._errors():
            if not (resume or overwrite):
                check_empty(self.path)
            checkpoint.clean(self.path)
            found = list_checkpoints(self.path)
            self.replaces = overwrite and holds_run(self.path)
            if overwrite:
                self._replaced = found
                return
            self.records = read_records(found)
            for damaged in sorted(set(found) - set(self.records)):
                checkpoint.put_aside(damaged)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder; the system releases it when the process ends for any reason."""
        self._acquire()
        try:
            yield
        finally:
            if not forked():  # the lock is that of the process that trains
                with suppress(OSError):  # the folder was removed or is no longer writable
                    (self.path / LOCK).unlink(missing_ok=True)  # while it is locked, so that a waiting process notices
                self._lock.release()

    def _acquire(self) -> None:
        with self._errors():
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                warn(f"the file system of {str(self.path)!r} has no locks: don't start a second run in this folder.")
        self._locked_file = identity(self.path / LOCK)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Timeout:
            raise CheckpointError(
                f"another run is writing to {str(self.path)!r}. Wait for it, stop it, or use another `checkpoint_dir`."
            ) from None
        except OSError as error:
            raise CheckpointError(f"can't use the folder {str(self.path)!r}: {reason(error)}") from error

    @property
    def rows(self) -> list[Row]:
        """The rows of the run so far."""
        if self._metrics:
            return list(self._metrics.rows)
        path = self.path / METRICS
        return read_rows(path) if path.exists() and not self.replaces else []

    @property
    def last_saved(self) -> str:
        """A sentence on the last checkpoint, for errors; empty before it."""
        return f"The last checkpoint is {self.latest.name}. " if self.records else ""

    @property
    def latest(self) -> Path:
        """The saved checkpoint with the highest step."""
        return max(self.records, key=iteration)

    @property
    def best(self) -> Record | None:
        """Record of the saved checkpoint with the lowest validation loss; None before the first validation."""
        found = self.records[find.best(self.records)] if self.records else None
        return found if found and found.validation_loss is not None else None

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Lock the folder for a run that continues from a step, and open its metrics.csv.

        Raises CheckpointError if another run is writing to the folder, or has done so since it was prepared.
        """
        with self._locked():
            if set(list_checkpoints(self.path)) != {*self.records, *self._replaced}:
                raise CheckpointError(f"another run has written to {str(self.path)!r} meanwhile. Start again.")
            self._metrics = MetricsFile(self.path / METRICS, keep_to_step=step, held=self.replaces)
            try:
                yield
            finally:
                self._metrics.close()
                self._metrics = None

    def append(self, row: Row) -> None:
        """Write a row of metrics.csv, while the folder is open."""
        assert self._metrics
        self._metrics.append(row)

    def prove(self, saved: Record, variables: dict[str, Any]) -> None:
        """Try out a save, unless this version has saved into the folder before."""
        if not self.records or read_versions(self.latest) != json.loads(to_json(saved))["versions"]:
            checkpoint.prove(self.path, saved, variables)

    def save(self, saved: Record, variables: dict[str, Any]) -> Path:
        """Flush metrics.csv, write a checkpoint, and remove those that are no longer kept.

        A folder that was removed or emptied meanwhile is created again, metrics.csv included.
        """
        if self._metrics and not self.replaces:
            lock_is_gone = identity(self.path / LOCK) != self._locked_file
            if lock_is_gone:
                self._lock.release(force=True)
                self._acquire()
            if lock_is_gone or not (self.path / METRICS).exists():
                warn(f"{str(self.path)!r} was removed or emptied during the run; it is created again.")
                self._metrics.write_anew()
            self._metrics.to_disk()
        self.records = {path: left for path, left in self.records.items() if path.exists()}
        path = checkpoint.write(self.path, saved, variables)
        self.records[path] = read_record(path, check=False)  # as JSON has it: a loss that is not finite is None
        with self._errors():
            if self.replaces:
                self._replace(path)
            self._prune()
        return path

    def _replace(self, first: Path) -> None:
        """Remove the replaced run, now that the first checkpoint of this one is complete."""
        for path in reversed(self._replaced):  # the latest first: what a killed process leaves is whole
            if path != first:
                checkpoint.remove(path)
        checkpoint.write_index(self.path)
        self._replaced, self.replaces = [], False
        if self._metrics:
            self._metrics.write_anew()
            self._metrics.to_disk()

    def _prune(self) -> None:
        """Remove all but the newest `keep`, the best and the latest; those saved only as best do not count in `keep`."""
        paths = sorted(self.records, key=iteration)
        regular = [path for path in paths if not self.records[path].only_while_best]
        kept = {*regular[-self._keep :], paths[-1], find.best(self.records)}
        doomed = [path for path in paths if path not in kept]
        for path in doomed:
            with suppress(PermissionError):  # on Windows while another process reads it; the next save tries again
                checkpoint.remove(path)
                del self.records[path]
        if doomed:
            checkpoint.write_index(self.path)


class ReadOnlyDirectory(RunDirectory):
    """A run's folder in a worker that is not the chief: only the chief writes to it."""

    def __init__(self, path: str | Path, resume: bool) -> None:
        """Read the latest checkpoint's record in order to resume; raises CheckpointError if there is none."""
        self.path = Path(path)
        self.records = dict([find_record("latest", path)]) if resume else {}

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Do nothing."""
        yield

    @property
    def last_saved(self) -> str:
        """Empty: only the chief reports it."""
        return ""

    def prove(self, saved: Record, variables: dict[str, Any]) -> None:
        """Do nothing."""

    def append(self, row: Row) -> None:
        """Do nothing."""
