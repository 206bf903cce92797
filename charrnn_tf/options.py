"""Options that several commands share, and errors as one line."""

from __future__ import annotations

import dataclasses
import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .config import EPOCH, SETTINGS, UNKNOWN
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
        if type(error).__name__ != "NoArgsIsHelpError":  # the help itself, of click from 8.2 on
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


class StepsOrEpoch(click.ParamType):  # type: ignore[type-arg]
    """A number of steps, or the word "epoch"."""

    name = "N|epoch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Accept whole numbers of at least 1."""
        if value == EPOCH:
            return EPOCH
        try:
            return int(click.IntRange(min=1).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither a number of steps, at least 1, nor the word {EPOCH}", param, ctx)


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


def setting_options(command: Command) -> Command:
    """The options of `train` that settings files and presets give too; not given, they are None."""
    for each in reversed(SETTINGS.values()):
        option = click.option(
            f"--{each.name.replace('_', '-')}",
            type=_kind(each),
            default=None,
            multiple=str(each.type).startswith("tuple"),
            help=f"{each.metadata['help']}  [default: {each.metadata['unset'] or each.default}]",
        )
        command = option(command)
    return command


def _kind(each: dataclasses.Field[Any]) -> Any:
    """What click reads a setting's value as."""
    kind, bounds = str(each.type), each.metadata["bounds"]
    if each.metadata["choices"]:
        return click.Choice(each.metadata["choices"])
    if kind == "int | str | None":
        return StepsOrEpoch()
    if kind.startswith("int"):
        return click.IntRange(min=bounds["least"])
    return float if kind.startswith("float") else str


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
