"""The standard streams of the command: UTF-8 whatever the locale, and also where some are closed."""

import os
import sys

import click


def prepare() -> None:
    """Set the streams to UTF-8 with other bytes unchanged, and open closed descriptors 0 to 2 on the null device.

    TensorFlow writes messages to descriptor 2, whatever file has it. A closed standard error drops messages; closed standard
    input and output stay None, as Python has them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (as long as the process lives)
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def check_input() -> None:
    """Raise ClickException if standard input is closed."""
    if sys.stdin is None:
        raise click.ClickException("standard input is closed")


def check_output() -> None:
    """Raise ClickException if standard output is closed, for commands whose result goes there."""
    if sys.stdout is None:
        raise click.ClickException("standard output is closed")


def print_result(text: str) -> None:
    """Write a command's result to standard output."""
    check_output()
    click.echo(text)
