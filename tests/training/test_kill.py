"""Runs killed with SIGKILL, at every named point of their work and at random, resume without a trace of it.

After each kill, every checkpoint that was saved and not pruned since is complete, and there are no others. At the end,
metrics.csv (except times) and all variables are those of a run never interrupted, bit for bit.

CHARRNN_KILLS=100 python -m pytest tests/training/test_kill.py -m slow -k random    that many random kills; 1 by default
"""

import os
import random
import subprocess
import time

import pytest
from conftest import make_text
from processes import Python
from test_faults import rows
from test_trainer import assert_same_tensors

from charrnn_tf.runs.find import find, iteration, list_checkpoints
from charrnn_tf.runs.record import read_record

pytestmark = pytest.mark.slow

SETTINGS = (
    "--hidden-size", "16", "--num-layers", "1", "--dropout", "0.3", "--weight-dropout", "0.1", "--state-reset", "0.1",
    "--schedule", "cosine", "--learning-rate", "0.02", "--batch-size", "8", "--num-steps", "16", "--log-every", "7",
    "--validate-every", "10", "--save-every", "4", "--keep", "2", "--seed", "5", "--patience", "0",
)  # fmt: skip
STEPS = 130
KILLS = int(os.environ.get("CHARRNN_KILLS", "1"))

# The command, which lists what it saves in the file TOLD and kills itself at KILL_AT: "variables:3" is the third time.
COMMAND = """
import collections, os, signal, shutil, sys
from charrnn_tf.cli.main import main
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.directory import RunDirectory
from charrnn_tf.runs.metrics import MetricsFile
from charrnn_tf.training import trainer

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
MetricsFile.to_disk = before("rows", MetricsFile.to_disk)
MetricsFile.append = after("row", MetricsFile.append)
RunDirectory.save = telling(RunDirectory.save)
trainer.Trainer._validate = after("validation", trainer.Trainer._validate)
trainer.check_losses = before("steps", trainer.check_losses)
print("begun", file=told)
main()
"""
POINTS = (
    "folder", "variables", "sums", "complete", "renamed", "indexed", "pruned", "emptying", "rows", "row", "validation",
    "steps",
)  # fmt: skip


class Killable:
    """A run that can be started, killed and resumed."""

    def __init__(self, text, folder):
        self.text, self.folder, self.told = text, folder / "run", folder / "told"
        self.told.touch()

    def start(self, kill_at=""):
        begun = list_checkpoints(self.folder) if self.folder.is_dir() else []
        given = ("--resume",) if begun else (self.text, *SETTINGS, "--max-steps", STEPS, "--overwrite")
        command = ["-c", COMMAND, "train", *given, "--checkpoint-dir", self.folder, "--quiet"]
        environment = {**os.environ, "TOLD": str(self.told), "KILL_AT": kill_at}
        return Python(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def check(self):
        """Check the checkpoints after a kill."""
        announced = [line for line in self.told.read_text().split() if line != "begun"]
        found = list_checkpoints(self.folder) if self.folder.is_dir() else []
        for path in found:
            assert read_record(path).step == iteration(path)
        if announced:
            assert iteration(find("latest", self.folder)) >= iteration(self.folder / announced[-1])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.txt"
    path.write_text(make_text(8000, seed=3), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run that is never interrupted, and the seconds that it trains."""
    run = Killable(text, tmp_path_factory.mktemp("whole"))
    process = run.start()
    while "begun" not in run.told.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    begun = time.monotonic()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return run, time.monotonic() - begun


def finish(run, whole):
    """Resume until the end, and compare."""
    process = run.start()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert rows(run.folder) == rows(whole[0].folder)
    assert_same_tensors(*(find("latest", each.folder) for each in (run, whole[0])))


def test_killed_at_every_point_of_its_work(text, whole, tmp_path):
    run = Killable(text, tmp_path)
    for times, point in enumerate(POINTS, 1):
        process = run.start(f"{point}:{1 + times % 3}")
        _, err = process.communicate(timeout=300)
        assert process.returncode == -9, f"{point} was not reached: {err}"
        run.check()
    finish(run, whole)


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
            time.sleep(draw.uniform(0, whole[1]) / draw.choice((1, 2, 4)))
            process.kill()
            _, err = process.communicate(timeout=300)
            run.check()
            if process.returncode == 0:
                break  # it was over already
            assert process.returncode == -9, err
            kills += 1
        finish(run, whole)
