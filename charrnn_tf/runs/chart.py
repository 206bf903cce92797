"""A run's losses as a small inline SVG, for notebooks; `insight.plots` draws files."""

from collections.abc import Sequence

from .metrics import Row

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 220, 48, 22  # pixels
TRAINING, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's, distinguishable with any common colour blindness
EARLY = 0.03  # of the run: losses before it do not set the scale


def chart(rows: Sequence[Row]) -> str:
    """An `<svg>` of training and validation losses, in nats per character, against steps. There must be a row."""
    lines = {
        TRAINING: [(row.step, row.train_loss) for row in rows if row.train_loss is not None],
        VALIDATION: [(row.step, row.validation_loss) for row in rows if row.validation_loss is not None],
    }
    last = rows[-1].step
    late = [loss for line in lines.values() for step, loss in line if step >= EARLY * last] or [0.0]
    low, high = min(late), max(*late, min(late) + 1e-6)

    def place(step: int, loss: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 8) * step / max(last, 1)
        return x, 8 + (HEIGHT - BOTTOM - 16) * (high - min(loss, high)) / (high - low)

    drawn = ""
    for colour, line in lines.items():
        points = [f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line)]
        drawn += f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    alone = [(TRAINING, point) for point in lines[TRAINING] if len(lines[TRAINING]) == 1]  # a single one has no line
    for colour, point in alone + [(VALIDATION, point) for point in lines[VALIDATION]]:
        x, y = place(*point)
        drawn += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
    validated = "validation loss, nats per character" if lines[VALIDATION] else "nats per character; not validated yet"
    labels = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
        for x, y, anchor, colour, text in (
            (LEFT - 6, 14, "end", "#777", f"{high:.3f}"),
            (LEFT - 6, HEIGHT - BOTTOM - 4, "end", "#777", f"{low:.3f}"),
            (WIDTH - 8, HEIGHT - 6, "end", "#777", f"step {last:,}"),
            (LEFT, HEIGHT - 6, "start", TRAINING, "training loss"),
            (LEFT + 110, HEIGHT - 6, "start", VALIDATION if lines[VALIDATION] else "#777", validated),
        )
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Losses" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="max-width: {WIDTH}px; font: 12px sans-serif">{drawn}{labels}</svg>'
    )
