"""A run's folder: which checkpoints it keeps, and its metrics.csv."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import checkpoint, record
from .checkpoint import INDEX, METRICS
from .errors import CheckpointError, reason
from .metrics import MetricsFile
from .record import Record, iteration, list_checkpoints, read_record


class RunDirectory:
    """The folder of one run while it trains."""

    def __init__(self, path: str | Path, keep: int, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready; raises CheckpointError where it holds a run and neither resume nor overwrite is given."""
        self.path = Path(path)
        self._keep = keep
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                checkpoint.remove_run(self.path)
            elif not resume and any(self._signs_of_a_run()):
                raise CheckpointError(
                    f"{str(self.path)!r} holds a run already. Use --resume to go on with it, --overwrite to replace it, or "
                    "another --checkpoint-dir."
                )
            checkpoint.clean(self.path)
        except OSError as error:
            raise CheckpointError(f"can't use the folder {str(self.path)!r}: {reason(error)}") from error
        self.records = {path: read_record(path) for path in list_checkpoints(self.path)}
        self._metrics: MetricsFile | None = None

    def _signs_of_a_run(self) -> list[Path]:
        files = [self.path / name for name in (METRICS, INDEX)]
        return [file for file in files if file.exists()] + list_checkpoints(self.path)

    @property
    def best(self) -> Record | None:
        """Of the saved, the one that validated best; None before the first validation."""
        found = self.records[record.best(self.records)] if self.records else None
        return found if found and found.validation_loss is not None else None

    @contextmanager
    def metrics(self, step: int) -> Iterator[MetricsFile]:
        """The metrics.csv of a run that goes on from a step, open until the run ends."""
        self._metrics = MetricsFile(self.path / METRICS, keep_to_step=step)
        try:
            yield self._metrics
        finally:
            self._metrics.close()
            self._metrics = None

    def save(self, saved: Record, variables: dict[str, Any]) -> Path:
        """Write a checkpoint, all rows before it being on the disk, and remove what need not be kept."""
        if self._metrics:
            self._metrics.to_disk()
        path = checkpoint.write(self.path, saved, variables)
        self.records[path] = read_record(path)  # as the disk has it: a loss that is no number is None there
        self._prune()
        return path

    def _prune(self) -> None:
        """Keep the newest `keep`, the best and the latest; what was saved only for being best goes when it no longer is."""
        paths = sorted(self.records, key=iteration)
        regular = [path for path in paths if not self.records[path].only_while_best]
        kept = {*regular[-self._keep :], paths[-1], record.best(self.records)}
        doomed = [path for path in paths if path not in kept]
        for path in doomed:
            del self.records[path]
            checkpoint.remove(path)
        if doomed:
            checkpoint.write_index(self.path)
