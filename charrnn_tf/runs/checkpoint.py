"""Writes and restores checkpoints, one folder `i{iteration}_l{hidden}` each, with all that a run needs to continue.

    checkpoints/i200_l512/config.json     settings, vocabulary, counters, losses (`record.Record`)
                          variables.*     TensorFlow's checkpoint files, under names of our own
                          SHA256SUMS      of every other file in the folder
                text-SUM.json             the files of the text, if they are more than MOST_SOURCES

A folder is written under a name that starts with a dot and renamed once it is complete.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ..errors import CheckpointError, reason, warn
from ..files import literal_prefix, sha256
from ..machine.startup import logging_kept
from ..network.initializers import grown
from ..network.model import build_model, weights
from .find import list_checkpoints
from .record import CONFIG, INDEX, LISTS, NAME, SUMS, VARIABLES, Record, read_record, source_list, to_json

TRIAL = ".trial"  # folder of the checkpoint that `prove` writes
GRAPH, VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "/.ATTRIBUTES/VARIABLE_VALUE"  # keys of TensorFlow's checkpoints


def write(
    directory: Path, record: Record, variables: Mapping[str, Any], reached: Callable[[str], None] = lambda point: None
) -> Path:
    """Save variables and record as one folder, complete or not at all, and return its path.

    reached: called with the name of each completed stage, for tests that stop there.
    Raises CheckpointError for errors of the file system.
    """
    target = directory / record.name
    partial, replaced = (directory / f".{record.name}.{state}" for state in ("partial", "replaced"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        reached("folder")
        with logging_kept():
            tf.train.Checkpoint(**variables).write(str(partial / VARIABLES))
        reached("variables")
        (partial / CONFIG).write_text(to_json(record), encoding="utf-8")
        _write_list(directory, record)
        sums = "".join(f"{sha256(file)}  {file.name}\n" for file in sorted(partial.iterdir()))
        (partial / SUMS).write_text(sums, encoding="utf-8")
        reached("sums")
        for file in partial.iterdir():
            _to_disk(file)
        _folder_to_disk(partial)
        reached("complete")
        if target.exists():  # the same step again: a resumed run has validated at it
            target.rename(replaced)
            reached("replaced")
        partial.rename(target)
        reached("renamed")
        shutil.rmtree(replaced, ignore_errors=True)
        _folder_to_disk(directory)
        write_index(directory)
        reached("indexed")
    except (OSError, ValueError, tf.errors.OpError, CheckpointError) as error:  # ValueError: text that UTF-8 can't encode
        with suppress(OSError):
            clean(directory)
        raise CheckpointError(
            f"can't save {str(target)!r}: {why(error)}. Make room or choose another `checkpoint_dir`."
        ) from error
    return target


def prove(directory: Path, record: Record, variables: Mapping[str, Any]) -> None:
    """Write a whole checkpoint into a folder, read it back, compare, and remove it.

    A save that can't succeed then fails before the first step, not after a minute of training. Raises CheckpointError.
    """
    trial = directory / TRIAL
    try:
        path = write(trial, record, variables)
        if to_json(read_record(path)) != to_json(record):
            raise CheckpointError(f"{str(path)!r} reads differently from what was written. Use another `checkpoint_dir`.")
        restore(path, variables)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def why(error: Exception) -> str:
    """The readable part of an error; TensorFlow's end like `...; No space left on device [Op:SaveV2]`."""
    if isinstance(error, tf.errors.OpError):
        return str(error).partition(" [Op:")[0].rpartition("; ")[2].lower()
    return reason(error)


def write_index(directory: Path) -> None:
    """Write the index that `tf.train.latest_checkpoint` and `get_checkpoint_state` read, a CheckpointState as text."""
    prefixes = [f"{path.name}/{VARIABLES}" for path in list_checkpoints(directory)]
    lines = [f'model_checkpoint_path: "{prefixes[-1]}"', *(f'all_model_checkpoint_paths: "{each}"' for each in prefixes)]
    partial = directory / f".{INDEX}.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(directory / INDEX)
    _remove_unused_lists(directory)


def _write_list(directory: Path, record: Record) -> None:
    """Write the list of a text's files beside the checkpoints, if they are many and it is not there yet."""
    name, content = source_list(record.text)
    if name and not (directory / name).exists():
        partial = directory / f".{name}.partial"
        partial.write_bytes(content)
        _to_disk(partial)
        partial.replace(directory / name)


def _remove_unused_lists(directory: Path) -> None:
    """Remove lists that no checkpoint refers to, as of a run that was replaced."""
    for path in (*directory.glob(LISTS), *directory.glob(f".{LISTS}.partial")):
        if not any(f'"{path.name}"' in (each / CONFIG).read_text(encoding="utf-8") for each in list_checkpoints(directory)):
            path.unlink(missing_ok=True)


def restore(path: str | Path, variables: Mapping[str, Any]) -> None:
    """Restore all variables that `write` saved; raises CheckpointError unless they match one to one."""
    _read(path, variables, whole=True)


def restore_weights(path: str | Path, model: keras.Model, adds: bool = False) -> None:
    """Restore only the weights of a checkpoint, into a model of any batch size.

    adds: the model may have more characters, which get weights of their own as `network.initializers.grown` explains.
    """
    _read(path, {"weights": weights(model)}, whole=False, adds=adds)


def load_model(path: str | Path, batch_size: int = 1) -> tuple[keras.Model, Record]:
    """Build a checkpoint's model with its weights, for any batch size."""
    record = read_record(path)
    model = build_model(record.model, batch_size)
    model.line_start = record.line_start
    restore_weights(path, model)
    return model, record


def _read(path: str | Path, groups: Mapping[str, Mapping[str, Any]], whole: bool, adds: bool = False) -> None:
    """Assign each variable of these groups from the file, and compare its value with the file's.

    TensorFlow's own `read` checks only what it tracks, which can be nothing. whole: the file must have no other groups.
    """
    expected = {f"{group}/{_escaped(name)}{VALUE}": each for group, named in groups.items() for name, each in named.items()}
    try:
        with literal_prefix(Path(path) / VARIABLES) as prefix:
            file = tf.train.load_checkpoint(prefix)
            stored = {key for key in file.get_variable_to_shape_map() if whole or key.partition("/")[0] in groups} - {GRAPH}
            if unlike := sorted(stored ^ expected.keys()):
                raise ValueError(f"{len(unlike)} variables are only in one of them, such as {unlike[0].removesuffix(VALUE)}")
            for key, variable in expected.items():
                value = file.get_tensor(key)
                value = grown(value, variable.shape) if adds else value
                variable.assign(value)
                if variable.numpy().tobytes() != value.tobytes():
                    raise ValueError(f"{key.removesuffix(VALUE)} has another value after it was read")
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first_line = str(error).split("\n", maxsplit=1)[0]
        raise CheckpointError(f"{str(path)!r} does not fit its own record: {first_line}") from error


def _escaped(name: str) -> str:
    """A variable's name as TensorFlow's checkpoints spell it."""
    return name.replace(".", "..").replace("/", ".S")


def put_aside(path: Path) -> None:
    """Rename a damaged checkpoint so that it is no longer listed."""
    aside = path.with_name(f".{path.name.strip('.')}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    warn(f"{str(path)!r} is damaged and was renamed to {aside.name}.")


def clean(directory: Path) -> None:
    """Clean up after a killed run: restore a checkpoint that was being replaced, remove partial ones."""
    shutil.rmtree(directory / TRIAL, ignore_errors=True)
    for path in directory.glob(".i*_l*.*"):
        name, state = path.name[1:].split(".", 1)
        if not NAME.fullmatch(name) or state not in ("partial", "replaced", "removed"):
            continue
        if state == "replaced" and not (directory / name).exists():
            path.rename(directory / name)
        else:
            shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a checkpoint; a single rename takes it out of the listing."""
    doomed = path.with_name(f".{path.name}.removed")
    with suppress(FileNotFoundError):  # another process has removed it
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _to_disk(file: Path) -> None:
    """Flush a file to the disk."""
    descriptor = os.open(file, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_to_disk(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can: Windows and some shared folders can't."""
    with suppress(OSError):
        _to_disk(folder)
