"""Options that several commands share, help in groups, and errors as one line."""

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import click

from ..errors import CharRNNError, reason
from ..machine import startup
from ..settings.schema import EPOCH, NORMAL_FORMS, SETTINGS, UNKNOWN, Interval, Setting

Command = Callable[..., Any]
COLUMN = 24  # width of the options in help; wider ones take a line of their own


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

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which the commands were added, not by the alphabet."""
        return list(self.commands)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # that is the help itself, with click 8.2 and later
            error.ctx = None  # would add the usage and a hint
        if (extra := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", error.message)) and os.path.isdir(extra[1]):
            told = f"{error.message}; a run's folder is given with --checkpoint-dir {extra[1]}"
            raise click.UsageError(told) from error
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


def _warn_in_options(record: logging.LogRecord) -> bool:
    """A logging filter that turns the names in a warning into options."""
    record.msg, record.args = in_options(record.getMessage()), ()
    return True


class Grouped(click.Command):
    """A command that uses Keras's default settings, with options grouped under headings in its help."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        startup.use_own_keras()
        logger = logging.getLogger("charrnn_tf")
        logger.addFilter(_warn_in_options)
        try:
            return super().invoke(ctx)
        finally:
            logger.removeFilter(_warn_in_options)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, in the order in which the groups first appear."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                text = re.sub(r"\[default: .{,40}\]", lambda short: short[0].replace(" ", "\u00a0"), record[1])  # unbroken
                groups.setdefault(getattr(parameter, "group", "Other"), []).append((record[0].ljust(COLUMN), text))
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=COLUMN)
        formatter.buffer = [part.replace("\u00a0", " ") for part in formatter.buffer]


class _GroupedOption(click.Option):
    def __init__(self, *arguments: Any, group: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


def option(group: str, *names: str, help: str, shown: Any = None, **attributes: Any) -> Callable[[Command], Command]:
    """`click.option`, listed in the help under the heading `group`, with its default.

    shown: the default as the help shows it, if not the value itself.
    """
    if shown is None:
        default = attributes.get("default")
        shown = "off" if attributes.get("is_flag") else "none" if default is None else default
    if not attributes.get("required"):
        help += f"  [default: {shown}]"
    return click.option(*names, cls=_GroupedOption, group=group, help=help, **attributes)


class WholeNumber(click.ParamType):  # type: ignore[type-arg]
    """A whole number of at least `least` and at most `most` (None: no limit), or the given word."""

    def __init__(self, least: int, most: int | None = None, word: str = "") -> None:
        self.name = f"N|{word}" if word else "N"
        self._least, self._most, self._word = least, most, word

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The name as it is; click would write it in capitals."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Accept numbers within the bounds, in any spelling that `int` knows."""
        if self._word and value == self._word:
            return self._word
        try:
            number = int(value)
        except ValueError:
            number = self._least - 1  # refused below
        if number < self._least or (self._most is not None and number > self._most):
            most = "" if self._most is None else f" and at most {self._most:,}"
            other = f" or the word {self._word}" if self._word else ""
            self.fail(f"{value!r} is not a whole number of at least {self._least}{most}{other}", param, ctx)
        return number


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


class Escaped(click.ParamType):  # type: ignore[type-arg]
    """A text in which escapes mean what they mean in a string of Python; another backslash is itself."""

    name = "text"
    _characters: ClassVar = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Replace `\\n`, `\\t`, `\\r`, a double backslash, `\\xHH` and `\\uHHHH`."""
        escape = r"\\(?:([ntr\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))"
        return re.sub(escape, lambda found: self._characters.get(found[1]) or chr(int(found[2] or found[3], 16)), value)


def setting_options(command: Command) -> Command:
    """The options of `train` that TOML files and presets can set too; None where not given."""
    for each in reversed(SETTINGS.values()):
        about: Setting = each.metadata["setting"]
        command = option(
            about.group,
            f"--{each.name.replace('_', '-')}",
            type=Escaped() if each.name in ("separator", "sample_prime") else _click_type(about),
            default=None,
            multiple=about.kind is tuple,
            is_flag=about.kind is bool,
            help=about.help,
            shown=about.default_help or each.default,
        )(command)
    return command


def _click_type(about: Setting) -> Any:
    if about.choices:
        return click.Choice(about.choices)
    if about.kind in (int, Interval):
        return WholeNumber(about.bounds["least"], word=EPOCH if about.kind is Interval else "")
    return about.kind if about.kind in (float, bool) else str


def checkpoint_dir_option(group: str) -> Callable[[Command], Command]:
    """The folder of a run."""
    about = "Folder of the run and its checkpoints."
    return option(group, "--checkpoint-dir", type=FilePath(written=True), default="checkpoints", help=about)


def checkpoint_options(command: Command) -> Command:
    """The checkpoint to read."""
    about = "latest, best, a name such as i2000_l512, or a path."
    return option("Model", "--checkpoint", default="latest", help=about)(checkpoint_dir_option("Model")(command))


def unknown_option(group: str) -> Callable[[Command], Command]:
    """The option for characters outside the vocabulary."""
    about = "Characters the model never saw: stop with an error, or skip them."
    return option(group, "--unknown", type=click.Choice(UNKNOWN), default="error", help=about)


def reading_options(group: str, of_run: bool = True) -> Callable[[Command], Command]:
    """The options for reading files: encoding and normalization form. of_run: by default as the run's own text."""

    def add(command: Command) -> Command:
        for name, kind in ("normalize", click.Choice(NORMAL_FORMS)), ("encoding", str):
            about = SETTINGS[name]
            shown = "that of the run" if of_run else about.default
            command = option(group, f"--{name}", type=kind, help=about.metadata["setting"].help, shown=shown)(command)
        return command

    return add


def json_option(command: Command) -> Command:
    """JSON instead of text on standard output."""
    return option("Output", "--json", "as_json", is_flag=True, help="Print JSON.")(command)


def output_option(help: str, **attributes: Any) -> Callable[[Command], Command]:
    """The file to write."""
    return option("Output", "--output", "-o", help=help, **attributes)


def seed_option(default: int | None, group: str) -> Callable[[Command], Command]:
    """The seed of samples; None: a new one each time."""
    about = "Seed of the random numbers: same seed, same text."
    shown = "a new one" if default is None else default
    return option(group, "--seed", type=WholeNumber(0, 2**63 - 1), default=default, help=about, shown=shown)
