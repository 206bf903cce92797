"""A run that is killed or stopped and goes on in a new process writes what a run never stopped writes, bit for bit."""

import csv
import signal
import subprocess
import time

import pytest
from conftest import make_text
from processes import Python

SETTINGS = (
    "--hidden-size", "48", "--num-layers", "2", "--dropout", "0.3", "--state-reset", "0.1", "--schedule", "cosine",
    "--batch-size", "8", "--num-steps", "16", "--log-every", "7", "--validate-every", "45", "--save-every", "20",
    "--seed", "5",
)  # fmt: skip
STEPS = 300


def charrnn(*arguments):
    return Python(["-m", "charrnn_tf", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments):
    process = charrnn(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def metrics(folder):
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("seconds", "chars_per_second")} for row in rows]


def written(folder):
    code, out, err = run("sample", "--checkpoint-dir", folder, "--length", 300, "--seed", 1, "--top-n", 0)
    assert code == 0, err
    return out


def wait_for(process, folder, step):
    """Until the run has written a checkpoint of this step or a later one."""
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        if any(int(path.name[1:].partition("_")[0]) >= step for path in folder.glob("i*_l*")):
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint of step {step}: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.txt"
    path.write_text(make_text(17_000, seed=3), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["lstm", "gru"])
def whole(request, text, tmp_path_factory):
    """A run that is never stopped: its cell, its folder."""
    folder = tmp_path_factory.mktemp(f"whole-{request.param}")
    code, out, err = run("train", text, *SETTINGS, "--cell", request.param, "--max-steps", STEPS, "--checkpoint-dir", folder)
    assert code == 0, err
    assert out.strip().endswith(f"i{STEPS}_l48")
    return request.param, folder


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch(whole, text, tmp_path):
    cell, folder = whole
    process = charrnn("train", text, *SETTINGS, "--cell", cell, "--max-steps", STEPS, "--checkpoint-dir", tmp_path)
    wait_for(process, tmp_path, 100)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / f"i{STEPS}_l48").exists(), "the run was over before it could be killed"
    code, _, err = run("train", "--resume", "--checkpoint-dir", tmp_path)
    assert code == 0, err
    assert metrics(tmp_path) == metrics(folder)
    assert written(tmp_path) == written(folder)


@pytest.mark.slow
def test_stopped_by_a_signal(whole, text, tmp_path):
    cell, folder = whole
    number, status = {"lstm": (signal.SIGINT, 130), "gru": (signal.SIGTERM, 143)}[cell]
    process = charrnn("train", text, *SETTINGS, "--cell", cell, "--max-steps", STEPS, "--checkpoint-dir", tmp_path)
    wait_for(process, tmp_path, 60)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Stopped and saved" in err
    assert out.strip() in err
    code, _, err = run("train", "--resume", "--checkpoint-dir", tmp_path)
    assert code == 0, err
    assert metrics(tmp_path) == metrics(folder)
    assert written(tmp_path) == written(folder)
