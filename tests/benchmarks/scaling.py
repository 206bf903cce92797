"""Measures weak scaling over workers on this machine, one core each, or calculates it for clusters.

    python tests/benchmarks/scaling.py [--preset notebook] [--workers 2] [--runs 5] [--append FILE]
    python tests/benchmarks/scaling.py --calculate SECONDS [--preset notebook]

Measures in turn: one process on one core with the preset's batch; N workers on one core each, with N times this batch; and N
unrelated processes, which show how much the machine itself slows down when all its cores work. Seconds per step are the wall
time of additional steps. --calculate assumes SECONDS per step on one worker, a ring in which each worker sends 2 (N - 1) / N
times the size of the gradients, and no computation meanwhile.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from ours import V, _random_text
from run import append

from charrnn_tf.machine.estimate import FLOAT, parameters
from charrnn_tf.settings.merge import preset

CLUSTERS, GIGABITS = (8, 64, 512), (10, 100)
HOP_SECONDS = 50e-6  # latency from one worker to the next


def seconds_of(commands: list[list[str]], together: bool) -> float:
    """Wall seconds of concurrent commands, the n-th on core n. together: as workers of one run."""
    ports = []
    for _ in commands:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    cores = sorted(os.sched_getaffinity(0))
    begin = time.perf_counter()
    processes = []
    for index, command in enumerate(commands):
        cluster = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
        environment = {**os.environ, **({"TF_CONFIG": json.dumps(cluster)} if together else {})}
        pinned = ["taskset", "-c", str(cores[index]), *command]
        processes.append(subprocess.Popen(pinned, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit("a run failed")
    return time.perf_counter() - begin


def step_seconds(name: str, processes: int, together: bool, steps: tuple[int, int]) -> float:
    """Seconds per step with a preset's batch in each process."""
    with tempfile.TemporaryDirectory() as directory:
        text = str(_random_text(directory))
        batch = preset(name, V)[1].batch_size * (processes if together else 1)
        taken = []
        for count in steps:
            commands = [
                [sys.executable, "-m", "charrnn_tf", "train", text, "--preset", name, "--batch-size", str(batch),
                 "--strategy", "multiworker" if together else "none", "--precision", "float32", "--max-steps", str(count),
                 "--validation-fraction", "0", "--log-every", "100000", "--overwrite",
                 "--checkpoint-dir", f"{directory}/run{n}"]
                for n in range(processes)
            ]  # fmt: skip
            taken.append(seconds_of(commands, together))
    return (taken[1] - taken[0]) / (steps[1] - steps[0])


def measure(name: str, workers: int, runs: int, steps: tuple[int, int]) -> dict[str, object]:
    """Measure all three in turn; `efficiency` is seconds of one process divided by seconds of the workers."""
    sides: dict[str, list[float]] = {"alone": [], "workers": [], "strangers": []}
    for _ in range(runs):
        sides["alone"].append(step_seconds(name, 1, False, steps))
        sides["workers"].append(step_seconds(name, workers, True, steps))
        sides["strangers"].append(step_seconds(name, workers, False, steps))
    medians = {side: statistics.median(values) for side, values in sides.items()}
    return {
        "row": f"scaling-{name}-{workers}", "medians": medians, **sides,
        "efficiency": medians["alone"] / medians["workers"],
        "efficiency_of_strangers": medians["alone"] / medians["strangers"],
    }  # fmt: skip


def calculate(name: str, seconds: float) -> None:
    """Print a table of the speed of N workers as a share of N times one worker's speed."""
    size = FLOAT * parameters(preset(name, V)[0])
    print(f"{name}: {size / 1e6:.1f} MB of gradients per step, {seconds:g} s a step on one worker")
    print("| workers | MB sent by each per step | " + " | ".join(f"{speed} Gbit/s" for speed in GIGABITS) + " |")
    for workers in CLUSTERS:
        sent = 2 * (workers - 1) / workers * size
        hops = 2 * (workers - 1) * HOP_SECONDS
        shares = [seconds / (seconds + sent * 8 / (speed * 1e9) + hops) for speed in GIGABITS]
        print(f"| {workers} | {sent / 1e6:.1f} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")


def main() -> None:
    """Measure, or calculate if --calculate is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="notebook")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs=2, default=(6, 18))
    parser.add_argument("--calculate", type=float, metavar="SECONDS")
    parser.add_argument("--append")
    asked = parser.parse_args()
    if asked.calculate:
        calculate(asked.preset, asked.calculate)
    else:
        append(measure(asked.preset, asked.workers, asked.runs, tuple(asked.steps)), asked.append)


if __name__ == "__main__":
    main()
