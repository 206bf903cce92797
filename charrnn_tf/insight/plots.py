"""Plots of runs' losses as PNG, SVG or PDF, drawn by matplotlib. Needs no TensorFlow."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError, ConfigError
from ..files import appearing
from ..runs.find import find_record
from ..runs.metrics import METRICS, Row, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
AGAINST = ("steps", "characters", "seconds")
SMOOTHING = 0.6
LEAST_SMOOTHED = 50  # rows of each run in a picture; over fewer, a mean would change what they show
EARLY = 0.03  # of the run: losses before it do not set the scale
# Okabe and Ito's colours, distinguishable with any common colour blindness; black is replaced by the ink of the look
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LOOKS = {"light": ("#1a1a1a", "#d0d0d0"), "dark": ("#e6e6e6", "#4a4a4a")}  # ink and grid
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A run's rows, and how to name and place them."""

    name: str
    rows: Sequence[Row]
    chars_per_step: int | None = None  # None: unknown

    def places(self, against: str) -> Values:
        """Steps, characters read or seconds of its rows, [rows]."""
        if against == "seconds":
            return np.array([row.seconds for row in self.rows])
        if against == "characters" and self.chars_per_step is None:
            raise CheckpointError(f"{self.name!r} has no checkpoint, so the number of characters per step is unknown")
        return np.array([float(row.step) for row in self.rows]) * (self.chars_per_step if against == "characters" else 1)

    def losses(self, column: str) -> Values:
        """A column of losses, nan where it is empty, [rows]."""
        return np.array([math.nan if (loss := getattr(row, column)) is None else loss for row in self.rows])


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """A run's rows from its folder. Raises CheckpointError if there are none."""
    path = Path(folder)
    if not os.path.isfile(path / METRICS):
        raise CheckpointError(f"{str(folder)!r} is not a run's folder: it has no {METRICS}")
    rows = read_rows(path / METRICS)
    if not rows:
        raise CheckpointError(f"the run in {str(folder)!r} has logged nothing yet")
    name = name or names([folder])[0]
    try:
        train = find_record("latest", path)[1].train
    except CheckpointError:
        return Run(name, rows)
    return Run(name, rows, train.batch_size * train.num_steps)


def plot_runs(
    folders: Sequence[str | Path], output: str | Path, *, against: str = "steps", smoothing: float = SMOOTHING
) -> Path:
    """Draw training and validation losses of runs into one picture file and return its path.

    against: "steps", "characters" (read in training) or "seconds". smoothing: of the training loss, 0 to below 1, the weight
    of the previous rows; the raw line is drawn faintly behind.
    Raises ConfigError for a suffix other than .png, .svg and .pdf, CheckpointError for a folder without a run.
    """
    if against not in AGAINST:
        raise ConfigError(f"`against` must be one of {', '.join(AGAINST)}, got {against!r}")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"`smoothing` must be from 0 to below 1, got {smoothing}")
    output = Path(output)
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"`output` must end with {', '.join(SUFFIXES)}, got {str(output)!r}")
    runs = [read_run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]
    figure = draw(runs, against=against, smoothing=smoothing)
    with appearing(output) as path:
        figure.savefig(path, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
    return output


def names(folders: Sequence[str | Path]) -> list[str]:
    """Shortest distinct names of folders: as many of their last parts as needed."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    ends = (["/".join(each[-count:]) for each in parts] for count in range(1, max(map(len, parts)) + 1))
    return next(found for found in ends if len(set(found)) == len(set(parts)))


def draw(runs: Sequence[Run], *, against: str = "steps", smoothing: float = SMOOTHING, look: str = "light") -> Figure:
    """The picture itself. look: "light" or "dark", the colours of axes and text on a transparent background."""
    figure, axes = _empty_figure(look)
    ink = LOOKS[look][0]
    late = []
    smoothing = smoothing if min(len(run.rows) for run in runs) >= LEAST_SMOOTHED else 0.0
    for n, run in enumerate(runs):
        colour = COLOURS[n % len(COLOURS)]
        late.append(_draw_run(axes, run, against, smoothing, ink if colour == "#000000" else colour))
    _set_limits(axes, np.concatenate(late))
    _label(axes, against, max(run.places(against)[-1] for run in runs))
    axes.set_ylabel("loss, nats per character")
    axes.legend(frameon=False, labelcolor=ink)
    return figure


def draw_distances(lengths: npt.NDArray[np.float32], look: str = "light") -> Figure:
    """Plot the mean norm of a prediction's gradient against the distance of the input, nearest first."""
    figure, axes = _empty_figure(look)
    axes.semilogy(np.arange(len(lengths)) + 1, np.maximum(lengths, np.finfo(np.float32).tiny), color=COLOURS[0], marker=".")
    axes.set_xlabel("characters back")
    axes.set_ylabel("mean norm of the gradient")
    return figure


def as_svg(figure: Figure) -> str:
    """A picture as one `<svg>` element."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def smoothed(values: Values, amount: float, spans: Sequence[float] | None = None) -> Values:
    """Mean around each value, in which neighbours weigh `amount` times as much with each step away; gaps (nan) are ignored.

    It looks ahead as far as back, so that a falling line does not lag. spans: length of each value's interval relative to
    the typical one; it scales the value's weight and the decay.
    """
    lengths = np.asarray(spans or [1.0] * len(values))
    own = np.where(np.isnan(values), 0.0, [lengths * np.nan_to_num(values), lengths])  # totals and weights
    both = _decayed(own, amount**lengths) + _decayed(own[:, ::-1], amount ** lengths[::-1])[:, ::-1] - own
    with np.errstate(invalid="ignore"):
        return np.asarray(both[0] / both[1])


def _decayed(terms: Values, decays: Values) -> Values:
    """Running sums [2, N] of terms [2, N]; each term decays what came before it, one without weight nothing."""
    sums = np.zeros_like(terms)
    for n, (term, decay) in enumerate(zip(terms.T, decays, strict=True)):
        sums[:, n] = (sums[:, n - 1] if n else 0.0) * (decay if term[1] else 1.0) + term
    return sums


def _empty_figure(look: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks show as a cell's last value; they know others only once pyplot is in use."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=100)
            return file.getvalue()

    ink, grid = LOOKS[look]
    figure = Picture(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    axes.grid(color=grid, linewidth=0.5)
    axes.tick_params(colors=ink, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)
    return figure, axes


def _draw_run(axes: Axes, run: Run, against: str, smoothing: float, colour: str) -> Values:
    """Draw a run's lines; returns the losses that the scale must cover: all but the first steep fall."""
    places, training, validation = run.places(against), run.losses("train_loss"), run.losses("validation_loss")
    name = ("./" if run.name.startswith("_") else "") + run.name.replace("$", r"\$")  # both are special to matplotlib
    label = f"{name}, training"
    if smoothing:
        axes.plot(places, training, color=colour, alpha=0.25, linewidth=0.8)
        steps = np.diff([row.step for row in run.rows], prepend=0)  # the last row of an epoch may stand for fewer steps
        training = smoothed(training, smoothing, list(steps / np.median(steps)))
        label += ", smoothed"
    alone = "o" if len(places) == 1 else None
    axes.plot(places, training, color=colour, linewidth=1.6, marker=alone, label=label)
    there = ~np.isnan(validation)
    if there.any():
        axes.plot(
            places[there], validation[there], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), marker="o", markersize=3.5,
            markerfacecolor="none", label=f"{name}, validation",
        )  # fmt: skip
    late = places >= EARLY * places[-1]
    return np.concatenate([training[late], validation[late]])


def _set_limits(axes: Axes, losses: Values) -> None:
    losses = losses[np.isfinite(losses)]
    if len(losses) > 1 and losses.max() > losses.min():
        margin = 0.06 * (losses.max() - losses.min())
        axes.set_ylim(losses.min() - margin, losses.max() + margin)


def _label(axes: Axes, against: str, longest: float) -> None:
    """Label the horizontal axis, with a unit of time that suits the longest run."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, MultipleLocator

    if against == "seconds":
        unit, size = next((unit for unit in (("hours", 3600), ("minutes", 60)) if longest >= 3 * unit[1]), ("seconds", 1))
        axes.set_xlabel(f"{unit} of the run")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place / size:g}"))
        rough = longest / size / 8  # about eight ticks, at round numbers
        power = 10 ** math.floor(math.log10(rough)) if rough > 0 else 1
        axes.xaxis.set_major_locator(MultipleLocator(size * next(power * k for k in (1, 2, 5, 10) if power * k >= rough)))
    elif against == "characters":
        axes.set_xlabel("characters read in training")
        axes.xaxis.set_major_formatter(EngFormatter())
    else:
        axes.set_xlabel("training steps")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
