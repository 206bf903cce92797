"""A run in Python: its history and checkpoints, and everything that the commands do with them."""

from __future__ import annotations

import dataclasses
import html
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError, concise
from ..machine import startup
from ..runs.chart import chart
from ..runs.find import find, find_record, holds_run, identity, list_checkpoints, without_checkpoints
from ..runs.metrics import METRICS, Row, read_rows
from ..runs.record import Record
from ..settings.merge import hint, with_options
from ..text.corpus import check_length, load_corpus
from ..text.names import NAME, check_text
from ..text.vocabulary import Ids

if TYPE_CHECKING:
    from ..inference.batch import Completion
    from ..inference.colours import Sample, Samples
    from ..inference.evaluation import Evaluation
    from ..inference.line_scores import LineScore
    from ..inference.sampling import Sampler

DRAWING = {  # arguments of `Sampler.sample`, with their defaults
    "temperature": 1.0, "top_n": 5, "top_p": 1.0, "min_p": 0.0, "stop": None, "unknown": "error", "normalize": None,
    "errors": "replace",
}  # fmt: skip
ROWS_SHOWN = 20  # of a history's table in a notebook
FORMATS = {"step": ",", "epoch": ".2f", "seconds": ",.1f", "learning_rate": ".3g", "chars_per_second": ",.0f"}


class History(list[Row]):
    """The rows of metrics.csv: a list that also converts, `pandas.DataFrame(history)`."""

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The rows as a dictionary of columns, by name."""
        return {field.name: [getattr(row, field.name) for row in self] for field in dataclasses.fields(Row)}

    def _repr_html_(self) -> str:
        """The latest rows as a table."""
        names = list(self.columns)
        lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
        for row in self[-ROWS_SHOWN:]:
            named = dataclasses.asdict(row).items()
            cells = ("" if value is None else format(value, FORMATS.get(name, ".4f")) for name, value in named)
            lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        return f"<table>{''.join(lines)}</table>"


class Run:
    """A run's folder, as `train` and `open_run` return it. Everything is read when it is asked for, so it is never stale.

    Methods take `checkpoint`: "latest", "best", a name such as "i2000_l512", or a path.
    """

    def __init__(self, directory: str | Path, stopped: bool = False) -> None:
        self.directory = Path(directory)
        self.stopped = stopped  # whether an interrupt ended the training that returned this object
        self._sampler: tuple[Any, Sampler] | None = None  # of the checkpoint used last

    def __repr__(self) -> str:
        """Folder, latest checkpoint and losses, on one line."""
        try:
            path, record = find_record("latest", self.directory)
        except CheckpointError:
            return f"Run({str(self.directory)!r}, no checkpoint)"
        losses = {"train loss": record.train_loss, "validation loss": record.validation_loss}
        shown = "".join(f", {name} {loss:.4f}" for name, loss in losses.items() if loss is not None)
        return f"Run({str(self.directory)!r}, {path.name}{shown}{', stopped' if self.stopped else ''})"

    @property
    def history(self) -> History:
        """The rows of metrics.csv; losses in nats per character."""
        path = self.directory / METRICS
        return History(read_rows(path) if path.exists() else ())

    @property
    def checkpoints(self) -> list[Path]:
        """Paths of the checkpoints, oldest first."""
        return list_checkpoints(self.directory)

    @property
    def latest(self) -> Path:
        """The checkpoint with the highest step. Raises CheckpointError where there is none."""
        return find("latest", self.directory)

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation loss; without validation, the latest."""
        return find("best", self.directory)

    def sampler(self, checkpoint: str | Path = "latest") -> Sampler:
        """The sampling model of a checkpoint, batch 1; the last one used is kept."""
        path = find(checkpoint, self.directory)
        kept = self._sampler  # another thread may replace it
        if kept is None or kept[0] != identity(path):
            startup.start()
            from ..inference.sampling import Sampler

            kept = self._sampler = identity(path), Sampler.from_checkpoint(path)
        return kept[1]

    @with_options(DRAWING)
    @concise
    def sample(
        self, prime: str = "", length: int = 1000, *, num_samples: int = 1, checkpoint: str | Path = "latest",
        seed: int | None = None, **drawing: Any,
    ) -> Sample | Samples:  # fmt: skip
        """Generate `length` characters after a prime; a notebook shows each character's surprise.

        num_samples: with more than 1, the result is a list of that many texts.

        seed: None draws a new one; the result has it as `seed`. temperature: below 1 is safer, above 1 bolder; 0 takes the
        likeliest character. top_n, top_p, min_p: cut unlikely characters off (0, 1 and 0: no cut). stop: the text ends
        before this would appear. unknown: "skip" drops characters of the prime that the model never saw. normalize, errors:
        as in `Sampler.chunks`. For many primes, see `sample_many`. Raises ConfigError for other arguments.
        """
        for name in drawing:
            if name not in DRAWING:
                many = "; `sample_many` has" if name == "primes" else hint(name, DRAWING)
                raise ConfigError(f"sample has no argument {name!r}{many}")
        seed = secrets.randbelow(2**31) if seed is None else seed
        sampler = self.sampler(checkpoint)
        if num_samples == 1:
            return sampler.sample(prime, length, seed=seed, **drawing)
        return sampler.samples(prime, num_samples, length, seed=seed, **drawing)

    @concise
    def show(self, text: str | Path, *, checkpoint: str | Path = "latest", limit_chars: int = 5000) -> Sample:
        """A text, or the text of a file, for a notebook to show with each character coloured by its surprise.

        Characters that the model never saw are left out. limit_chars: length to read.
        """
        path, record = find_record(checkpoint, self.directory)
        ids = _encode(text, record, "skip", limit_chars, **record.reading(None, None))
        return self.sampler(path).shown(record.vocabulary.decode(ids))

    @concise
    def sample_many(
        self, primes: Iterable[str], num_samples: int = 1, length: int = 1000, *, checkpoint: str | Path = "latest",
        seed: int | None = None, **settings: Any,
    ) -> Iterator[Completion]:  # fmt: skip
        """Yield `num_samples` texts after each prime; see `Sampler.sample_many`. seed: None draws a new one."""
        seed = secrets.randbelow(2**31) if seed is None else seed
        return self.sampler(checkpoint).sample_many(primes, num_samples, length, seed=seed, **settings)

    @concise
    def score_lines(
        self, lines: Iterable[str], *, checkpoint: str | Path = "latest", with_newline: bool = False, unknown: str = "error",
        normalize: str | None = None,
    ) -> Iterator[LineScore]:  # fmt: skip
        """Yield the score of each line; see `charrnn_tf.score_lines`."""
        path, _ = find_record(checkpoint, self.directory)
        startup.start()
        from ..inference.line_scores import score_lines

        return score_lines(path, lines, with_newline=with_newline, unknown=unknown, normalize=normalize)

    @concise
    def evaluate(
        self, text: str | Path, *, checkpoint: str | Path = "latest", unknown: str = "error", window: int = 0,
        encoding: str | None = None, normalize: str | None = None,
    ) -> Evaluation:  # fmt: skip
        """Score a text, or the text of a file, in nats per character; see `charrnn_tf.evaluate`.

        encoding, normalize: how to read it, as in `load_text`; None is as the run's own text.
        """
        path, record = find_record(checkpoint, self.directory)
        startup.start()
        from ..inference.evaluation import Evaluator
        from ..machine.hardware import available_cores
        from ..runs.checkpoint import load_model

        ids = _encode(text, record, unknown, **record.reading(encoding, normalize))
        check_length(ids)
        model, record = load_model(path)
        return Evaluator(model, record.model, available_cores()).evaluate(ids, window=window)

    @concise
    def export(
        self, path: str | Path, format: str = "savedmodel", *, checkpoint: str | Path = "latest", text: str | None = None,
        encoding: str | None = None, normalize: str | None = None,
    ) -> Path:  # fmt: skip
        """Write the model for other programs and return the path; formats as in `charrnn-tf export`.

        text: file for measuring the loss added by 8-bit weights, for "web" only. encoding, normalize: how to read it.
        """
        from ..formats.exporting import export_checkpoint, held_out_ids

        found, record = find_record(checkpoint, self.directory)
        held_out = held_out_ids(record, text, encoding, normalize) if format == "web" else None
        startup.start()
        export_checkpoint(found, path, format, held_out)
        return Path(path)

    @concise
    def report(
        self, text: str | Path, path: str | Path, *, checkpoint: str | Path = "latest", unknown: str = "error",
        limit_chars: int = 5000, seed: int = 0, encoding: str | None = None, normalize: str | None = None,
    ) -> Path:  # fmt: skip
        """Write a page on what the model has learned, with a text or the text of a file; returns the path.

        encoding, normalize: how to read it, as in `load_text`; None is as the run's own text.
        """
        from ..files import write_file

        if not os.path.isdir(Path(path).absolute().parent):  # before reading, which takes long
            raise ConfigError(f"can't write {str(path)!r}: there is no folder {str(Path(path).parent)!r}")
        found, record = find_record(checkpoint, self.directory)
        ids = _encode(text, record, unknown, limit_chars, **record.reading(encoding, normalize))
        startup.start(1)
        from ..insight.report import report

        title = str(text) if _is_path(text) else "a text"
        write_file(path, report(found, ids, title, seed=seed).encode("utf-8", "surrogateescape"))
        return Path(path)

    @concise
    def plot(self, path: str | Path | None = None, *, against: str = "steps") -> Any:
        """Plot the losses: a matplotlib figure, or the path of the .png, .svg or .pdf file that is written."""
        from ..insight import plots

        if path is None:
            return plots.draw([plots.read_run(self.directory)], against=against)
        return plots.plot_runs([self.directory], path, against=against)

    def _repr_html_(self) -> str:
        """Losses and a sample, for notebooks."""
        rows = self.history
        parts = [f"<p><code>{html.escape(repr(self))}</code></p>", chart(rows) if rows else ""]
        if self.checkpoints:
            parts.append(self.sample(length=300, seed=0)._repr_html_())
        return "".join(parts)


@concise
def open_run(checkpoint_dir: str | Path = "checkpoints") -> Run:
    """Open the run in a folder. Raises CheckpointError where there is none."""
    if not os.path.isdir(checkpoint_dir) or not holds_run(checkpoint_dir):
        list_checkpoints(checkpoint_dir)  # raises where there is no such folder
        raise without_checkpoints(checkpoint_dir)
    return Run(checkpoint_dir)


def _encode(
    text: str | Path, record: Record, unknown: str, limit_chars: int | None = None, *, encoding: str, normalize: str
) -> Ids:
    """The ids of a text, or of the text of a file."""
    is_path = _is_path(text)
    if not is_path and isinstance(text, str) and NAME.fullmatch(text):
        raise ConfigError(f"there is no file {text!r}; a text that looks like a file's name can't be read")
    if not is_path:
        check_text(text)
    names, content = ((text,), None) if is_path else ((), str(text))
    return load_corpus(
        names, content=content, vocabulary=record.vocabulary, unknown=unknown, limit_chars=limit_chars, encoding=encoding,
        normalize=normalize,
    ).ids  # fmt: skip


def _is_path(text: str | Path) -> bool:
    """Whether a text is meant as the path of a file: a Path, or a string that names an existing file."""
    if not isinstance(text, str):
        return isinstance(text, Path)
    return len(text) < 1000 and "\n" not in text and "\0" not in text and os.path.isfile(text)
