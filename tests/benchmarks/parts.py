"""Repeats the speed figures of docstrings: prints the seconds of our way, of the other way, and their ratio.

    python tests/benchmarks/parts.py [PART]

Both ways run in turn in one process; the figures are medians.
"""
# ruff: noqa: E402  (threads are set before TensorFlow is loaded)

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from charrnn_tf.machine import startup

startup.start()  # one thread per operation, as in training

import tensorflow as tf

from charrnn_tf import Trainer, Vocabulary
from charrnn_tf.bench.benchmark import CHARACTERS
from charrnn_tf.network.products import SPARE_COLUMNS
from charrnn_tf.settings.merge import preset
from charrnn_tf.text.corpus import _count_bytes
from charrnn_tf.text.sources import BLOCK_BYTES
from charrnn_tf.training.randomness import dropout_mask


def in_turn(ours: Callable[[], Any], other: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Median seconds of each, after a warm-up call."""
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(runs + 1):
        for seconds, work in zip(taken, (ours, other), strict=True):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


def dropout() -> tuple[float, float]:
    """`dropout_mask` and TensorFlow's `stateless_dropout`, on the outputs of a shard of the notebook preset."""
    outputs, seed = tf.random.stateless_normal([100, 64, 512], (1, 2)), tf.constant([1, 2])
    ours = tf.function(lambda x: x * dropout_mask(tf.shape(x), 0.5, seed))
    theirs = tf.function(lambda x: tf.nn.experimental.stateless_dropout(x, 0.5, seed, rng_alg="philox"))
    return in_turn(lambda: ours(outputs), lambda: theirs(outputs), 21)


def count_bytes() -> tuple[float, float]:
    """`corpus._count_bytes` and `np.bincount` of single bytes, on a block of a text."""
    data = np.random.default_rng(0).integers(32, 127, BLOCK_BYTES).astype(np.uint8).tobytes()
    return in_turn(lambda: _count_bytes(data), lambda: np.bincount(np.frombuffer(data, np.uint8), minlength=256), 101)


def spare_columns() -> tuple[float, float]:
    """A product of 64 x 512 x 2048 with and without padding columns of the second factor."""
    a, b = tf.random.stateless_normal([64, 512], (1, 2)), tf.random.stateless_normal([512, 2048], (3, 4))
    padded = tf.pad(b, ((0, 0), (0, SPARE_COLUMNS)))
    return in_turn(lambda: tf.matmul(a, padded).numpy(), lambda: tf.matmul(a, b).numpy(), 101)


def training(name: str, steps: int, xla: bool) -> float:
    """Seconds per step of a preset with or without XLA; the first half of the steps is warm-up."""
    vocabulary = Vocabulary(CHARACTERS)
    ids = np.random.default_rng(0).integers(0, len(CHARACTERS), 400_000).astype(np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        model, train = preset(name, len(CHARACTERS), max_steps=steps, epochs=None, validation_fraction=0.0)
        train = dataclasses.replace(train, xla=xla, log_every=steps // 2, sample_every=None, save_every=None)
        rows = list(Trainer(model, train, vocabulary, ids, directory).run())
    return (rows[-1].seconds - rows[0].seconds) / (steps - steps // 2)


def xla_of_one_stream() -> tuple[float, float]:
    """A step of `--preset sherlock` with and without XLA."""
    return training("sherlock", 8000, xla=True), training("sherlock", 8000, xla=False)


def xla_of_many_streams() -> tuple[float, float]:
    """A step of `--preset notebook` without and with XLA."""
    return training("notebook", 20, xla=False), training("notebook", 20, xla=True)


PARTS = {part.__name__.replace("_", "-"): part for part in (
    dropout, count_bytes, spare_columns, xla_of_one_stream, xla_of_many_streams,
)}  # fmt: skip

if __name__ == "__main__":
    for asked in sys.argv[1:] or PARTS:
        ours, other = PARTS[asked]()
        print(f"{asked:<22} {ours:.3g} s, {other:.3g} s, {other / ours:.2f} times as fast", flush=True)
