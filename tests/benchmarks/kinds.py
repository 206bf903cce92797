"""Divides a training step's time by kind of work, with TensorFlow's own profiler. Prints a table.

    python tests/benchmarks/kinds.py [PRESET] [PRECISION]

The figures are thread time in ms per step, the sum over all threads. What is between operations is the rest of the wall
time of all cores: scheduling, waiting, and the operations that TensorFlow takes for cheap and does not record.
"""
# ruff: noqa: E402  (threads are set before TensorFlow is loaded)

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from charrnn_tf.machine import startup

startup.start()  # one thread per operation, as in training

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from charrnn_tf.bench.benchmark import compiled_step
from charrnn_tf.machine.hardware import available_cores

STEPS = 5
KINDS = {  # patterns of the operations' types; the first that fits counts
    "products": "MatMul",
    "lists and slices": "TensorList|Slice|Split|Concat|Pack|Gather|Scatter|Pad|Reshape|Transpose|OneHot",
    "casts": "Cast",
    "random masks": "Random|Bitcast|GreaterEqual",
    "loss": "Softmax|CrossEntropy",
    "optimizer and clipping": "L2Loss|Apply|Assign|ReadVariable",
    "elementwise": "Sigmoid|Tanh|Mul|Add|Sub|Select|Sum|Mean",
}
LOOP = "/while/.*/while/"  # in the names of operations of a loop over time


def main(name: str = "notebook", precision: str = "float32") -> None:
    """The script."""
    *_, step = compiled_step(name, precision)
    step()
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    wall = (time.perf_counter() - begin) / STEPS
    with tempfile.TemporaryDirectory() as directory:
        tf.profiler.experimental.start(directory)
        begin = time.perf_counter()
        for _ in range(STEPS):
            step()
        profiled = (time.perf_counter() - begin) / STEPS
        tf.profiler.experimental.stop()
        spent, counted = read(Path(directory))
    whole = profiled * 1e3 * available_cores()
    spent["between operations"] = whole - sum(spent.values())
    print(f"{name}, {precision}: {wall * 1e3:.1f} ms a step, {profiled * 1e3:.1f} ms while profiled")
    for kind, total in spent.most_common():
        print(f"{kind:<24} {total:8.1f} ms {total / whole:6.1%} {counted[kind]:8.0f} operations")


def read(directory: Path) -> tuple[Counter[str], Counter[str]]:
    """A profile's thread time by kind in ms per step, and operations of each kind per step."""
    spent: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    space = xplane_pb2.XSpace()
    for path in directory.rglob("*.xplane.pb"):
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            for event in (event for line in plane.lines for event in line.events):
                full = plane.event_metadata[event.metadata_id].name
                if not re.fullmatch(r"[\w/.]+:\w+", full) or not plane.name.startswith("/host:CPU"):
                    continue
                name, operation = full.split(":")
                kind = next((kind for kind, types in KINDS.items() if re.search(types, operation)), "other")
                if kind == "products":
                    kind += " in loops over time" if re.search(LOOP, name) else ", large"
                spent[kind] += event.duration_ps / 1e9 / STEPS
                counted[kind] += 1 / STEPS
    return spent, counted


if __name__ == "__main__":
    main(*sys.argv[1:])
