"""Measures one figure of this package, for `run.py`. Prints one number.

python tests/benchmarks/ours.py PART [ARGUMENT]...
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from charrnn_tf.machine import startup
from charrnn_tf.machine.hardware import available_cores
from charrnn_tf.settings.merge import preset
from charrnn_tf.text.corpus import load_corpus
from charrnn_tf.text.vocabulary import Vocabulary

V = 83  # distinct characters of Anna Karenina
LARGE = 20_000  # distinct characters of a text in Chinese, or more
CHARACTERS = "".join(map(chr, range(33, 33 + V)))


def _random_text(directory: str, characters: int = 2_000_000) -> Path:
    """Write a text of random characters; the work of a step does not depend on the text."""
    ids = np.random.default_rng(0).integers(0, V, characters)
    path = Path(directory) / "random.txt"
    path.write_text(Vocabulary(CHARACTERS).decode(ids), encoding="utf-8")
    return path


def _command(*arguments: str) -> float:
    """Wall seconds of a command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "charrnn_tf", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def train_step(preset: str = "notebook", short: str = "14", long: str = "44", *flags: str) -> None:
    """Seconds per step of `charrnn-tf train`: wall time of `long` steps minus that of `short`, per additional step."""
    with tempfile.TemporaryDirectory() as directory:
        text = str(_random_text(directory))
        common = [text, "--preset", preset, "--validation-fraction", "0", "--overwrite", *flags]
        common += ["--checkpoint-dir", f"{directory}/run", "--log-every", "100000", "--sample-every", "100000"]
        seconds = [_command("train", *common, "--max-steps", steps) for steps in (short, long)]
    print((seconds[1] - seconds[0]) / (int(long) - int(short)))


def large_vocabulary_step(short: str = "10", long: str = "30", *flags: str) -> None:
    """Seconds per step of LSTM 2x256, 32 x 64, on a text of 20,000 distinct characters, measured as in `train_step`."""
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory) / "random.txt"
        every = list(map(chr, range(0x4E00, 0x4E00 + LARGE)))
        drawn = np.random.default_rng(0).integers(0, LARGE, 400_000)
        text.write_text("".join(every) + "".join(every[n] for n in drawn), encoding="utf-8")
        common = [str(text), "--hidden-size", "256", "--validation-fraction", "0", "--overwrite", *flags]
        common += ["--checkpoint-dir", f"{directory}/run", "--log-every", "100000"]
        seconds = [_command("train", *common, "--max-steps", steps) for steps in (short, long)]
    print((seconds[1] - seconds[0]) / (int(long) - int(short)))


def output_products(vocabulary: str = str(LARGE), hidden: str = "256", rows: str = "2048") -> None:
    """Seconds of the three matrix products of a step's output layer, split over the cores as in training."""
    cores = available_cores()
    startup.start()
    import tensorflow as tf

    h, v, n = int(hidden), int(vocabulary), int(rows) // cores
    draw = np.random.default_rng(0)
    parts = [[tf.constant(draw.normal(size=shape), tf.float32) for shape in ((n, h), (h, v), (n, v))] for _ in range(cores)]

    @tf.function(autograph=False)
    def products() -> Any:
        done = []
        for inputs, kernel, gradient in parts:
            done += [inputs @ kernel, tf.matmul(gradient, kernel, transpose_b=True)]
            done += [tf.matmul(inputs, gradient, transpose_a=True)]
        return [tf.reshape(each, [-1])[0] for each in done]

    products()
    taken = []
    for _ in range(7):
        begin = time.perf_counter()
        products()
        taken.append(time.perf_counter() - begin)
    print(sorted(taken)[3])


def constant_window(name: str = "notebook", precision: str = "float32") -> None:
    """Seconds of a compiled training step, always on the same window."""
    startup.start()
    from charrnn_tf.bench import benchmark

    print(benchmark.train_step(name, precision, 1.0, 10)["seconds"])


def sample(texts: str = "1", name: str = "notebook") -> None:
    """Sampling speed of all texts together in characters per second, top-n 5, after a first text that compiles."""
    startup.start()
    from charrnn_tf.bench import benchmark

    print(benchmark.characters_per_second(preset(name, V)[0], int(texts), 2000))


def train_speed(name: str = "notebook") -> None:
    """Speed of the compiled training step, characters per second."""
    startup.start()
    from charrnn_tf.bench import benchmark

    print(benchmark.train_step(name, "float32", 1.0)["chars_per_second"])


def evaluate(path: str, name: str = "notebook") -> None:
    """Speed of evaluation, characters per second, after a short text that compiles."""
    startup.start()
    from charrnn_tf import build_model, load_text
    from charrnn_tf.inference.evaluation import Evaluator

    text = load_text(path)
    vocabulary = Vocabulary.from_text(text)
    config = preset(name, len(vocabulary))[0]
    evaluator = Evaluator(build_model(config, 1), config, available_cores())
    ids = vocabulary.encode(text)
    evaluator.evaluate(ids[:100_000])
    begin = time.perf_counter()
    evaluator.evaluate(ids)
    print(len(ids) / (time.perf_counter() - begin))


def evaluate_lines(path: str, name: str = "default", length: str = "60") -> None:
    """Speed of scoring a text in lines of `length` characters, characters per second, after some that compile."""
    startup.start()
    from charrnn_tf import TrainConfig, build_model, load_text
    from charrnn_tf.inference.line_scores import LineScorer
    from charrnn_tf.runs.record import Record
    from charrnn_tf.text.corpus import TextRecord

    text, size = load_text(path), int(length)
    vocabulary = Vocabulary.from_text(text)
    config = preset(name, len(vocabulary))[0]
    record = Record(config, TrainConfig(), vocabulary, TextRecord((), "", len(text)), 0, 0.0, 0.0, None, None)
    scorer = LineScorer(build_model(config, 1), record)
    lines = [text[begin : begin + size] for begin in range(0, len(text), size)]
    list(scorer.score(lines[:3000]))
    begin = time.perf_counter()
    read = sum(score.characters for score in scorer.score(lines))
    print(read / (time.perf_counter() - begin))


def sample_primes(texts: str = "256", name: str = "notebook") -> None:
    """Sampling speed of all texts together after primes of unequal length, characters per second, top-n 5."""
    startup.start()
    from charrnn_tf import Sampler

    sampler = Sampler(preset(name, V)[0], Vocabulary(CHARACTERS))
    primes = [CHARACTERS[: n % 64] for n in range(int(texts))]
    for length in (100, 500):
        begin = time.perf_counter()
        list(sampler.sample_many(primes, length=length))
        seconds = time.perf_counter() - begin
    print(len(primes) * length / seconds)


def encode(path: str) -> None:
    """Speed of reading and encoding a text on one core, MB/s."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    begin = time.perf_counter()
    load_corpus([path])
    print(os.path.getsize(path) / (time.perf_counter() - begin) / 1e6)


def first_character() -> None:
    """Wall seconds of `charrnn-tf sample --length 1`, with a model of the notebook preset."""
    with tempfile.TemporaryDirectory() as directory:
        text, run = str(_random_text(directory, 100_000)), ["--checkpoint-dir", f"{directory}/run"]
        _command("train", text, "--preset", "notebook", "--batch-size", "2", "--max-steps", "1", *run)
        print(_command("sample", "--length", "1", "--seed", "1", *run))


def import_tensorflow() -> None:
    """Wall seconds of `python -c "import tensorflow"`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True)
    print(time.perf_counter() - begin)


def help_seconds() -> None:
    """Wall seconds of `charrnn-tf --help`."""
    print(_command("--help"))


PARTS = {
    part.__name__.replace("_", "-"): part
    for part in (
        train_step, large_vocabulary_step, output_products, constant_window, train_speed, sample, sample_primes, evaluate,
        evaluate_lines, encode, first_character, import_tensorflow, help_seconds,
    )
}  # fmt: skip

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
