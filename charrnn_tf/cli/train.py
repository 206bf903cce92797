"""`charrnn-tf train`."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from ..api import launch
from ..api.progress import Reading
from ..settings.merge import Resolved, read_settings
from ..settings.presets import DEFAULT, PRESETS
from .options import FilePath, Grouped, checkpoint_dir_option, option, setting_options

if TYPE_CHECKING:
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
        raise click.UsageError("--resume continues a run and --overwrite removes it; pass only one of them")
    if tensorboard:
        from ..insight.tensorboard import check

        check(tensorboard)
    file = read_settings(config_file) if config_file else {}
    in_file = file.pop("preset", DEFAULT)
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    request = launch.Request(text, checkpoint_dir, preset or in_file, file, given, init_from, overwrite, STARTED)
    trainer, resolved = (launch.resume if resume else launch.begin)(request, Reading(quiet))
    _run(trainer, resolved, checkpoint_dir, quiet, tensorboard)


def _run(trainer: Trainer, resolved: Resolved, checkpoint_dir: str, quiet: bool, tensorboard: str | None) -> None:
    """Train with a display; SIGINT, SIGTERM and SIGHUP save first, a second SIGINT does not wait."""
    from ..api.display import TrainDisplay

    received = _stop_on_signals(trainer)
    chief = trainer.replicas.is_chief
    events, path = None, None
    if tensorboard and chief:
        from ..insight.tensorboard import EventFile

        events = EventFile(tensorboard)
    with TrainDisplay(trainer, quiet or not chief, events) as display:
        display.introduce(resolved)
        for row in trainer.run(display if events or (chief and not quiet) else None):
            display.row(row)
        path = trainer.directory.latest if trainer.step and chief else None
        display.conclude()
        if trainer.stopped:
            again = launch.resuming(checkpoint_dir, trainer.text)
            display.say(f"Stopped and saved {path}. Continue with: {again}" if path else "Stopped.")
    with suppress(OSError) if trainer.stopped else nullcontext():  # a closed terminal accepts no output
        if path:
            click.echo(path)
    if trainer.stopped:
        sys.exit(128 + (received or [signal.SIGTERM])[0])  # none received: another worker was asked to stop


def _stop_on_signals(trainer: Trainer) -> list[int]:
    """Make signals stop the run; returns the list that received ones are added to."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # ignored under nohup
            signal.signal(getattr(signal, name), stop)
    return received


COMMANDS = (train,)
