"""The benchmark: its count of operations, its tables, the comparison, and one real measurement."""

import json
import subprocess

import pytest
from processes import run

from charrnn_tf.bench import benchmark, peers
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.schema import ModelConfig, TrainConfig


def test_the_notebooks_step_is_245_gflop():
    """12,800 characters, through three products of 512 x 2048 and the dense layer, forward and twice backward."""
    model, config = preset("notebook", 83)
    assert benchmark.step_gflop(model, config) == pytest.approx(245, abs=0.5)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_the_work_counts_recurrent_input_and_dense_products(cell, gates):
    model = ModelConfig(vocab_size=7, cell=cell, hidden_size=10, num_layers=3)
    products = 3 * 10 * gates * 10 + 2 * 10 * gates * 10 + 10 * 7
    work = benchmark.step_gflop(model, TrainConfig(batch_size=2, num_steps=5, max_steps=1))
    assert work == pytest.approx(2 * 3 * products * 10 / 1e9)


def test_median_seconds_leaves_the_warm_up_out(monkeypatch):
    now = iter([0, 100, 100, 200, 200, 201, 201, 204, 204, 206])
    monkeypatch.setattr("charrnn_tf.bench.peers.time.perf_counter", lambda: next(now))
    assert benchmark.median_seconds(lambda: None, 3) == 2


def test_the_best_of_pytorch_is_its_fastest_way(monkeypatch, capsys):
    """A way that fails, as `torch.compile` without a compiler, is left out."""
    taken, asked = {"plain": "0.5\n", "one thread": "0.4\n", "without oneDNN": "0.9\n"}, []

    def run(command, **how):
        asked.append(command[4:])
        way = command[-1]
        return subprocess.CompletedProcess(command, way not in taken, taken.get(way, ""), "")

    monkeypatch.setattr(peers.subprocess, "run", run)
    peers.torch_best("gru", "bfloat16")
    printed = capsys.readouterr()
    assert printed.out == "0.4\n"
    assert printed.err == "plain: 0.5\ncompiled: failed\none thread: 0.4\nwithout oneDNN: 0.9\n"
    assert asked[1] == ["gru", "bfloat16", "512", "2", "128", "100", "compiled"]


SIDES = {"ours": 2.0, "theirs": 3.0, "times_as_fast": 1.5}
RESULT = {
    "machine": {"processor": "Some CPU", "cores": 2, "onednn": "1"},
    "gflops": {"float32": 480.4},
    "train_step": {"notebook": {"float32": {"seconds": 0.61, "chars_per_second": 20_984.0, "share_of_limit": 0.837}}},
    "sampling": {"notebook": {"1": 8850.0, "16": 45_800.0}},
}


def test_the_table():
    lines = benchmark.as_text({**RESULT, "compare": {"pytorch": {}, "keras": {"train_step float32": SIDES}}}).splitlines()
    assert lines[:2] == ["Some CPU, 2 cores, oneDNN 1", "large products, float32: 480 GFLOP/s"]
    assert lines[4].split() == ["notebook,", "float32", "0.6100", "20,984", "84%"]
    assert lines[7].split() == ["notebook", "8,850", "45,800"]
    assert lines[10].split() == ["pytorch", "not", "installed"]
    assert lines[11].split() == ["keras", "train_step", "float32", "2", "3", "1.50"]


@pytest.mark.parametrize("installed", [True, False])
def test_compare_takes_medians_of_both_sides_in_turn(monkeypatch, installed):
    asked = []

    def printed(*arguments):
        asked.append(arguments)
        return len(asked) + (100 if arguments[0] == "-m" else 0)

    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(benchmark, "_printed", printed)
    result = benchmark._compare(["float32"], lambda part: None)
    assert [arguments[0] for arguments in asked] == ["-c", "-m"] * (len(asked) // 2)
    assert sorted(result["pytorch"]) == (["sampling", "train_step float32"] if installed else [])
    rows = [*result["pytorch"].items(), *result["keras"].items()]
    for number, (row, sides) in enumerate(rows):
        own, other = 6 * number + 3, 6 * number + 104
        ratio = own / other if row == "sampling" else other / own
        assert sides == {"ours": own, "theirs": other, "times_as_fast": ratio}


@pytest.mark.slow
def test_this_machine_is_measured():
    """A real measurement, of fewer and shorter parts than the command's."""
    code = (
        "import json, sys\n"
        "from charrnn_tf.machine import startup\n"
        "startup.start()\n"
        "from charrnn_tf.bench import benchmark as b\n"
        "b.PRESETS, b.train_step.__defaults__, b.characters_per_second.__defaults__ = ('default',), (2,), (300,)\n"
        "b.LARGE_PRODUCTS, b.product_rate.__defaults__ = b.LARGE_PRODUCTS[:1], (2,)\n"
        "print(json.dumps(b.benchmark(say=lambda part: print(part, file=sys.stderr))))"
    )
    done = run(["-c", code], capture_output=True, text=True, check=True, timeout=180)
    result = json.loads(done.stdout)
    assert "compare" not in result
    assert done.stderr.splitlines()[:2] == ["large products", "training step, default, float32"]
    assert set(result["train_step"]["default"]) == set(result["gflops"])
    for step in result["train_step"]["default"].values():
        assert 0.02 < step["share_of_limit"] < 1.2
        assert step["chars_per_second"] > 100
    assert result["sampling"]["default"]["16"] > result["sampling"]["default"]["1"] > 50
