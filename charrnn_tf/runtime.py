"""Starts TensorFlow for the command: quietly, and with the switches that make it quick on a CPU.

Only the command calls this. A library must not change its host's environment, so importing the package sets nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_STREAMS = 5  # in a shard: with fewer, the products are too small to share out
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_shards(batch_size: int) -> int:
    """Parts that a batch is cut into: as many as there are cores, if it divides and each keeps some streams."""
    for shards in range(available_cores(), 1, -1):
        if batch_size % shards == 0 and batch_size // shards >= LEAST_STREAMS:
            return shards
    return 1


def start(shards: int = 1) -> None:
    """Import TensorFlow and set what the user has not set.

    shards: parts that the work is cut into; each gets an equal share of the cores as its threads.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    cores = available_cores()
    with _silence():
        import tensorflow as tf  # noqa: PLC0415  (after the switches)

        tf.get_logger().setLevel("ERROR")
        if "TF_NUM_INTRAOP_THREADS" not in os.environ:
            tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // shards))
        if "TF_NUM_INTEROP_THREADS" not in os.environ:
            tf.config.threading.set_inter_op_parallelism_threads(cores)
        tf.config.list_logical_devices()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep TensorFlow's start-up messages off the terminal, unless the user set TF_CPP_MIN_LOG_LEVEL.

    Some are written before any level counts, straight to file descriptor 2, so that is turned aside meanwhile; what was
    caught is shown if the start fails.
    """
    if LOG_LEVEL in os.environ:
        yield
        return
    os.environ[LOG_LEVEL] = "3"
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            caught.seek(0)
            os.write(2, caught.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
