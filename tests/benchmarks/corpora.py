"""Measures how long texts are read: time, speed and memory, a table of docs/performance.md.

    python tests/benchmarks/corpora.py [--bytes 2e9] [--characters ascii|mixed] [--append FILE]

Writes a made-up text of that size to a temporary folder, and runs short training commands: two on this text with the same
empty cache, one on a small text. Then reads the text twice without training, with another cache. Memory is the maximum
resident set size (`ru_maxrss`), mapped pages included.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import append

SMALL = 5_000_000  # bytes of the small text, still long enough to be mapped
BLOCK = 1 << 24
ALPHABETS = {
    "ascii": "the quick brown fox, jumps over a lazy dog. ",
    "mixed": "the quick brown fox, Снова и снова льёт дождь. 春眠不覚暁 — naïve café! ",
}
FLAGS = ("--max-steps", "100", "--hidden-size", "64", "--validation-fraction", "0", "--overwrite", "--quiet")


def write_text(path: Path, size: int, characters: str) -> None:
    """Write words in random order, about `size` bytes."""
    draw = random.Random(0)
    words = ALPHABETS[characters].split(" ")
    block = " ".join(draw.choices(words, k=BLOCK // 6)).encode()
    with open(path, "wb") as file:
        while file.tell() < size:
            begin = draw.randrange(len(block) // 2)
            begin = block.index(b" ", begin) + 1
            file.write(block[begin:])


def train(path: Path, environment: dict[str, str]) -> tuple[float, int]:
    """Wall seconds, and maximum resident set size in bytes, of a short training command."""
    command = [sys.executable, "-m", "charrnn_tf", "train", str(path), "--checkpoint-dir", f"{path}.run", *FLAGS]
    begin = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run ended with {status}")
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def read(path: Path, environment: dict[str, str]) -> float:
    """Seconds for reading and encoding a text, on one core."""
    code = (
        "import sys, time; from charrnn_tf.text.corpus import load_corpus; b = time.monotonic(); load_corpus(sys.argv[1:]); "
    )
    code += "print(time.monotonic() - b)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9)
    parser.add_argument("--characters", choices=ALPHABETS, default="ascii")
    parser.add_argument("--append")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        long, small = Path(folder, "long.txt"), Path(folder, "small.txt")
        write_text(long, int(asked.bytes), asked.characters)
        write_text(small, SMALL, asked.characters)
        caches = [{**os.environ, "XDG_CACHE_HOME": f"{folder}/cache{n}"} for n in range(2)]
        first, memory = train(long, caches[0])
        second, _ = train(long, caches[0])
        short, small_memory = train(small, caches[0])
        encoded, found = (read(long, caches[1]) for _ in range(2))
        size = long.stat().st_size
    append(
        {
            "row": f"corpus-{asked.characters}", "bytes": size, "first_start": first, "second_start": second,
            "small_start": short, "memory": memory, "small_memory": small_memory, "more_memory": memory - small_memory,
            "encoded_in": encoded, "found_in": found, "megabytes_per_second": size / encoded / 1e6,
        },
        asked.append,
    )  # fmt: skip


if __name__ == "__main__":
    main()
