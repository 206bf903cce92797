"""Reads and writes a checkpoint's record, config.json, and verifies its checksums. Needs no TensorFlow."""

import dataclasses
import functools
import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import CharRNNError, CheckpointError, ConfigError, reason
from ..files import sha256
from ..settings.schema import ModelConfig, TrainConfig, finite_number, from_json, text_encoding, whole_number
from ..text.corpus import MOST_SOURCES, Source, TextRecord
from ..text.lines import line_start
from ..text.vocabulary import ByteVocabulary, Vocabulary

FORMAT = 3
NAME = re.compile(r"i(\d+)_l(\d+)")  # of a checkpoint
SURROGATE = re.compile("[\ud800-\udfff]")
CONFIG, VARIABLES, SUMS, INDEX = "config.json", "variables", "SHA256SUMS", "checkpoint"
TRAIN_HINT = "Train one with: charrnn-tf train FILE"
LISTS = "text-*.json"  # beside the checkpoints: files of a text that has more than MOST_SOURCES
SETTLED_SECONDS = 1.0  # file times do not distinguish changes closer together than this
_verified: set[Any] = set()  # states of checkpoints that this process has verified


@dataclass(frozen=True)
class Record:
    """Content of config.json."""

    model: ModelConfig
    train: TrainConfig
    vocabulary: Vocabulary
    text: TextRecord
    step: int
    epoch: float  # passes over the training part so far
    seconds: float  # wall time of the command, over all resumes
    train_loss: float | None  # nats per character, from the last row of metrics.csv
    validation_loss: float | None  # nats per character at this step; None: no validation at this step
    only_while_best: bool = False  # saved only because it had the lowest validation loss
    init_from: str | None = None
    in_force: Mapping[str, Any] = field(default_factory=dict)  # see `machine.startup.in_force`

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"i{self.step}_l{self.model.hidden_size}"

    @property
    def line_start(self) -> int | None:
        """The id of the newline before which the state is set to zero, in a run with `lines`."""
        return line_start(self.vocabulary, self.train)

    def train_on(self, gpus: int) -> TrainConfig:
        """The training settings; shards and XLA are undecided where the run moves between CPU and GPU."""
        moved = bool(self.in_force.get("gpus", gpus)) != bool(gpus)
        return dataclasses.replace(self.train, shards=None, xla=None) if moved else self.train

    def reading(self, encoding: str | None = None, normalize: str | None = None) -> dict[str, Any]:
        """Encoding and normalization form of a text for this model: those given, or else those of the run's own text."""
        encoding = text_encoding("encoding", encoding) if encoding else self.train.encoding
        return {"encoding": encoding, "normalize": normalize or self.train.normalize}


def read_record(path: str | Path, check: bool = True) -> Record:
    """Read the record of a checkpoint, after verifying all its files unless `check` is False.

    Raises CheckpointError for a folder that is not a checkpoint, is damaged, or was written by another version.
    """
    path = Path(path)
    if check:
        verify(path)
    where = f"{str(path / CONFIG)!r}"
    try:
        data = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise CheckpointError(
                f"{where} has format {data['format']!r}, this version reads {FORMAT}. Install the version that wrote it."
            )
        record = Record(
            model=from_json(ModelConfig, data["model"], where),
            train=from_json(TrainConfig, data["train"], where),
            vocabulary=ByteVocabulary() if data["train"]["vocabulary"] == "bytes" else Vocabulary(data["vocabulary"]),
            text=_text_from_json(path.parent, **data["text"]),
            only_while_best=data["only_while_best"],
            init_from=data["init_from"],
            in_force=dict(data["in_force"]),
            **data["counters"],
            **data["losses"],
        )
        _check_values(record)
        return record
    except OSError as error:
        raise CheckpointError(f"can't read {where}: {reason(error)}") from error
    except CheckpointError:
        raise
    except (CharRNNError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where} is not the record of a checkpoint: {error}") from error


def read_versions(path: Path) -> dict[str, str]:
    """The versions of Python and of the packages that wrote a checkpoint."""
    return dict(json.loads((path / CONFIG).read_text(encoding="utf-8"))["versions"])


def _check_values(record: Record) -> None:
    """Raise ConfigError for values that no run writes."""
    whole_number("step", record.step, least=0)
    whole_number("characters", record.text.characters, least=0)
    finite_number("epoch", record.epoch, least=0)
    finite_number("seconds", record.seconds, least=0)
    for name in ("train_loss", "validation_loss"):
        if getattr(record, name) is not None:
            finite_number(name, getattr(record, name))
    if len(record.vocabulary) != record.model.vocab_size:
        raise ConfigError(f"vocabulary has {len(record.vocabulary)} characters, the model {record.model.vocab_size}")


def iteration(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(NAME.search(path.name)[1])  # type: ignore[index]


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its sum in SHA256SUMS; raises CheckpointError for the first that differs.

    Files that have not changed since this process verified them are not hashed again.
    """
    if not (path / CONFIG).is_file():
        if (path / INDEX).is_file() and (
            inside := [file.parent for file in path.glob(f"i*/{CONFIG}") if NAME.fullmatch(file.parent.name)]
        ):
            latest = max(inside, key=iteration)
            raise CheckpointError(f"{str(path)!r} is a run's folder; pass one of its checkpoints: {str(latest)!r}")
        raise CheckpointError(f"{str(path)!r} is not a checkpoint: it has no {CONFIG}. {TRAIN_HINT}")
    try:
        state, settled = _state(path)
        if state in _verified:
            return
        sums = dict(line.split("  ", 1)[::-1] for line in (path / SUMS).read_text(encoding="utf-8").splitlines())
        for name, expected in sums.items():
            if sha256(path / Path(name).name) != expected:
                raise CheckpointError(
                    f"{str(path / name)!r} is damaged: its SHA-256 differs from {SUMS}. Use another checkpoint."
                )
        if not {CONFIG, *(file.name for file in path.glob(f"{VARIABLES}*"))} <= set(sums):
            raise CheckpointError(f"{str(path / SUMS)!r} is incomplete. Use another checkpoint.")
        if settled:
            _verified.add(state)
    except FileNotFoundError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error.filename!r} is missing. Use another checkpoint.") from error
    except OSError as error:
        raise CheckpointError(f"can't read {error.filename or str(path)!r}: {reason(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{str(path / SUMS)!r} is damaged: {error}. Use another checkpoint.") from error


def _state(path: Path) -> tuple[Any, bool]:
    """Identity, size and times of a checkpoint's files, and whether they are old enough for the times to be reliable."""
    files = [(file.name, file.stat()) for file in sorted(path.iterdir())]
    latest = max(max(status.st_mtime, status.st_ctime) for _, status in files)
    state = tuple((name, each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for name, each in files)
    return state, time.time() - latest > SETTLED_SECONDS


def to_json(record: Record) -> str:
    """The text of config.json."""
    import keras  # the module must load without these
    import numpy
    import tensorflow as tf

    packages = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": numpy.__version__}
    data = {
        "format": FORMAT,
        "counters": {"step": record.step, "epoch": record.epoch, "seconds": record.seconds},
        "losses": {"train_loss": _finite(record.train_loss), "validation_loss": _finite(record.validation_loss)},
        "model": dataclasses.asdict(record.model),
        "train": dataclasses.asdict(record.train),
        "vocabulary": record.vocabulary.characters,
        "text": _text_to_json(record.text),
        "only_while_best": record.only_while_best,
        "init_from": record.init_from,
        "versions": {"python": platform.python_version(), "charrnn-tf": __version__, **packages},
        "in_force": dict(record.in_force),
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # from file names that are not UTF-8


def _text_to_json(text: TextRecord) -> dict[str, Any]:
    """The text in config.json: its files themselves, or the name and sum of the list of many files."""
    rest = {"sha256": text.sha256, "characters": text.characters, "left_out": text.left_out}
    if len(text.sources) <= MOST_SOURCES:
        return {"sources": [dataclasses.asdict(source) for source in text.sources], **rest}
    name, content = source_list(text)
    files = {"count": len(text.sources), "list": name, "sha256": hashlib.sha256(content).hexdigest()}
    return {"sources": [], **rest, "files": files}


def _text_from_json(
    run: Path, sources: list[dict[str, Any]], sha256: str, characters: int, left_out: int = 0, files: Any = None
) -> TextRecord:
    """The record of a text. run: the folder with the list of its files, where they are many."""
    found = tuple(Source(**source) for source in sources)
    if files and not (found := _listed(run / Path(files["list"]).name, files["sha256"])):
        return TextRecord((), sha256, characters, left_out, unlisted=files["count"])
    return TextRecord(found, sha256, characters, left_out)


@functools.lru_cache(maxsize=4)
def source_list(text: TextRecord) -> tuple[str, bytes]:
    """Name and content of the file beside the checkpoints that lists a text's files; no list if they are few."""
    if len(text.sources) <= MOST_SOURCES:
        return "", b""
    rows = ",\n".join(json.dumps(dataclasses.astuple(source)) for source in text.sources)
    content = f"[\n{rows}\n]\n".encode()
    return f"text-{hashlib.sha256(content).hexdigest()[:12]}.json", content


def _listed(path: Path, expected: str) -> tuple[Source, ...]:
    """The files of a list; none if it is missing, or another than expected."""
    try:
        content = path.read_bytes()
    except OSError:
        return ()
    return _sources(content) if hashlib.sha256(content).hexdigest() == expected else ()


@functools.lru_cache(maxsize=4)
def _sources(content: bytes) -> tuple[Source, ...]:
    return tuple(Source(*row) for row in json.loads(content))


def _finite(loss: float | None) -> float | None:
    """A loss, or None where it is not finite, which JSON can't express."""
    return loss if loss is not None and math.isfinite(loss) else None
