"""What a model takes of the machine, by arithmetic alone: told before anything is built."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .config import CELLS, EVALUATED_STEPS, EVALUATED_STREAMS, OPTIMIZERS, ModelConfig, TrainConfig
from .errors import ConfigError

FLOAT = 4  # bytes
TENSORFLOW = 500e6  # bytes of memory before anything is computed
KEPT_STATES = 11  # times H, for a unit's gradient: outputs, states, what dropout left, their gradients
KEPT_LOGITS = 4  # times V
SAMPLED_AT_ONCE = 256  # characters


def parameters(model: ModelConfig) -> int:
    """Numbers that a model learns."""
    cell, hidden, vocabulary = CELLS[model.cell], model.hidden_size, model.vocab_size
    inputs = model.embedding_size or vocabulary
    rest = cell.gates * hidden * (2 * hidden + cell.bias_rows)
    recurrent = cell.gates * hidden * (inputs + hidden + cell.bias_rows) + (model.num_layers - 1) * rest
    return vocabulary * model.embedding_size + recurrent + (hidden + 1) * vocabulary


def training_memory(model: ModelConfig, train: TrainConfig, workers: int = 1) -> float:
    """Bytes of memory that training takes at its peak, about, in each of so many processes."""
    weights = parameters(model) * (4 + OPTIMIZERS[train.optimizer])
    a_unit = CELLS[model.cell].gates + KEPT_STATES
    a_character = model.num_layers * model.hidden_size * a_unit + KEPT_LOGITS * model.vocab_size
    validation = EVALUATED_STREAMS * EVALUATED_STEPS if train.validation_fraction else 0
    at_once = max(float(train.batch_size) * train.num_steps / workers, validation)
    return TENSORFLOW + FLOAT * (weights + at_once * a_character)


def sampling_memory(model: ModelConfig, num_samples: int) -> float:
    """Bytes of memory that so many texts at once take, about."""
    a_sample = 3 * model.num_layers * model.hidden_size + 6 * model.vocab_size + SAMPLED_AT_ONCE
    return TENSORFLOW + FLOAT * (2 * parameters(model) + float(num_samples) * a_sample)


def checkpoint_bytes(model: ModelConfig, train: TrainConfig) -> float:
    """Size of a checkpoint on disk, about: the weights and what the optimizer keeps of them."""
    return float(FLOAT * parameters(model) * (1 + OPTIMIZERS[train.optimizer]))


def disk(model: ModelConfig, train: TrainConfig, there: int = 0) -> float:
    """Bytes on disk that a run's checkpoints take at most, beside some that are there.

    These are what is kept, the best, and one that is being written.
    """
    return checkpoint_bytes(model, train) * max(train.keep + 2.0 - there, 1.0)


def check_memory(need: float, remedy: str) -> None:
    """Raise ConfigError where the machine has less memory."""
    have = machine_memory()
    if have and need > have:
        raise ConfigError(f"this would take about {_size(need)} of memory, the machine has {_size(have)}. {remedy}")


def check_disk(need: float, directory: str | Path) -> None:
    """Raise ConfigError where the disk that a folder is on, or would be on, has less room."""
    place = Path(directory).absolute()
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise ConfigError(
            f"the checkpoints would take about {_size(need)} on disk, {str(place)!r} has {_size(free)} left. Use "
            "a lower --keep, a smaller --hidden-size, or another --checkpoint-dir."
        )


def machine_memory() -> int | None:
    """Bytes of memory of the machine, or of the control group that the process may not exceed; None where unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return memory
    return min(memory, int(limit)) if limit.isdecimal() else memory


def _size(size: float) -> str:
    if size < 1e8:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e9:,.1f} GB" if size < 1e15 else f"{size / 1e9:.0e} GB"
