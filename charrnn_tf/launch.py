"""Settings and texts -> a trainer: of a new run, or of one that goes on."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import estimate, runtime
from .config import BUDGETS, MODEL_OPTIONS, RESUMABLE, ModelConfig, TrainConfig, split
from .corpus import Corpus, TextRecord, check_length, load_corpus
from .errors import ConfigError, TextError
from .files import sha256
from .output import Reading
from .recipe import FOR_ADAM, settings_for
from .record import CONFIG, LOCK, SUMS, Record, check_empty, find_record, list_checkpoints
from .rendezvous import ONE_PROCESS, STARTING, Cluster, bounded, check_share, meet
from .sources import STANDARD_INPUT
from .vocabulary import Ids

if TYPE_CHECKING:
    from .replicas import Replicas
    from .training import Trainer

HELD_OUT = 100_000  # characters that tell what an export costs


def begin(
    text: tuple[str, ...],
    directory: str,
    asked: dict[str, Any],
    init_from: str | None,
    overwrite: bool,
    started: float,
    by_rule: bool,
    reading: Reading,
) -> tuple[Trainer, dict[str, Any]]:
    """A trainer of a new run, and the settings that the recipe chose for it, where `by_rule` lets it."""
    model_settings, train_settings = split(asked)
    train_config = TrainConfig(**train_settings)
    ModelConfig(vocab_size=1, **model_settings)  # a wrong value is told before the text is read
    cluster = _cluster(train_config)
    if cluster.count == 1 and not overwrite and not os.path.exists(os.path.join(directory, LOCK)):
        check_empty(directory)  # with several workers, and what else is wrong with a folder, is told once it is locked
    initial = _initial_checkpoint(init_from, train_config, model_settings) if init_from else None
    if initial:
        asked = {**asked, "vocabulary": initial[1].train.vocabulary}
    if train_config.min_count > 1:
        asked = {"unknown": "skip", **asked}
    train_config = TrainConfig(**split(asked)[1])
    corpus = _read(text, train_config, initial and initial[1], reading)
    chosen = _choose(train_config, len(corpus.ids), asked, initial and initial[1].model) if by_rule else {}
    model_settings, train_settings = split({**chosen, **asked})
    train_config = TrainConfig(**train_settings)
    model_config = initial[1].model if initial else ModelConfig(vocab_size=len(corpus.vocabulary), **model_settings)
    _check_room(model_config, train_config, directory, cluster)
    replicas, waited = _start_tensorflow(model_config, train_config, corpus, initial and initial[0], cluster, reading)
    started += waited
    from .training import Trainer

    shown = ", ".join(map(repr, text)) or "the built-in corpus"
    try:
        trainer = Trainer(
            model_config, train_config, corpus.vocabulary, corpus.ids, directory,
            overwrite=overwrite, init_from=initial and initial[0], started=started, text=corpus.text, replicas=replicas,
        )  # fmt: skip
    except TextError as error:
        limit = f" (--limit-chars {train_config.limit_chars})" if train_config.limit_chars else ""
        raise TextError(f"{shown}{limit}: {error}") from error
    return trainer, chosen


def _read(
    text: Sequence[str],
    train_config: TrainConfig,
    record: Record | None,
    reading: Reading,
    expected: TextRecord | None = None,
) -> Corpus:
    """The text's ids; a model that there is already, `record`, brings its vocabulary."""
    with reading as progress:
        corpus = load_corpus(
            text,
            vocabulary=record.vocabulary if record else train_config.vocabulary,
            min_count=1 if record else train_config.min_count,
            **{name: getattr(train_config, name) for name in ("unknown", "separator", "limit_chars")},
            expected=expected,
            progress=progress,
        )
    reading.conclude(corpus)
    return corpus


def held_out(record: Record, text: str | None) -> Ids | None:
    """The first ids of a text, or of the part of its own texts that a run did not train on; None where these are gone.

    Raises TextError for a text with fewer than two characters that the model knows.
    """
    if text is not None:
        ids = load_corpus([text], vocabulary=record.vocabulary, unknown="skip", limit_chars=HELD_OUT).ids
        check_length(ids, repr(text))
        return ids
    sources = [source.path for source in record.text.sources]
    if STANDARD_INPUT in sources:
        return None
    try:
        corpus = _read(sources, record.train, record, Reading(), expected=record.text)
    except TextError:
        return None
    begin = record.train.training_characters(len(corpus.ids))
    return corpus.ids[begin : begin + HELD_OUT]


def _choose(train_config: TrainConfig, characters: int, asked: dict[str, Any], model: ModelConfig | None) -> dict[str, Any]:
    """What the recipe sets beyond what is asked for; a model that there is already keeps its shape and dropout."""
    budget = train_config.with_budget(characters)
    trained_on = train_config.training_characters(characters)
    width = model.hidden_size if model else asked.get("hidden_size")
    chosen = settings_for(
        trained_on, seconds=budget.max_seconds, epochs=budget.epochs, max_steps=budget.max_steps, hidden_size=width
    )
    fixed = {*asked, *(MODEL_OPTIONS if model else ()), *(() if train_config.optimizer == "adam" else FOR_ADAM)}
    return {name: value for name, value in chosen.items() if name not in fixed}


def _initial_checkpoint(init_from: str, train_config: TrainConfig, model_settings: dict[str, Any]) -> tuple[Path, Record]:
    """The checkpoint that a path of its own or of a run's folder means; of its model's shape only dropout may change."""
    path = Path(init_from)
    path, record = find_record(path) if os.path.isfile(path / CONFIG) else find_record("latest", path)
    for name, value in model_settings.items():
        if name not in ("dropout", "init") and value != getattr(record.model, name):
            raise ConfigError(
                f"{_option(name)} {value} contradicts --init-from: the model in {str(path)!r} has "
                f"{getattr(record.model, name)}. Leave the option out, or the preset that sets it."
            )
    for name in ("vocabulary", "min_count"):
        if getattr(train_config, name) not in (getattr(TrainConfig, name), getattr(record.train, name)):
            raise ConfigError(f"{_option(name)} contradicts --init-from, which brings its own vocabulary. Leave it out.")
    dropout = float(model_settings.get("dropout", record.model.dropout))
    return path.resolve(), dataclasses.replace(record, model=dataclasses.replace(record.model, dropout=dropout))


def resume(
    text: tuple[str, ...],
    directory: str,
    asked: dict[str, Any],
    init_from: str | None,
    started: float,
    reading: Reading,
) -> Trainer:
    """A trainer that goes on with the run in a folder."""
    path, record = find_record("latest", directory)
    if not record.text.characters:
        raise TextError(
            f"the model in {directory!r} was imported and has no run to go on with. Begin one with: charrnn-tf train FILE "
            f"--init-from {shlex.quote(directory)} --checkpoint-dir ANOTHER"
        )
    saved = {**dataclasses.asdict(record.model), **dataclasses.asdict(record.train), "init_from": record.init_from}
    initial = str(Path(init_from).resolve()) if init_from else None
    if initial and initial == str(Path(record.init_from or "").parent):  # the folder that the checkpoint was in
        initial = record.init_from
    for name, value in [*asked.items(), ("init_from", initial)]:
        if value is not None and name not in RESUMABLE and value != saved[name]:
            raise ConfigError(
                f"{_option(name)} {value} can't change on --resume: the run in {directory!r} has {saved[name]}. Leave it "
                "out, or the preset that sets it, or begin another run in another --checkpoint-dir."
            )
    changes = {name: value for name, value in asked.items() if name in RESUMABLE}
    if any(budget in changes for budget in BUDGETS):
        changes = {**dict.fromkeys(BUDGETS), **changes}
    train_config = dataclasses.replace(record.train, **changes)
    cluster = _cluster(train_config)
    sources = [source.path for source in record.text.sources]
    if STANDARD_INPUT in sources and not text:
        raise TextError(f"this run reads standard input: give its text again, with: {resuming(directory, record.text)}")
    corpus = _read(text or sources, record.train, record, reading, expected=record.text)
    _check_room(record.model, train_config, directory, cluster, there=len(list_checkpoints(directory)))
    replicas, waited = _start_tensorflow(record.model, train_config, corpus, path, cluster, reading)
    started += waited
    from .training import Trainer

    return Trainer(
        record.model, train_config, record.vocabulary, corpus.ids, directory,
        resume=True, text=corpus.text, init_from=record.init_from, started=started, replicas=replicas,
    )  # fmt: skip


def resuming(directory: str, text: TextRecord) -> str:
    """The command that goes on with a run."""
    paths = [source.path for source in text.sources]
    again = "".join(f" {shlex.quote(path)}" for path in paths) if STANDARD_INPUT in paths else ""
    elsewhere = "" if directory == "checkpoints" else f" --checkpoint-dir {shlex.quote(directory)}"
    return f"charrnn-tf train{again} --resume{elsewhere}"


def _cluster(train_config: TrainConfig) -> Cluster:
    return Cluster.from_environment() if train_config.strategy == "multiworker" else ONE_PROCESS


def _check_room(
    model_config: ModelConfig, train_config: TrainConfig, directory: str, cluster: Cluster, there: int = 0
) -> None:
    """Refuse what the machine has no memory or no disk for."""
    smaller = "Use a smaller --hidden-size, --batch-size, --num-steps, --num-layers or --embedding-size."
    estimate.check_memory(estimate.training_memory(model_config, train_config, cluster.count), smaller)
    if cluster.is_chief:
        estimate.check_disk(estimate.disk(model_config, train_config, there), directory)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _start_tensorflow(
    model_config: ModelConfig,
    train_config: TrainConfig,
    corpus: Corpus,
    checkpoint: Path | None,
    cluster: Cluster,
    reading: Reading,
) -> tuple[Replicas, float]:
    """TensorFlow with its threads shared out to the shards of a batch; the replicas that train, once all are there, and the
    seconds that they were waited for.

    checkpoint: what the weights are read from.
    """
    shards = runtime.shards_for(train_config.shards, train_config.batch_size, cluster.count) // cluster.count
    if train_config.strategy != "multiworker":
        runtime.start(shards)
        from .replicas import ALONE, Mirrored

        return Mirrored() if train_config.strategy == "mirrored" else ALONE, 0.0
    check_share(train_config.batch_size, cluster.count)
    runtime.start(shards, workers=True)
    from .replicas import Workers, physical_gpus

    settings = {**dataclasses.asdict(model_config), **dataclasses.asdict(train_config)}
    facts = {name: repr(value) for name, value in settings.items()}
    facts |= {"text": corpus.text.sha256, "checkpoint": sha256(checkpoint / SUMS) if checkpoint else "none"}
    facts |= {"number of GPUs": str(physical_gpus())}
    waited = meet(cluster, facts, waiting=reading.say)
    with bounded(STARTING, "a worker has left while TensorFlow started. Start all workers again."):
        return Workers(cluster), waited
