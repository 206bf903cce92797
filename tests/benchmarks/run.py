"""Measures one row of the tables in docs/performance.md.

    python tests/benchmarks/run.py ROW [--runs 5] [--text anna.txt] [--seed N] [--append results.jsonl]

A row that compares two programs runs them in turn, each in its own process, and gives the ratio of the medians. Rows that
train on a text need --text. --append also adds the printed line to a file. Without ROW, prints the names of the rows.
"""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Comparisons: row -> (our part and its arguments, those of the other program, whether more is better)
SPEED: dict[str, tuple[list[str], list[str], bool]] = {
    "step-notebook": (["train-step", "notebook"], ["torch-step"], False),
    "step-notebook-keras": (["train-step", "notebook"], ["keras-step"], False),
    "step-constant-window": (["train-step", "notebook"], ["ours", "constant-window", "notebook"], False),
    "step-notebook-bfloat16": (
        ["train-step", "notebook", "14", "44", "--precision", "bfloat16"], ["torch-step", "lstm", "bfloat16"], False,
    ),
    "step-notebook-gru": (["train-step", "notebook", "14", "44", "--cell", "gru"], ["torch-step", "gru"], False),
    "step-notebook-gru-bfloat16": (
        ["train-step", "notebook", "14", "44", "--cell", "gru", "--precision", "bfloat16"],
        ["torch-step", "gru", "bfloat16"], False,
    ),
    "step-default": (
        ["train-step", "default", "100", "500", "--precision", "float32", "--dropout", "0.2"],
        ["torch-step", "lstm", "float32", "256", "2", "32", "64"], False,
    ),
    "step-default-bfloat16": (
        ["train-step", "default", "100", "500", "--precision", "bfloat16", "--dropout", "0.2"],
        ["torch-step", "lstm", "bfloat16", "256", "2", "32", "64"], False,
    ),
    "step-20000-characters": (
        ["large-vocabulary-step", "10", "30", "--precision", "float32"], ["ours", "output-products"], False,
    ),
    "step-tf-tutorial": (["train-step", "tf-tutorial"], ["keras-tutorial", "{text}", "1", "12"], False),
    "step-notebook-tf1": (["train-step", "notebook-tf1", "200", "1200", "--keep", "1"], ["tf1-notebook", "{text}"], False),
    "step-sherlock": (
        ["train-step", "sherlock", "400", "8400", "--limit-chars", "300000"], ["torch-sherlock", "{text}"], False,
    ),
    "sample-1": (["sample", "1"], ["torch-sample"], True),
    "sample-16": (["sample", "16"], ["torch-sample"], True),
    "evaluate": (["evaluate", "{text}"], ["ours", "train-speed"], True),
    "evaluate-lines": (["evaluate-lines", "{text}"], ["ours", "evaluate", "{text}", "default"], True),
    "sample-primes": (["sample-primes"], ["ours", "sample", "16"], True),
    "first-character": (["first-character"], ["ours", "import-tensorflow"], False),
}  # fmt: skip
SPEED |= {  # beside the fastest way to run PyTorch's step
    f"{row}-best": (ours, ["torch-best", *peer[1:]], False)
    for row, (ours, peer, _) in SPEED.items()
    if peer[0] == "torch-step"
}


def compare(row: str, runs: int, text: str | None) -> dict[str, Any]:
    """Measure both programs of a comparison in turn."""
    ours, peer, more_is_better = SPEED[row]
    ours, peer = ([part.format(text=text) for part in side] for side in (ours, peer))
    sides: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(runs):
        sides["ours"].append(number("ours", ours))
        sides["peer"].append(number("ours" if peer[0] == "ours" else "peers", peer[1:] if peer[0] == "ours" else peer))
    if row == "step-sherlock":  # its figure is in characters per second
        sides["peer"] = [25 / speed for speed in sides["peer"]]
    medians = {side: statistics.median(values) for side, values in sides.items()}
    ratio = medians["ours"] / medians["peer"] if more_is_better else medians["peer"] / medians["ours"]
    return {"medians": medians, "times_as_fast": ratio, **sides}


def number(script: str, part: list[str]) -> float:
    """Run a part; returns the first number that it prints."""
    done = subprocess.run([sys.executable, str(HERE / f"{script}.py"), *part], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


def _train(text: str, *flags: str) -> list[dict[str, str]]:
    """Run `charrnn-tf train`; returns the rows of its metrics.csv."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "charrnn_tf", "train", text, "--checkpoint-dir", directory, *flags],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        with open(Path(directory) / "metrics.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def notebook(text: str, seed: int, init: str = "wide", steps: str = "139") -> dict[str, Any]:
    """Validation losses of `--preset notebook` at steps 130, 139 and 715."""
    rows = _train(text, "--preset", "notebook", "--init", init, "--seed", str(seed), "--max-steps", steps,
                  "--validate-every", "65")  # fmt: skip
    losses = {row["step"]: float(row["validation_loss"]) for row in rows if row["validation_loss"]}
    return {step: losses[step] for step in ("130", "139", "715") if step in losses}


def sherlock(text: str, seed: int) -> dict[str, Any]:
    """Mean training loss of each of 40 epochs on the first 10,000 characters: ours, and the tutorial's code in PyTorch."""
    rows = _train(text, "--preset", "sherlock", "--seed", str(seed), "--log-every", "1000000")
    arguments = [sys.executable, str(HERE / "peers.py"), "torch-sherlock", text, "10000", "40", str(seed)]
    peer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[1:]
    return {"ours": [float(row["train_loss"]) for row in rows], "peer": [float(nats) for nats in peer]}


def notebook_tf1(text: str, seed: int) -> dict[str, Any]:
    """Mean training loss of both epochs: ours, the TensorFlow 1 graph, and that graph with true last targets."""
    rows = _train(text, "--preset", "notebook-tf1", "--seed", str(seed), "--log-every", "1000000")
    figures = {"ours": [float(row["train_loss"]) for row in rows]}
    for name, targets in ("peer", "wrapped"), ("peer_true_targets", "next"):
        arguments = [sys.executable, str(HERE / "peers.py"), "tf1-notebook", text, "2", str(seed), targets]
        peer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[1:]
        figures[name] = [float(nats) for nats in peer]
    return figures


def tf_tutorial(text: str, seed: int) -> dict[str, Any]:
    """Mean training loss of the first epoch: ours, and the tutorial's model under Keras `fit`."""
    rows = _train(text, "--preset", "tf-tutorial", "--seed", str(seed), "--epochs", "1", "--log-every", "1000000")
    arguments = [sys.executable, str(HERE / "peers.py"), "keras-tutorial", text, "1", "0", str(seed)]
    peer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[1:]
    return {"ours": [float(row["train_loss"]) for row in rows], "peer": [float(nats) for nats in peer]}


def limit(text: str, seed: int) -> dict[str, Any]:
    """The result of `charrnn-tf benchmark`: rates of large products, and the share of them that a step reaches."""
    done = subprocess.run([sys.executable, "-m", "charrnn_tf", "benchmark", "--json"], check=True, capture_output=True)
    return {name: part for name, part in json.loads(done.stdout).items() if name != "machine"}


def encode(text: str, seed: int) -> dict[str, Any]:
    """Speed of reading and encoding a text on one core, MB/s, the best of three."""
    return {"megabytes_per_second": max(number("ours", ["encode", text]) for _ in range(3))}


# All other rows: row -> function of text and seed
SINGLE: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "limit": limit,
    "encode": encode,
    "notebook-139": notebook,
    "notebook-139-pytorch": lambda text, seed: notebook(text, seed, "pytorch"),
    "notebook-715": lambda text, seed: notebook(text, seed, steps="715"),
    "sherlock": sherlock,
    "notebook-tf1": notebook_tf1,
    "tf-tutorial": tf_tutorial,
}


def machine() -> str:
    """Name, number of cores and vector instructions of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if kind in flags]
    return f"{names[0]}, {len(names)} cores, {' '.join(kinds)}"


def append(figures: dict[str, Any], path: str | None) -> None:
    """Print figures, date and machine as one line of JSON; also append it to a file if a path is given."""
    line = json.dumps({**figures, "date": time.strftime("%Y-%m-%d"), "machine": machine()})
    print(line)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def main() -> None:
    """Measure one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", choices=[*SPEED, *SINGLE])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--append")
    asked = parser.parse_args()
    if asked.row is None:
        return print(*SPEED, *SINGLE, sep="\n")
    if not asked.text and ((asked.row in SINGLE and asked.row != "limit") or "{text}" in str(SPEED.get(asked.row))):
        parser.error(f"{asked.row} needs --text")
    figures = compare(asked.row, asked.runs, asked.text) if asked.row in SPEED else SINGLE[asked.row](asked.text, asked.seed)
    return append({"row": asked.row, "seed": asked.seed, **figures}, asked.append)


if __name__ == "__main__":
    main()
