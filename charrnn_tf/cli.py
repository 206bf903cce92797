"""The command `charrnn-tf`: reads options, calls the package, prints. TensorFlow loads inside the commands that need it."""

from __future__ import annotations

import dataclasses
import json
import secrets
import signal
import sys
import time
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import config as settings
from . import estimate, events, launch, plots, runtime
from .config import PRESETS
from .corpus import check_length, load_corpus
from .errors import TextError
from .files import size_of
from .options import Commands, FilePath, checkpoint_dir_option, checkpoint_options, setting_options, unknown_option
from .output import Reading, open_output, write_samples
from .record import CONFIG, find_record, iteration, read_found, read_run
from .record import best as best_checkpoint
from .sources import Text
from .vocabulary import ByteVocabulary

if TYPE_CHECKING:
    from .sampling import Sampler
    from .training import Trainer

STARTED = time.monotonic()  # max_seconds counts from here
# What `export` writes: name -> the module whose `export_checkpoint` does it
FORMATS = {"savedmodel": "export", "keras": "keras_files", "torch": "torch_files", "web": "web"}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("charrnn-tf"), prog_name="charrnn-tf")
def cli() -> None:
    """Character-level language models: train on a text, write more of it, score texts, export.

    \b
    Example:
        charrnn-tf train anna.txt
        charrnn-tf sample --prime "The " --length 500
    """


@cli.command()
@click.argument("text", nargs=-1, type=FilePath())
@click.option("--preset", type=click.Choice(list(PRESETS)), default=None, help="Settings to begin with.  [default: default]")
@click.option(
    "--config",
    "config_file",
    type=FilePath(),
    default=None,
    help="TOML file of settings; flags win over it.  [default: none]",
)
@checkpoint_dir_option
@click.option("--resume", is_flag=True, help="Go on from the folder's latest checkpoint.  [default: off]")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.  [default: off]")
@click.option(
    "--init-from",
    type=FilePath(),
    default=None,
    help="Begin with the weights of a checkpoint, or a run's folder.  [default: none]",
)
@setting_options
@click.option(
    "--tensorboard", type=FilePath(written=True), default=None, help="Folder of events for TensorBoard.  [default: none]"
)
@click.option("--quiet", is_flag=True, help="Show errors only.  [default: off]")
def train(
    text: tuple[str, ...],
    preset: str | None,
    config_file: str | None,
    checkpoint_dir: str,
    resume: bool,
    overwrite: bool,
    init_from: str | None,
    tensorboard: str | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a model on text.

    TEXT: UTF-8 files, folders, globs, .gz, .bz2 or .xz files, or - for standard input; without it, the built-in corpus.

    The last checkpoint's path is printed at the end. With the default preset and no budget a run takes 10 minutes for a
    million characters, at least 1 and at most 27; the other presets have budgets of their own.

    \b
    Example:
        charrnn-tf train anna.txt --epochs 5 --hidden-size 256
        charrnn-tf train --resume --epochs 10
    """
    if resume and overwrite:
        raise click.UsageError("--resume goes on with a run and --overwrite removes it; give one of them")
    if tensorboard:
        events.check(tensorboard)
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    file = settings.read_settings(config_file) if config_file else {}
    preset = preset or file.pop("preset", "default")
    settings.check_preset(preset)
    file.pop("preset", None)
    asked = settings.resolve(preset, file, given)
    chosen: dict[str, Any] = {}
    if resume:
        trainer = launch.resume(text, checkpoint_dir, asked, init_from, STARTED, Reading(quiet))
    else:
        by_rule = preset == "default"
        trainer, chosen = launch.begin(text, checkpoint_dir, asked, init_from, overwrite, STARTED, by_rule, Reading(quiet))
    budget_given = resume or any(asked.get(budget) for budget in settings.BUDGETS)
    _run(trainer, checkpoint_dir, quiet, chosen, budget_given, tensorboard)


def _run(
    trainer: Trainer, checkpoint_dir: str, quiet: bool, chosen: dict[str, Any], budget_given: bool, tensorboard: str | None
) -> None:
    """Train with a display; SIGINT, SIGTERM and SIGHUP save first, a second SIGINT does not wait."""
    from .progress import TrainDisplay

    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # as under nohup
            signal.signal(getattr(signal, name), stop)
    chief = trainer.replicas.is_chief
    quiet = quiet or not chief
    written = events.EventFile(tensorboard) if tensorboard and chief else None
    with TrainDisplay(trainer, quiet, written) as display:
        display.introduce(chosen, budget_given)
        for row in trainer.run(display if written or not quiet else None):
            display.row(row)
        path = trainer.directory.latest if trainer.step and chief else None
        display.conclude(finished=not trainer.stopped)
        if trainer.stopped:
            display.say(
                f"Stopped and saved {path}. Go on with: {launch.resuming(checkpoint_dir, trainer.text)}"
                if path
                else "Stopped."
            )
    with suppress(OSError) if trainer.stopped else nullcontext():  # a terminal that was closed takes nothing any more
        if path:
            click.echo(path)
    if trainer.stopped:
        sys.exit(128 + (received or [signal.SIGTERM])[0])  # none received: another worker was asked to stop


@cli.command()
@checkpoint_options
@click.option("--prime", default="", help="What the text begins with.  [default: a newline, unprinted]")
@click.option(
    "--prime-file", type=FilePath(), default=None, help="File that holds the prime; - for standard input.  [default: none]"
)
@click.option("--interactive", is_flag=True, help="Ask for primes, one a line.  [default: off]")
@click.option("--length", type=click.IntRange(min=1), default=1000, show_default=True, help="Characters to generate.")
@click.option(
    "--top-n",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Draw from the n likeliest characters only (top-k); 0: no cut.",
)
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    help="Draw from the likeliest characters that reach this probability together; 1: no cut.",
)
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="Below 1 safer, above 1 bolder; 0: always the likeliest.",
)
@click.option("--num-samples", type=click.IntRange(min=1), default=1, show_default=True, help="Texts to generate.")
@click.option("--stop", default=None, help="End a text where this would appear.  [default: never]")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=None, help="Same seed, same text.  [default: a fresh one]"
)
@unknown_option
@click.option("--output", "-o", type=FilePath(), default=None, help="File to write the text to.  [default: standard output]")
def sample(
    checkpoint: str,
    checkpoint_dir: str,
    prime: str,
    prime_file: str | None,
    interactive: bool,
    num_samples: int,
    stop: str | None,
    seed: int | None,
    output: str | None,
    **draw: Any,
) -> None:
    """Write text from a trained model.

    It goes to standard output as it comes.

    \b
    Example:
        charrnn-tf sample --checkpoint best --prime "Anna " --length 2000 --temperature 0.8
    """  # fmt: skip
    if sum((bool(prime), prime_file is not None, interactive)) > 1:
        raise click.UsageError("--prime, --prime-file and --interactive exclude each other; give one of them")
    if stop == "":
        raise click.UsageError("--stop needs a text that is not empty")
    settings.check_cuts(**{name: draw[name] for name in ("top_n", "top_p", "temperature")})
    path, record = find_record(checkpoint, checkpoint_dir)
    estimate.check_memory(estimate.sampling_memory(record.model, num_samples), "Use fewer --num-samples.")
    vocabulary = record.vocabulary
    raw = isinstance(vocabulary, ByteVocabulary)
    characters = ""
    if prime_file is not None:
        with Text((prime_file,), as_bytes=raw) as text:
            characters = "".join(text.blocks())
    try:
        encode = vocabulary.encode if prime_file is None else vocabulary.encode_characters
        known = encode(prime or characters, draw["unknown"])
    except TextError as error:
        raise TextError(f"{'--prime' if prime_file is None else repr(prime_file)} has {error}") from error
    with open_output(output) as write:
        if seed is None:
            seed = secrets.randbelow(2**31)
            click.echo(f"Seed: {seed}", err=True)
        sampler = _sampler(path, checkpoint, checkpoint_dir, num_samples)
        if not interactive:
            end = "" if raw and output else "\n"  # a file of bytes holds what was asked for and no line's end
            return write_samples(sampler, write, vocabulary.decode(known, "surrogateescape"), stop, end, seed=seed, **draw)
        while True:
            click.echo("Prime (end with Ctrl-D): ", nl=False, err=True)
            line = sys.stdin.readline()
            if not line:
                return click.echo(err=True)
            try:
                known = vocabulary.encode(line.rstrip("\n"), draw["unknown"])
            except TextError as error:
                click.echo(f"Error: {error}", err=True)
                continue
            write_samples(sampler, write, vocabulary.decode(known, "surrogateescape"), stop, seed=seed, **draw)
            seed = (seed + 1) % 2**63


def _sampler(path: Path, checkpoint: str, checkpoint_dir: str, num_samples: int) -> Sampler:
    runtime.start(runtime.available_cores())  # one thread an operation: the products are too small to share out
    from .sampling import Sampler

    return read_found(path, checkpoint, checkpoint_dir, lambda found: Sampler.from_checkpoint(found, num_samples))


@cli.command()
@click.argument("text", type=FilePath())
@checkpoint_options
@unknown_option
@click.option(
    "--window", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
    help="Begin anew every N characters, as a model with a context of N does; 0: one pass.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.  [default: off]")
def evaluate(text: str, checkpoint: str, checkpoint_dir: str, unknown: str, window: int, as_json: bool) -> None:
    """Score a text, in nats a character.

    The model reads the text (- for standard input) once, from a zero state.

    \b
    Example:
        charrnn-tf evaluate other.txt --checkpoint best --unknown skip
    """
    path, record = find_record(checkpoint, checkpoint_dir)
    reading = Reading(quiet=as_json)
    with reading as progress:
        loaded = load_corpus([text], vocabulary=record.vocabulary, unknown=unknown, progress=progress)
    reading.conclude(loaded)
    check_length(loaded.ids, repr(text))
    runtime.start(runtime.available_cores())
    from .checkpoint import load_model
    from .evaluation import Evaluator

    model, record = read_found(path, checkpoint, checkpoint_dir, load_model)
    evaluator = Evaluator(model, record.model, runtime.available_cores())
    with Reading(quiet=as_json, of="characters") as progress:
        result = evaluator.evaluate(loaded.ids, window=window, progress=progress)
    as_text = (
        f"{result.nats_per_character:.4f} nats a character ({result.bits_per_character:.4f} bits, perplexity "
        f"{result.perplexity:.3f}) over {result.characters:,} characters"
    )
    click.echo(json.dumps(result.as_dict()) if as_json else as_text)


@cli.command()
@checkpoint_options
@click.option("--output", "-o", type=FilePath(written=True), required=True, help="Folder or file to write.")
@click.option(
    "--format", "kind", type=click.Choice(list(FORMATS)), default="savedmodel", show_default=True,
    help="savedmodel: for any TensorFlow; keras: plain layers (.keras); torch: PyTorch notebooks (.net); web: one page.",
)  # fmt: skip
@click.option(
    "--text", type=FilePath(), default=None,
    help="Text that tells what rounding costs (web only).  [default: what the run held out of its own]",
)  # fmt: skip
def export(checkpoint: str, checkpoint_dir: str, output: str, kind: str, text: str | None) -> None:
    """Write a model for other programs, and print its path.

    \b
    Example:
        charrnn-tf export --checkpoint best --output model
        charrnn-tf export --format web --output model.html
    """
    if text and kind != "web":
        raise click.UsageError("--text tells what a page's rounding costs: it goes with --format web only")
    path, record = find_record(checkpoint, checkpoint_dir)
    held_out = launch.held_out(record, text) if kind == "web" else None
    runtime.start(runtime.available_cores())

    module = import_module(f".{FORMATS[kind]}", __package__)
    if said := read_found(path, checkpoint, checkpoint_dir, lambda found: module.export_checkpoint(found, output, held_out)):
        click.echo(said, err=True)
    click.echo(output)


@cli.command("import")
@click.argument("file", type=FilePath())
@click.option("--text", type=FilePath(), default=None, help="Text whose characters the model learnt.  [default: none]")
@click.option("--vocabulary-file", type=FilePath(), default=None, help="JSON file of the characters.  [default: none]")
@checkpoint_dir_option
def import_(file: str, text: str | None, vocabulary_file: str | None, checkpoint_dir: str) -> None:
    """Read another tool's model.

    It becomes a checkpoint, whose path is printed.

    FILE: a PyTorch notebook's rnn_20_epoch.net, a TensorFlow 1 notebook's i3960_l512.ckpt, a .keras or .weights.h5 of Keras.

    \b
    Example:
        charrnn-tf import rnn_20_epoch.net --checkpoint-dir old
        charrnn-tf import notebook/i3960_l512.ckpt --text anna.txt --checkpoint-dir old
    """
    if text and vocabulary_file:
        raise click.UsageError("--text and --vocabulary-file exclude each other; give one of them")
    vocabulary = load_corpus([text]).vocabulary if text else None
    runtime.start()
    from .importing import import_model, read_vocabulary

    click.echo(import_model(file, checkpoint_dir, read_vocabulary(vocabulary_file) if vocabulary_file else vocabulary))


@cli.command()
@checkpoint_options
@unknown_option
@click.option("--text", type=FilePath(), required=True, help="Text that the model reads; - for standard input.")
@click.option(
    "--limit-chars",
    type=click.IntRange(2, 50_000),
    default=5000,
    show_default=True,
    help="Read only the text's first characters.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the samples.")
@click.option("--output", "-o", type=FilePath(written=True), required=True, help="Page to write.")
def report(checkpoint: str, checkpoint_dir: str, unknown: str, text: str, limit_chars: int, seed: int, output: str) -> None:
    """Write a page on what a model learnt.

    It shows surprise, what single cells follow, how far back predictions look, and samples. Its path is printed.

    \b
    Example:
        charrnn-tf report --checkpoint best --text other.txt --output report.html
    """
    path, record = find_record(checkpoint, checkpoint_dir)
    loaded = load_corpus([text], vocabulary=record.vocabulary, unknown=unknown, limit_chars=limit_chars)
    check_length(loaded.ids, repr(text))
    runtime.start()
    from .report import report as write_report

    with Reading(of="characters") as progress, open_output(output) as write:
        write(read_found(path, checkpoint, checkpoint_dir, lambda found: write_report(
            found, loaded.ids, text, seed=seed, progress=progress
        )))  # fmt: skip
    click.echo(output)


@cli.command()
@click.argument("run", nargs=-1, required=True, type=FilePath())
@click.option(
    "--output", "-o", type=FilePath(), default="loss.png", show_default=True, help="A .png, .svg or .pdf to write."
)
@click.option(
    "--against",
    type=click.Choice(plots.AGAINST),
    default="steps",
    show_default=True,
    help="What the losses are drawn against.",
)
@click.option(
    "--smoothing", type=click.FloatRange(0, 1, max_open=True), default=plots.SMOOTHING, show_default=True,
    help="Smoothing of the training loss; 0: none. The raw line stands behind.",
)  # fmt: skip
def plot(run: tuple[str, ...], output: str, against: str, smoothing: float) -> None:
    """Draw the losses of runs.

    RUN: the folders of runs, which go into one picture; its path is printed.

    \b
    Example:
        charrnn-tf plot checkpoints mine --against seconds --output loss.svg
    """
    click.echo(plots.plot_runs(run, output, against=against, smoothing=smoothing))


@cli.command()
@checkpoint_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.  [default: off]")
def checkpoints(checkpoint_dir: str, as_json: bool) -> None:
    """List a run's checkpoints.

    Epoch, losses in nats a character, date and size; * marks the best.

    \b
    Example:
        charrnn-tf checkpoints --checkpoint-dir checkpoints
    """
    records = read_run(checkpoint_dir)
    best = best_checkpoint(records) if records else None
    rows = []
    for path, record in sorted(records.items(), key=lambda item: iteration(item[0])):
        try:
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((path / CONFIG).stat().st_mtime))
            size = size_of(path)
        except FileNotFoundError:  # a run that trains has removed it meanwhile
            continue
        losses = {"train_loss": record.train_loss, "validation_loss": record.validation_loss}
        rows.append({"name": record.name, "epoch": record.epoch, **losses, "date": date, "size": size, "best": path == best})
    click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'name':<16} {'epoch':>8} {'train':>8} {'validation':>11} {'date':<20} {'size':>9}"]
    for row in rows:
        train, validation = ("-" if row[name] is None else f"{row[name]:.4f}" for name in ("train_loss", "validation_loss"))
        mark = "*" if row["best"] else " "
        lines.append(
            f"{row['name']:<16} {row['epoch']:>8.2f} {train:>8} {validation:>10}{mark} {row['date']:<20} "
            f"{row['size'] / 1e6:>6.1f} MB"
        )
    return "\n".join(lines)


@cli.group()
def corpus() -> None:
    """Well-known texts by name: list them, fetch one.

    \b
    Example:
        charrnn-tf corpus fetch anna
    """


@corpus.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.  [default: off]")
def list_corpora(as_json: bool) -> None:
    """List the texts that can be fetched, and how long they are.

    \b
    Example:
        charrnn-tf corpus list
    """
    from .fetch import CORPORA

    rows = [{"name": name, **dataclasses.asdict(each)} for name, each in CORPORA.items()]
    lines = (f"{row['name']:<16} {row['size'] / 1e6:>5.1f} MB  {row['about']}\n{'':<26}{row['url']}" for row in rows)
    click.echo(json.dumps(rows, indent=2) if as_json else "\n".join(lines))


@corpus.command("fetch")
@click.argument("name")
@click.option("--directory", type=FilePath(), default="data", show_default=True, help="Folder to write NAME.txt to.")
@click.option("--url", default=None, help="Another place that has the text.  [default: the one that is listed]")
def fetch_corpus(name: str, directory: str, url: str | None) -> None:
    """Download a text, check it, and print its path; a download that was cut goes on.

    \b
    Example:
        charrnn-tf train "$(charrnn-tf corpus fetch tinyshakespeare)"
    """
    from .fetch import fetch

    with Reading() as progress:
        path = fetch(name, directory, url=url, progress=lambda done, total: progress(f"Fetching {name}", done, total))
    click.echo(path)


@cli.command()
@click.option("--compare", is_flag=True, help="Also measure PyTorch and plain Keras, where installed.  [default: off]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.  [default: off]")
def benchmark(compare: bool, as_json: bool) -> None:
    """Measure this machine's speed.

    Large products, training steps, sampling: under 3 minutes without --compare.

    \b
    Example:
        charrnn-tf benchmark --compare
    """
    runtime.start(runtime.available_cores())
    from .benchmark import as_text
    from .benchmark import benchmark as measure

    result = measure(compare, lambda part: click.echo(f"Measuring {part} ...", err=True))
    click.echo(json.dumps(result, indent=2) if as_json else as_text(result))


def main() -> None:
    """The console script: UTF-8 on standard output whatever the locale, and bytes that are none as they are."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    cli()
