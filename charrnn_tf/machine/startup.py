"""Starts TensorFlow quietly, with the switches and threads that make it fast on a CPU, and Keras with TensorFlow.

Code that needs TensorFlow calls `load` or `start`; importing the package leaves the environment unchanged.
"""

import faulthandler
import functools
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError, warn
from .hardware import (
    ONEDNN,
    available_cores,
    cudnn_version,
    gpu_names,
    gpus,
    lacks_avx,
    onednn_by_default,
    processor,
    tf32,
    unused_gpu,
)

LOG_LEVEL, GROWTH = "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH"
_started: list[bool] = []  # whether this process has started TensorFlow
_used_by: list[int] = []  # id of the process that computes with TensorFlow
INTRA, INTER = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
BACKEND, KERAS_HOME = "KERAS_BACKEND", "KERAS_HOME"
FLOATS = ("float16", "float32", "float64")
KERAS_DEFAULTS = {"backend": "tensorflow", "floatx": "float32", "epsilon": 1e-7}  # that keras.json may change


def load() -> Any:
    """Import TensorFlow and Keras with our defaults for the switches that the user has not set, and return TensorFlow.

    No device is started yet, so that threads and a cluster can still be configured. If the host has imported TensorFlow
    before, its switches stay as they are. Raises ConfigError where Keras uses another backend.
    """
    check_backend()
    if lacks_avx():
        raise ConfigError("this CPU has no AVX instructions, without which TensorFlow's packages do not start")
    if not _imported_before():
        os.environ.setdefault(ONEDNN, "1")
    with nullcontext() if _imported_before() else _silence():
        import tensorflow as tf  # after the switches

        tf.get_logger().setLevel("ERROR")
        import keras  # noqa: F401
    check_backend()
    return tf


def start(shards: int | None = None, workers: bool = False) -> None:
    """Import TensorFlow, divide the cores among the shards of a batch, and start its devices.

    Only the first call in a process has an effect. Thread counts that the user has set are kept. A warning is logged if the
    host program has started TensorFlow with slower settings.
    shards: parts of the work computed in parallel, each on an equal number of threads; None: one per core.
    workers: several processes train together; their cluster must be configured before TensorFlow starts its devices.
    """
    check_process()
    tf = load()
    if _started:
        return
    _started.append(True)
    cores = available_cores()
    missed = {ONEDNN: 1} if _imported_before() and ONEDNN not in os.environ and not onednn_by_default() else {}
    for variable, kind, threads in ((INTRA, "intra", max(1, cores // (shards or cores))), (INTER, "inter", cores)):
        get, set_to = (getattr(tf.config.threading, f"{verb}_{kind}_op_parallelism_threads") for verb in ("get", "set"))
        if variable not in os.environ and not get():
            try:
                set_to(threads)
            except RuntimeError:  # its devices were started before, with a thread per core
                missed |= {variable: threads} if threads != cores else {}
    if missed:
        first = " and ".join(f"{variable}={value}" for variable, value in missed.items())
        warn(
            "TensorFlow was started before charrnn_tf, with slower settings than charrnn_tf's. Set "
            f"{first} in the environment before you import it, or use charrnn_tf first."
        )
    with nullcontext() if _imported_before() else _silence():
        _let_gpu_memory_grow(tf)
        if not workers:
            tf.config.list_logical_devices()
    if unused_gpu():
        warn(
            "there is an NVIDIA GPU, but TensorFlow can't use it and computes on the CPU: pip install 'charrnn-tf[gpu]' "
            f"brings the libraries that it needs, and {LOG_LEVEL}=0 in the environment shows its reasons."
        )


def _let_gpu_memory_grow(tf: Any) -> None:
    """Let TensorFlow take the memory of GPUs as it needs it, and not all at once, unless the user has decided."""
    config, found = tf.config, tf.config.get_visible_devices("GPU")
    limited = any(config.get_logical_device_configuration(gpu) for gpu in found)
    decided = any(config.experimental.get_memory_growth(gpu) is not None for gpu in found)
    if limited or decided or GROWTH in os.environ:
        return
    with suppress(RuntimeError):  # its devices were started before
        for gpu in found:
            config.experimental.set_memory_growth(gpu, True)


def check_backend() -> None:
    """Raise ConfigError if Keras uses, or would use, a backend other than TensorFlow, or if keras.json is invalid."""
    keras, settings = sys.modules.get("keras"), _keras_settings()
    if not keras and not (settings["floatx"] in FLOATS and isinstance(settings["epsilon"], float)):
        raise ConfigError(
            f"{_keras_json()!r} stops Keras and TensorFlow: floatx must be one of {', '.join(FLOATS)}, epsilon a number "
            "with a point. Correct the file, or remove it."
        )
    backend = keras.config.backend() if keras else os.environ.get(BACKEND) or settings["backend"]
    if backend != KERAS_DEFAULTS["backend"]:
        raise ConfigError(
            f"Keras has the backend {backend}, and charrnn_tf needs TensorFlow: set {BACKEND}=tensorflow in the environment "
            "and start Python (or the notebook's kernel) again"
        )


def use_own_keras() -> None:
    """For the command: make Keras use TensorFlow and its own defaults, with a warning where the user has set others."""
    if "keras" in sys.modules:
        return
    asked = os.environ.get(BACKEND) or KERAS_DEFAULTS["backend"]
    changed = [f"{name} {value}" for name, value in _keras_settings().items() if value != KERAS_DEFAULTS[name]]
    other = [f"{BACKEND}={asked}"] if asked != KERAS_DEFAULTS["backend"] else []
    other += [f"{', '.join(changed)} in {_keras_json()}"] if changed else []
    os.environ[BACKEND] = "tensorflow"
    os.environ[KERAS_HOME] = os.devnull  # a folder without keras.json
    os.environ.pop("KERAS_NNX_ENABLED", None)  # of the backend jax
    if other:
        warn(f"charrnn-tf ignores {' and '.join(other)}: it computes with TensorFlow in float32.")


def _keras_json() -> str:
    return os.path.join(os.environ.get(KERAS_HOME) or os.path.expanduser("~/.keras"), "keras.json")


def _keras_settings() -> dict[str, Any]:
    """The settings of KERAS_DEFAULTS as keras.json has them; a file that is not JSON is ignored, as in Keras."""
    try:
        found = json.loads(Path(_keras_json()).read_text(encoding="utf-8"))
        return {name: found.get(name, default) for name, default in KERAS_DEFAULTS.items()}
    except (OSError, ValueError, AttributeError):
        return KERAS_DEFAULTS


@functools.cache
def _imported_before() -> bool:
    """Whether something else imported TensorFlow before `load` did."""
    return "tensorflow" in sys.modules


def forked() -> bool:
    """Whether this process was forked from one that computes with TensorFlow; computing would hang here."""
    return bool(_used_by) and _used_by[0] != os.getpid()


def check_process() -> None:
    """Raise ConfigError in a forked process; the first call records the process that computes."""
    if forked():
        raise ConfigError(
            f"TensorFlow was started in process {_used_by[0]} and can't compute in {os.getpid()}, which was forked from it. "
            "Load models after the fork, or start processes with multiprocessing's method 'spawn'."
        )
    _used_by[:] = [os.getpid()]


def in_force() -> dict[str, Any]:
    """The hardware and switches that the last digits of results depend on; saved with every checkpoint.

    With a GPU also its model (`gpu`), whether products are rounded to TF32 (`tf32`) and the version of cuDNN (`cudnn`).
    """
    import tensorflow as tf  # the module must load without

    threads = tf.config.threading
    intra, inter = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    on_gpu = {"gpu": ", ".join(gpu_names()), "tf32": tf32(), "cudnn": cudnn_version()} if gpus() else {}
    return {
        "processor": processor(),
        "cores": available_cores(),
        "gpus": gpus(),
        "intra_op_threads": os.environ.get(INTRA, str(intra)),  # 0: TensorFlow's choice
        "inter_op_threads": os.environ.get(INTER, str(inter)),
        "onednn": os.environ.get(ONEDNN, "TensorFlow's choice"),
        **on_gpu,
    }


@contextmanager
def logging_kept() -> Iterator[None]:
    """Leave the root logger without a handler if it has none: TensorFlow's saving adds one, and ours and the user's
    messages would look different from then on.
    """
    before = logging.root.handlers[:]
    try:
        yield
    finally:
        if not before:
            logging.root.handlers.clear()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep TensorFlow's start-up messages off the terminal, unless TF_CPP_MIN_LOG_LEVEL asks for them.

    Some go to file descriptor 2 before any log level applies, so the descriptor is redirected meanwhile. If the start fails,
    the messages are shown; if TensorFlow aborts the process, faulthandler prints a traceback.
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
    watched = faulthandler.is_enabled()
    with tempfile.TemporaryFile() as caught:
        if not watched:
            faulthandler.enable(kept)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            caught.seek(0)
            os.write(2, caught.read())
            raise
        finally:
            if not watched:
                faulthandler.disable()
            os.dup2(kept, 2)
            os.close(kept)
