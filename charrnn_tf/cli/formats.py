"""`charrnn-tf export` and `charrnn-tf import`."""

import os
from typing import Any

import click

from ..formats.exporting import FORMATS, export_checkpoint, held_out_ids
from ..machine import startup
from ..runs.find import find_record, read_found
from ..text.corpus import load_corpus
from .options import (
    FilePath,
    Grouped,
    checkpoint_dir_option,
    checkpoint_options,
    in_options,
    option,
    output_option,
    reading_options,
)


@click.command(cls=Grouped)
@checkpoint_options
@output_option("Folder or file to write.", type=FilePath(), required=True)
@option(
    "Output", "--format", "kind", type=click.Choice(list(FORMATS)), default="savedmodel",
    help="savedmodel: for any TensorFlow; keras: plain layers (.keras); torch: PyTorch notebooks (.net); onnx: ONNX Runtime "
    "(.onnx); web: one page.",
)  # fmt: skip
@option(
    "Output", "--text", type=FilePath(), shown="the run's held-out part",
    help="Text for measuring the loss added by 8-bit weights (web only).",
)  # fmt: skip
@reading_options("Output")
def export(
    checkpoint: str, checkpoint_dir: str, output: str, kind: str, text: str | None, encoding: str | None,
    normalize: str | None,
) -> None:  # fmt: skip
    """Write a model for other programs.

    Prints the path.

    \b
    Example:
        charrnn-tf export --checkpoint best --output model
        charrnn-tf export --format web --output model.html
    """
    if text and kind != "web":
        raise click.UsageError("--text measures the rounding of a page's weights: use it with --format web only")
    path, record = find_record(checkpoint, checkpoint_dir)
    held_out = held_out_ids(record, text, encoding, normalize) if kind == "web" else None
    startup.start()
    if said := read_found(path, checkpoint, checkpoint_dir, lambda found: export_checkpoint(found, output, kind, held_out)):
        click.echo(in_options(said), err=True)
    click.echo(os.fsencode(output))  # a name need not be UTF-8


@click.command("import", cls=Grouped)
@click.argument("file", type=FilePath())
@option("Vocabulary", "--text", type=FilePath(), help="Text that the model was trained on.")
@reading_options("Vocabulary", of_run=False)
@option("Vocabulary", "--vocabulary-file", type=FilePath(), help="JSON list of its characters by id.")
@checkpoint_dir_option("Output")
def import_(
    file: str, text: str | None, encoding: str | None, normalize: str | None, vocabulary_file: str | None,
    checkpoint_dir: str,
) -> None:  # fmt: skip
    """Import another tool's model as a checkpoint.

    Prints the checkpoint's path.

    FILE: rnn_20_epoch.net of a PyTorch notebook or another file of torch.save, i3960_l512.ckpt of a TensorFlow 1 notebook,
    or a Keras file (.keras, .h5, .weights.h5).

    \b
    Example:
        charrnn-tf import rnn_20_epoch.net --checkpoint-dir old
        charrnn-tf import notebook/i3960_l512.ckpt --text anna.txt --checkpoint-dir old-tf1
    """
    if text and vocabulary_file:
        raise click.UsageError("--text and --vocabulary-file exclude each other; pass only one of them")
    how: dict[str, Any] = {"encoding": encoding or "utf-8", "normalize": normalize or "none"}
    vocabulary = load_corpus([text], **how).vocabulary if text else None
    startup.start(1)
    from ..formats.importing import import_model, read_vocabulary

    click.echo(import_model(file, checkpoint_dir, read_vocabulary(vocabulary_file) if vocabulary_file else vocabulary))


COMMANDS = (export, import_)
