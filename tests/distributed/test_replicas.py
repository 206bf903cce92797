"""Several replicas compute what one does: on two devices of one process, and in two and three processes on this machine."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from commandline import refuse
from conftest import make_text, tree
from processes import Python
from test_cluster import free_ports

from charrnn_tf.runs.find import latest_checkpoint, list_checkpoints
from charrnn_tf.runs.record import read_record
from charrnn_tf.training.replicas import Plan

pytestmark = pytest.mark.slow

STEPS = 50
SETTINGS = [{"cell": "gru", "embedding_size": 8, "dropout": 0.0}, {"dropout": 0.3}]
LOSSES = """
import dataclasses, json, sys
import numpy as np, tensorflow as tf
kind, several = sys.argv[1], json.loads(sys.argv[2])
from charrnn_tf.distributed.cluster import Cluster
from charrnn_tf.distributed.strategies import Mirrored, Workers
from charrnn_tf.training.replicas import ALONE, Plan
if kind == "mirrored":
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
replicas = {"alone": lambda: ALONE, "mirrored": Mirrored, "workers": lambda: Workers(Cluster.from_environment())}[kind]()
from charrnn_tf.text.windows import Streams
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.state import RunState
train = TrainConfig(batch_size=12, num_steps=10, max_steps=100, shards=6, learning_rate=0.01, clip_norm=0.5, state_reset=0.2,
                    warmup_steps=0, averaging=0.7)
ids = np.random.default_rng(0).integers(0, 20, 3000)
ids[1::2] = ids[::2]
streams = Streams.cut(ids, 12, 10)
results = []
for settings in several:
    model = ModelConfig(vocab_size=20, hidden_size=16, **settings)
    run = RunState(model, train, replicas)
    run_steps = compile_steps(run, model, train, streams.steps_per_epoch)
    losses = []
    for step in range(50):
        run_steps(streams.read(step, 1, replicas.rows(12)), 0.0)
        losses.append(float(run.loss_sum))
        run.loss_sum.assign(0.0)
    parts = tf.nest.flatten(run.recurrent)
    for part in parts:
        replicas.complete(part)
    weights = [weight.tolist() for weight in run.model.get_weights()]
    run.to_train()
    copies = [[weight.tolist() for weight in model.get_weights()] for model, _ in run.copies]
    results.append({"losses": losses, "states": [part.numpy().tolist() for part in parts], "weights": weights,
                    "copies_are_equal": all(copy == copies[0] for copy in copies)})
chief = replicas.is_chief
plans = [Plan(stop=not chief, loss=2.5 if chief else 7.0, steps=3), Plan(end=not chief, shards=2, time_fraction=1 / 3)]
print(json.dumps([results, [dataclasses.asdict(replicas.agree(plan)) for plan in plans]]))
"""


def environment(addresses=(), index=0):
    """Of a process with one thread; with addresses, of one of several workers."""
    plain = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    plain |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**plain, "TF_CONFIG": json.dumps(cluster)} if addresses else plain


def process(arguments, addresses=(), index=0, **how):
    pipe = subprocess.PIPE
    return Python(arguments, env=environment(addresses, index), stdout=pipe, stderr=pipe, text=True, **how)


def start(arguments, count, **how):
    """A process for each of `count` workers, or a single one without a cluster."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)] if count > 1 else []
    return [process(arguments, addresses, index, **how) for index in range(count)]


def ends(processes, seconds=120):
    """Wait for processes to end -> (status, standard output, standard error) of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def computed(kind, count=1):
    """For each process what it computed with each of SETTINGS, and what it agreed on with the others."""
    results = ends(start(["-c", LOSSES, kind, json.dumps(SETTINGS)], count))
    for status, _, errors in results:
        assert status == 0, errors
    return [json.loads(text.splitlines()[-1]) for _, text, _ in results]


@pytest.fixture(scope="module")
def by_one():
    """Results of a single replica with each of SETTINGS."""
    [(results, _)] = computed("alone")
    return results


@pytest.mark.parametrize(("kind", "count"), [("mirrored", 1), ("workers", 3)])
def test_replicas_compute_what_one_does(by_one, kind, count):
    processes = computed(kind, count)
    for results, agreed in processes:
        for expected, result, first in zip(by_one, results, processes[0][0], strict=True):
            assert len(result["losses"]) == STEPS
            assert result["losses"] == pytest.approx(expected["losses"], abs=1e-4)
            assert result["losses"][-1] < result["losses"][0] - 0.1
            assert result["copies_are_equal"]
            assert result["weights"] == first["weights"]  # bit for bit
            for part, whole in zip(result["states"], expected["states"], strict=True):
                np.testing.assert_allclose(part, whole, atol=1e-3)
        nothing = dataclasses.asdict(Plan())
        assert agreed == [
            {**nothing, "stop": count > 1, "loss": 2.5, "steps": 3},
            {**nothing, "shards": 2, "time_fraction": 1 / 3},
        ]


# The command


FLAGS = (
    "--hidden-size", "16", "--batch-size", "12", "--num-steps", "10", "--dropout", "0", "--weight-dropout", "0",
    "--precision", "float32", "--schedule", "constant", "--log-every", "20", "--validate-every", "50", "--save-every", "25",
    "--keep", "100", "--averaging", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(make_text(20_000, seed=5), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(text):
    """The folder of a run of 400 steps in one process."""
    [(status, _, errors)] = ends(
        train(text.parent, 1, text, *FLAGS, "--quiet", "--max-steps", 400, "--checkpoint-dir", "one")
    )
    assert status == 0, errors
    return text.parent / "one"


def train(folder, count, *arguments):
    strategy = ("--strategy", "multiworker" if count > 1 else "none")
    return start(["-m", "charrnn_tf", "train", *strategy, *arguments], count, cwd=folder)


def rows(folder):
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["train_loss"]), row["validation_loss"]) for row in csv.DictReader(file)]


def assert_equal_rows(found, expected):
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert [row[1] for row in found] == pytest.approx([row[1] for row in expected], abs=1e-4)
    for (*_, a), (*_, b) in zip(found, expected, strict=True):
        assert float(a or 0) == pytest.approx(float(b or 0), abs=1e-4)


def wait_for(folder, step, processes, seconds=90):
    """Wait for the checkpoint of a step."""
    end = time.monotonic() + seconds
    while not any(path.name.startswith(f"i{step}_") for path in (list_checkpoints(folder) if folder.exists() else ())):
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.05)


def assert_lost(errors):
    last = errors.strip().splitlines()[-1]
    assert last.startswith("Error: another worker has ended or can't be reached any more, at step ")
    assert last.endswith("Start all workers again with --resume.")


def test_only_the_chief_writes_and_prints(alone, text, tmp_path):
    chief, other = ends(train(tmp_path, 2, text, *FLAGS, "--max-steps", 100, "--checkpoint-dir", "two"))
    assert (chief[0], other[0]) == (0, 0), (chief, other)
    assert chief[1] == "two/i100_l16\n"
    assert other[1] == ""
    assert "step" not in other[2]
    assert_equal_rows(rows(tmp_path / "two"), [row for row in rows(alone) if row[0] <= 100])
    record = read_record(latest_checkpoint(tmp_path / "two"))
    assert (record.step, record.train.strategy) == (100, "multiworker")


def test_a_killed_worker_ends_the_others_and_another_number_of_workers_resumes(alone, text, tmp_path):
    workers = train(tmp_path, 3, text, *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "three")
    wait_for(tmp_path / "three", 50, workers)
    workers[2].kill()
    begin = time.monotonic()
    chief, other, _ = ends(workers, seconds=60)
    assert time.monotonic() - begin < 60
    for status, _, errors in (chief, other):
        assert status == 1
        assert_lost(errors)
    steps = read_record(latest_checkpoint(tmp_path / "three")).step // 50 * 50
    for count in (2, 1):
        steps += 50
        resumed = train(tmp_path, count, "--resume", "--quiet", "--max-steps", steps, "--checkpoint-dir", "three")
        for status, _, errors in ends(resumed):
            assert status == 0, errors
    assert_equal_rows(rows(tmp_path / "three"), [row for row in rows(alone) if row[0] <= steps])


def test_a_killed_chief_ends_the_others(text, tmp_path):
    workers = train(tmp_path, 2, text, *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "run")
    wait_for(tmp_path / "run", 25, workers)
    workers[0].kill()
    _, (status, output, errors) = ends(workers, seconds=60)
    assert (status, output) == (1, "")
    assert_lost(errors)


def test_the_same_number_of_workers_resumes_bit_for_bit(text, tmp_path):
    settings = (text, *FLAGS, "--quiet", "--dropout", 0.3)
    ends(train(tmp_path, 2, *settings, "--max-steps", 60, "--checkpoint-dir", "whole"))
    ends(train(tmp_path, 2, *settings, "--max-steps", 30, "--checkpoint-dir", "parts"))
    ends(train(tmp_path, 2, "--resume", "--quiet", "--max-steps", 60, "--checkpoint-dir", "parts"))
    assert [row[0] for row in rows(tmp_path / "parts")] == [20, 30, 40, 50, 60]
    assert rows(tmp_path / "parts")[-1] == rows(tmp_path / "whole")[-1]


def test_a_folder_that_holds_a_run_is_refused_by_all_workers(alone, text):
    before = tree(alone)
    chief, other = ends(train(alone.parent, 2, text, *FLAGS, "--max-steps", 30, "--checkpoint-dir", "one"))
    assert (chief[0], other[0]) == (1, 1)
    assert "Error: 'one' already holds a run" in chief[2]
    assert other[2].strip().splitlines()[-1] == "Error: the chief could not start; its own error says why"
    assert tree(alone) == before


def test_a_signal_to_any_worker_stops_all_and_saves(text, tmp_path):
    workers = train(tmp_path, 2, text, *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "run")
    wait_for(tmp_path / "run", 25, workers)
    workers[1].send_signal(signal.SIGTERM)
    results = ends(workers, seconds=60)
    assert [status for status, *_ in results] == [143, 143], results
    step = read_record(latest_checkpoint(tmp_path / "run")).step
    assert results[0][1] == f"run/i{step}_l16\n"
    assert "Stopped and saved" in results[0][2]


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (json.dumps({"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}),
         ("--batch-size", 7), "--batch-size 7 must be a multiple of the number of replicas, 2"),
        ("", (), "--strategy multiworker needs the environment variable TF_CONFIG, such as "),
    ],
)  # fmt: skip
def test_a_run_that_its_workers_cannot_share_is_one_line(text, tmp_path, monkeypatch, config, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CONFIG", config)
    error = refuse("train", text, *FLAGS, "--strategy", "multiworker", *arguments, "--max-steps", 5)
    assert error.startswith(f"Error: {message}")


def test_workers_with_other_settings_than_the_chief_are_refused(text, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    arguments = ["-m", "charrnn_tf", "train", text, *FLAGS, "--strategy", "multiworker"]
    workers = [process([*arguments, "--seed", index], addresses, index, cwd=tmp_path) for index in range(2)]
    for status, _, errors in ends(workers):
        assert status == 1
        assert f"Error: worker 1 ({addresses[1]}) differs from the chief in: seed." in errors
