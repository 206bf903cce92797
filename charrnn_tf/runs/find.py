"""Lists a run's checkpoints and finds one: `latest`, `best`, a name or a path. Needs no TensorFlow."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import CheckpointError, reason, warn
from .metrics import HEADER, METRICS
from .record import CONFIG, INDEX, NAME, TRAIN_HINT, VARIABLES, Record, iteration, read_record

REPLACED = re.compile(r"\.(i\d+_l\d+)\.replaced")  # renamed while a new checkpoint of the same step takes its place
LISTED = re.compile(f"{NAME.pattern}|{REPLACED.pattern}")
LOCK = ".lock"  # locked by the run that writes to the folder; the file of a killed run remains
Result = TypeVar("Result")


def latest_checkpoint(directory: str | Path = "checkpoints") -> Path:
    """The undamaged checkpoint with the highest iteration. Raises CheckpointError if there is none."""
    return find("latest", directory)


def find(which: str | Path, directory: str | Path = "checkpoints") -> Path:
    """Find a checkpoint by "latest", "best" (lowest validation loss), its name, its path, or its run's path.

    "latest" and "best" skip damaged checkpoints with a warning. The CheckpointError for a missing one lists the others.
    """
    return find_record(which, directory)[0]


def find_record(which: str | Path, directory: str | Path = "checkpoints") -> tuple[Path, Record]:
    """The checkpoint of `find`, and its record."""
    if str(which) not in ("latest", "best"):
        path = Path(which)
        if os.path.isfile(path / CONFIG):
            return path, read_record(path)
        if path.name == VARIABLES and os.path.isfile(path.parent / CONFIG):  # as tf.train.latest_checkpoint returns it
            return path.parent, read_record(path.parent)
        if str(which) and os.path.isdir(path) and list_checkpoints(path):  # another run
            return find_record("latest", path)
        return _named(str(which), directory)
    records = read_run(directory, only_latest=str(which) == "latest")
    if not records:
        raise without_checkpoints(directory)
    path = best(records) if str(which) == "best" else next(iter(records))
    return path, records[path]


def read_found(path: Path, which: str | Path, directory: str | Path, read: Callable[[Path], Result]) -> Result:
    """Call `read` with a checkpoint found earlier; if a training run has removed it since, find it again."""
    while True:
        before = identity(path)
        try:
            return read(path)
        except CheckpointError:
            if before and before == identity(path):
                raise
        path = find(which, directory)


def read_run(directory: str | Path, only_latest: bool = False) -> dict[Path, Record]:
    """Records of a folder's undamaged checkpoints, latest first; empty where the folder has no checkpoints."""
    while found := list_checkpoints(directory):
        if records := read_records(reversed(found), only_first=only_latest):
            return records  # otherwise a training run has removed them all meanwhile
    return {}


def read_records(paths: Iterable[Path], only_first: bool = False) -> dict[Path, Record]:
    """Records of the undamaged checkpoints in `paths`, or of the first of them; warns of damaged ones.

    Checkpoints that a run removes meanwhile are left out. Raises CheckpointError if all the others are damaged.
    """
    records: dict[Path, Record] = {}
    problems = []
    for path in paths:
        before = identity(path)
        try:
            records[path] = read_record(path)
        except CheckpointError as error:
            if before and before == identity(path):
                problems.append(error)
            continue
        if only_first:
            break
    if problems and not records:
        raise problems[0]
    for problem in problems:
        warn(str(problem))
    if problems and only_first:
        warn(f"taking {str(next(iter(records)))!r}, the newest undamaged one.")
    return records


def list_checkpoints(directory: str | Path) -> list[Path]:
    """The folder's checkpoints, by iteration. Raises CheckpointError if the folder can't be read.

    A checkpoint whose run was killed while replacing it is listed under its temporary name.
    """
    directory = Path(directory)
    try:
        with os.scandir(directory) as entries:  # name and kind in one call: a run may remove a checkpoint meanwhile
            names = [entry.name for entry in entries if LISTED.fullmatch(entry.name) and entry.is_dir()]
    except OSError as error:
        raise CheckpointError(f"no checkpoints in {str(directory)!r}: {reason(error)}. {TRAIN_HINT}") from error
    aside = {name for name in names if (old := REPLACED.fullmatch(name)) and old[1] in names}
    return sorted((directory / name for name in names if name not in aside), key=iteration)


def best(records: Mapping[Path, Record]) -> Path:
    """The checkpoint with the lowest validation loss, the earliest of equal ones; without validation, the latest."""
    losses = {path: record.validation_loss for path, record in records.items() if record.validation_loss is not None}
    return min(losses, key=lambda path: (losses[path], iteration(path))) if losses else max(records, key=iteration)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, which distinguish a path from a later one of the same name; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def holds_run(directory: str | Path) -> bool:
    """Whether a folder has checkpoints, TensorFlow's index, or a metrics.csv with more than its first line.

    A run that was stopped or failed before its first step leaves only that line.
    """
    if os.path.exists(os.path.join(directory, INDEX)) or (os.path.isdir(directory) and list_checkpoints(directory)):
        return True
    try:
        metrics = Path(directory, METRICS).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return metrics != HEADER


def check_empty(directory: str | Path) -> None:
    """Raise CheckpointError if a folder holds a run."""
    if holds_run(directory):
        saved = os.path.exists(os.path.join(directory, INDEX)) or list_checkpoints(directory)
        held = "a run. Use `resume` to continue it," if saved else "a run that has saved nothing. Use"
        raise CheckpointError(
            f"{str(directory)!r} already holds {held} `overwrite` to replace it, or another `checkpoint_dir`."
        )


def without_checkpoints(directory: str | Path) -> CheckpointError:
    """The error for a folder without checkpoints."""
    if os.path.isfile(os.path.join(directory, CONFIG)):
        run = str(Path(directory).parent)
        return CheckpointError(f"{str(directory)!r} is a checkpoint; its run's folder is {run!r}")
    hint = TRAIN_HINT
    if os.path.exists(os.path.join(directory, METRICS)):
        hint = "Its run has saved none. If it is still training, wait for one; otherwise start again with `overwrite`."
    return CheckpointError(f"no checkpoints in {str(directory)!r}. {hint}")


def _named(which: str, directory: str | Path) -> tuple[Path, Record]:
    found = list_checkpoints(directory)
    if not found:
        raise without_checkpoints(directory)
    names = {NAME.search(path.name)[0]: path for path in found}  # type: ignore[index]
    if which in names:
        return names[which], read_record(names[which])
    more = f"{len(found) - 5} older and " if len(found) > 5 else ""
    raise CheckpointError(
        f"no checkpoint {which!r} in {str(directory)!r}; found: latest, best, {more}{', '.join(list(names)[-5:])}."
    )
