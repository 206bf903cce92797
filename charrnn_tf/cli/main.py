"""The command `charrnn-tf`: parses options, calls the package, prints. TensorFlow loads inside commands that need it."""

from importlib import import_module
from importlib.util import find_spec

import click

from .. import __version__
from . import streams
from .options import Commands

MODULES = ("train", "inference", "runs", "formats", "insight", "texts", "bench", "service")  # each adds its COMMANDS


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="charrnn-tf")
def cli() -> None:
    """Train character-level language models, generate text with them, score texts, export models.

    \b
    Example:
        charrnn-tf train anna.txt
        charrnn-tf sample --prime "The " --length 500
    """


for _module in MODULES:
    if find_spec(f"{__package__}.{_module}"):  # an optional room can be removed together with its commands
        for _command in import_module(f".{_module}", __package__).COMMANDS:
            cli.add_command(_command)


def main() -> None:
    """The console script."""
    streams.prepare()
    cli()
