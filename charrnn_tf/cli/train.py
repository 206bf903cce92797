"""`charrnn-tf train`."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from ..api.launch import Request
from ..api.train import execute
from ..settings.merge import read_settings
from ..settings.presets import DEFAULT, PRESETS
from .options import FilePath, Grouped, checkpoint_dir_option, in_options, option, setting_options

if TYPE_CHECKING:
    from ..api.display import TrainDisplay
    from ..training.trainer import Trainer

STARTED = time.monotonic()  # max_seconds counts from here


@click.command(cls=Grouped)
@click.argument("text", nargs=-1, type=FilePath())
@checkpoint_dir_option("Run")
@option("Run", "--resume", is_flag=True, help="Continue from the latest checkpoint in the folder.")
@option("Run", "--overwrite", is_flag=True, help="Replace the run in the folder.")
@option("Run", "--init-from", type=FilePath(), help="Fine-tune: start from the weights of a checkpoint or a run's folder.")
@option("Run", "--preset", type=click.Choice(list(PRESETS)), shown=DEFAULT, help="Settings to start from.")
@option("Run", "--config", "config_file", type=FilePath(), help="TOML file of settings; options override it.")
@setting_options
@option("Samples and display", "--tensorboard", type=FilePath(written=True), help="Write TensorBoard events to this folder.")
@option("Samples and display", "--quiet", is_flag=True, help="Show errors only.")
def train(
    text: tuple[str, ...],
    checkpoint_dir: str,
    resume: bool,
    overwrite: bool,
    init_from: str | None,
    preset: str | None,
    config_file: str | None,
    tensorboard: str | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a model on text.

    TEXT: UTF-8 files, folders, globs, .gz, .bz2 or .xz files, or - for standard input; without it, the built-in corpus.

    Prints the path of the last checkpoint at the end. The default preset without a budget trains 10 minutes per million
    characters, at least 1 and at most 27; other presets have their own budgets.

    \b
    Example:
        charrnn-tf train anna.txt --epochs 5 --hidden-size 256
        charrnn-tf train --resume --epochs 10
    """
    if resume and overwrite:
        raise click.UsageError("--resume continues a run and --overwrite replaces it; pass only one of them")
    if tensorboard:
        from ..insight.tensorboard import EventFile, check

        check(tensorboard)
    file = read_settings(config_file) if config_file else {}
    in_file = file.pop("preset", DEFAULT)
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    request = Request(text, checkpoint_dir, preset or in_file, file, given, init_from, overwrite, STARTED)

    def display(trainer: Trainer) -> TrainDisplay:
        from ..api.display import TrainDisplay

        chief = trainer.replicas.is_chief
        events = EventFile(tensorboard) if tensorboard and chief else None
        return TrainDisplay(trainer, quiet or not chief, events, in_options)

    trainer, received = execute(request, resume, display, ("SIGINT", "SIGTERM", "SIGHUP"), quiet)
    path = trainer.directory.latest if trainer.step and trainer.replicas.is_chief else None
    with suppress(OSError) if trainer.stopped else nullcontext():  # a closed terminal accepts no output
        if path:
            click.echo(path)
    if trainer.stopped:
        sys.exit(128 + (received or [signal.SIGTERM])[0])  # none received: another worker was asked to stop


COMMANDS = (train,)
