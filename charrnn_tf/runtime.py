"""Starts TensorFlow for the command: quietly, and with the switches that make it quick on a CPU.

Only the command calls `start`. A library must not change its host's environment, so importing the package sets nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LEAST_STREAMS = 5  # in a shard: with fewer, the products are too small to share out
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
INTRA, INTER = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
XLA_STREAMS = 8  # with so few, products are small and what is around them takes the time: there XLA is quicker
XLA_STEPS = 1000  # in a run, so that compiling pays


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_shards(batch_size: int) -> int:
    """Parts that a batch is cut into: as many as there are cores, if it divides and each keeps some streams."""
    for shards in range(available_cores(), 1, -1):
        if batch_size % shards == 0 and batch_size // shards >= LEAST_STREAMS:
            return shards
    return 1


def shards_for(saved: int | None, batch_size: int, replicas: int = 1) -> int:
    """Parts that a whole batch is cut into: as many as a run was begun with, where the replicas can share them evenly."""
    return saved if saved and saved % replicas == 0 else replicas * default_shards(batch_size // replicas)


def default_xla(batch_size: int, total_steps: int | None) -> bool:
    """Whether XLA should compile a run's steps: with few streams they take a fifth to half of the time then, with many
    twice as much (`tests/benchmarks/parts.py`)."""
    return batch_size <= XLA_STREAMS and (total_steps is None or total_steps >= XLA_STEPS)


def processor() -> str:
    """The processor's name, if the system tells it."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (x86 with AVX-512 BF16 or AMX, where the system tells), by oneDNN."""
    return bool({"avx512_bf16", "amx_bf16"} & _instructions()) and os.environ.get(ONEDNN) != "0"


def only_avx2() -> bool:
    """Whether the processor has AVX2 but no AVX-512 (x86, where the system tells)."""
    return "avx2" in _instructions() and "avx512f" not in _instructions()


def _instructions() -> frozenset[str]:
    return frozenset(next((line.split() for line in _cpuinfo().splitlines() if line.startswith("flags")), []))


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def gpus() -> int:
    """GPUs that TensorFlow computes on."""
    import tensorflow as tf  # noqa: PLC0415  (the module must load without)

    return len(tf.config.list_logical_devices("GPU"))


def in_force() -> dict[str, Any]:
    """What results depend on in their last digits, as it is now; saved with every checkpoint."""
    import tensorflow as tf  # noqa: PLC0415  (the module must load without)

    threads = tf.config.threading
    intra, inter = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    return {
        "processor": processor(),
        "cores": available_cores(),
        "gpus": gpus(),
        "intra_op_threads": os.environ.get(INTRA, str(intra)),  # 0: TensorFlow's choice
        "inter_op_threads": os.environ.get(INTER, str(inter)),
        "onednn": os.environ.get(ONEDNN, "TensorFlow's choice"),
    }


def start(shards: int = 1, workers: bool = False) -> None:
    """Import TensorFlow and set what the user has not set.

    shards: parts that the work is cut into; each gets an equal share of the cores as its threads.
    workers: whether several processes will work together, which must be told before TensorFlow starts its devices.
    """
    os.environ.setdefault(ONEDNN, "1")
    cores = available_cores()
    with _silence():
        import tensorflow as tf  # noqa: PLC0415  (after the switches)

        tf.get_logger().setLevel("ERROR")
        if INTRA not in os.environ:
            tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // shards))
        if INTER not in os.environ:
            tf.config.threading.set_inter_op_parallelism_threads(cores)
        if not workers:
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
