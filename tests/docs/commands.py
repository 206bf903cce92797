"""Writes docs/commands.md, the reference of all commands and options, from the commands themselves.

python tests/docs/commands.py
"""

import inspect
import textwrap
from pathlib import Path

import click

from charrnn_tf.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
BEGINNING = """# Commands

This page lists every command with its options and their defaults, as `--help` shows them. It is generated:
`python tests/docs/commands.py` writes it again.

`N` stands for a whole number, `FLOAT` for any number, `TEXT` for a string, `PATH` for a file or folder; the argument `TEXT`
of a command is a file of text. Exit status: 0 done, 1 an error explained in one line, 2 wrong usage, 129, 130 or 143
stopped by a closed terminal (SIGHUP), Ctrl-C or SIGTERM. `train` saves before it stops, except at a second Ctrl-C; `serve`
exits with 0 after SIGTERM.

| command | purpose |
|---|---|
"""


def every_command():
    """(name, command) of every command, those of groups too: `corpus list`."""
    for name, command in cli.commands.items():
        for inner, each in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), each


def render():
    """The page."""
    commands = list(every_command())
    rows = [f"| [{name}](#{name.replace(' ', '-')}) | {_about(command)[0]} |\n" for name, command in commands]
    return BEGINNING + "".join(rows) + "".join(_section(name, command) for name, command in commands)


def _section(name, command):
    ctx = click.Context(command, click.Context(cli, info_name="charrnn-tf", **cli.context_settings), name)
    parts = [f"\n## {name}", f"```text\n{ctx.get_usage().removeprefix('Usage: ')}\n```", *_about(command)]
    parts.append(f"```sh\n{_examples(command)}\n```")
    groups = {}
    for option in command.params:
        if isinstance(option, click.Option):
            groups.setdefault(option.group, []).append(_row(option, ctx))
    for group, rows in groups.items():
        parts.append(f"**{group}**\n\n| option | default | meaning |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _about(command):
    """The paragraphs of a command's help before the example."""
    text = inspect.cleandoc(command.help).partition("\b")[0]
    return [textwrap.fill(" ".join(paragraph.split()), 120) for paragraph in text.split("\n\n") if paragraph.strip()]


def _examples(command):
    lines = inspect.cleandoc(command.help).partition("Example:\n")[2].splitlines()
    return "\n".join(line.strip() for line in lines)


def _row(option, ctx):
    names, text = option.get_help_record(ctx)
    about, _, default = text.partition("  [")
    shown = "required" if option.required else default.removeprefix("default: ").partition("]")[0]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{names}`", shown, about)) + " |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
