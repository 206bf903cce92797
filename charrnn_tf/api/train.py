"""Training from Python: the same defaults, files and bits as `charrnn-tf train`, which calls `execute` too."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, concise
from ..machine import startup
from ..runs.find import holds_run
from ..settings.merge import hint, read_settings, with_options
from ..settings.presets import DEFAULT
from ..settings.schema import SETTINGS
from ..text.names import check_text
from ..text.sources import GIVEN
from . import launch
from .progress import Reading
from .run import Run

if TYPE_CHECKING:
    from ..text.corpus import TextRecord
    from ..training.trainer import Trainer
    from .display import TrainDisplay

LONGEST_NAME = 1000  # characters
ARGUMENTS = ("source", "text", "preset", "checkpoint_dir", "resume", "overwrite", "init_from", "config", "display")


@with_options(dict.fromkeys(SETTINGS))
@concise
def train(
    source: str | Path | Iterable[str | Path] | None = None,
    *,
    text: str | None = None,
    preset: str | None = None,
    checkpoint_dir: str | Path = "checkpoints",
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    config: str | Path | None = None,
    display: bool | None = None,
    **settings: Any,
) -> Run:
    """Train a model as `charrnn-tf train` does with the same arguments, and return its run.

    source: a path or several (files, folders, globs); None: the built-in corpus. text: a string to train on instead.
    preset: "default" unless the TOML file `config` has another. resume: continue the run in `checkpoint_dir`. overwrite:
    replace it, once the first checkpoint of the new run is complete. init_from: fine-tune from a checkpoint or a run's
    folder. display: True shows progress, False is silent, None shows it in notebooks and terminals. All other arguments are
    the settings of a run, such as `max_seconds=600` or `hidden_size=256`; docs/settings.md explains each. None takes the
    preset's, which the run prints; on `resume`, the run's own.

    An interrupt (KeyboardInterrupt) saves within one step and returns the run with `stopped` True. Raises CharRNNError.

    >>> run = train("anna.txt", max_seconds=600)  # doctest: +SKIP
    >>> print(run.sample("The ", 500))  # doctest: +SKIP
    """
    started = time.monotonic()
    startup.check_backend()
    for name in settings:
        if name not in SETTINGS:
            raise ConfigError(f"train has no argument {name!r}{hint(name, {*ARGUMENTS, *SETTINGS})}")
    if resume and overwrite:
        raise ConfigError("`resume` continues a run and `overwrite` replaces it; pass only one of them")
    if text is not None and source is not None:
        raise ConfigError("pass either `source` or `text`, not both")
    if text is not None:
        check_text(text)
    sources = _names(source)
    file = read_settings(config) if config else {}
    in_file = file.pop("preset", DEFAULT)
    request = launch.Request(
        sources, str(checkpoint_dir), preset or in_file, file,
        {name: value for name, value in settings.items() if value is not None},
        None if init_from is None else str(init_from), overwrite, started, text,
    )  # fmt: skip
    shown = _in_notebook() or (sys.stderr is not None and sys.stderr.isatty()) if display is None else display
    trainer, received = execute(request, resume, _display(shown), ("SIGINT",), not shown, _resuming)
    run = Run(trainer.directory.path, stopped=trainer.stopped or bool(received))
    del trainer
    gc.collect()  # models are cycles; a process that trains again and again would keep some of them
    return run


def execute(
    request: launch.Request,
    resume: bool,
    make_display: Callable[[Trainer], TrainDisplay],
    signals: Sequence[str],
    quiet: bool = False,
    resuming: Callable[[str, TextRecord], str] = launch.resuming,
) -> tuple[Trainer, list[int]]:
    """Train a request to its end -> the trainer, and the signals that stopped it.

    A stopped run saves first; a second SIGINT does not wait. resuming: how a run in a folder is continued.
    """
    trainer, resolved = (launch.resume if resume else launch.begin)(request, Reading(quiet))
    with _stopping(trainer, signals) as received, make_display(trainer) as display:
        display.introduce(resolved)
        for row in trainer.run(display if display.active else None):
            display.row(row)
        display.conclude()
        if trainer.stopped:
            saved = trainer.replicas.is_chief and bool(trainer.directory.records)
            again = resuming(request.directory, trainer.text)
            path = trainer.directory.latest if saved else None
            nothing = "Stopped before the first checkpoint: nothing is saved."
            nothing += f" {request.directory!r} holds the run from before." if holds_run(request.directory) else ""
            display.say(f"Stopped and saved {path}. Continue with: {again}" if path else nothing)
    return trainer, received


@contextmanager
def _stopping(trainer: Trainer, names: Sequence[str]) -> Iterator[list[int]]:
    """Make signals stop the run; yields the list that received ones are added to. Only the main thread gets signals."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
                before[number] = signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(source: str | Path | Iterable[str | Path] | None) -> tuple[str, ...]:
    """The names of files in `source`."""
    if source is None:
        return ()
    given: list[Any] = [*source] if isinstance(source, Iterable) and not isinstance(source, str) else [source]
    if not given:
        raise ConfigError("the list of files is empty; without `source`, train takes the built-in corpus")
    for name in given:
        if not isinstance(name, str | os.PathLike):
            raise ConfigError(f"`source` must be a path, or several, got {name!r:.40}; pass a text itself as `text`")
        if isinstance(name, str) and _is_prose(name):
            raise ConfigError(f"{name[:20]!r}... is not the name of a file: pass a text itself as `text`")
    return tuple(map(str, given))


def _is_prose(source: str) -> bool:
    """Whether a text was passed where the names of files are meant."""
    long = len(source) > LONGEST_NAME or "\n" in source
    return long or (" " in source and not set("*?[") & {*source} and not os.path.exists(source))


def _resuming(directory: str, text: TextRecord) -> str:
    """The call that continues a run."""
    source = "text=..., " if GIVEN in (source.path for source in text.sources) else ""
    elsewhere = "" if directory == "checkpoints" else f", checkpoint_dir={directory!r}"
    return f"train({source}resume=True{elsewhere})"


def _display(shown: bool) -> Callable[[Trainer], Any]:
    """The display of a trainer: live in a notebook, lines or a live display on standard error elsewhere."""

    def make(trainer: Trainer) -> Any:
        if shown and _in_notebook():
            from .notebook import NotebookDisplay

            return NotebookDisplay(trainer)
        from .display import TrainDisplay

        return TrainDisplay(trainer, quiet=not shown)

    return make


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
