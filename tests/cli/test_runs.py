"""`charrnn-tf checkpoints`."""

import json
import shutil
from pathlib import Path

import pytest
from commandline import refuse, succeed

from charrnn_tf.runs import find
from charrnn_tf.runs.record import read_record

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.usefixtures("reading")
def test_checkpoints_lists_them():
    rows = json.loads(succeed("checkpoints", "--json"))
    assert [row["name"] for row in rows] == [path.name for path in find.list_checkpoints("checkpoints")]
    assert list(rows[0]) == ["name", "epoch", "train_loss", "validation_loss", "date", "size", "best"]
    record = read_record("checkpoints/i8_l8")
    assert (rows[-1]["train_loss"], rows[-1]["validation_loss"]) == (record.train_loss, record.validation_loss)
    assert [row["name"] for row in rows if row["best"]] == [find.find("best", "checkpoints").name]
    assert all(row["size"] == sum(f.stat().st_size for f in Path("checkpoints", row["name"]).iterdir()) for row in rows)
    header, *lines = succeed("checkpoints").splitlines()
    assert header.split() == ["name", "epoch", "train", "validation", "date", "size"]
    for line, row in zip(lines, rows, strict=True):
        assert line.split()[:3] == [row["name"], f"{row['epoch']:.2f}", f"{row['train_loss']:.4f}"]
        assert f"{row['validation_loss']:.4f}" in line
        assert ("*" in line) == row["best"]


def test_checkpoints_that_a_run_removes_meanwhile_are_left_out(copy, monkeypatch):
    read_run = find.read_run

    def read(directory):
        records = read_run(directory)
        shutil.rmtree(min(records))
        return records

    names = [row["name"] for row in json.loads(succeed("checkpoints", "--json"))]
    monkeypatch.setattr("charrnn_tf.runs.find.read_run", read)
    assert len(names) - 1 == len(json.loads(succeed("checkpoints", "--json")))


def test_an_empty_folder_has_no_checkpoints(empty):
    Path("nothing").mkdir()
    assert json.loads(succeed("checkpoints", "--checkpoint-dir", "nothing", "--json")) == []
    assert "no checkpoints in 'nothing'" in refuse("checkpoints", "--checkpoint-dir", "nothing")


def test_a_runs_folder_as_an_argument_is_told_where_it_belongs(home, monkeypatch):
    monkeypatch.chdir(home)
    line = refuse("sample", "checkpoints", status=2)
    assert line.endswith("extra argument (checkpoints); a run's folder is given with --checkpoint-dir checkpoints\n")
    assert refuse("sample", "nowhere", status=2).endswith("extra argument (nowhere)\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("checkpoints", "no checkpoints in 'checkpoints': no such file or directory"),
        ("checkpoints --checkpoint-dir text.txt", "no checkpoints in 'text.txt': not a directory"),
    ],
)
def test_a_mistake_is_one_line(empty, command, message):
    assert message in refuse(*command.split())
