"""`charrnn-tf report` and `charrnn-tf plot`."""

import click

from ..api.progress import Reading
from ..insight import plots
from ..machine import startup
from ..runs.find import find_record, read_found
from ..text.corpus import check_length, load_corpus
from .options import (
    FilePath,
    Grouped,
    WholeNumber,
    checkpoint_options,
    option,
    output_option,
    reading_options,
    seed_option,
    unknown_option,
)
from .output import open_output


@click.command(cls=Grouped)
@checkpoint_options
@option("Text", "--text", type=FilePath(), required=True, help="Text for the model to read; - for standard input.")
@option("Text", "--limit-chars", type=WholeNumber(2, 50_000), default=5000, help="Read only the first N characters.")
@unknown_option("Text")
@reading_options("Text")
@output_option("Page to write.", type=FilePath(written=True), required=True)
@seed_option(0, "Output")
def report(
    checkpoint: str, checkpoint_dir: str, text: str, limit_chars: int, unknown: str, encoding: str | None,
    normalize: str | None, seed: int, output: str,
) -> None:  # fmt: skip
    """Write a page on what a model has learned.

    It shows the text coloured by surprise and by single cells, how far back predictions look, and samples. Prints the path.

    \b
    Example:
        charrnn-tf report --checkpoint best --text other.txt --output report.html
    """
    path, record = find_record(checkpoint, checkpoint_dir)
    how = record.reading(encoding, normalize)
    loaded = load_corpus([text], vocabulary=record.vocabulary, unknown=unknown, limit_chars=limit_chars, **how)
    Reading().conclude(loaded)
    check_length(loaded.ids, repr(text))
    startup.start(1)
    from ..insight.report import report as write_report

    with Reading(of="characters") as progress, open_output(output) as write:
        write(read_found(path, checkpoint, checkpoint_dir, lambda found: write_report(
            found, loaded.ids, text, seed=seed, progress=progress
        )))  # fmt: skip
    click.echo(output)


@click.command(cls=Grouped)
@click.argument("run", nargs=-1, required=True, type=FilePath())
@option("Picture", "--against", type=click.Choice(plots.AGAINST), default="steps", help="Unit of the horizontal axis.")
@option(
    "Picture", "--smoothing", type=click.FloatRange(0, 1, max_open=True), metavar="FLOAT", default=plots.SMOOTHING,
    help="Smoothing of the training loss, which is drawn over the raw line; 0: none.",
)  # fmt: skip
@output_option("A .png, .svg or .pdf file to write.", type=FilePath(), default="loss.png")
def plot(run: tuple[str, ...], output: str, against: str, smoothing: float) -> None:
    """Plot the losses of one or more runs in one picture.

    RUN: the folder of a run. Prints the path.

    \b
    Example:
        charrnn-tf plot checkpoints mine --against seconds --output loss.svg
    """
    click.echo(plots.plot_runs(run, output, against=against, smoothing=smoothing))


COMMANDS = (report, plot)
