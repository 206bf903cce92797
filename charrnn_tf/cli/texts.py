"""`charrnn-tf corpus`."""

import dataclasses
import json
from functools import partial

import click

from ..api.progress import Reading
from .options import FilePath, Grouped, json_option, option
from .streams import print_result


@click.group()
def corpus() -> None:
    """List and download well-known texts by name.

    \b
    Example:
        charrnn-tf corpus fetch anna
    """


@corpus.command("list", cls=Grouped)
@json_option
def list_corpora(as_json: bool) -> None:
    """List the texts that can be downloaded, with their sizes.

    \b
    Example:
        charrnn-tf corpus list
    """
    from ..text.catalog import CORPORA

    rows = [{"name": name, **dataclasses.asdict(each)} for name, each in CORPORA.items()]
    lines = (f"{row['name']:<16} {row['size'] / 1e6:>5.1f} MB  {row['about']}\n{'':<26}{row['url']}" for row in rows)
    print_result(json.dumps(rows, indent=2) if as_json else "\n".join(lines))


@corpus.command("fetch", cls=Grouped)
@click.argument("name")
@option("Output", "--directory", type=FilePath(), default="data", help="Folder to write NAME.txt to.")
@option("Source", "--url", shown="the listed one", help="Another address of the text.")
def fetch_corpus(name: str, directory: str, url: str | None) -> None:
    """Download a text and verify it.

    Prints the path. An interrupted download continues.

    \b
    Example:
        charrnn-tf train "$(charrnn-tf corpus fetch tinyshakespeare)"
    """
    from ..text import catalog

    with Reading() as progress:
        path = catalog.fetch_corpus(name, directory, url=url, progress=partial(progress, f"Fetching {name}"))
    click.echo(path)


COMMANDS = (corpus,)
