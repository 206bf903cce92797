"""Measures how fast this machine multiplies large matrices, for the default preset's rule (`settings.recipe`)."""

import functools
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

from ..errors import ConfigError
from .hardware import core_share

SPEED = "CHARRNN_TF_SPEED"
SIZE = 1024  # rows and columns of the matrices: larger ones are hardly faster
SECONDS = 0.5  # of measuring
STEP = 1.5  # measured speeds are rounded to its powers, so that noise of 20% rarely changes a choice


def measured_speed(shards: int, precision: str, gflops: float) -> float:
    """Rate of large products per core, relative to `gflops`, rounded to a power of 1.5; takes about half a second.

    A quota of CPU time below whole cores lowers it. CHARRNN_TF_SPEED in the environment is returned in its place, without
    measuring. TensorFlow must have started, with threads for so many shards of a batch. Raises ConfigError if the
    variable is not a positive number.
    """
    if given := os.environ.get(SPEED):
        return _positive(given)
    relative = product_rate(shards, precision) * core_share() / gflops
    return float(f"{STEP ** round(math.log(relative, STEP)):.3g}")


@functools.cache
def product_rate(shards: int, precision: str) -> float:
    """Large products in GFLOP per second of CPU time, with `shards` of them at once; measured once in a process.

    CPU time, because other programs may be busy too, and the same start should choose the same settings. Python's threads
    call the products: TensorFlow's own may share one core for their first seconds.
    """
    import tensorflow as tf  # the module must load without

    matrix = tf.cast(tf.random.stateless_uniform((SIZE, SIZE), (0, 1)), precision)
    tf.matmul(matrix, matrix)  # the first is slower
    begin, end = time.process_time(), time.perf_counter() + SECONDS

    def products(_: int) -> int:
        done = 0
        while not done or time.perf_counter() < end:
            tf.matmul(matrix, matrix)
            done += 1
        return done

    with ThreadPoolExecutor(shards) as threads:
        done = sum(threads.map(products, range(shards)))
    return 2 * SIZE**3 * done / (time.process_time() - begin) / 1e9


def _positive(given: str) -> float:
    try:
        speed = float(given)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise ConfigError(f"{SPEED} in the environment must be a positive number, not {given!r}")
    return speed
