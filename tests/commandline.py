"""Runs `charrnn-tf` for tests: in this process, or in one of its own as a user has it."""

import os
import random
import re
import subprocess
from pathlib import Path

import processes
from click.testing import CliRunner

from charrnn_tf.cli.main import cli

_WORDS = "the a cat dog house river runs sleeps over under quickly slowly and then by night"
_draw = random.Random(1)
TEXT = "The " + "".join(_draw.choice(_WORDS.split()) + _draw.choice(["  ", ".\n", " ", " "]) for _ in range(1000))
TINY = (
    "--hidden-size", 8, "--num-layers", 1, "--dropout", 0, "--batch-size", 2, "--num-steps", 4, "--log-every", 2,
)  # fmt: skip
RUN = (  # further options of the run in the fixture `home`
    "--validate-every", 2, "--save-every", 4, "--seed", 3, "--learning-rate", 0.002, "--precision", "float32",
)  # fmt: skip
SPENT = "All steps of this run are done. To continue, pass a larger --max-steps or --epochs.\n"


def call(*arguments, stdin=None):
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def succeed(*arguments, stdin=None):
    """Run a command that must exit 0; returns its standard output."""
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def refuse(*arguments, status=1, stdin=None):
    """Run a command that must end with one line on standard error and write nothing; returns the line."""
    before = snapshot()
    result = call(*arguments, stdin=stdin)
    assert_one_line(result.stderr)
    assert (result.exit_code, result.stdout) == (status, "")
    assert snapshot() == before
    return result.stderr


def start(*arguments, **settings):
    """Run a command in its own process, with no environment variable of TensorFlow set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
    return subprocess.run(processes.command(*arguments), env=environment, check=False, **pipes)


def assert_one_line(stderr):
    assert re.fullmatch(r"Error: [^\n]+\n", stderr), stderr


def snapshot(folder="."):
    """Everything in a folder: names and contents. Not of the checkout, which other tests write to and which is large."""
    assert not Path(folder, "pyproject.toml").exists()
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def every_command():
    """(name, command) of every command, those of groups too: `corpus list`."""
    for name, command in cli.commands.items():
        for inner, each in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), each
