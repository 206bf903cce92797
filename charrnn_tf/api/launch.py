"""Builds the trainer of a new run, or of one that continues, from text and settings."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TextError, listed
from ..files import sha256
from ..machine import estimate, startup
from ..machine.hardware import physical_gpus, this_machine
from ..machine.speed import measured_speed
from ..runs.find import LOCK, check_empty, find_record, list_checkpoints
from ..runs.record import CONFIG, LISTS, SUMS, Record
from ..settings.merge import Resolved, check_resumed, initial_model, merge, resolve, resolve_resumed, resumed
from ..settings.recipe import Machine
from ..settings.schema import TrainConfig
from ..text.corpus import Corpus, TextRecord, load_corpus
from ..text.sources import GIVEN, GIVEN_IDS, STANDARD_INPUT
from ..training.rows import release
from .progress import Reading

if TYPE_CHECKING:
    from ..distributed.cluster import Cluster
    from ..training.replicas import Replicas
    from ..training.trainer import Trainer


MOST_NAMED = 20  # files that the command which continues a run names


@dataclass(frozen=True)
class Request:
    """Arguments of `train`, as a user gives them."""

    text: tuple[str, ...]
    directory: str
    preset: str
    file: Mapping[str, Any]  # settings of the TOML file
    flags: Mapping[str, Any]
    init_from: str | None
    overwrite: bool
    started: float  # `time.monotonic()` from which max_seconds counts
    content: str | None = None  # the text itself, instead of `text`


def begin(request: Request, reading: Reading) -> tuple[Trainer, Resolved]:
    """The trainer of a new run, and how its settings were chosen."""
    release(request.directory)
    asked = merge(request.preset, request.file, request.flags)
    cluster = _cluster(asked.train)
    if not cluster and not request.overwrite and not os.path.exists(os.path.join(request.directory, LOCK)):
        check_empty(request.directory)  # with several workers, or while another run goes on, the trainer checks
    initial, shape = None, None
    if request.init_from:
        initial, record = _initial_checkpoint(request.init_from)
        asked = merge(request.preset, request.file, request.flags, record.train)
        shape = initial_model(asked, record.model, repr(str(initial)))
    corpus = _read(request, request.text, asked.train, record if initial else None, reading)
    if shape:
        shape = dataclasses.replace(shape, vocab_size=len(corpus.vocabulary))  # `unknown` add extends it
    startup.load()

    def resolve_on(machine: Machine) -> Resolved:
        resolved = resolve(asked, len(corpus.ids), len(corpus.vocabulary), machine, shape, _workers(cluster))
        _check_resources(resolved, request.directory, cluster)
        return resolved

    machine = this_machine(physical_gpus())
    resolved = resolve_on(machine)
    replicas, waited = _start_tensorflow(resolved, corpus, initial, cluster, reading)
    speed = _speed(resolved, machine, cluster)
    if speed is not None:
        resolved = resolve_on(dataclasses.replace(machine, speed=speed))
    from ..training.trainer import Trainer

    try:
        trainer = Trainer(
            resolved.model, resolved.train, corpus.vocabulary, corpus.ids, request.directory, overwrite=request.overwrite,
            init_from=initial, started=request.started + waited, text=corpus.text, replicas=replicas,
        )  # fmt: skip
    except TextError as error:
        given = "the built-in corpus" if request.content is None else "the text"
        shown = listed(request.text) or given
        limit = f" (`limit_chars` {resolved.train.limit_chars})" if resolved.train.limit_chars else ""
        raise TextError(f"{shown}{limit}: {error}") from error
    trainer.begun_under = {} if speed is None else {"speed": speed}
    return trainer, resolved


def resume(request: Request, reading: Reading) -> tuple[Trainer, Resolved]:
    """The trainer that continues the run in a folder."""
    directory = request.directory
    release(directory)
    asked = merge(request.preset, request.file, request.flags)
    path, record = find_record("latest", directory)
    if not record.text.characters:
        raise TextError(
            f"the model in {directory!r} was imported and has no run to continue. Start one with: charrnn-tf train FILE "
            f"--init-from {shlex.quote(directory)} --checkpoint-dir ANOTHER"
        )
    check_resumed(asked, record.model, record.train, repr(directory))
    _check_same_initial(request, record)
    cluster = _cluster(resumed(asked, record.train))
    sources = [source.path for source in record.text.sources]
    if STANDARD_INPUT in sources and not request.text:
        raise TextError(f"this run reads standard input: pass its text again, with: {resuming(directory, record.text)}")
    if GIVEN in sources and request.content is None:
        raise TextError("this run was trained on a string: pass it again with `text`")
    if GIVEN_IDS in sources:
        raise TextError("this run was trained on ids passed to Trainer: continue it with Trainer(..., resume=True)")
    if record.text.unlisted and not request.text:
        gone = f"the list of the run's {record.text.unlisted:,} files, {LISTS} in {directory!r}, is missing"
        raise TextError(f"{gone}: name the files again, with: charrnn-tf train TEXT... --resume")
    corpus = _read(request, request.text or sources, record.train, record, reading, expected=record.text)
    startup.load()
    resolved = resolve_resumed(
        asked,
        record.model,
        record.train_on(physical_gpus()),
        len(corpus.ids),
        this_machine(physical_gpus()),
        replicas=_workers(cluster),
    )
    _check_resources(resolved, directory, cluster, existing=len(list_checkpoints(directory)))
    replicas, waited = _start_tensorflow(resolved, corpus, path, cluster, reading)
    from ..training.trainer import Trainer

    trainer = Trainer(
        resolved.model, resolved.train, record.vocabulary, corpus.ids, directory, resume=True, text=corpus.text,
        init_from=record.init_from, started=request.started + waited, replicas=replicas,
    )  # fmt: skip
    return trainer, resolved


def resuming(directory: str, text: TextRecord) -> str:
    """The command that continues a run."""
    paths = [source.path for source in text.sources]
    again = " TEXT..." if len(paths) > MOST_NAMED else "".join(f" {shlex.quote(path)}" for path in paths)
    again = again if STANDARD_INPUT in paths else ""
    elsewhere = "" if directory == "checkpoints" else f" --checkpoint-dir {shlex.quote(directory)}"
    return f"charrnn-tf train{again} --resume{elsewhere}"


def _read(
    request: Request,
    text: Sequence[str],
    train: TrainConfig,
    record: Record | None,
    reading: Reading,
    expected: TextRecord | None = None,
) -> Corpus:
    """Encode the text, with the vocabulary of an existing model where `record` has one."""
    with reading as progress:
        corpus = load_corpus(
            () if request.content is not None else text,
            content=request.content,
            vocabulary=record.vocabulary if record else train.vocabulary,
            min_count=1 if record else train.min_count,
            unknown=train.unknown,
            separator=train.separator,
            limit_chars=train.limit_chars,
            encoding=train.encoding,
            normalize=train.normalize,
            expected=expected,
            may_skip_most=request.flags.get("unknown") == "skip",
            progress=progress,
        )
    reading.conclude(corpus)
    return corpus


def _initial_checkpoint(init_from: str) -> tuple[Path, Record]:
    """The checkpoint that a path names: its own, or the latest of a run's folder."""
    path = Path(init_from)
    path, record = find_record(path) if os.path.isfile(path / CONFIG) else find_record("latest", path)
    return path.resolve(), record


def _check_same_initial(request: Request, record: Record) -> None:
    """Raise ConfigError where another initial checkpoint is given than the one that the run started from."""
    given = str(Path(request.init_from).resolve()) if request.init_from else None
    if given and given not in (record.init_from, str(Path(record.init_from or "").parent)):
        raise ConfigError(
            f"`init_from` {given} can't change on `resume`: the run in {request.directory!r} has {record.init_from}. Leave "
            "it out, or start another run in another `checkpoint_dir`."
        )


def _cluster(train: TrainConfig) -> Cluster | None:
    """The workers of a multiworker run, from TF_CONFIG."""
    if train.strategy != "multiworker":
        return None
    from ..distributed.cluster import Cluster

    return Cluster.from_environment()


def _workers(cluster: Cluster | None) -> int:
    return cluster.count if cluster else 1


def _check_resources(resolved: Resolved, directory: str, cluster: Cluster | None, existing: int = 0) -> None:
    """Refuse a run that the machine lacks memory or disk for."""
    smaller = "Use a smaller `hidden_size`, `batch_size`, `num_steps`, `num_layers` or `embedding_size`."
    estimate.check_memory(estimate.training_memory(resolved.model, resolved.train, _workers(cluster)), smaller)
    if not cluster or cluster.is_chief:
        estimate.check_disk(estimate.disk(resolved.model, resolved.train, existing), directory)


def _speed(resolved: Resolved, machine: Machine, cluster: Cluster | None) -> float | None:
    """The measured speed of a CPU if settings depend on it. Workers must choose the same settings: they measure nothing."""
    if cluster or machine.gpus or not resolved.depends_on_speed:
        return None
    precision = "bfloat16" if machine.bfloat16 and resolved.train.precision == "bfloat16" else "float32"
    gflops = machine.reference(precision).gflops
    return measured_speed(resolved.train.shards or 1, precision, gflops)


def _start_tensorflow(
    resolved: Resolved, corpus: Corpus, checkpoint: Path | None, cluster: Cluster | None, reading: Reading
) -> tuple[Replicas, float]:
    """Start TensorFlow with threads for the shards of a batch -> the replicas, and seconds of waiting for other workers.

    checkpoint: source of the weights.
    """
    shards = (resolved.train.shards or 1) // _workers(cluster)
    if not cluster:
        startup.start(shards)
        if resolved.train.strategy == "mirrored":
            from ..distributed.strategies import Mirrored

            return Mirrored(), 0.0
        from ..training.replicas import ALONE

        return ALONE, 0.0
    from ..distributed.cluster import STARTING, bounded, meet
    from ..distributed.strategies import Workers

    startup.start(shards, workers=True)
    settings = dataclasses.asdict(resolved.model) | dataclasses.asdict(resolved.train)
    del settings["shards"]  # by the number of cores: the chief's counts
    facts = {name: repr(value) for name, value in settings.items()}
    facts |= {"text": corpus.text.sha256, "checkpoint": sha256(checkpoint / SUMS) if checkpoint else "none"}
    facts |= {"number of GPUs": str(physical_gpus())}
    waited = meet(cluster, facts, waiting=reading.say)
    with bounded(STARTING, "a worker has left while TensorFlow started. Start all workers again."):
        return Workers(cluster), waited
