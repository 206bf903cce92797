"""Several replicas compute what one does: on two devices of one process, and in two and three processes on this machine."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_text
from processes import Python
from test_rendezvous import free_ports

from charrnn_tf.runs.find import latest_checkpoint, list_checkpoints
from charrnn_tf.runs.record import read_record

pytestmark = pytest.mark.slow

STEPS = 50
LOSSES = """
import json, sys
import numpy as np, tensorflow as tf
kind, settings = sys.argv[1], json.loads(sys.argv[2])
from charrnn_tf.distributed.cluster import Cluster
from charrnn_tf.distributed.strategies import Mirrored, Workers
from charrnn_tf.training.replicas import ALONE
if kind == "mirrored":
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
replicas = {"alone": lambda: ALONE, "mirrored": Mirrored, "workers": lambda: Workers(Cluster.from_environment())}[kind]()
from charrnn_tf.text.windows import Streams
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.state import RunState
model = ModelConfig(vocab_size=20, hidden_size=16, **settings)
train = TrainConfig(batch_size=12, num_steps=10, max_steps=100, shards=6, learning_rate=0.01, clip_norm=0.5, state_reset=0.2,
                    warmup_steps=0)
ids = np.random.default_rng(0).integers(0, 20, 3000)
ids[1::2] = ids[::2]
streams = Streams(ids, 12, 10)
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
copies = [[weight.tolist() for weight in model.get_weights()] for model, _ in run.copies]
print(json.dumps({"losses": losses, "states": [part.numpy().tolist() for part in parts], "weights": weights,
                  "copies_are_equal": all(copy == weights for copy in copies),
                  "agreed": [replicas.agree(not replicas.is_chief, 2.5 if replicas.is_chief else 7.0, 3),
                             replicas.agree(False)]}))
"""


def environment(addresses=(), index=0):
    """Of a process that has a core to itself; with addresses of one worker of several."""
    plain = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    plain |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**plain, "TF_CONFIG": json.dumps(cluster)} if addresses else plain


def process(arguments, addresses=(), index=0, **how):
    pipe = subprocess.PIPE
    return Python(arguments, env=environment(addresses, index), stdout=pipe, stderr=pipe, text=True, **how)


def start(arguments, count, **how):
    """A process for each of so many workers; 1: one that works alone."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)] if count > 1 else []
    return [process(arguments, addresses, index, **how) for index in range(count)]


def ends(processes, seconds=120):
    """(status, standard output, standard error) of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def losses(kind, settings, count=1):
    results = ends(start(["-c", LOSSES, kind, json.dumps(settings)], count))
    for status, _, errors in results:
        assert status == 0, errors
    return [json.loads(text.splitlines()[-1]) for _, text, _ in results]


@pytest.fixture(scope="module", params=[{"cell": "gru", "embedding_size": 8}, {"dropout": 0.3}], ids=str)
def one(request):
    """Settings, and what one replica computes with them."""
    settings = {"dropout": 0.0, **request.param}
    return settings, losses("alone", settings)[0]


@pytest.mark.parametrize(("kind", "count"), [("mirrored", 1), ("workers", 2), ("workers", 3)])
def test_replicas_compute_what_one_does(one, kind, count):
    settings, expected = one
    results = losses(kind, settings, count)
    for result in results:
        assert len(result["losses"]) == STEPS
        assert result["losses"] == pytest.approx(expected["losses"], abs=1e-4)
        assert result["losses"][-1] < result["losses"][0] - 0.1
        assert result["copies_are_equal"]
        assert result["weights"] == results[0]["weights"]  # to the last bit
        for part, whole in zip(result["states"], expected["states"], strict=True):
            np.testing.assert_allclose(part, whole, atol=1e-3)
        assert result["agreed"] == [[count > 1, 2.5, 3], [False]]


# The command


FLAGS = (
    "--hidden-size", "16", "--batch-size", "12", "--num-steps", "10", "--dropout", "0", "--weight-dropout", "0",
    "--precision", "float32", "--schedule", "constant", "--log-every", "20", "--validate-every", "50", "--save-every", "25",
    "--keep", "100",
)  # fmt: skip


@pytest.fixture
def home(tmp_path):
    (tmp_path / "text.txt").write_text(make_text(20_000, seed=5), encoding="utf-8")
    return tmp_path


def train(home, count, *arguments):
    strategy = ("--strategy", "multiworker" if count > 1 else "none")
    return start(["-m", "charrnn_tf", "train", *strategy, *arguments], count, cwd=home)


def rows(folder):
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["train_loss"]), row["validation_loss"]) for row in csv.DictReader(file)]


def assert_equal_rows(found, expected):
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert [row[1] for row in found] == pytest.approx([row[1] for row in expected], abs=1e-4)
    for (*_, a), (*_, b) in zip(found, expected, strict=True):
        assert float(a or 0) == pytest.approx(float(b or 0), abs=1e-4)


def wait_for(folder, step, processes, seconds=90):
    """Until a checkpoint of a step is there."""
    end = time.monotonic() + seconds
    while not any(path.name.startswith(f"i{step}_") for path in (list_checkpoints(folder) if folder.exists() else ())):
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.05)


def test_only_the_chief_writes_and_prints(home):
    alone, *_ = ends(train(home, 1, "text.txt", *FLAGS, "--max-steps", 60, "--checkpoint-dir", "one"))
    chief, other = ends(train(home, 2, "text.txt", *FLAGS, "--max-steps", 60, "--checkpoint-dir", "two"))
    assert (alone[0], chief[0], other[0]) == (0, 0, 0), (chief, other)
    assert chief[1] == "two/i60_l16\n"
    assert other[1] == ""
    assert "step" not in other[2]
    assert_equal_rows(rows(home / "two"), rows(home / "one"))
    record = read_record(latest_checkpoint(home / "two"))
    assert (record.step, record.train.strategy) == (60, "multiworker")


def test_a_killed_worker_ends_the_others_and_another_number_goes_on(home):
    ends(train(home, 1, "text.txt", *FLAGS, "--max-steps", 200, "--checkpoint-dir", "one"))
    workers = train(home, 3, "text.txt", *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "three")
    wait_for(home / "three", 50, workers)
    workers[2].kill()
    begin = time.monotonic()
    chief, other, _ = ends(workers, seconds=60)
    assert time.monotonic() - begin < 60
    for status, _, errors in (chief, other):
        assert status == 1
        last = errors.strip().splitlines()[-1]
        assert last.startswith("Error: another worker has ended or can't be reached any more, at step ")
        assert last.endswith("Start all workers again with --resume.")
    latest_checkpoint(home / "three")  # whole
    for count, steps in [(2, 150), (1, 200)]:
        for status, _, errors in ends(train(home, count, "--resume", "--max-steps", steps, "--checkpoint-dir", "three")):
            assert status == 0, errors
    assert_equal_rows(rows(home / "three"), rows(home / "one"))


def test_a_killed_chief_ends_the_others(home):
    workers = train(home, 2, "text.txt", *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "run")
    wait_for(home / "run", 25, workers)
    workers[0].kill()
    _, (status, text, errors) = ends(workers, seconds=60)
    assert (status, text) == (1, "")
    assert (
        errors.strip().splitlines()[-1].startswith("Error: another worker has ended or can't be reached any more, at step ")
    )


def test_the_same_number_of_workers_goes_on_bit_for_bit(home):
    ends(train(home, 2, "text.txt", *FLAGS, "--max-steps", 60, "--dropout", 0.3, "--checkpoint-dir", "whole"))
    ends(train(home, 2, "text.txt", *FLAGS, "--max-steps", 30, "--dropout", 0.3, "--checkpoint-dir", "parts"))
    ends(train(home, 2, "--resume", "--max-steps", 60, "--checkpoint-dir", "parts"))
    assert [row[0] for row in rows(home / "parts")] == [20, 30, 40, 50, 60]
    assert rows(home / "parts")[-1] == rows(home / "whole")[-1]


def test_a_run_that_is_there_is_left_alone_and_all_are_told(home):
    ends(train(home, 1, "text.txt", *FLAGS, "--max-steps", 30))
    before = (home / "checkpoints" / "metrics.csv").read_bytes()
    chief, other = ends(train(home, 2, "text.txt", *FLAGS, "--max-steps", 30))
    assert (chief[0], other[0]) == (1, 1)
    assert "Error: 'checkpoints' holds a run already" in chief[2]
    assert other[2].strip().splitlines()[-1] == "Error: the chief could not begin; it says why"
    assert (home / "checkpoints" / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("who", [0, 1])
def test_a_worker_that_is_asked_to_stop_stops_all_and_saves(home, who):
    workers = train(home, 2, "text.txt", *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "run")
    wait_for(home / "run", 25, workers)
    workers[who].send_signal(signal.SIGTERM)
    results = ends(workers, seconds=60)
    assert [status for status, *_ in results] == [143, 143], results
    step = read_record(latest_checkpoint(home / "run")).step
    assert results[0][1] == f"run/i{step}_l16\n"
    assert "Stopped and saved" in results[0][2]


@pytest.mark.parametrize(
    ("count", "arguments", "what"),
    [
        (2, ("--batch-size", "7"), "--batch-size 7 can't be dealt out to 2 replicas"),
        (1, ("--strategy", "multiworker"), "--strategy multiworker needs the environment variable TF_CONFIG"),
    ],
)
def test_what_cannot_be_dealt_out_is_one_line(home, count, arguments, what):
    for status, text, errors in ends(train(home, count, "text.txt", *FLAGS, *arguments, "--max-steps", 5)):
        assert (status, text) == (1, "")
        assert errors.strip().splitlines()[-1].startswith(f"Error: {what}")
    assert not list(Path(home).glob("checkpoints/i*"))


def test_workers_that_mean_another_run_are_told(home):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    arguments = ["-m", "charrnn_tf", "train", "text.txt", *FLAGS, "--strategy", "multiworker"]
    workers = [process([*arguments, "--seed", index], addresses, index, cwd=home) for index in range(2)]
    for status, _, errors in ends(workers):
        assert status == 1
        assert f"Error: worker 1 ({addresses[1]}) differs from the chief in: seed." in errors
