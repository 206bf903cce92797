"""The lines that a run prints before it starts (text, model, device, steps, disk, chosen settings) and after it ends."""

import os
from collections import Counter
from collections.abc import Iterator

import tensorflow as tf

from ..machine import estimate
from ..machine.hardware import available_cores, gpu_names, tf32, unused_gpu
from ..machine.startup import in_force
from ..network.cells import Engine
from ..runs.metrics import nats
from ..runs.record import source_list
from ..settings.merge import Resolved
from ..text.corpus import TextRecord
from ..text.names import STANDARD_INPUT
from ..text.sources import GIVEN, GIVEN_IDS
from ..training.trainer import Trainer


def introduction(trainer: Trainer, resolved: Resolved) -> Iterator[str]:
    """Lines about a run, in the order of printing."""
    config, model = trainer.config, trainer.model
    parameters, characters, files = model.count_params(), trainer.text.characters, len(trainer.text.sources)
    kept = characters - trainer.text.left_out
    held_out, validating = trainer.held_out, trainer.validation_characters
    yield (
        f"Text: {_title(trainer.text)}{f'{kept:,} of ' if kept < characters else ''}{characters:,} characters"
        f"{f' in {files:,} files' if files > 1 else ''}, "
        f"{trainer.model_config.vocab_size:,} distinct; the last {held_out:,} are held out for validation"
        f"{f' ({validating:,} of them are read)' if validating < held_out else ''}."
    )
    if not trainer.model_config.embedding_size:
        yield f"  {'one-hot':<12} {'':<12} {trainer.model_config.vocab_size:>7} {0:>11,}"
    for layer in model.layers[1:]:
        shape = " x ".join(str(size) for size in layer.output.shape[1:] if size is not None) or "1"
        yield f"  {layer.name:<12} {type(layer).__name__:<12} {shape:>7} {layer.count_params():>11,}"
    yield f"Model: {parameters:,} parameters, {kept / parameters:,.2f} characters of text per parameter."
    replicas = "" if trainer.replicas.alone else f", {trainer.replicas.count} replicas"
    yield f"Device: {_device(trainer)}, TensorFlow {tf.__version__}{replicas}."
    total = "until the time limit" if trainer.total_steps is None else f"{trainer.total_steps:,} in all"
    split = f"batch split over {config.shards} cores" if config.shards and config.shards > 1 else "batch not split"
    yield f"Steps: {trainer.steps_per_epoch:,} per epoch, {total}; {split}."
    size = estimate.checkpoint_bytes(trainer.model_config, config) + estimate.record_bytes(trainer.model_config, files)
    name, content = source_list(trainer.text)
    lists = f", and {name} of {megabytes(len(content))}" if name else ""
    yield (
        f"Checkpoints: {megabytes(size)} each, at most {config.keep + 1} kept in {trainer.directory.path}: "
        f"{megabytes(size * (config.keep + 1))}{lists}."
    )
    if trainer.step:
        yield f"Continuing from {trainer.directory.latest}."
    yield from notes(trainer)
    if resolved.chosen:
        yield "Chosen for this text, budget and machine (any setting overrides it):"
        for name, (value, why) in resolved.chosen.items():
            yield f"  {f'`{name}`':<18} {value!s:<9} {why}"
    if not resolved.budget_given and config.max_seconds is not None:
        yield (
            f"Budget: {duration(config.max_seconds)}, by the length of the text. Change it with `max_seconds`, `epochs` or "
            "`max_steps`."
        )


def conclusion(trainer: Trainer) -> Iterator[str]:
    """Lines on why the run ended early, if it did, where its time went, and its last and best validation losses."""
    if not trainer.stopped and trainer.out_of_patience:
        yield f"Ended early: {trainer.config.patience} validations in a row without improvement."
    spent = {part: seconds for part, seconds in trainer.pace.spent.items() if seconds >= 1}
    if trainer.config.max_seconds is not None and spent:
        parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in spent.items())
        before = f", {duration(trainer.seconds_before)} of it before this" if trainer.seconds_before else ""
        yield f"Time: {duration(trainer.seconds)}{before}; {parts}, the rest starting."
    last, best = trainer.last_validation, trainer.directory.best
    if last is not None:
        yield f"Last validation: {nats(last)}."
    if best and best.validation_loss is not None:
        yield f"Best validation: {nats(best.validation_loss)}, in {best.name}."


def _title(text: TextRecord) -> str:
    """The name of a text that is a single file, or the built-in corpus."""
    names = [os.path.basename(source.path) for source in text.sources] or ["the built-in corpus"]
    return f"{names[0]}, " if len(names) == 1 and names[0] not in (GIVEN, GIVEN_IDS, STANDARD_INPUT) else ""


def _device(trainer: Trainer) -> str:
    """The device of a run, and whether it uses cuDNN."""
    names, here = gpu_names(), trainer.replicas.here
    if not names:
        unused = " (TensorFlow can't use the NVIDIA GPU)" if unused_gpu() else ""
        return f"CPU, {available_cores()} cores{unused}"
    used = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in Counter(names[:here]).items())
    part = f" ({here} of {len(names)} GPUs)" if here < len(names) else ""
    return f"GPU {used}{part}, {'without cuDNN because of `lines`' if trainer.config.lines else 'cuDNN'}"


def notes(trainer: Trainer) -> list[str]:
    """Remarks on line ends, a precision that the device lacks, a changed machine, or a used-up budget."""
    config, engine, notes = trainer.config, trainer.state.engine, []
    if not trainer.step and config.vocabulary == "corpus" and "\r" in trainer.vocabulary.characters:
        notes.append(
            "Lines of this text end as on Windows, in \\r\\n: samples will have the \\r too. To drop it, convert the file "
            "(dos2unix), or read the text in Python with open(file).read()."
        )
    if config.precision != "float32" and engine is Engine.CUDNN:
        rounded = "float32 (products in TF32)" if tf32() else "float32"
        notes.append(f"`precision` {config.precision} counts on a CPU only: on a GPU cuDNN computes in {rounded}.")
    if config.precision != "float32" and engine is Engine.FLOAT32:
        notes.append(f"This CPU has no {config.precision} products: training in float32.")
    now, begun = in_force(), trainer.begun_under.items()
    if changed := [f"{name} {was}, now {now[name]}" for name, was in begun if was != now.get(name, was)]:
        notes.append(f"The run was started with {'; '.join(changed)}: losses may differ in their last digits.")
    return notes + ([trainer.nothing_to_do] if trainer.nothing_to_do else [])


def megabytes(size: float) -> str:
    """Bytes for people to read, never as 0: `0.04 MB`, `25.1 MB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e6:.1g} MB"


def duration(seconds: float) -> str:
    """Seconds for people to read: `43 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
