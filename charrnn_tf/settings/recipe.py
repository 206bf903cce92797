"""The default preset's rule: chooses settings by the length of the text, the budget and the machine.

docs/settings.md explains how the numbers were found and what they achieve.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .schema import TrainConfig

SPEEDS = {256: 37_000, 384: 21_000, 512: 13_700}  # hidden size -> characters per second and core; 2 layers, bfloat16
PRODUCTS = 0.7  # share of a step's time in large products; only this share gets shorter on a faster machine
ON_GPU = 5_000  # characters per second and stream, which a GPU reads side by side; assumed, no GPU was measured
START_SECONDS = 8.0  # of a run without training steps: imports, compiling, saving
LEAST_UPDATES = 2_500  # that a wider model needs to reach a lower loss than a narrower one
DROPOUT = (2.5, 0.15)  # passes over the text up to which the rate is 0; increase per doubling beyond them
WEIGHT_DROPOUT = (5.0, 0.2)
MOST_DROPOUT = 0.5
LEAST_STREAMS = 5  # per shard: with fewer, products are too small to run in parallel
WINDOWS_PER_STREAM = 8  # lower bound; short texts get fewer streams
LEARNING_RATE = 0.02  # for Adam, at a width of 256
# Clipping bounds huge gradients, so the rate can stay high; decay bounds the weights, averaging at the end reduces the noise
FIXED_FOR_ADAM = {"clip_norm": 0.1, "final_rate": 0.4, "averaging": 0.3, "weight_decay": 0.05}
FOR_ADAM = ("learning_rate", *FIXED_FOR_ADAM)
BY_SPEED = ("hidden_size", "dropout", "weight_dropout")  # with a budget in seconds; the learning rate follows the width
VALIDATE_EPOCHS, VALIDATIONS = 10, 4  # between validations, and least number in a run, if an epoch is not long
VALIDATE_EPOCH = 0.7  # of an epoch, least between validations: about 6% of the time goes to them then
LEAST_STEPS, LONG_EPOCH = 100, 1_000  # bounds of the steps between them


class Reference(NamedTuple):
    """Speeds per core of the machines that the rule was found with: A and B in docs/performance.md."""

    training: float  # characters per second, relative to SPEEDS
    gflops: float  # of large products, from the table under "Limits"


BFLOAT16, AVX512, AVX2 = Reference(1.0, 450), Reference(0.7, 237), Reference(0.18, 70)


@dataclass(frozen=True)
class Machine:
    """The properties of a computer that settings depend on; `machine.hardware.this_machine` describes this one."""

    cores: int = 1
    bfloat16: bool = False  # hardware bfloat16 products
    only_avx2: bool = False  # AVX2 but no AVX-512
    gpus: int = 0  # that TensorFlow computes on
    speed: float = 1.0  # rate of large products per core, relative to the reference's; see `machine.speed`

    def reference(self, precision: str) -> Reference:
        """The reference for training in a precision, by this CPU's instructions."""
        return BFLOAT16 if self.bfloat16 and precision == "bfloat16" else AVX2 if self.only_avx2 else AVX512


class Choice(NamedTuple):
    """A value that the rule chose, and the reason, as `train` shows it."""

    value: Any
    why: str


def recipe(
    characters: int,
    machine: Machine,
    *,
    seconds: float | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    hidden_size: int | None = None,
    precision: str | None = None,
) -> dict[str, Choice]:
    """Choose settings, by name, for a training part of this length and a budget; the shortest of several budgets counts.

    - `hidden_size`: the widest of 256, 384 and 512 that gets at least 2,500 updates, by the speeds above.
    - `dropout`: 0 up to 2.5 passes over the text, 0.15 more for each doubling, at most 0.5 (25 passes).
    - `weight_dropout`: 0 up to 5 passes, 0.2 more for each doubling, at most 0.5 (28 passes).
    - `learning_rate`, for Adam: 0.02 up to a width of 256, then proportional to 1 / sqrt(width).
    - `clip_norm`: 0.1, `final_rate`: 0.4, `averaging`: 0.3, `weight_decay`: 0.05, for Adam.
    - `batch_size`: 32 streams, halved until each has at least 8 windows.
    - `precision`: bfloat16 where the CPU has it; float32 on a GPU.
    - `validate_every`, if an epoch has fewer than 1,000 steps: the least of ten epochs, 1/4 of the run and 1,000 steps.

    hidden_size, precision: given ones, which the other settings then follow.
    >>> chosen = recipe(1_800_000, Machine(cores=2, bfloat16=True), seconds=139)
    >>> [chosen[name].value for name in ("hidden_size", "dropout", "precision")]
    [384, 0.05, 'bfloat16']
    """
    default = TrainConfig()
    batch_size = default.batch_size
    while batch_size > 1 and characters < WINDOWS_PER_STREAM * batch_size * default.num_steps:
        batch_size //= 2
    window = batch_size * default.num_steps
    precision = precision or ("bfloat16" if machine.bfloat16 and not machine.gpus else "float32")

    def characters_read(width: int) -> float:
        """Characters that a model of this width trains on within the budget."""
        limits = [
            None if seconds is None else max(seconds - START_SECONDS, 0.0) * _speed(width, machine, batch_size, precision),
            None if epochs is None else epochs * characters,
            None if max_steps is None else max_steps * window,
        ]
        return min((limit for limit in limits if limit is not None), default=math.inf)

    wide_enough = [width for width in SPEEDS if characters_read(width) >= LEAST_UPDATES * window]
    width = hidden_size or max(wide_enough, default=min(SPEEDS))
    passes = max(characters_read(width) / characters, 1e-9)
    widest = f"the widest with {LEAST_UPDATES:,} updates in time" if wide_enough else "narrow: the budget allows few updates"
    often = _often(passes, None if seconds is None else _speed(width, machine, batch_size, precision))
    chosen = {
        "hidden_size": Choice(width, widest),
        "dropout": Choice(_dropout(passes, *DROPOUT), often),
        "weight_dropout": Choice(_dropout(passes, *WEIGHT_DROPOUT), often),
        "learning_rate": Choice(float(f"{LEARNING_RATE * min(1.0, (256 / width) ** 0.5):.2g}"), "for this width"),
        **{name: Choice(value, "for Adam") for name, value in FIXED_FOR_ADAM.items()},
        "batch_size": Choice(batch_size, "for this length of text"),
        "precision": Choice(precision, "cuDNN's, on a GPU" if machine.gpus else "fastest on this CPU"),
    }
    if characters < LONG_EPOCH * window:
        steps = _steps_between_validations(characters, window, characters_read(width) / window)
        chosen["validate_every"] = Choice(steps, "several times in the budget")
    return chosen


def default_shards(batch_size: int, cores: int) -> int:
    """Shards of a batch to compute in parallel: up to one per core, all equal, each of at least LEAST_STREAMS streams."""
    for shards in range(cores, 1, -1):
        if batch_size % shards == 0 and batch_size // shards >= LEAST_STREAMS:
            return shards
    return 1


def _steps_between_validations(characters: int, window: int, steps: float) -> int:
    """Steps of VALIDATE_EPOCHS, within their bounds: a short text is soon overfitted. steps: expected in the whole run."""
    epoch = characters / window
    often = max(steps / VALIDATIONS, VALIDATE_EPOCH * epoch)
    return max(int(min(VALIDATE_EPOCHS * epoch, LONG_EPOCH, often)), LEAST_STEPS)


def _speed(width: int, machine: Machine, batch_size: int, precision: str) -> float:
    """Estimated characters per second of training a model of this width.

    On a CPU, it depends on the number of shards, the instructions and the measured speed. On a GPU, it depends on the batch
    size, and on a width above 512: a stream's characters are read one after another.
    """
    if machine.gpus:
        return ON_GPU * batch_size * min(1.0, max(SPEEDS) / width) ** 1.5
    nearest = min(SPEEDS, key=lambda measured: abs(measured - width))
    measured = machine.speed if machine.speed < 1 else 1 / (PRODUCTS / machine.speed + 1 - PRODUCTS)
    cores = default_shards(batch_size, machine.cores)
    return SPEEDS[nearest] * (nearest / width) ** 1.5 * cores * machine.reference(precision).training * measured


def _often(passes: float, speed: float | None) -> str:
    """The reason for a dropout rate; it names the assumed speed, in characters per second, if there is a time limit."""
    often = f"{passes:,.{0 if passes >= 10 else 2}f} passes over the text"
    return often if speed is None else f"{often}, assuming {float(f'{speed:.2g}'):,.0f} characters/s"


def _dropout(passes: float, without: float, per_doubling: float) -> float:
    """Dropout rate for a number of passes over the text, a multiple of 0.05."""
    return round(20 * min(max(per_doubling * math.log2(passes / without), 0.0), MOST_DROPOUT)) / 20
