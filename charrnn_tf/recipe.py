"""The rule that fills in what the default preset leaves open, from the text's length, the budget and the machine.

How the numbers were found, and what they give, stands in ADVICE.md.
"""

from __future__ import annotations

import math
from typing import Any

from .config import TrainConfig
from .runtime import available_cores, has_bfloat16, only_avx2

SPEEDS = {256: 37_000, 384: 21_000, 512: 13_700}  # units a layer -> characters a second and core, 2 layers, bfloat16
FLOAT32 = 0.7  # of that speed without bfloat16
ONLY_AVX2 = 0.18  # of it with neither bfloat16 nor AVX-512
START_SECONDS = 8.0  # of a run in which nothing is learnt: imports, compiling, saving
LEAST_UPDATES = 2_500  # that a wider model needs to end ahead of a narrower one
DROPOUT = (2.5, 0.15)  # passes over the text that need none, and what each doubling beyond them adds; at most 0.5
WEIGHT_DROPOUT = (5.0, 0.2)
WINDOWS_PER_STREAM = 8  # of a short text, at least
LEARNING_RATE, CLIP_NORM = 0.02, 0.1  # of Adam, at a width of 256; most gradients are cut, so that a huge one does no harm
FOR_ADAM = ("learning_rate", "clip_norm")
VALIDATE_EVERY = 1_000  # updates, where an epoch has fewer: a validation then takes some 5% of the time


def settings_for(
    characters: int,
    *,
    seconds: float | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    cores: int | None = None,
    bfloat16: bool | None = None,
    hidden_size: int | None = None,
) -> dict[str, Any]:
    """Settings by name for a text of so many characters and a budget; of several budgets the shortest counts.

    - `hidden_size`: the widest of 256, 384 and 512 that the budget gives at least 2,500 updates, by the speeds above.
    - `dropout`: 0 up to 2.5 passes over the text, and 0.15 more for each doubling, up to 0.5 at 25 passes.
    - `weight_dropout`: 0 up to 5 passes, and 0.2 more for each doubling, up to 0.5 at 28 passes.
    - `learning_rate`, of Adam: 0.02 up to a width of 256, and in inverse proportion to its root beyond.
    - `clip_norm`: 0.1, for Adam.
    - `batch_size`: 32 streams, halved until each has at least 8 windows to read.
    - `precision`: bfloat16 where the processor has it.
    - `validate_every`: 1,000 updates where an epoch has fewer.

    cores, bfloat16: of the machine; default: of this one, which alone tells whether AVX-512 is there. hidden_size: where it
    is given; the rest follows it.

    >>> chosen = settings_for(1_800_000, seconds=139, cores=2, bfloat16=True)
    >>> chosen["hidden_size"], chosen["dropout"], chosen["precision"]
    (384, 0.05, 'bfloat16')
    """
    default = TrainConfig()
    float32 = ONLY_AVX2 if only_avx2() else FLOAT32
    cores = available_cores() if cores is None else cores
    bfloat16 = has_bfloat16() if bfloat16 is None else bfloat16
    batch_size = default.batch_size
    while batch_size > 1 and characters < WINDOWS_PER_STREAM * batch_size * default.num_steps:
        batch_size //= 2
    window = batch_size * default.num_steps

    def budget(width: int) -> float:
        """Characters that a model of this width trains on."""
        nearest = min(SPEEDS, key=lambda measured: abs(measured - width))
        speed = SPEEDS[nearest] * (nearest / width) ** 1.5 * cores * (1.0 if bfloat16 else float32)
        limits = [
            None if seconds is None else max(seconds - START_SECONDS, 0.0) * speed,
            None if epochs is None else epochs * characters,
            None if max_steps is None else max_steps * window,
        ]
        return min((limit for limit in limits if limit is not None), default=math.inf)

    wide_enough = [width for width in SPEEDS if budget(width) >= LEAST_UPDATES * window]
    width = hidden_size or max(wide_enough, default=min(SPEEDS))
    passes = max(budget(width) / characters, 1e-9)

    def share(without: float, a_doubling: float) -> float:
        """Of outputs or weights to drop, in steps of 0.05."""
        return round(20 * min(max(a_doubling * math.log2(passes / without), 0.0), 0.5)) / 20

    chosen = {
        "hidden_size": width,
        "dropout": share(*DROPOUT),
        "weight_dropout": share(*WEIGHT_DROPOUT),
        "learning_rate": float(f"{LEARNING_RATE * min(1.0, (256 / width) ** 0.5):.2g}"),
        "clip_norm": CLIP_NORM,
        "batch_size": batch_size,
        "precision": "bfloat16" if bfloat16 else "float32",
    }
    return chosen | ({"validate_every": VALIDATE_EVERY} if characters < VALIDATE_EVERY * window else {})
