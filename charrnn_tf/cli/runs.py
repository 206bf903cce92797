"""`charrnn-tf checkpoints`."""

import json
import time
from typing import Any

import click

from ..files import size_of
from ..runs import find
from ..runs.record import CONFIG, iteration
from .options import Grouped, checkpoint_dir_option, json_option
from .streams import print_result


@click.command(cls=Grouped)
@checkpoint_dir_option("Model")
@json_option
def checkpoints(checkpoint_dir: str, as_json: bool) -> None:
    """List a run's checkpoints.

    Shows epoch, losses in nats per character, date and size; * marks the best.

    \b
    Example:
        charrnn-tf checkpoints --checkpoint-dir checkpoints
    """
    records = find.read_run(checkpoint_dir)
    if not (records or as_json):
        raise find.without_checkpoints(checkpoint_dir)
    best = find.best(records) if records else None
    rows = []
    for path, record in sorted(records.items(), key=lambda item: iteration(item[0])):
        try:
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((path / CONFIG).stat().st_mtime))
            size = size_of(path)
        except FileNotFoundError:  # removed meanwhile by a training run
            continue
        losses = {"train_loss": record.train_loss, "validation_loss": record.validation_loss}
        rows.append({"name": record.name, "epoch": record.epoch, **losses, "date": date, "size": size, "best": path == best})
    print_result(json.dumps(rows, indent=2) if as_json else _table(rows))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'name':<16} {'epoch':>8} {'train':>8} {'validation':>11} {'date':<20} {'size':>9}"]
    for row in rows:
        train, validation = ("-" if row[name] is None else f"{row[name]:.4f}" for name in ("train_loss", "validation_loss"))
        mark = "*" if row["best"] and row["validation_loss"] is not None else " "
        lines.append(
            f"{row['name']:<16} {row['epoch']:>8.2f} {train:>8} {validation:>10}{mark} {row['date']:<20} "
            f"{row['size'] / 1e6:>6.1f} MB"
        )
    return "\n".join(lines)


COMMANDS = (checkpoints,)
