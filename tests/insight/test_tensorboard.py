"""Events for TensorBoard, read back from their files."""

import csv
import importlib.util

import pytest
from click.testing import CliRunner
from conftest import TEXT

from charrnn_tf.cli.main import cli

pytestmark = pytest.mark.usefixtures("one_process")
TINY = (
    "--hidden-size", "8", "--num-layers", "1", "--batch-size", "2", "--num-steps", "5", "--max-steps", "6",
    "--log-every", "2", "--validate-every", "4", "--sample-every", "3", "--sample-length", "20",
    "--weight-dropout", "0", "--dropout", "0",
)  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    import tensorflow as tf

    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


@pytest.mark.slow
def test_events_are_the_rows_and_the_samples(home):
    result = CliRunner().invoke(cli, ["train", "text.txt", *TINY, "--quiet", "--tensorboard", "board"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    found = read(home / "board")
    with open("checkpoints/metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for tag, column in [
        ("loss/training", "train_loss"), ("loss/validation", "validation_loss"), ("learning rate", "learning_rate"),
        ("characters a second", "chars_per_second"),
    ]:  # fmt: skip
        expected = [(int(row["step"]), pytest.approx(float(row[column]), rel=1e-5)) for row in rows if row[column]]
        assert [(step, float(value)) for step, value in found[tag]] == expected, tag
    assert [step for step, _ in found["gradient norm"]] == [int(row["step"]) for row in rows]
    assert all(0 < float(norm) < 100 for _, norm in found["gradient norm"])
    samples = [(step, text.item().decode()) for step, text in found["sample"]]
    assert [step for step, _ in samples] == [3, 6]
    assert all(text.startswith("    The ") for _, text in samples)


@pytest.mark.slow
def test_a_resumed_run_may_begin_with_events_and_end_without(home):
    runner = CliRunner()
    assert runner.invoke(cli, ["train", "text.txt", *TINY, "--quiet"]).exit_code == 0
    more = runner.invoke(cli, ["train", "--resume", "--max-steps", "8", "--tensorboard", "board", "--quiet"])
    assert more.exit_code == 0, more.output
    assert [step for step, _ in read(home / "board")["loss/training"]] == [8]
    assert runner.invoke(cli, ["train", "--resume", "--max-steps", "9", "--quiet"]).exit_code == 0


def test_without_the_package_a_line_says_what_to_install(home, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else there(name, *rest)
    )
    result = CliRunner().invoke(cli, ["train", "text.txt", *TINY, "--tensorboard", "board"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == ("Error: --tensorboard needs the package tensorboard: pip install 'charrnn-tf[tensorboard]'\n")
    assert not (home / "checkpoints").exists()


def test_a_place_that_cannot_be_written_is_told(home):
    (home / "file").write_text("", encoding="utf-8")
    result = CliRunner().invoke(cli, ["train", "text.txt", *TINY, "--tensorboard", "file/board"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: can't write events to 'file/board': ")
    assert not (home / "checkpoints").exists()


@pytest.mark.slow
def test_a_run_whose_events_can_not_be_written_any_more_goes_on(home, monkeypatch, caplog):
    import tensorflow as tf

    def full(*given, **named):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left on device")

    monkeypatch.setattr(tf.summary, "scalar", full)
    result = CliRunner().invoke(cli, ["train", "text.txt", *TINY, "--tensorboard", "board"])
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i6_l8\n")
    assert "can't write events to 'board' any more; the run goes on." in caplog.text
