"""A run that is killed or stopped and resumed in a new process writes the same as one never stopped, bit for bit."""

import signal

import pytest
from conftest import make_text
from test_faults import rows, saved, start
from test_trainer import assert_same_tensors

pytestmark = pytest.mark.slow

SETTINGS = (
    "--hidden-size", "16", "--dropout", "0.3", "--state-reset", "0.1", "--schedule", "cosine",
    "--batch-size", "8", "--num-steps", "16", "--log-every", "7", "--validate-every", "45", "--save-every", "20",
    "--seed", "5", "--final-rate", "0.1", "--averaging", "0.7",
)  # fmt: skip
STEPS = 140  # of 119 per epoch
LAYERS = {"lstm": 2, "gru": 1}


def train(folder, *arguments):
    """Run the command to its end."""
    process = start("train", *arguments, "--checkpoint-dir", folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.txt"
    path.write_text(make_text(17_000, seed=3), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["lstm", "gru"])
def whole(request, text, tmp_path_factory):
    """A run that is never stopped: its cell, folder and settings."""
    folder = tmp_path_factory.mktemp(f"whole-{request.param}")
    settings = (*SETTINGS, "--cell", request.param, "--num-layers", LAYERS[request.param], "--max-steps", STEPS)
    assert train(folder, text, *settings, "--quiet").strip().endswith(f"i{STEPS}_l16")
    return request.param, folder, settings


# The process sends itself a signal when it has written the row of step 63, in the middle of an epoch.
SIGNAL = """
import os
from charrnn_tf.runs.metrics import MetricsFile

append = MetricsFile.append

def signalling(file, row):
    append(file, row)
    if row.step == 63:
        os.kill(os.getpid(), {number})

MetricsFile.append = signalling
"""


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_resumed_run_writes_the_same_as_one_never_stopped(whole, text, tmp_path, how):
    cell, folder, settings = whole
    number, status, latest = {
        ("killed", "lstm"): (signal.SIGKILL, -9, 60), ("killed", "gru"): (signal.SIGKILL, -9, 60),
        ("stopped", "lstm"): (signal.SIGINT, 130, 63), ("stopped", "gru"): (signal.SIGTERM, 143, 63),
    }[how, cell]  # fmt: skip
    signalling = SIGNAL.format(number=int(number))
    process = start("train", text, *settings, "--checkpoint-dir", tmp_path, before=signalling)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert saved(tmp_path)[-1].name == f"i{latest}_l16"
    if how == "stopped":
        assert "Stopped and saved" in err
        assert out.strip() in err
    train(tmp_path, "--resume", "--quiet")
    assert rows(tmp_path) == rows(folder)
    assert_same_tensors(tmp_path / f"i{STEPS}_l16", folder / f"i{STEPS}_l16")
