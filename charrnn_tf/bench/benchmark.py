"""Measures this machine's training and sampling speed, and how close a training step comes to the limit.

The limit is the rate that large matrix products reach: a step's share of it is the floating-point work of its products,
divided by this rate and by the step's time. Texts are random characters, since the work does not depend on them.
"""

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..inference.sampling import Sampler
from ..machine.hardware import available_cores, has_bfloat16, this_machine
from ..machine.startup import in_force, start
from ..settings.merge import complete, preset
from ..settings.schema import CELLS, PRECISIONS, ModelConfig, TrainConfig
from ..text.vocabulary import Vocabulary
from ..training.compiled import compile_steps
from ..training.state import RunState
from .peers import V, median_seconds

CHARACTERS = "".join(map(chr, range(33, 33 + V)))
PRESETS = ("notebook", "default")
LARGE_PRODUCTS = ((2048, 2048, 2048), (512, 12800, 2048))  # (rows, inner size, columns)
TEXTS = (1, 16)  # batch sizes in sampling
Say = Callable[[str], None]


def benchmark(compare: bool = False, say: Say = lambda part: None) -> dict[str, Any]:
    """Measure this machine; `charrnn-tf benchmark --json` prints the result.

    compare: also measure the same step in PyTorch, if installed, and with plain Keras layers, and PyTorch's sampling. Each
    measurement is a separate process, ours and theirs in turn. say: called with the name of each part before it is measured.
    """
    precisions = [name for name in PRECISIONS if name == "float32" or has_bfloat16()]
    say("large products")
    peaks = {name: product_rate(tf.dtypes.as_dtype(name)) for name in precisions}
    steps: dict[str, dict[str, Any]] = {}
    for name in PRESETS:
        steps[name] = {}
        for precision in precisions:
            say(f"training step, {name}, {precision}")
            steps[name][precision] = train_step(name, precision, peaks[precision])
    sampling: dict[str, dict[str, float]] = {}
    for name in PRESETS:
        say(f"sampling, {name}")
        sampling[name] = {str(texts): characters_per_second(preset(name, len(CHARACTERS))[0], texts) for texts in TEXTS}
    result = {"machine": in_force(), "gflops": peaks, "train_step": steps, "sampling": sampling}
    return {**result, "compare": _compare(precisions, say)} if compare else result


def as_text(result: dict[str, Any]) -> str:
    """The result of `benchmark` as tables."""
    machine = result["machine"]
    lines = [f"{machine['processor']}, {machine['cores']} cores, oneDNN {machine['onednn']}"]
    lines += [f"large products, {name}: {rate:,.0f} GFLOP/s" for name, rate in result["gflops"].items()]
    lines += ["", f"{'training step':<24} {'seconds':>9} {'char/s':>9} {'of the limit':>13}"]
    for name, precisions in result["train_step"].items():
        for precision, step in precisions.items():
            speed, share = step["chars_per_second"], step["share_of_limit"]
            lines.append(f"{f'{name}, {precision}':<24} {step['seconds']:>9.4f} {speed:>9,.0f} {share:>12.0%}")
    lines += ["", f"{'sampling':<24} " + " ".join(f"{f'{texts} at once':>12}" for texts in TEXTS) + "  char/s in all"]
    for name, speeds in result["sampling"].items():
        lines.append(f"{name:<24} " + " ".join(f"{speed:>12,.0f}" for speed in speeds.values()))
    if "compare" in result:
        lines += ["", f"{'notebook, in turn':<24} {'ours':>9} {'theirs':>9} {'times as fast':>14}"]
    for package, rows in result.get("compare", {}).items():
        for row, sides in rows.items():
            times = sides["times_as_fast"]
            lines.append(f"{f'{package} {row}':<24} {sides['ours']:>9.4g} {sides['theirs']:>9.4g} {times:>14.2f}")
        if not rows:
            lines.append(f"{package:<24} not installed")
    return "\n".join(lines)


def product_rate(dtype: tf.DType, runs: int = 7) -> float:
    """The best median rate of large products, in GFLOP/s, with one product per core at a time."""
    rates = []
    for rows, inner, columns in LARGE_PRODUCTS:
        a, b = (tf.cast(tf.random.stateless_normal(shape, (1, 2)), dtype) for shape in ((rows, inner), (inner, columns)))
        count = available_cores()
        products = tf.function(lambda a, b, n=count: [tf.matmul(a + tf.cast(k, a.dtype), b)[0, 0] for k in range(n)])

        def work(a: Any = a, b: Any = b, products: Any = products) -> None:
            for corner in products(a, b):
                corner.numpy()

        seconds = median_seconds(work, runs)
        rates.append(2 * count * rows * inner * columns / seconds / 1e9)
    return max(rates)


def step_gflop(model: ModelConfig, config: TrainConfig) -> float:
    """Floating-point work of a training step's products, in GFLOP: once forward, twice backward.

    The first layer's input product is left out: for small vocabularies it is a table lookup.
    """
    gates = CELLS[model.cell].gates * model.hidden_size
    per_character = model.hidden_size * ((2 * model.num_layers - 1) * gates + model.vocab_size)
    return 6 * per_character * config.batch_size * config.num_steps / 1e9


def train_step(name: str, precision: str, gflops: float, runs: int = 5) -> dict[str, float]:
    """Measure a preset's compiled training step: median seconds, characters per second, share of the limit `gflops`."""
    model, config, step = compiled_step(name, precision)
    seconds = median_seconds(step, runs)
    speed = config.batch_size * config.num_steps / seconds
    share = step_gflop(model, config) / gflops / seconds
    return {"seconds": seconds, "chars_per_second": speed, "share_of_limit": share}


def compiled_step(name: str, precision: str) -> tuple[ModelConfig, TrainConfig, Callable[[], object]]:
    """A preset's settings on this machine, and its training step, always on the same window."""
    model, config = preset(name, len(CHARACTERS), precision=precision, max_steps=10_000)
    config = complete(config, 10**9, this_machine())
    run = RunState(model, config)
    run_steps = compile_steps(run, model, config, 10_000)
    window = np.random.default_rng(0).integers(0, len(CHARACTERS), (1, config.batch_size, config.num_steps + 1), np.int32)

    def step() -> None:
        run_steps(window, 0.0)
        run.step.numpy()

    return model, config, step


def characters_per_second(model: ModelConfig, texts: int, length: int = 1500) -> float:
    """Sampling speed of all texts together with top-n 5, after a first text that compiles."""
    sampler = Sampler(model, Vocabulary(CHARACTERS), texts)
    seconds = 0.0
    for count in (100, length):
        begin = time.perf_counter()
        for _ in sampler.chunks(CHARACTERS[0], count, top_n=5):
            pass
        seconds = time.perf_counter() - begin
    return texts * length / seconds


def ours(part: str, precision: str = "float32") -> None:
    """Print seconds per training step ("train") or characters per second of one text ("sample"), notebook preset."""
    start()
    model, _ = preset("notebook", len(CHARACTERS))
    print(train_step("notebook", precision, 1.0)["seconds"] if part == "train" else characters_per_second(model, 1))


def _compare(precisions: list[str], say: Say) -> dict[str, dict[str, Any]]:
    """Compare the notebook preset's step and sampling with other packages: medians of three processes each, in turn."""
    parts: dict[str, list[tuple[str, list[str], list[str]]]] = {"pytorch": [], "keras": []}
    if importlib.util.find_spec("torch"):
        parts["pytorch"] += [(f"train_step {name}", ["train", name], ["torch-step", "lstm", name]) for name in precisions]
        parts["pytorch"] += [("sampling", ["sample"], ["torch-sample"])]
    parts["keras"] += [("train_step float32", ["train"], ["keras-step"])]
    result: dict[str, dict[str, Any]] = {"pytorch": {}, "keras": {}}
    for package, rows in parts.items():
        for row, mine, theirs in rows:
            say(f"{row}, ours and {package}'s in turn")
            code = f"from charrnn_tf.bench.benchmark import ours; ours(*{mine!r})"
            sides = [[_printed("-c", code), _printed("-m", "charrnn_tf.bench.peers", *theirs)] for _ in range(3)]
            own, other = (statistics.median(side) for side in zip(*sides, strict=True))
            times = own / other if row == "sampling" else other / own
            result[package][row] = {"ours": own, "theirs": other, "times_as_fast": times}
    return result


def _printed(*arguments: str) -> float:
    """Run Python with these arguments; returns the number that it prints."""
    return float(subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout.split()[0])
