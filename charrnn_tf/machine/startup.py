"""Starts TensorFlow quietly, with the switches and threads that make it fast on a CPU.

Only commands and `train` call it: importing the package must not change its host's environment.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError, warn
from .hardware import ONEDNN, available_cores, gpus, processor

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_started: list[bool] = []  # whether this process has started it
_used_by: list[int] = []  # id of the process that computes with it
INTRA, INTER = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"


def load() -> Any:
    """Import TensorFlow with our defaults for the switches that the user has not set, and return it.

    No device is started yet, so that threads and a cluster can still be configured.
    """
    os.environ.setdefault(ONEDNN, "1")
    with _silence():
        import tensorflow as tf  # after the switches

        tf.get_logger().setLevel("ERROR")
    return tf


def start(shards: int | None = None, workers: bool = False) -> None:
    """Import TensorFlow, divide the cores among the shards of a batch, and start its devices.

    Only the first call in a process counts: TensorFlow takes its threads once.
    shards: parts of the work computed in parallel, each on an equal number of threads; None: one per core.
    workers: several processes train together; their cluster must be configured before TensorFlow starts its devices.
    """
    check_process()
    tf = load()
    if _started:
        return
    _started.append(True)
    cores = available_cores()
    threading = tf.config.threading
    for variable, set_threads, threads in (
        (INTRA, threading.set_intra_op_parallelism_threads, max(1, cores // (shards or cores))),
        (INTER, threading.set_inter_op_parallelism_threads, cores),
    ):
        if variable not in os.environ:
            try:
                set_threads(threads)
            except RuntimeError:  # its devices were started before, with other threads
                warn(f"TensorFlow runs already, with other threads than are fastest here: set {variable}={threads} first.")
    if not workers:
        with _silence():
            tf.config.list_logical_devices()


def forked() -> bool:
    """Whether this process was forked from one that computes with TensorFlow: here it would wait forever."""
    return bool(_used_by) and _used_by[0] != os.getpid()


def check_process() -> None:
    """Raise ConfigError in a forked process; the first call tells which process computes."""
    if forked():
        raise ConfigError(
            f"TensorFlow was started in process {_used_by[0]} and can't compute in {os.getpid()}, which was forked from it. "
            "Load models after the fork, or start processes with multiprocessing's method 'spawn'."
        )
    _used_by[:] = [os.getpid()]


def in_force() -> dict[str, Any]:
    """The hardware and switches that the last digits of results depend on; saved with every checkpoint."""
    import tensorflow as tf  # the module must load without

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


@contextmanager
def _silence() -> Iterator[None]:
    """Keep TensorFlow's start-up messages off the terminal, unless TF_CPP_MIN_LOG_LEVEL asks for them.

    Some go to file descriptor 2 before any log level applies, so the descriptor is redirected meanwhile. If the start fails,
    the messages are shown.
    """
    if os.environ.get(LOG_LEVEL, "3") != "3":
        yield
        return
    os.environ[LOG_LEVEL] = "3"
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    if sys.stderr:  # None where it is closed
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
