"""Estimates, by arithmetic alone, of the memory and disk that a model needs; used before anything is built."""

import os
import shutil
from pathlib import Path

from ..errors import ConfigError
from ..settings.schema import CELLS, EVALUATED_STEPS, EVALUATED_STREAMS, OPTIMIZERS, ModelConfig, TrainConfig
from ..text.corpus import MOST_SOURCES
from .hardware import available_memory

FLOAT = 4  # bytes
TENSORFLOW = 500e6  # bytes of memory of TensorFlow itself
KEPT_STATES = 11  # floats kept per unit and step for the gradient, besides gates: outputs, states, dropout, their gradients
KEPT_LOGITS = 4  # floats kept per step and character of the vocabulary
RECORD = 6000  # bytes of config.json, SHA256SUMS and the index of the variables
PER_SOURCE = 200  # bytes of config.json for each file of the text, up to MOST_SOURCES
SAMPLED_AT_ONCE = 256  # characters
MOST_ROWS = 256  # texts generated at once; more are no faster


def parameters(model: ModelConfig) -> int:
    """Number of trainable parameters."""
    cell, hidden, vocabulary = CELLS[model.cell], model.hidden_size, model.vocab_size
    inputs = model.embedding_size or vocabulary
    rest = cell.gates * hidden * (2 * hidden + cell.bias_rows)
    recurrent = cell.gates * hidden * (inputs + hidden + cell.bias_rows) + (model.num_layers - 1) * rest
    return vocabulary * model.embedding_size + recurrent + (hidden + 1) * vocabulary


def training_memory(model: ModelConfig, train: TrainConfig, workers: int = 1) -> float:
    """Peak memory of training in each of the worker processes, in bytes."""
    weights = parameters(model) * (4 + OPTIMIZERS[train.optimizer] + bool(train.averaging))
    per_unit = CELLS[model.cell].gates + KEPT_STATES
    per_character = model.num_layers * model.hidden_size * per_unit + KEPT_LOGITS * model.vocab_size
    validation = EVALUATED_STREAMS * EVALUATED_STEPS if train.validation_fraction else 0
    at_once = max(float(train.batch_size) * train.num_steps / workers, validation)
    return TENSORFLOW + FLOAT * (weights + at_once * per_character)


def sampling_memory(model: ModelConfig, num_samples: int) -> float:
    """Memory of generating several texts at once, in bytes."""
    per_sample = 3 * model.num_layers * model.hidden_size + 6 * model.vocab_size + SAMPLED_AT_ONCE
    return TENSORFLOW + FLOAT * (2 * parameters(model) + float(num_samples) * per_sample)


def rows_at_once(model: ModelConfig, length: int) -> int:
    """Number of texts of `length` characters to generate at once: as many as fit in memory, at most MOST_ROWS."""
    fixed, have = sampling_memory(model, 0), available_memory()
    each = sampling_memory(model, 1) - fixed + 2.0 * FLOAT * length
    return MOST_ROWS if have is None else int(min(max((have - fixed) / each, 1), MOST_ROWS))


def checkpoint_bytes(model: ModelConfig, train: TrainConfig) -> float:
    """Size of a checkpoint: weights, their averages and optimizer slots, in bytes."""
    return float(FLOAT * parameters(model) * (1 + bool(train.averaging) + OPTIMIZERS[train.optimizer]))


def record_bytes(model: ModelConfig, files: int) -> float:
    """Size of the other files of a checkpoint, for a text of so many files, in bytes."""
    return RECORD + 4.0 * model.vocab_size + PER_SOURCE * min(files, MOST_SOURCES)


def disk(model: ModelConfig, train: TrainConfig, existing: int = 0) -> float:
    """Upper bound on the disk space that a run's checkpoints need besides the existing ones, in bytes.

    Counts those to keep, the best, and one that is being written.
    """
    return checkpoint_bytes(model, train) * max(train.keep + 2.0 - existing, 1.0)


def check_memory(need: float, remedy: str) -> None:
    """Raise ConfigError if the machine has less memory than needed."""
    have = available_memory()
    if have and need > have:
        raise ConfigError(f"this would take about {_size(need)} of memory, the machine has {_size(have)}. {remedy}")


def check_disk(need: float, directory: str | Path) -> None:
    """Raise ConfigError if the disk of a folder, which need not exist yet, has less space than needed."""
    place = Path(directory).absolute()
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise ConfigError(
            f"the checkpoints would take about {_size(need)} on disk, {str(place)!r} has {_size(free)} left. Use "
            "a lower `keep`, a smaller `hidden_size`, or another `checkpoint_dir`."
        )


def _size(size: float) -> str:
    if size < 1e8:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e9:,.1f} GB" if size < 1e15 else f"{size / 1e9:.0e} GB"
