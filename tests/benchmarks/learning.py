"""Measures how well the default settings learn in a given time: one row of docs/performance.md.

    python tests/benchmarks/learning.py ROW [--text FILE] [--seed N] [--step SECONDS] [--append FILE] [OPTIONS OF TRAIN]

Times are given in units of P, the seconds that one training step of the PyTorch notebooks takes on this machine (LSTM 2x512,
128 x 100); P is measured first unless --step gives it. A row trains on a text with `--max-seconds` and scores the held-out
last tenth with `evaluate`. All other options are passed to `train`. Without ROW, prints the names of the rows.

War and Peace is divided as in Karpathy, Johnson and Fei-Fei (arXiv 1506.02078): the last tenth is the test part, which
training never reads, and the tenth before it is held out for validation. The time is the default's, or 7,200 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from run import append, number
from words import figures


class Row(NamedTuple):
    """A text, None for the built-in corpus, and how long to train on it."""

    text: str | None
    time: float | None  # None: as long as the default does
    in_seconds: bool = False  # and not in units of P
    parts: int = 2  # of the text: see `learn`


ROWS = {
    "anna-139": Row("anna.txt", 139), "anna-278": Row("anna.txt", 278), "anna-695": Row("anna.txt", 695),
    "shakespeare-74": Row("tinyshakespeare.txt", 74), "shakespeare-1730": Row("tinyshakespeare.txt", 1730),
    "built-in": Row(None, 240, in_seconds=True), "warpeace": Row("warpeace.txt", None, in_seconds=True, parts=3),
    "warpeace-7200": Row("warpeace.txt", 7200, in_seconds=True, parts=3),
}  # fmt: skip


def charrnn(*arguments: str, **streams: Any) -> str:
    """Run a command; returns its standard output."""
    command = [sys.executable, "-m", "charrnn_tf", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **streams).stdout


def learn(text: str, seconds: float | None, seed: int, flags: list[str], parts: int = 2) -> dict[str, Any]:
    """Train on a text for some seconds; nats per character of its last tenth, for the last and the best checkpoint.

    seconds: None is the default's. parts: with 3, training does not read the last tenth; the tenth before is held out.
    """
    with tempfile.TemporaryDirectory() as folder:
        run, tenth = ("--checkpoint-dir", f"{folder}/run"), Path(folder, "tenth.txt")
        with open(text, encoding="utf-8", newline="") as file:
            whole = file.read()
        place = len(whole) - len(whole) // 10
        write(tenth, whole[place:])
        if parts == 3:
            text, flags = f"{folder}/text.txt", ["--validation-fraction", str(1 / 9), *flags]
            write(Path(text), whole[:place])
        budget = [] if seconds is None else ["--max-seconds", str(seconds)]
        begin = time.monotonic()
        name = charrnn("train", text, *budget, "--seed", str(seed), *run, *flags).split("/")[-1]
        took = time.monotonic() - begin

        def score(*more: str) -> float:
            scored = json.loads(charrnn("evaluate", str(tenth), "--json", *run, *more))
            return float(scored["nats_per_character"])

        return {
            "seconds": took,
            "steps": int(name.strip()[1:].split("_")[0]),
            "last": score(),
            "best": score("--checkpoint", "best"),
            **{f"best_window_{n}": score("--checkpoint", "best", "--window", str(n)) for n in (100, 256)},
        }


def write(path: Path, text: str) -> None:
    """Write a file without changing line ends."""
    path.write_bytes(text.encode())


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
    row = ROWS[asked.row]
    if row.text is None:
        result = built_in(row.time, asked.seed, flags)
    else:
        if not asked.text:
            parser.error(f"{asked.row} needs --text, {row.text}")
        unit = {} if row.in_seconds else {"P": asked.step or number("peers", ["torch-step"])}
        seconds = None if row.time is None else row.time * unit.get("P", 1)
        result = unit | learn(asked.text, seconds, asked.seed, flags, row.parts)
    return append({"row": asked.row, "seed": asked.seed, "flags": flags, **result}, asked.append)


if __name__ == "__main__":
    main()
