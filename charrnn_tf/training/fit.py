"""Checks that the arguments of a Trainer fit each other, and the run or checkpoint that it starts from."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..machine.hardware import physical_gpus
from ..runs.find import list_checkpoints
from ..runs.record import CONFIG, Record, read_record
from ..settings.merge import Asked, check_resumed, check_share
from ..settings.presets import DEFAULT
from ..settings.schema import ADD, ModelConfig, TrainConfig
from ..text.corpus import Source, TextRecord
from ..text.new_characters import check_can_add
from ..text.sources import GIVEN_IDS
from ..text.vocabulary import ByteVocabulary, Ids, Vocabulary
from .budget import Calendar
from .replicas import ALONE, Replicas

SEARCHED, LONGEST_WORD = 1_000_000, 12  # characters of a text, and of a word, for a sample's prime
SHAPE = ("cell", "hidden_size", "num_layers", "embedding_size")  # of a model's weights, beside its vocabulary


def check_arguments(
    directory: str | Path,
    resume: bool,
    overwrite: bool,
    init_from: str | Path | None,
    train_config: TrainConfig,
    replicas: Replicas,
) -> None:
    """Raise ConfigError for arguments that contradict each other."""
    if not isinstance(train_config, TrainConfig):
        raise ConfigError(f"`train_config` must be a TrainConfig, got {type(train_config).__name__}")
    if resume and overwrite:
        raise ConfigError("`resume` continues a run and `overwrite` replaces it; pass only one of them")
    if overwrite and init_from and Path(init_from).resolve().parent == Path(directory).resolve():
        raise ConfigError(
            f"`overwrite` would remove the checkpoint of `init_from`, {init_from}. Use another `checkpoint_dir`."
        )
    if train_config.strategy != "none" and replicas is ALONE:
        its = {"mirrored": "Mirrored()", "multiworker": "Workers(cluster)"}[train_config.strategy]
        raise ConfigError(
            f"`strategy` {train_config.strategy} needs replicas: Trainer(..., replicas={its}) "
            "from charrnn_tf.distributed.strategies"
        )
    if train_config.unknown == ADD and not (init_from or resume):
        check_can_add(None)
    check_share(train_config.batch_size, replicas.count)


def checked(
    ids: Any, vocabulary: Vocabulary, model_config: ModelConfig, train_config: TrainConfig
) -> tuple[Ids, TrainConfig]:
    """The ids as an array [characters], and the settings with the kind of the vocabulary.

    Raises ConfigError unless ids, vocabulary and model fit each other.
    """
    if not isinstance(vocabulary, Vocabulary):
        raise ConfigError(
            f"`vocabulary` must be a charrnn_tf.Vocabulary, got {type(vocabulary).__name__}. Make one with "
            "Vocabulary.from_text(text), or Vocabulary(characters) in the order of their ids."
        )
    if not isinstance(model_config, ModelConfig):
        raise ConfigError(f"`model_config` must be a ModelConfig, got {type(model_config).__name__}")
    if model_config.vocab_size != len(vocabulary):
        raise ConfigError(
            f"`vocab_size` of the model is {model_config.vocab_size}, but the vocabulary has {len(vocabulary)} characters. "
            "Every id is a character: use vocab_size=len(vocabulary)."
        )
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "ui":
        raise ConfigError(f"`ids` must be a one-dimensional array of integers, got {ids.dtype} with shape {ids.shape}")
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= len(vocabulary)):
        place = int(np.argmax((ids < 0) | (ids >= len(vocabulary))))
        raise ConfigError(
            f"`ids` must be from 0 to {len(vocabulary) - 1}, since the vocabulary has {len(vocabulary)} characters; at "
            f"position {place:,} there is {ids[place]}"
        )
    if train_config.sample_prime == TrainConfig.sample_prime:
        train_config = dataclasses.replace(train_config, sample_prime=(_first_prime(ids, vocabulary),))
    if isinstance(vocabulary, ByteVocabulary):
        return ids, dataclasses.replace(train_config, vocabulary="bytes")
    if train_config.vocabulary == "bytes":
        raise ConfigError("`vocabulary` bytes needs charrnn_tf.text.vocabulary.ByteVocabulary()")
    return ids, train_config


def _first_prime(ids: Ids, vocabulary: Vocabulary) -> str:
    """The default prime, or the text's first word where the beginning of the text does not contain it."""
    (usual,) = TrainConfig.sample_prime
    begin = vocabulary.decode(ids[:SEARCHED])
    if usual in begin:
        return usual
    words = begin.split(maxsplit=1)
    if not words:
        return usual
    return words[0][:LONGEST_WORD] + " " * (len(words) > 1 and len(words[0]) <= LONGEST_WORD)


def record_of(ids: Ids) -> TextRecord:
    """Identifies ids that come without a text."""
    sums = hashlib.sha256(np.ascontiguousarray(ids, dtype="<u4").data).hexdigest()
    return TextRecord((Source(GIVEN_IDS, sums, len(ids)),), sums, len(ids))


def check_initial(init_from: str | Path, model_config: ModelConfig, vocabulary: Vocabulary, adds: bool = False) -> None:
    """Raise ConfigError unless `init_from` is a checkpoint of a model of the same shape and vocabulary.

    adds: the vocabulary may have further characters behind those of the model, in code-point order.
    """
    is_checkpoint = os.path.isfile(Path(init_from) / CONFIG)
    if not is_checkpoint and os.path.isdir(init_from) and (found := list_checkpoints(init_from)):
        raise ConfigError(
            f"`init_from` {str(init_from)!r} is a run's folder; pass one of its checkpoints: {str(found[-1])!r}"
        )
    record = read_record(init_from)
    for name in SHAPE:
        theirs, ours = getattr(record.model, name), getattr(model_config, name)
        if theirs != ours:
            raise ConfigError(f"`{name}` {ours} contradicts `init_from`: the model in {str(init_from)!r} has {theirs}")
    known = record.vocabulary
    if adds:
        check_can_add(known, f"the model in {str(init_from)!r}")
        known = known.extended(vocabulary.characters)
    if known != vocabulary:
        raise ConfigError(f"the vocabulary contradicts `init_from`: {_differ(known, vocabulary, init_from)}")


def resumed(
    record: Record,
    model_config: ModelConfig,
    train_config: TrainConfig,
    vocabulary: Vocabulary,
    text: TextRecord,
    directory: str | Path,
) -> TrainConfig:
    """The settings of a run that continues, with the saved shards and XLA.

    Raises ConfigError unless it continues with the vocabulary, the settings and the text that it was begun with.
    """
    if record.vocabulary != vocabulary:
        raise ConfigError(f"the vocabulary can't change on `resume`: {_differ(record.vocabulary, vocabulary, directory)}")
    given = dataclasses.asdict(model_config) | dataclasses.asdict(train_config)
    given = {name: value for name, value in given.items() if value is not None and name not in ("shards", "xla")}
    check_resumed(Asked(DEFAULT, given, train_config), record.model, record.train, repr(str(directory)))
    same_kind = [source.path for source in record.text.sources] == [source.path for source in text.sources]
    if record.text.characters != text.characters or (same_kind and record.text.sha256 != text.sha256):
        raise ConfigError(
            f"the text can't change on `resume`: the run in {str(directory)!r} was trained on {record.text.characters:,} "
            f"characters; this text {'differs' if record.text.characters == text.characters else f'has {text.characters:,}'}"
        )
    kept = record.train_on(physical_gpus())
    return dataclasses.replace(train_config, shards=kept.shards, xla=kept.xla)


def _differ(theirs: Vocabulary, ours: Vocabulary, where: str | Path) -> str:
    """How two vocabularies differ."""
    if len(theirs) != len(ours):
        return f"that of {str(where)!r} has {len(theirs)} characters, this {len(ours)}"
    if sorted(theirs.characters) == sorted(ours.characters):
        return f"that of {str(where)!r} has the same characters in another order"
    pairs = zip(theirs.characters, ours.characters, strict=True)
    n, was, now = next((n, was, now) for n, (was, now) in enumerate(pairs) if was != now)
    return f"in that of {str(where)!r} the id {n} is {was!r}, in this {now!r}"


def used_its_time(record: Record, config: TrainConfig, calendar: Calendar, open_steps: int) -> bool:
    """Whether a resumed run had ended by `max_seconds`, which is unchanged: it may end some seconds before.

    Only the end closes a row of metrics.csv at a step at which none is due. open_steps: steps since the last row.
    """
    due = calendar.row(record.step, end=False) or calendar.validation(record.step, end=False)
    by_steps = dataclasses.replace(calendar, config=record.train).steps_done(record.step)
    same = config.max_seconds is not None and config.max_seconds == record.train.max_seconds
    return same and not (due or by_steps or open_steps)
