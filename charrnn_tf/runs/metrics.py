"""Reads and writes metrics.csv: one row for each logged step of a run."""

import csv
import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import CheckpointError, reason


@dataclass(frozen=True)
class Row:
    """One row of metrics.csv; losses in nats per character."""

    step: int
    epoch: float  # passes over the training part so far
    seconds: float  # wall time of the command, over all resumes
    train_loss: float | None  # mean since the previous row, dropout on; None: every step was skipped
    validation_loss: float | None
    learning_rate: float
    chars_per_second: float  # training steps only


METRICS = "metrics.csv"
COLUMNS = [field.name for field in dataclasses.fields(Row)]
HEADER = f"{','.join(COLUMNS)}\n".encode()


def nats(loss: float) -> str:
    """A loss with its unit, in nats and bits."""
    return f"{loss:.4f} nats per character ({loss / math.log(2):.4f} bits)"


class MetricsFile:
    """Appends rows to metrics.csv."""

    def __init__(self, path: Path, keep_to_step: int, held: bool = False) -> None:
        """Keep the rows up to a step; a resumed run writes the later ones again. 0 starts an empty file.

        held: write nothing before `write_anew` is called.
        """
        self._path = path
        self.rows = [row for row in read_rows(path) if row.step <= keep_to_step] if keep_to_step and path.exists() else []
        self._file: IO[str] | None = None
        if not held:
            self.write_anew()

    def write_anew(self) -> None:
        """Write the whole file, then open it for more rows."""
        partial = self._path.with_name(f".{self._path.name}.partial")
        self.close()
        with self._errors():
            with open(partial, "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(_cells, self.rows)])
            partial.replace(self._path)
            self._file = open(self._path, "a", encoding="utf-8", newline="")  # noqa: SIM115  (open as long as the run)

    def append(self, row: Row) -> None:
        """Write a row and flush it; keep it for later while the file is held."""
        self.rows.append(row)
        if not self._file:
            return
        with self._errors():
            csv.writer(self._file, lineterminator="\n").writerow(_cells(row))
            self._file.flush()

    def to_disk(self) -> None:
        """Force all rows to the disk."""
        assert self._file
        with self._errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file:
            with suppress(OSError):  # the disk is full: reported already, by `append`
                self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"can't write {str(self._path)!r}: {reason(error)}") from error


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a metrics.csv; a truncated last row is left out.

    Raises CheckpointError for a file that can't be read or is not a metrics.csv.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(line for line in file if line.endswith("\n"))
            if next(reader, None) != COLUMNS:
                raise ValueError(f"its first line is not {','.join(COLUMNS)}")
            return [_row(cells) for cells in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"can't read {str(path)!r}: {reason(error)}") from error


def _cells(row: Row) -> list[str]:
    return ["" if value is None else repr(value) for value in dataclasses.astuple(row)]


def _row(cells: list[str]) -> Row:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"a row has {len(cells)} cells instead of {len(COLUMNS)}")
    step, *numbers = cells
    return Row(int(step), *(float(cell) if cell else None for cell in numbers))  # type: ignore[arg-type]
