"""What a checkpoint says of itself: config.json, and how checkpoints are listed, found and checked. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from .config import ModelConfig, TrainConfig, check_number, check_whole, from_json
from .corpus import TextRecord
from .errors import CharRNNError, CheckpointError, ConfigError, reason
from .files import sha256
from .metrics import METRICS
from .vocabulary import ByteVocabulary, Vocabulary

NAME = re.compile(r"i(\d+)_l(\d+)")
REPLACED = re.compile(r"\.(i\d+_l\d+)\.replaced")  # what another of the same step is about to replace
LISTED = re.compile(f"{NAME.pattern}|{REPLACED.pattern}")
Result = TypeVar("Result")
FORMAT = 3
SURROGATE = re.compile("[\ud800-\udfff]")
CONFIG, VARIABLES, SUMS, INDEX = "config.json", "variables", "SHA256SUMS", "checkpoint"
LOCK = ".lock"  # of a run that goes on in the folder, or was killed there
TRAIN_HINT = "Train one with: charrnn-tf train FILE"


@dataclass(frozen=True)
class Record:
    """What config.json holds."""

    model: ModelConfig
    train: TrainConfig
    vocabulary: Vocabulary
    text: TextRecord
    step: int
    epoch: float  # passes over the training part done
    seconds: float  # of the command, over all resumes
    train_loss: float | None  # nats a character, of the last row in metrics.csv
    validation_loss: float | None  # at this very step; None: not validated here
    only_while_best: bool = False  # saved because it validated best, not because it was time to
    init_from: str | None = None
    in_force: Mapping[str, Any] = field(default_factory=dict)  # see `runtime.in_force`

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"i{self.step}_l{self.model.hidden_size}"


@functools.cache
def warn(message: str) -> None:
    """Tell what is no error, on standard error where no logging is set up; each message once."""
    logging.getLogger("charrnn_tf").warning("Warning: %s", message)


def list_checkpoints(directory: str | Path) -> list[Path]:
    """The folder's checkpoints, by iteration. Raises CheckpointError where there is no such folder.

    One that was about to be replaced when its run was killed is where the run put it aside.
    """
    directory = Path(directory)
    try:
        with os.scandir(directory) as entries:  # tells what is a folder with its name: a run may remove it meanwhile
            names = [entry.name for entry in entries if LISTED.fullmatch(entry.name) and entry.is_dir()]
    except OSError as error:
        raise CheckpointError(f"no checkpoints in {str(directory)!r}: {reason(error)}. {TRAIN_HINT}") from error
    aside = {name for name in names if (old := REPLACED.fullmatch(name)) and old[1] in names}
    return sorted((directory / name for name in names if name not in aside), key=iteration)


def holds_run(directory: str | Path) -> bool:
    """Whether a folder has checkpoints, metrics.csv or TensorFlow's index."""
    signs = [os.path.join(directory, name) for name in (METRICS, INDEX)]
    return any(map(os.path.exists, signs)) or (os.path.isdir(directory) and bool(list_checkpoints(directory)))


def check_empty(directory: str | Path) -> None:
    """Raise CheckpointError where a folder holds a run."""
    if holds_run(directory):
        raise CheckpointError(
            f"{str(directory)!r} holds a run already. Use --resume to go on with it, --overwrite to replace it, or another "
            "--checkpoint-dir."
        )


def iteration(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(NAME.search(path.name)[1])  # type: ignore[index]


def shown_name(path: Path) -> str:
    """A checkpoint's name, also of one that was put aside to be replaced."""
    return NAME.search(path.name)[0]  # type: ignore[index]


def latest_checkpoint(directory: str | Path = "checkpoints") -> Path:
    """The checkpoint with the highest iteration that is whole. Raises CheckpointError where there is none."""
    return find("latest", directory)


def find(which: str | Path, directory: str | Path = "checkpoints") -> Path:
    """A checkpoint by "latest", "best" (the lowest validation loss), its name in the folder, its path, or its run's.

    Of those that are damaged "latest" and "best" say so and take another. Raises CheckpointError naming what there is.
    """
    return find_record(which, directory)[0]


def find_record(which: str | Path, directory: str | Path = "checkpoints") -> tuple[Path, Record]:
    """What `find` finds, and its record."""
    if str(which) not in ("latest", "best"):
        path = Path(which)
        if os.path.isfile(path / CONFIG):
            return path, read_record(path)
        if path.name == VARIABLES and os.path.isfile(path.parent / CONFIG):  # as tf.train.latest_checkpoint gives it
            return path.parent, read_record(path.parent)
        if str(which) and os.path.isdir(path) and list_checkpoints(path):  # another run
            return find_record("latest", path)
        return _named(str(which), directory)
    records = read_run(directory, only_latest=str(which) == "latest")
    if not records:
        raise without_checkpoints(directory)
    path = best(records) if str(which) == "best" else next(iter(records))
    return path, records[path]


def read_run(directory: str | Path, only_latest: bool = False) -> dict[Path, Record]:
    """The records of a folder's checkpoints that are whole, the latest first; none where the folder has no checkpoints."""
    while found := list_checkpoints(directory):
        if records := read_records(reversed(found), only_first=only_latest):
            return records  # else a run that trains has removed them all meanwhile
    return {}


def without_checkpoints(directory: str | Path) -> CheckpointError:
    """What to say of a folder without checkpoints."""
    if os.path.isfile(os.path.join(directory, CONFIG)):
        run = str(Path(directory).parent)
        return CheckpointError(f"{str(directory)!r} is a checkpoint, not a run's folder, which is {run!r}")
    hint = TRAIN_HINT
    if os.path.exists(os.path.join(directory, METRICS)):
        hint = "Its run has saved none yet: wait for one, or begin anew with --overwrite."
    return CheckpointError(f"no checkpoints in {str(directory)!r}. {hint}")


def _named(which: str, directory: str | Path) -> tuple[Path, Record]:
    found = list_checkpoints(directory)
    if not found:
        raise without_checkpoints(directory)
    for candidate in found:
        if shown_name(candidate) == which:
            return candidate, read_record(candidate)
    names = ", ".join(map(shown_name, found[-5:]))
    more = f"{len(found) - 5} older and " if len(found) > 5 else ""
    raise CheckpointError(f"no checkpoint {which!r} in {str(directory)!r}; found: {more}{names}.")


def read_records(paths: Iterable[Path], only_first: bool = False) -> dict[Path, Record]:
    """The records of those checkpoints that are whole, or of the first such; a warning tells what is wrong with another.

    Those that a run removes meanwhile are left out. Raises CheckpointError where some are there and none is whole.
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
        warn(f"taking {str(next(iter(records)))!r}, the newest that is whole.")
    return records


def read_found(path: Path, which: str | Path, directory: str | Path, read: Callable[[Path], Result]) -> Result:
    """What `read` makes of a checkpoint that `find` gave; it is found anew where a run that trains removed it since."""
    while True:
        before = identity(path)
        try:
            return read(path)
        except CheckpointError:
            if before and before == identity(path):
                raise
        path = find(which, directory)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another that takes its name later; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def best(records: Mapping[Path, Record]) -> Path:
    """The checkpoint with the lowest validation loss, the earliest of equal ones; without any, the latest."""
    losses = {path: record.validation_loss for path, record in records.items() if record.validation_loss is not None}
    return min(losses, key=lambda path: (losses[path], iteration(path))) if losses else max(records, key=iteration)


def read_record(path: str | Path) -> Record:
    """The record of a checkpoint, its files checked against SHA256SUMS.

    Raises CheckpointError for a folder that is no checkpoint, is damaged, or was written by a newer version.
    """
    path = Path(path)
    verify(path)
    where = f"{str(path / CONFIG)!r}"
    try:
        data = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise CheckpointError(
                f"{where} has format {data['format']!r}, this version reads {FORMAT}. Install the one that wrote it."
            )
        record = Record(
            model=from_json(ModelConfig, data["model"], where),
            train=from_json(TrainConfig, data["train"], where),
            vocabulary=ByteVocabulary() if data["train"]["vocabulary"] == "bytes" else Vocabulary(data["vocabulary"]),
            text=TextRecord.from_json(**data["text"]),
            only_while_best=data["only_while_best"],
            init_from=data["init_from"],
            in_force=dict(data["in_force"]),
            **data["counters"],
            **data["losses"],
        )
        _check(record)
        return record
    except OSError as error:
        raise CheckpointError(f"can't read {where}: {reason(error)}") from error
    except CheckpointError:
        raise
    except (CharRNNError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where} is not the record of a checkpoint: {error}") from error


def _check(record: Record) -> None:
    """Raise ConfigError for values that no run writes."""
    check_whole(record, "step", least=0)
    check_whole(record.text, "characters", least=0)
    check_number(record, "epoch", "seconds", least=0)
    check_number(record, "train_loss", "validation_loss", optional=True)
    if len(record.vocabulary) != record.model.vocab_size:
        raise ConfigError(f"vocabulary has {len(record.vocabulary)} characters, the model {record.model.vocab_size}")


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its sum in SHA256SUMS; raises CheckpointError for the first that differs."""
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{str(path)!r} is not a checkpoint: it has no {CONFIG}. {TRAIN_HINT}")
    try:
        sums = dict(line.split("  ", 1)[::-1] for line in (path / SUMS).read_text(encoding="utf-8").splitlines())
        for name, expected in sums.items():
            if sha256(path / Path(name).name) != expected:
                raise CheckpointError(f"{str(path / name)!r} is damaged: its sum is not the one in {SUMS}. Use another one.")
        if not {CONFIG, *(file.name for file in path.glob(f"{VARIABLES}*"))} <= set(sums):
            raise CheckpointError(f"{str(path / SUMS)!r} is incomplete. Use another checkpoint.")
    except FileNotFoundError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error.filename!r} is missing. Use another one.") from error
    except OSError as error:
        raise CheckpointError(f"can't read {error.filename or str(path)!r}: {reason(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{str(path / SUMS)!r} is damaged: {error}. Use another checkpoint.") from error


def to_json(record: Record) -> str:
    """The text of config.json."""
    packages = {name: metadata.version(name) for name in ("charrnn-tf", "tensorflow", "keras", "numpy")}
    data = {
        "format": FORMAT,
        "counters": {"step": record.step, "epoch": record.epoch, "seconds": record.seconds},
        "losses": {"train_loss": _finite(record.train_loss), "validation_loss": _finite(record.validation_loss)},
        "model": dataclasses.asdict(record.model),
        "train": dataclasses.asdict(record.train),
        "vocabulary": record.vocabulary.characters,
        "text": dataclasses.asdict(record.text),
        "only_while_best": record.only_while_best,
        "init_from": record.init_from,
        "versions": {"python": platform.python_version(), **packages},
        "in_force": dict(record.in_force),
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # of a file's name that is not UTF-8


def _finite(loss: float | None) -> float | None:
    """A loss, or None where it is not a number: JSON has no word for that."""
    return loss if loss is not None and math.isfinite(loss) else None
