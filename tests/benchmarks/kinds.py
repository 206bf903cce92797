"""Divides a training step's time by kind of work, with TensorFlow's own profiler. Prints a table.

    python tests/benchmarks/kinds.py [PRESET] [PRECISION]

The figures are thread time in ms per step, the sum over all threads. The last kind is what is left of the wall time of all
cores: scheduling, memory that is copied between operations, and waiting.
"""
# ruff: noqa: E402  (threads are set before TensorFlow is loaded)

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from charrnn_tf.machine import startup

startup.start()  # one thread per operation, as in training

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from charrnn_tf.bench.benchmark import CHARACTERS
from charrnn_tf.machine.hardware import available_cores, this_machine
from charrnn_tf.settings.merge import complete, preset
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.state import RunState

STEPS = 5
KINDS = (  # name, pattern of the operation's type, pattern of the operation's name
    ("products in the loops", "MatMul", "while/.*while/"),
    ("large products", "MatMul", ""),
    ("tensor lists and slices", "TensorList|StridedSlice|Slice|Split|Concat|Pack|Unpack|Gather|Scatter|Pad|Reshape|Transpose", ""),
    ("casts", "Cast", ""),
    ("random masks", "Random|Uniform|Bitcast|GreaterEqual", ""),
    ("loss", "Softmax|CrossEntropy", ""),
    ("optimizer and clipping", "L2Loss|Sqrt|AssignSub|AssignAdd|Assign|Resource", ""),
    ("control flow", "Enter|Exit|Merge|Switch|NextIteration|LoopCond|Identity|While|Less|Greater|NoOp|Const|_Arg|_Retval", ""),
    ("elementwise", "Sigmoid|Tanh|Mul|Add|Sub|Neg|Square|Div|Maximum|Minimum|Exp|Log|Select|AddN|Sum|Fill|ZerosLike|OnesLike", ""),
)  # fmt: skip


def main(name: str = "notebook", precision: str = "float32") -> None:
    """The script."""
    model, config = preset(name, len(CHARACTERS), precision=precision, max_steps=10_000)
    config = complete(config, 10**9, this_machine())
    run = RunState(model, config)
    steps = compile_steps(run, model, config, 10_000)
    shape = (1, config.batch_size, config.num_steps + 1)
    window = np.random.default_rng(0).integers(0, len(CHARACTERS), shape, np.int32)

    def step() -> None:
        steps(window, 0.0)
        run.step.numpy()

    step()
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    wall = (time.perf_counter() - begin) / STEPS
    with tempfile.TemporaryDirectory() as directory:
        tf.profiler.experimental.start(directory, tf.profiler.experimental.ProfilerOptions(host_tracer_level=3))
        begin = time.perf_counter()
        for _ in range(STEPS):
            step()
        profiled = (time.perf_counter() - begin) / STEPS
        tf.profiler.experimental.stop()
        spent, counted, unknown = read(Path(directory))
    print(f"{name}, {precision}: {wall * 1e3:.1f} ms a step, {profiled * 1e3:.1f} ms while profiled")
    left = profiled * 1e3 * available_cores() - sum(spent.values())
    for kind, total in [*spent.most_common(), ("between operations", left)]:
        print(f"{kind:<24} {total:8.1f} ms {total / (profiled * 1e3 * available_cores()):6.1%} {counted[kind]:8.0f} operations")
    print("of unknown kind:", ", ".join(f"{op} {ms:.2f}" for op, ms in unknown.most_common(12)))


def read(directory: Path) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """The profile's thread time by kind in ms per step, operations per step, and time of types without a kind."""
    spent: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    space = xplane_pb2.XSpace()
    for path in directory.rglob("*.xplane.pb"):
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            if not plane.name.startswith("/host:CPU"):
                continue
            for line in plane.lines:
                for event in line.events:
                    full = plane.event_metadata[event.metadata_id].name
                    if not re.match(r"^[\w/.]+:\w+$", full):
                        continue
                    op, kind_of = full.rsplit(":", 1)
                    kind = next((k for k, types, place in KINDS if re.search(types, kind_of) and place in op), None)
                    ms = event.duration_ps / 1e9 / STEPS
                    if kind is None:
                        unknown[kind_of] += ms
                        kind = "other"
                    spent[kind] += ms
                    counted[kind] += 1 / STEPS
    return spent, counted, unknown


if __name__ == "__main__":
    main(*sys.argv[1:])
