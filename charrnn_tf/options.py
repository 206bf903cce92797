"""Options that several commands share, and errors as one line."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .config import (
    CELLS,
    EPOCH,
    INITS,
    MODEL_OPTIONS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    STRATEGIES,
    UNKNOWN,
    VOCABULARIES,
    ModelConfig,
    TrainConfig,
)  # fmt: skip
from .errors import CharRNNError, reason

Command = Callable[..., Any]


class Commands(click.Group):
    """A group whose errors are one line each: exit 1 for the package's own, 2 for wrong usage; a bug keeps its traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        with _one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run a command."""
        with _one_line_errors():
            return super().invoke(ctx)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        error.ctx = None  # which would add the usage and a hint
        raise
    except CharRNNError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:  # a full disk behind standard output: not a bug, and nothing of ours has caught it
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EIO):
            raise
        raise click.ClickException(f"can't write the output: {reason(error)}") from error
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


class StepsOrEpoch(click.ParamType[int | str]):
    """A number of steps, or the word "epoch"."""

    name = "N|epoch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Accept whole numbers of at least 1."""
        if value == EPOCH:
            return EPOCH
        return int(click.IntRange(min=1).convert(value, param, ctx))


class FilePath(click.Path):
    """The path of a file or folder; of one that TensorFlow writes, its name must be UTF-8."""

    def __init__(self, written: bool = False) -> None:
        super().__init__()
        self._written = written

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what no file can be called."""
        if "\0" in value:
            self.fail(f"{value!r} holds a NUL, which no name of a file does", param, ctx)
        if self._written and any("\ud800" <= character <= "\udfff" for character in value):
            self.fail(f"{value!r} is not UTF-8, as TensorFlow needs what it writes to be called", param, ctx)
        return super().convert(value, param, ctx)


# name: (type, help); the defaults are the dataclasses', or what `unset` says where that is None
SETTINGS: dict[str, tuple[Any, str]] = {
    "cell": (click.Choice(CELLS), "Kind of recurrent layers."),
    "hidden_size": (click.IntRange(min=1), "Units in each recurrent layer."),
    "num_layers": (click.IntRange(min=1), "Recurrent layers."),
    "dropout": (float, "Share of each recurrent layer's outputs dropped while training, 0 to below 1."),
    "embedding_size": (click.IntRange(min=0), "Size of a learnt embedding of the characters; 0: one-hot input."),
    "init": (click.Choice(INITS), "How weights begin."),
    "vocabulary": (click.Choice(VOCABULARIES), "The text's own characters, Python's string.printable, or bytes."),
    "unknown": (click.Choice(UNKNOWN), "Characters outside the vocabulary."),
    "min_count": (click.IntRange(min=1), "Leave characters seen fewer times out of the vocabulary and the text."),
    "separator": (str, "What stands between two files."),
    "limit_chars": (click.IntRange(min=1), "Read only the text's first characters."),
    "batch_size": (click.IntRange(min=1), "Streams read side by side."),
    "num_steps": (click.IntRange(min=1), "Characters in a window: how far gradients reach back."),
    "epochs": (click.IntRange(min=1), "Budget: passes over the text."),
    "max_steps": (click.IntRange(min=1), "Budget: windows, one update each."),
    "max_seconds": (float, "Budget: wall time of the whole command, in seconds."),
    "optimizer": (click.Choice(OPTIMIZERS), "What updates the weights."),
    "learning_rate": (float, "The optimizer's rate, or its peak under a schedule."),
    "warmup_steps": (click.IntRange(min=0), "First steps, over which the rate rises from zero."),
    "schedule": (click.Choice(SCHEDULES), "The rate over time; cosine: to zero at the budget's end."),
    "step_epochs": (click.IntRange(min=1), "Schedule step: epochs between two changes."),
    "gamma": (float, "Schedule step: what the rate is multiplied by."),
    "clip_norm": (float, "Largest norm of all gradients together; 0: off."),
    "weight_dropout": (float, "Share of the recurrent weights that each step of training does without, 0 to below 1."),
    "state_reset": (float, "Chance, 0 to 1, that a stream begins a window from a zero state."),
    "validation_fraction": (float, "Share of the text, its last part, that is held out; 0: none."),
    "seed": (click.IntRange(min=0), "Seed of everything random."),
    "precision": (
        click.Choice(PRECISIONS),
        "Precision of products in training; bfloat16: quicker, on processors that have it.",
    ),
    "strategy": (click.Choice(STRATEGIES), "tf.distribute: over this machine's GPUs, or the machines in TF_CONFIG."),
    "save_every": (click.IntRange(min=1), "Steps between checkpoints."),
    "keep": (click.IntRange(min=1), "Checkpoints to keep, besides the best."),
    "log_every": (click.IntRange(min=1), "Steps between rows of metrics.csv."),
    "validate_every": (click.IntRange(min=1), "Steps between validations."),
    "patience": (click.IntRange(min=0), "Validations in a row, none better than the best, that end a run; 0: any number."),
    "sample_every": (StepsOrEpoch(), "Steps between samples shown, or the word epoch."),
    "sample_prime": (str, "What samples begin with; may be repeated."),
    "sample_length": (click.IntRange(min=1), "Characters in a sample."),
    "sample_top_n": (click.IntRange(min=0), "Top-n of samples; 0: no cut."),
    "sample_temperature": (float, "Temperature of samples."),
}
UNSET = {
    "hidden_size": "256 to 512, by text and budget", "dropout": "0 to 0.5, by text and budget",
    "weight_dropout": "0 to 0.5, by text and budget", "batch_size": "32, less for short texts",
    "learning_rate": "0.02 for Adam, less for wide networks", "clip_norm": "0.1 for Adam",
    "precision": "bfloat16 where the processor has it", "limit_chars": "all",
    "separator": "a newline after files that don't end with one",
    "epochs": "none", "max_steps": "none", "max_seconds": "10 minutes a million characters, 1 to 27",
    "save_every": "about once a minute", "validate_every": "an epoch or 1,000, less for long texts",
    "sample_every": "never", "sample_prime": "'The '",
}  # fmt: skip


def setting_options(command: Command) -> Command:
    """The options of `train` that settings files and presets give too; not given, they are None."""
    for name, (kind, text) in reversed(SETTINGS.items()):
        shown = str(UNSET.get(name, getattr(ModelConfig if name in MODEL_OPTIONS else TrainConfig, name)))
        option = click.option(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=None,
            multiple=name == "sample_prime",
            show_default=shown,
            help=text,
        )
        command = option(command)
    return command


def checkpoint_dir_option(command: Command) -> Command:
    """The folder of a run."""
    return click.option(
        "--checkpoint-dir",
        type=FilePath(written=True),
        default="checkpoints",
        show_default=True,
        help="Folder of the run and its checkpoints.",
    )(command)


def checkpoint_options(command: Command) -> Command:
    """Which checkpoint to read."""
    which = click.option(
        "--checkpoint", default="latest", show_default=True, help="latest, best, a name such as i2000_l512, or a path."
    )
    return which(checkpoint_dir_option(command))


def unknown_option(command: Command) -> Command:
    """What to do with characters outside the vocabulary."""
    return click.option(
        "--unknown", type=click.Choice(UNKNOWN), default="error", show_default=True,
        help="Characters the model never saw.",
    )(command)  # fmt: skip
