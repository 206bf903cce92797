"""Runs killed with SIGKILL, at every named point of their work and at random, go on as if nothing had been.

After each kill: every checkpoint that was announced and not pruned since is there and whole, and none is half there. At the
end: metrics.csv, but for times, and the sampled text are those of a run never interrupted, bit for bit.

CHARRNN_KILLS=100 python -m pytest tests/test_kill.py -k random    as many random kills as wanted; 5 by default
"""

import csv
import os
import random
import subprocess
import time

import pytest
from conftest import make_text
from processes import Python, run

from charrnn_tf.runs.find import find, iteration, list_checkpoints
from charrnn_tf.runs.record import read_record

SETTINGS = (
    "--hidden-size", "16", "--num-layers", "2", "--dropout", "0.3", "--weight-dropout", "0.1", "--state-reset", "0.1",
    "--schedule", "cosine", "--learning-rate", "0.02", "--batch-size", "8", "--num-steps", "16", "--log-every", "7",
    "--validate-every", "10", "--save-every", "4", "--keep", "2", "--seed", "5", "--patience", "0",
)  # fmt: skip
STEPS = 200
KILLS = int(os.environ.get("CHARRNN_KILLS", "5"))

# The command, which tells what it has saved, and which kills itself at a point if asked: "variables:3" is the third time.
COMMAND = """
import collections, os, signal, shutil, sys
from charrnn_tf.runs import checkpoint
from charrnn_tf.cli import main as cli
from charrnn_tf.runs import metrics
from charrnn_tf.runs import directory as rundir
from charrnn_tf.training import trainer as training

counts, told, at = collections.Counter(), open(os.environ["TOLD"], "a", buffering=1), os.environ.get("KILL_AT")

def reached(point):
    counts[point] += 1
    if at == f"{point}:{counts[point]}":
        os.kill(os.getpid(), signal.SIGKILL)

def before(point, function):
    def call(*arguments, **more):
        reached(point)
        return function(*arguments, **more)
    return call

def after(point, function):
    def call(*arguments, **more):
        result = function(*arguments, **more)
        reached(point)
        return result
    return call

def telling(function):
    def call(run, *arguments):
        path = function(run, *arguments)
        print(path.name, file=told)
        return path
    return call

write = checkpoint.write
checkpoint.write = lambda directory, record, variables: write(directory, record, variables, reached)
checkpoint.remove = after("pruned", checkpoint.remove)
shutil.rmtree = before("emptying", shutil.rmtree)
metrics.MetricsFile.to_disk = before("rows", metrics.MetricsFile.to_disk)
metrics.MetricsFile.append = after("row", metrics.MetricsFile.append)
rundir.RunDirectory.save = telling(rundir.RunDirectory.save)
training.Trainer._validate = after("validation", training.Trainer._validate)
training.Trainer._check_losses = before("steps", training.Trainer._check_losses)
print("begun", file=told)
cli.main()
"""
POINTS = (
    "folder", "variables", "sums", "complete", "renamed", "indexed", "pruned", "emptying", "rows", "row", "validation",
    "steps",
)  # fmt: skip


class Killable:
    """A run that can be begun, killed and gone on with."""

    def __init__(self, text, folder):
        self.text, self.folder, self.told = text, folder / "run", folder / "told"
        self.told.touch()

    def start(self, kill_at=""):
        begun = list_checkpoints(self.folder) if self.folder.is_dir() else []
        given = ("--resume",) if begun else (self.text, *SETTINGS, "--max-steps", STEPS, "--overwrite")
        command = ["-c", COMMAND, "train", *given, "--checkpoint-dir", self.folder]
        environment = {**os.environ, "TOLD": str(self.told), "KILL_AT": kill_at}
        return Python(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def check(self):
        """What is on the disk, after a kill."""
        announced = [line for line in self.told.read_text().split() if line != "begun"]
        found = list_checkpoints(self.folder) if self.folder.is_dir() else []
        for path in found:
            assert read_record(path).step == iteration(path)
        if announced:
            assert iteration(find("latest", self.folder)) >= iteration(self.folder / announced[-1])

    def rows(self):
        with open(self.folder / "metrics.csv", encoding="utf-8") as file:
            return [
                [cell for name, cell in row.items() if name not in ("seconds", "chars_per_second")]
                for row in csv.DictReader(file)
            ]

    def written(self):
        command = ["-m", "charrnn_tf", "sample", "--checkpoint-dir", self.folder, "--length", 300, "--seed", 1, "--top-n", 0]
        return run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.txt"
    path.write_text(make_text(8000, seed=3), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run that is never interrupted: its rows, the text sampled from it, how long it trains."""
    run = Killable(text, tmp_path_factory.mktemp("whole"))
    process = run.start()
    while "begun" not in run.told.read_text():
        time.sleep(0.01)
    begun = time.monotonic()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return run.rows(), run.written(), time.monotonic() - begun


def finish(run, whole):
    """Go on until the end, and compare."""
    process = run.start()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert run.rows() == whole[0]
    assert run.written() == whole[1]


@pytest.mark.slow
def test_killed_at_every_point_of_its_work(text, whole, tmp_path):
    run = Killable(text, tmp_path)
    for times, point in enumerate(POINTS, 1):
        process = run.start(f"{point}:{1 + times % 3}")
        _, err = process.communicate(timeout=300)
        assert process.returncode == -9, f"{point} was not reached: {err}"
        run.check()
    finish(run, whole)


@pytest.mark.slow
def test_killed_at_random(text, whole, tmp_path):
    draw = random.Random(os.environ.get("CHARRNN_KILLS_SEED", "1"))
    kills, runs = 0, 0
    while kills < KILLS:
        runs += 1
        (tmp_path / str(runs)).mkdir()
        run = Killable(text, tmp_path / str(runs))
        while kills < KILLS:
            process, begun = run.start(), run.told.read_text().count("begun")
            while run.told.read_text().count("begun") == begun and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, whole[2]) / draw.choice((1, 2, 4)))
            process.kill()
            _, err = process.communicate(timeout=300)
            run.check()
            if process.returncode == 0:
                break  # it was over before
            assert process.returncode == -9, err
            kills += 1
        finish(run, whole)
