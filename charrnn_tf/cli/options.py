"""Options that several commands share, help in groups, and errors as one line."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..errors import CharRNNError, reason
from ..settings.schema import EPOCH, SETTINGS, UNKNOWN, Interval, Setting

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
        if type(error).__name__ != "NoArgsIsHelpError":  # that is the help itself, with click 8.2 and later
            error.ctx = None  # would add the usage and a hint
        raise
    except CharRNNError as error:
        raise click.ClickException(in_options(str(error))) from error
    except OSError as error:  # a full disk behind standard output is not a bug, and nothing of ours catches it
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EIO):
            raise
        raise click.ClickException(f"can't write the output: {reason(error)}") from error
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def in_options(message: str) -> str:
    """A message with Python's names in backticks turned into options: `hidden_size` -> --hidden-size."""
    return re.sub(r"`([a-z]\w*)`", lambda found: "--" + found[1].replace("_", "-"), message)


class Grouped(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, in the order in which the groups first appear."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


class _GroupedOption(click.Option):
    def __init__(self, *arguments: Any, group: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


def option(group: str, *names: str, **attributes: Any) -> Callable[[Command], Command]:
    """`click.option` with the heading of the help that it is listed under."""
    return click.option(*names, cls=_GroupedOption, group=group, **attributes)


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
            self.fail(f"{value!r} is neither a whole number of steps, at least 1, nor the word {EPOCH}", param, ctx)


class FilePath(click.Path):
    """The path of a file or folder; one that TensorFlow writes must be UTF-8."""

    def __init__(self, written: bool = False) -> None:
        super().__init__()
        self._written = written

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse names that no file can have."""
        if "\0" in value:
            self.fail(f"{value!r} contains a NUL character, which file names can't", param, ctx)
        if self._written and any("\ud800" <= character <= "\udfff" for character in value):
            self.fail(f"{value!r} is not UTF-8, which TensorFlow requires of files that it writes", param, ctx)
        return super().convert(value, param, ctx)


def setting_options(command: Command) -> Command:
    """The options of `train` that TOML files and presets can set too; None where not given."""
    for each in reversed(SETTINGS.values()):
        about: Setting = each.metadata["setting"]
        command = option(
            about.group,
            f"--{each.name.replace('_', '-')}",
            type=_click_type(about),
            default=None,
            multiple=about.kind is tuple,
            help=f"{about.help}  [default: {about.default_help or each.default}]",
        )(command)
    return command


def _click_type(about: Setting) -> Any:
    if about.choices:
        return click.Choice(about.choices)
    if about.kind is Interval:
        return StepsOrEpoch()
    if about.kind is int:
        return click.IntRange(min=about.bounds["least"])
    return float if about.kind is float else str


def checkpoint_dir_option(group: str) -> Callable[[Command], Command]:
    """The folder of a run."""
    return option(
        group, "--checkpoint-dir", type=FilePath(written=True), default="checkpoints", show_default=True,
        help="Folder of the run and its checkpoints.",
    )  # fmt: skip


def checkpoint_options(command: Command) -> Command:
    """The checkpoint to read."""
    which = option(
        "Model", "--checkpoint", default="latest", show_default=True,
        help="latest, best, a name such as i2000_l512, or a path.",
    )  # fmt: skip
    return which(checkpoint_dir_option("Model")(command))


def unknown_option(group: str) -> Callable[[Command], Command]:
    """What to do with characters outside the vocabulary."""
    return option(
        group, "--unknown", type=click.Choice(UNKNOWN), default="error", show_default=True,
        help="Characters the model never saw: stop with an error, or skip them.",
    )  # fmt: skip


def json_option(command: Command) -> Command:
    """JSON instead of text on standard output."""
    return option("Output", "--json", "as_json", is_flag=True, help="Print JSON.  [default: off]")(command)


def output_option(**attributes: Any) -> Callable[[Command], Command]:
    """The file to write."""
    return option("Output", "--output", "-o", **attributes)


def seed_option(default: int | None, group: str) -> Callable[[Command], Command]:
    """The seed of samples; None: a new one each time."""
    shown = (
        "Same seed, same text.  [default: a new one]" if default is None else f"Seed of the samples.  [default: {default}]"
    )
    return option(group, "--seed", type=click.IntRange(0, 2**63 - 1), default=default, help=shown)
