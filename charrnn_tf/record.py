"""What a checkpoint says of itself: config.json, and how checkpoints are listed, found and checked. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .config import ModelConfig, TrainConfig, check_number, check_whole, from_json
from .errors import CharRNNError, CheckpointError, ConfigError, reason
from .vocabulary import Vocabulary

NAME = re.compile(r"i(\d+)_l(\d+)")
FORMAT = 1
CONFIG, VARIABLES, SUMS = "config.json", "variables", "SHA256SUMS"
TRAIN_HINT = "Train one with: charrnn-tf train FILE"


@dataclass(frozen=True)
class TextRecord:
    """Which text a run learns from."""

    sources: tuple[str, ...]  # absolute paths, or "-"; none: the built-in corpus
    sha256: str  # of the text's UTF-8 bytes
    characters: int


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
    versions: Mapping[str, str] = field(default_factory=dict)
    in_force: Mapping[str, Any] = field(default_factory=dict)  # see `runtime.in_force`

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"i{self.step}_l{self.model.hidden_size}"


def list_checkpoints(directory: str | Path) -> list[Path]:
    """The folder's checkpoints, by iteration. Raises CheckpointError where there is no such folder."""
    directory = Path(directory)
    try:
        found = [path for path in directory.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
    except OSError as error:
        raise CheckpointError(f"no checkpoints in {str(directory)!r}: {reason(error)}. {TRAIN_HINT}") from error
    return sorted(found, key=iteration)


def iteration(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(NAME.fullmatch(path.name)[1])  # type: ignore[index]


def latest_checkpoint(directory: str | Path = "checkpoints") -> Path:
    """The checkpoint with the highest iteration. Raises CheckpointError where there is none."""
    return find("latest", directory)


def find(which: str | Path, directory: str | Path = "checkpoints") -> Path:
    """A checkpoint by "latest", "best" (the lowest validation loss), its name in the folder, or its path.

    Raises CheckpointError naming what there is.
    """
    path = Path(which)
    if os.path.isfile(path / CONFIG) and str(which) not in ("latest", "best"):
        return path
    if path.name == VARIABLES and os.path.isfile(path.parent / CONFIG):  # as tf.train.latest_checkpoint gives it
        return path.parent
    found = list_checkpoints(directory)
    if not found:
        raise CheckpointError(f"no checkpoints in {str(directory)!r}. {TRAIN_HINT}")
    if str(which) == "latest":
        return found[-1]
    if str(which) == "best":
        return best({path: read_record(path) for path in found})
    for candidate in found:
        if candidate.name == str(which):
            return candidate
    names = ", ".join(candidate.name for candidate in found[-5:])
    more = f"{len(found) - 5} older and " if len(found) > 5 else ""
    raise CheckpointError(f"no checkpoint {str(which)!r} in {str(directory)!r}; found: {more}{names}. {TRAIN_HINT}")


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
                f"{where} has format {data['format']!r}, this version reads {FORMAT}. Install a newer one."
            )
        record = Record(
            model=from_json(ModelConfig, data["model"], where),
            train=from_json(TrainConfig, data["train"], where),
            vocabulary=Vocabulary(data["vocabulary"]),
            text=TextRecord(tuple(data["text"]["sources"]), data["text"]["sha256"], data["text"]["characters"]),
            only_while_best=data["only_while_best"],
            init_from=data["init_from"],
            versions=data["versions"],
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
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error.filename}: {reason(error)}. Use another one.") from error
    except ValueError as error:
        raise CheckpointError(f"{str(path / SUMS)!r} is damaged: {error}. Use another checkpoint.") from error


def versions() -> dict[str, str]:
    """The versions that a checkpoint is written with."""
    packages = {name: metadata.version(name) for name in ("charrnn-tf", "tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}


def to_json(record: Record) -> str:
    """The text of config.json."""
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
        "versions": versions(),
        "in_force": dict(record.in_force),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(loss: float | None) -> float | None:
    """A loss, or None where it is not a number: JSON has no word for that."""
    return loss if loss is not None and math.isfinite(loss) else None


def sha256(file: Path) -> str:
    """The sum of a file's bytes, in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
