"""Events for TensorBoard, read back from their files."""

import csv
import importlib.util
from pathlib import Path

import pytest
import tensorflow as tf
from commandline import TINY, call, refuse, succeed

pytestmark = pytest.mark.usefixtures("one_process")
SIX_STEPS = ("train", "text.txt", *TINY, "--max-steps", 6)


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


@pytest.mark.slow
def test_events_are_the_rows_and_the_samples(empty):
    samples = ("--validate-every", 4, "--sample-every", 3, "--sample-length", 20)
    assert succeed(*SIX_STEPS, *samples, "--quiet", "--tensorboard", "board") == "checkpoints/i6_l8\n"
    found = read("board")
    with open("checkpoints/metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for tag, column in [
        ("loss/training", "train_loss"), ("loss/validation", "validation_loss"), ("learning rate", "learning_rate"),
        ("characters per second", "chars_per_second"),
    ]:  # fmt: skip
        expected = [(int(row["step"]), pytest.approx(float(row[column]), rel=1e-5)) for row in rows if row[column]]
        assert [(step, float(value)) for step, value in found[tag]] == expected, tag
    assert [step for step, _ in found["gradient norm"]] == [int(row["step"]) for row in rows]
    assert all(0 < float(norm) < 100 for _, norm in found["gradient norm"])
    texts = [(step, text.item().decode()) for step, text in found["sample"]]
    assert [step for step, _ in texts] == [3, 6]
    assert all(text.startswith("    The ") for _, text in texts)


@pytest.mark.usefixtures("instant")
def test_a_resumed_run_may_begin_with_events_and_end_without(empty):
    succeed(*SIX_STEPS, "--quiet")
    succeed("train", "--resume", "--max-steps", 8, "--tensorboard", "board", "--quiet")
    assert [step for step, _ in read("board")["loss/training"]] == [8]
    succeed("train", "--resume", "--max-steps", 9, "--quiet")
    assert [step for step, _ in read("board")["loss/training"]] == [8]


def test_without_the_package_the_error_says_what_to_install(empty, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else there(name, *rest)
    )
    message = "Error: --tensorboard needs the package tensorboard: pip install 'charrnn-tf[tensorboard]'\n"
    assert refuse(*SIX_STEPS, "--tensorboard", "board") == message


def test_a_folder_that_can_not_be_written_is_an_error(empty):
    Path("file").write_text("", encoding="utf-8")
    assert refuse(*SIX_STEPS, "--tensorboard", "file/board").startswith("Error: can't write events to 'file/board': ")


@pytest.mark.usefixtures("instant")
def test_a_run_continues_without_events_if_they_can_not_be_written_any_more(empty, monkeypatch, caplog):
    def full(*given, **named):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left on device")

    monkeypatch.setattr(tf.summary, "scalar", full)
    result = call(*SIX_STEPS, "--tensorboard", "board")
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i6_l8\n")
    assert "can't write events to 'board' any more; the run continues." in caplog.text
