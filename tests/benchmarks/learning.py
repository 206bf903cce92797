"""Measures how well the default settings learn in a given time: one row of docs/performance.md.

    python tests/benchmarks/learning.py ROW [--text FILE] [--seed N] [--step SECONDS] [--append FILE] [OPTIONS OF TRAIN]

Times are given in units of P, the seconds that one training step of the PyTorch notebooks takes on this machine (LSTM 2x512,
128 x 100); P is measured first unless --step gives it. A row trains on a text with `--max-seconds` and scores the held-out
last tenth with `evaluate`. All other options are passed to `train`. Without ROW, prints the names of the rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from run import append, number
from words import figures

# row -> (the text, P or, for the built-in corpus, seconds)
ROWS = {
    "anna-139": ("anna.txt", 139), "anna-278": ("anna.txt", 278), "anna-695": ("anna.txt", 695),
    "shakespeare-74": ("tinyshakespeare.txt", 74), "shakespeare-1730": ("tinyshakespeare.txt", 1730),
    "built-in": (None, 240),
}  # fmt: skip


def charrnn(*arguments: str, **streams: Any) -> str:
    """Run a command; returns its standard output."""
    command = [sys.executable, "-m", "charrnn_tf", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **streams).stdout


def learn(text: str, seconds: float, seed: int, flags: list[str]) -> dict[str, Any]:
    """Train on a text for some seconds; nats per character of its last tenth, for the last and the best checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        run, tenth = ("--checkpoint-dir", f"{folder}/run"), Path(folder, "tenth.txt")
        begin = time.monotonic()
        name = charrnn("train", text, "--max-seconds", str(seconds), "--seed", str(seed), *run, *flags).split("/")[-1]
        took = time.monotonic() - begin
        whole = Path(text).read_text(encoding="utf-8")
        tenth.write_text(whole[len(whole) - len(whole) // 10 :], encoding="utf-8")

        def score(*more: str) -> float:
            scored = json.loads(charrnn("evaluate", str(tenth), "--json", *run, *more))
            return float(scored["nats_per_character"])

        return {
            "seconds": took,
            "steps": int(name.strip()[1:].split("_")[0]),
            "last": score(),
            "best": score("--checkpoint", "best"),
            "best_window_256": score("--checkpoint", "best", "--window", "256"),
        }


def built_in(seconds: float, seed: int, flags: list[str]) -> dict[str, Any]:
    """Train on the built-in corpus for some seconds; `words.figures` of 10,000 sampled characters of both checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        run = ("--checkpoint-dir", folder)
        charrnn("train", "--max-seconds", str(seconds), "--seed", str(seed), *run, *flags)
        return {
            which: figures(charrnn("sample", "--checkpoint", which, "--length", "10000", "--seed", str(seed), *run))
            for which in ("latest", "best")
        }


def main() -> None:
    """Measure one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", choices=[*ROWS])
    parser.add_argument("--text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=float)
    parser.add_argument("--append")
    asked, flags = parser.parse_known_args()
    if asked.row is None:
        return print(*ROWS, sep="\n")
    name, time_units = ROWS[asked.row]
    if name is None:
        result = built_in(time_units, asked.seed, flags)
    else:
        if not asked.text:
            parser.error(f"{asked.row} needs --text, {name}")
        step = asked.step or number("peers", ["torch-step"])
        result = {"P": step, **learn(asked.text, time_units * step, asked.seed, flags)}
    return append({"row": asked.row, "seed": asked.seed, "flags": flags, **result}, asked.append)


if __name__ == "__main__":
    main()
