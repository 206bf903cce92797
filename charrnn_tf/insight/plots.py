"""Pictures of runs' losses: PNG, SVG or PDF, by the name's ending; drawn by matplotlib."""

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
    from matplotlib.ticker import Locator

ENDINGS = (".png", ".svg", ".pdf")
AGAINST = ("steps", "characters", "seconds")
SMOOTHING = 0.6
LEAST_SMOOTHED = 10  # rows: of fewer the running mean would only lag
LATE = 0.03  # of the run: losses before it do not set the scale
# Okabe and Ito's colours that readers with any common kind of colour blindness tell apart, the darkest first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LOOKS = {"light": ("#1a1a1a", "#d0d0d0"), "dark": ("#e6e6e6", "#4a4a4a")}  # ink and grid


@dataclass(frozen=True)
class Run:
    """What is drawn of a run."""

    name: str
    rows: Sequence[Row]
    chars_per_step: int | None = None  # None: not known

    def places(self, against: str) -> npt.NDArray[np.float64]:
        """Where its rows stand: steps, characters read or seconds, [rows]."""
        if against == "seconds":
            return np.array([row.seconds for row in self.rows])
        if against == "characters" and self.chars_per_step is None:
            raise CheckpointError(f"{self.name!r} has no checkpoint, which tells how many characters a step reads")
        return np.array([float(row.step) for row in self.rows]) * (self.chars_per_step if against == "characters" else 1)


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """A run's rows by its folder. Raises CheckpointError where there are none."""
    path = Path(folder)
    if not os.path.isfile(path / METRICS):
        raise CheckpointError(f"{str(folder)!r} is no run's folder: it holds no {METRICS}")
    rows = read_rows(path / METRICS)
    if not rows:
        raise CheckpointError(f"the run in {str(folder)!r} has logged nothing yet")
    name = name or names([folder])[0]
    try:
        train = find_record("latest", path)[1].train
    except CheckpointError:
        return Run(name, rows)
    return Run(name, rows, train.batch_size * train.num_steps)


def run_or_none(folder: str | Path) -> Run | None:
    """A run's rows; None where there are none."""
    try:
        return read_run(folder)
    except CheckpointError:
        return None


def plot_runs(
    folders: Sequence[str | Path], output: str | Path, *, against: str = "steps", smoothing: float = SMOOTHING
) -> Path:
    """Draw training and validation losses of runs into one picture and return its path.

    against: "steps", "characters" (read in training) or "seconds". smoothing: of the training loss, 0 to below 1: how much
    of the line before goes into each of its points; the raw line stands behind.
    Raises ConfigError for another ending than .png, .svg and .pdf, CheckpointError for a folder without a run.
    """
    if against not in AGAINST:
        raise ConfigError(f"--against must be one of {', '.join(AGAINST)}, got {against!r}")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"--smoothing must be from 0 to below 1, got {smoothing}")
    output = Path(output)
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"--output must end with {', '.join(ENDINGS)}, got {str(output)!r}")
    runs = [read_run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]
    picture = draw(runs, against=against, smoothing=smoothing)
    with appearing(output) as path:
        picture.savefig(path, format=ending[1:], metadata={"Date": None} if ending == ".svg" else None)
    return output


def names(folders: Sequence[str | Path]) -> list[str]:
    """What tells folders apart: their last parts, as many as it takes."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    ends = (["/".join(each[-count:]) for each in parts] for count in range(1, max(map(len, parts)) + 1))
    return next(found for found in ends if len(set(found)) == len(set(parts)))


def draw(runs: Sequence[Run], *, against: str = "steps", smoothing: float = SMOOTHING, look: str = "light") -> Figure:
    """The picture itself. look: "light" or "dark", of what is not the runs' own colours; a dark one has no background."""
    figure, axes = _page(look)
    for n, run in enumerate(runs):
        colour = COLOURS[n % len(COLOURS)]
        _draw_run(axes, run, against, smoothing, LOOKS[look][0] if colour == "#000000" else colour)
    _scale(axes, runs, against, smoothing)
    axes.set_ylabel("loss, nats a character")
    axes.legend(frameon=False, labelcolor=LOOKS[look][0])
    return figure


def _page(look: str) -> tuple[Figure, Axes]:
    """An empty picture."""
    from matplotlib.figure import Figure

    ink, grid = LOOKS[look]
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    axes.grid(color=grid, linewidth=0.5)
    axes.tick_params(colors=ink, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)
    return figure, axes


def as_svg(picture: Figure) -> str:
    """A picture as one `<svg>` element."""
    file = io.StringIO()
    picture.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def smoothed(
    values: npt.NDArray[np.float64], amount: float, spans: Sequence[float] | None = None
) -> npt.NDArray[np.float64]:
    """The running mean in which each value counts `amount` times as much as the one after it; gaps (nan) are passed over.

    spans: how much each value stands for, in values of the usual kind; a short one counts less and takes the mean less far.
    """
    out, total, weight = np.empty_like(values), 0.0, 0.0
    for n, (value, span) in enumerate(zip(values, spans or [1.0] * len(values), strict=True)):
        if not math.isnan(value):
            total, weight = amount**span * total + span * value, amount**span * weight + span
        out[n] = total / weight if weight else math.nan
    return out


def _losses(run: Run, name: str) -> npt.NDArray[np.float64]:
    """A column of losses, nan where there is none, [rows]."""
    return np.array([math.nan if (loss := getattr(row, name)) is None else loss for row in run.rows])


def _shown(run: Run, smoothing: float) -> npt.NDArray[np.float64]:
    """The training loss as it is drawn: smoothed where there are rows enough, [rows]."""
    losses = _losses(run, "train_loss")
    if not smoothing or len(losses) < LEAST_SMOOTHED:
        return losses
    steps = np.diff([row.step for row in run.rows], prepend=0)  # an epoch's last row may stand for a few only
    return smoothed(losses, smoothing, list(steps / np.median(steps)))


def _draw_run(axes: Axes, run: Run, against: str, smoothing: float, colour: str) -> None:
    places, training, validation = run.places(against), _losses(run, "train_loss"), _losses(run, "validation_loss")
    name = ("./" if run.name.startswith("_") else "") + run.name.replace("$", r"\$")  # matplotlib has its own ideas of both
    alone = "o" if len(places) == 1 else None
    shown = _shown(run, smoothing)
    if smoothing and len(places) >= LEAST_SMOOTHED:
        axes.plot(places, training, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(places, shown, color=colour, linewidth=1.6, marker=alone, label=f"{name}, training")
    there = ~np.isnan(validation)
    if there.any():
        axes.plot(
            places[there], validation[there], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), marker="o", markersize=3.5,
            markerfacecolor="none", label=f"{name}, validation",
        )  # fmt: skip


def _scale(axes: Axes, runs: Sequence[Run], against: str, smoothing: float) -> None:
    """Readable axes: the first steep fall does not press all else flat, and numbers have units."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    longest = max(run.places(against)[-1] for run in runs)
    shown = []
    for run in runs:
        places = run.places(against)
        late = places >= LATE * places[-1]
        shown += [_shown(run, smoothing)[late], _losses(run, "validation_loss")[late]]
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if len(values) > 1 and values.max() > values.min():
        margin = 0.06 * (values.max() - values.min())
        axes.set_ylim(values.min() - margin, values.max() + margin)
    if against == "seconds":
        unit, size = next((unit for unit in (("hours", 3600), ("minutes", 60)) if longest >= 3 * unit[1]), ("seconds", 1))
        axes.set_xlabel(f"{unit} of the run")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place / size:g}"))
        axes.xaxis.set_major_locator(_multiples(size, longest))
    elif against == "characters":
        axes.set_xlabel("characters read in training")
        axes.xaxis.set_major_formatter(EngFormatter())
    else:
        axes.set_xlabel("training steps")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _multiples(size: int, longest: float) -> Locator:
    """Ticks at round numbers of a unit of so many seconds, about eight."""
    from matplotlib.ticker import MultipleLocator

    rough = longest / size / 8
    power = 10 ** math.floor(math.log10(rough)) if rough > 0 else 1
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return MultipleLocator(step * size)


def draw_distances(lengths: npt.NDArray[np.float32], look: str = "light") -> Figure:
    """How much predictions hang on the character at each distance: mean lengths of gradients, the nearest first."""
    figure, axes = _page(look)
    axes.semilogy(np.arange(len(lengths)) + 1, np.maximum(lengths, np.finfo(np.float32).tiny), color=COLOURS[0], marker=".")
    axes.set_xlabel("characters back")
    axes.set_ylabel("mean length of the gradient")
    return figure
