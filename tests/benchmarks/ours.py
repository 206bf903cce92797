"""Our side of each comparison. Prints one number.

python tests/benchmarks/ours.py PART [ARGUMENT]...
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from charrnn_tf import runtime
from charrnn_tf.config import PRESETS, ModelConfig, TrainConfig, resolve, split
from charrnn_tf.vocabulary import Vocabulary

V = 83  # distinct characters of Anna Karenina
CHARACTERS = "".join(map(chr, range(33, 33 + V)))


def _random_text(directory: str, characters: int = 2_000_000) -> Path:
    """A text of random characters: the work of a step does not depend on what is read."""
    ids = np.random.default_rng(0).integers(0, V, characters)
    path = Path(directory) / "random.txt"
    path.write_text(Vocabulary(CHARACTERS).decode(ids), encoding="utf-8")
    return path


def _command(*arguments: str) -> float:
    """Wall seconds of a command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "charrnn_tf", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def train_step(preset: str = "notebook", short: str = "14", long: str = "44", *flags: str) -> None:
    """Seconds a step through `charrnn-tf train`: wall time of `long` steps less that of `short`."""
    with tempfile.TemporaryDirectory() as directory:
        text = str(_random_text(directory))
        common = [text, "--preset", preset, "--validation-fraction", "0", "--overwrite", *flags]
        common += ["--checkpoint-dir", f"{directory}/run", "--log-every", "100000", "--sample-every", "100000"]
        seconds = [_command("train", *common, "--max-steps", steps) for steps in (short, long)]
    print((seconds[1] - seconds[0]) / (int(long) - int(short)))


def constant_window(preset: str = "notebook", steps: str = "10") -> None:
    """Seconds a step of the compiled step on one window that never changes."""
    model_settings, train_settings = split(resolve(preset, {}, {"max_steps": 100}))
    config = TrainConfig(**train_settings, shards=runtime.default_shards(PRESETS[preset]["batch_size"]))
    runtime.start(config.shards or 1)
    from charrnn_tf.steps import RunState, compile_steps

    model_config = ModelConfig(vocab_size=V, **model_settings)
    run = RunState(model_config, config)
    run_steps = compile_steps(run, model_config, config, 1000)
    window = np.random.randint(0, V, (1, config.batch_size, config.num_steps + 1), np.int32)
    times = []
    for _ in range(int(steps) + 2):
        begin = time.perf_counter()
        run_steps(window, 0.0)
        run.step.numpy()
        times.append(time.perf_counter() - begin)
    print(statistics.median(times[2:]))


def sample(texts: str = "1", length: str = "2000", hidden: str = "512", layers: str = "2") -> None:
    """Characters a second of all texts together, LSTM, top 5, after a first text that compiles."""
    runtime.start(runtime.available_cores())
    from charrnn_tf import Sampler

    config = ModelConfig(vocab_size=V, hidden_size=int(hidden), num_layers=int(layers))
    sampler = Sampler(config, Vocabulary(CHARACTERS), int(texts))
    for count in (100, int(length)):
        begin = time.perf_counter()
        for _ in sampler.chunks(CHARACTERS[0], count, top_n=5):
            pass
    print(int(texts) * int(length) / (time.perf_counter() - begin))


def help_seconds() -> None:
    """Wall seconds of `charrnn-tf --help`."""
    print(_command("--help"))


PARTS = {part.__name__.replace("_", "-"): part for part in (train_step, constant_window, sample, help_seconds)}

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
