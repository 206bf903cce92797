"""The training run: its rows, validations and checkpoints, budgets, stopping and going on, beginning from weights, and what
follows from the machine.
"""

import base64
import dataclasses
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.errors import CheckpointError, ConfigError, TextError
from charrnn_tf.inference.sampling import Sampler
from charrnn_tf.machine import startup as runtime
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.find import find, list_checkpoints
from charrnn_tf.runs.metrics import MetricsFile, read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary
from charrnn_tf.training import step as steps
from charrnn_tf.training import trainer as training
from charrnn_tf.training.budget import Pace
from charrnn_tf.training.trainer import Trainer

random_text = random.Random(1)
TEXT = "".join(random_text.choice("the cat sat on a mat. ") for _ in range(63))  # 57 to train on: 7 steps an epoch
VOCABULARY = Vocabulary.from_text(TEXT)
IDS = VOCABULARY.encode(TEXT)
BUSY = {  # events of every kind at steps of their own
    "log_every": 5, "validate_every": 6, "save_every": 4, "max_steps": 20, "schedule": "cosine", "state_reset": 0.3,
    "seed": 3, "keep": 100,
}  # fmt: skip
ROWS = [5, 6, 7, 10, 12, 14, 15, 18, 20]


def trainer(directory, *, ids=IDS, vocabulary=VOCABULARY, dropout=0.3, cell="lstm", **settings):
    """A trainer of a tiny model; arguments of Trainer and of TrainConfig alike."""
    own = {name: settings.pop(name) for name in ("resume", "overwrite", "init_from", "started") if name in settings}
    plain = {
        "batch_size": 2, "num_steps": 4, "schedule": "constant", "state_reset": 0.0, "shards": 1, "learning_rate": 0.02,
        "warmup_steps": 0,
    }  # fmt: skip
    model = ModelConfig(len(vocabulary), cell=cell, hidden_size=8, num_layers=1, dropout=dropout)
    return Trainer(model, TrainConfig(**{**plain, **settings}), vocabulary, ids, directory, **own)


def stripped(rows):
    """Rows without what depends on the clock."""
    return [dataclasses.replace(row, seconds=0.0, chars_per_second=0.0) for row in rows]


def names(directory):
    return [path.name for path in list_checkpoints(directory)]


def tensors(path):
    """Everything a checkpoint holds, by name."""
    reader = tf.train.load_checkpoint(str(path / "variables"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def assert_same_tensors(path, other):
    left, right = tensors(path), tensors(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(right[name], value, err_msg=name)


class Watcher:
    """A display that remembers, and stops the run at a step."""

    def __init__(self, to_stop=None, at=None):
        self.to_stop, self.at = to_stop, at
        self.reached, self.samples = [], []

    def progress(self, step, loss, chars_per_second):
        self.reached.append((step, loss, chars_per_second))
        if step == self.at:
            self.to_stop.stop()

    def sample(self, step, text):
        self.samples.append((step, text))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a busy run that is never stopped, and its rows."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, list(trainer(folder, **BUSY).run())


# Rows


@pytest.mark.slow
def test_rows_at_every_event_and_never_two_for_a_step(whole):
    _, rows = whole
    assert [row.step for row in rows] == ROWS
    assert [row.step for row in rows if row.validation_loss is not None] == [6, 12, 18, 20]
    assert [row.epoch for row in rows] == [step / 7 for step in ROWS]
    assert all(0 < row.train_loss < 5 and row.chars_per_second > 0 for row in rows)
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    cosine = [0.02 * 0.5 * (1 + np.cos(np.pi * (step - 1) / 20)) for step in ROWS]  # of the step just done
    np.testing.assert_allclose([row.learning_rate for row in rows], cosine, rtol=1e-5)


def test_metrics_csv_holds_the_rows_that_were_yielded(whole):
    folder, rows = whole
    assert read_rows(folder / "metrics.csv") == rows
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,seconds,train_loss,validation_loss,learning_rate,chars_per_second"


@pytest.mark.slow
def test_train_loss_is_the_mean_since_the_row_before(whole, tmp_path):
    _, rows = whole
    single = [row.train_loss for row in trainer(tmp_path, **{**BUSY, "log_every": 1}).run()]
    assert len(single) == 20
    for before, row in zip([0, *ROWS], rows, strict=False):
        assert row.train_loss == pytest.approx(np.mean(single[before : row.step]), rel=1e-12)


def test_the_interval_of_validation_is_an_epoch_by_default(tmp_path):
    rows = list(trainer(tmp_path, max_steps=16, log_every=100).run())
    assert [row.step for row in rows] == [7, 14, 16]
    assert all(row.validation_loss is not None for row in rows)


def test_rows_come_while_the_run_goes_on(tmp_path):
    running = trainer(tmp_path, **BUSY)
    rows = running.run()
    assert next(rows).step == running.step == 5
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [5]
    rows.close()


@pytest.mark.slow
def test_the_display_hears_of_every_call(tmp_path):
    watcher = Watcher()
    rows = list(trainer(tmp_path, max_steps=10, log_every=5, validation_fraction=0.0).run(watcher))
    steps, losses, speeds = zip(*watcher.reached, strict=True)
    assert steps[0] == 1  # a first short call, so that the speed is known
    assert list(steps) == sorted(set(steps))
    assert {5, 7, 10} <= set(steps)
    assert losses[steps.index(5)] == rows[0].train_loss
    assert min(speeds) > 0


# Budgets and the run's end


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "end"),
    [
        ({"max_steps": 9}, 9),
        ({"epochs": 1}, 7),
        ({"max_steps": 9, "epochs": 2}, 9),
        ({"max_steps": 30, "epochs": 2}, 14),
        ({"max_steps": 3, "epochs": 2, "max_seconds": 1000.0}, 3),
    ],
)
def test_the_first_budget_reached_ends_the_run(tmp_path, budget, end):
    ended = trainer(tmp_path, log_every=100, **budget)
    assert ended.total_steps == end
    rows = list(ended.run())
    assert rows[-1].step == ended.step == end
    assert ended.fraction_done == 1.0
    assert rows[-1].validation_loss is not None
    assert names(tmp_path)[-1] == f"i{end}_l8"


@pytest.mark.slow
def test_a_budget_in_seconds_holds_for_everything(tmp_path):
    begin = time.monotonic()
    timed = trainer(tmp_path, max_seconds=15.0, max_steps=10**6, schedule="cosine", validation_fraction=0.0)
    rows = list(timed.run())
    elapsed = time.monotonic() - begin
    assert 10.0 < elapsed < 18.0
    assert 1 < timed.step < 10**6
    assert rows[-1].step == timed.step
    assert rows[-1].learning_rate < 0.2 * 0.02  # the schedule comes to its end with the time
    assert names(tmp_path)[-1] == f"i{timed.step}_l8"


@pytest.mark.parametrize("stalled", [0, 1, 4])
def test_a_machine_that_stalls_in_one_call_does_not_end_a_run_long_before_its_time(monkeypatch, stalled):
    """The time of the validation to come is guessed from the calls so far: here 100 steps' worth."""
    now = [0.0]
    monkeypatch.setattr("charrnn_tf.training.budget.time.perf_counter", lambda: now[0])
    pace = Pace(TrainConfig(batch_size=2, num_steps=4), validation_characters=800)
    for call in range(6):
        with pace.training(1):
            now[0] += 3.0 if call == stalled else 0.1
        assert pace.seconds_to_finish < 15
    assert pace.seconds_to_finish == pytest.approx(2 + 100 * 0.1 + 0.5 + 0.5)
    with pace.ending("validating"):
        now[0] += 7.0
    assert pace.seconds_to_finish == pytest.approx(7 + 0.5 + 0.5)


@pytest.mark.slow
def test_the_seconds_add_up_over_resumes(tmp_path):
    first = trainer(tmp_path, max_steps=2, started=time.monotonic() - 100)
    assert list(first.run())[-1].seconds > 100
    assert read_record(find("latest", tmp_path)).seconds > 100
    second = trainer(tmp_path, max_steps=4, resume=True, started=time.monotonic() - 50)
    assert list(second.run())[-1].seconds > 150
    spent = trainer(tmp_path, max_steps=100, max_seconds=150.0, resume=True)
    assert list(spent.run()) == []
    assert spent.step == 4


def test_a_text_gets_a_budget_in_seconds_where_none_is_given(tmp_path):
    assert trainer(tmp_path).config.max_seconds == 60.0


@pytest.mark.slow
def test_the_end_is_validation_row_and_checkpoint_in_this_order(tmp_path, monkeypatch):
    events = []
    real_validate, real_append, real_write = Trainer._validate, MetricsFile.append, checkpoint.write

    def validate(self, pace):
        events.append("validation")
        return real_validate(self, pace)

    def append(self, row):
        events.append(f"row {row.step}")
        real_append(self, row)

    def write(directory, record, variables):
        on_disk = [row.step for row in read_rows(directory / "metrics.csv")]
        assert on_disk == [step for step in ROWS if step <= record.step]
        events.append(f"checkpoint {record.step}")
        return real_write(directory, record, variables)

    monkeypatch.setattr(Trainer, "_validate", validate)
    monkeypatch.setattr(MetricsFile, "append", append)
    monkeypatch.setattr(checkpoint, "write", write)
    list(trainer(tmp_path, **BUSY).run())
    assert events[-3:] == ["validation", "row 20", "checkpoint 20"]
    assert events.count("validation") == 4
    assert [event for event in events if event.startswith("checkpoint")].count("checkpoint 20") == 1


# What is saved


@pytest.mark.slow
def test_the_notebooks_saves_and_names(tmp_path):
    text = "the cat sat on a mat. " * 20
    vocabulary = Vocabulary.from_text(text)
    tiny = {"hidden_size": 8, "batch_size": 2, "num_steps": 4}
    model_config, config = preset("notebook-tf1", len(vocabulary), max_steps=450, **tiny)
    watcher = Watcher()
    rows = list(Trainer(model_config, config, vocabulary, vocabulary.encode(text), tmp_path).run(watcher))
    assert names(tmp_path) == ["i200_l8", "i400_l8", "i450_l8"]
    assert all(row.validation_loss is None for row in rows)
    assert [text[:3] for _, text in watcher.samples[:2]] == ["The", "Far"]


@pytest.mark.slow
def test_keep_bounds_what_is_kept(tmp_path):
    list(trainer(tmp_path, max_steps=14, save_every=4, keep=2, validation_fraction=0.0).run())
    assert names(tmp_path) == ["i12_l8", "i14_l8"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "i14_l8" / "variables")


@pytest.fixture
def validations(monkeypatch):
    """A function that sets what validations find, one after another."""

    def set_losses(*losses):
        left = iter(losses)
        monkeypatch.setattr(Trainer, "_validate", lambda self, pace: next(left))

    return set_losses


@pytest.mark.slow
def test_what_was_saved_as_the_best_lasts_while_it_is(tmp_path, validations):
    validations(3.0, 2.0, 2.5, 1.0, 1.5)
    seen = [names(tmp_path) for _ in trainer(tmp_path, max_steps=10, validate_every=2, log_every=1).run()]
    after_steps = dict(enumerate(seen[1:], 1))  # the row of step n + 1 is yielded after the save of step n
    assert after_steps[2] == ["i2_l8"]
    assert after_steps[4] == after_steps[6] == ["i4_l8"]
    assert after_steps[8] == ["i8_l8"]
    assert names(tmp_path) == ["i8_l8", "i10_l8"]
    assert find("best", tmp_path).name == "i8_l8"
    assert find("latest", tmp_path).name == "i10_l8"


@pytest.mark.slow
def test_keep_does_not_count_what_was_saved_as_the_best(tmp_path, validations):
    validations(1.0, 2.0, 3.0)
    list(trainer(tmp_path, max_steps=12, validate_every=5, save_every=3, keep=2).run())
    assert names(tmp_path) == ["i5_l8", "i9_l8", "i12_l8"]
    assert [read_record(path).only_while_best for path in list_checkpoints(tmp_path)] == [True, False, False]


# Patience


@pytest.mark.slow
def test_a_run_ends_when_so_many_validations_in_a_row_were_no_better(tmp_path, validations):
    validations(3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.9)
    run = trainer(tmp_path, max_steps=100, validate_every=2, patience=3)
    assert [row.step for row in run.run()][-1] == 14
    assert run.out_of_patience
    assert run.last_validation == 1.9
    assert names(tmp_path) == ["i8_l8", "i14_l8"]
    assert find("best", tmp_path).name == "i8_l8"
    again = trainer(tmp_path, max_steps=100, validate_every=2, patience=3, resume=True)
    assert list(again.run()) == []
    assert names(tmp_path) == ["i8_l8", "i14_l8"]


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_patience_counts_from_the_interval_of_a_best_at_the_end_of_a_budget(tmp_path, validations):
    settings = {"validate_every": 4, "patience": 3, "log_every": 1, "save_every": 1}
    validations(3.0, 1.0, *[2.0] * 20)
    list(trainer(tmp_path, max_steps=6, **settings).run())
    assert find("best", tmp_path).name == "i6_l8"
    run = trainer(tmp_path, max_steps=100, resume=True, **settings)
    for row in run.run():
        if row.step == 14:
            run.stop()  # eight steps after the best, and two validations: 8 and 12
    run = trainer(tmp_path, max_steps=100, resume=True, **settings)
    assert run.notes == []
    assert [row.validation_loss for row in run.run() if row.validation_loss] == [2.0]
    assert run.step == 16


@pytest.mark.slow
def test_more_patience_goes_on(tmp_path, validations):
    validations(1.0, *[2.0] * 20)
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=2).run())
    assert names(tmp_path)[-1] == "i6_l8"
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=4, resume=True).run())
    assert names(tmp_path)[-1] == "i10_l8"
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=0, resume=True).run())
    assert names(tmp_path)[-1] == "i40_l8"


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("at", [6, 7, 8])
def test_a_stop_does_not_change_when_patience_ends(tmp_path, at):
    settings = {"max_steps": 100, "validate_every": 2, "patience": 3, "learning_rate": 1e-60}  # nothing gets better
    list(trainer(tmp_path / "whole", **settings).run())
    assert names(tmp_path / "whole")[-1] == "i8_l8"
    stop_and_go_on(tmp_path / "parts", at, **settings)
    assert stripped(read_rows(tmp_path / "whole" / "metrics.csv")) == stripped(read_rows(tmp_path / "parts" / "metrics.csv"))


def test_a_record_says_where_the_run_stands(whole):
    folder, rows = whole
    record = read_record(folder / "i20_l8")
    assert (record.step, record.epoch, record.name) == (20, 20 / 7, "i20_l8")
    assert (record.train_loss, record.validation_loss) == (rows[-1].train_loss, rows[-1].validation_loss)
    assert record.train.seed == 3
    assert record.vocabulary == VOCABULARY
    assert read_record(folder / "i16_l8").train_loss == next(row.train_loss for row in rows if row.step == 15)
    assert read_record(folder / "i16_l8").validation_loss is None


# Stopping and going on


@pytest.fixture
def step_by_step(monkeypatch):
    """Calls of one step, so that a run can be stopped at any."""
    monkeypatch.setattr(Pace, "steps", lambda self, seconds_left: 1)


def stop_and_go_on(folder, at, **settings):
    """A run stopped at a step, and its resumption -> the rows of both, and both displays."""
    stopped = trainer(folder, **settings)
    first = Watcher(stopped, at)
    before = list(stopped.run(first))
    assert stopped.step == at
    assert names(folder)[-1] == f"i{at}_l8"
    assert read_rows(folder / "metrics.csv") == before
    assert all(row.step < at for row in before)
    second = Watcher()
    return before, list(trainer(folder, resume=True, **settings).run(second)), first, second


@pytest.mark.slow
@pytest.mark.parametrize(
    "at", [1, 5, 6, 7, 9, 12, 20]
)  # nothing due, row, validation, epoch, nothing, validation and save, end
@pytest.mark.usefixtures("step_by_step")
def test_a_stopped_and_resumed_run_writes_what_one_never_stopped_does(whole, tmp_path, at):
    folder, rows = whole
    before, after, _, _ = stop_and_go_on(tmp_path, at, **BUSY)
    assert stripped(before + after) == stripped(rows)
    assert stripped(read_rows(tmp_path / "metrics.csv")) == stripped(rows)
    assert_same_tensors(tmp_path / "i20_l8", folder / "i20_l8")


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_stop_does_not_change_how_long_a_checkpoint_lasts(tmp_path, validations):
    settings = {"max_steps": 12, "save_every": 4, "validate_every": 4}
    validations(3.0, 2.0, 1.0)
    list(trainer(tmp_path / "whole", **settings).run())
    validations(3.0, 2.0, 1.0)
    stop_and_go_on(tmp_path / "stopped", 4, **settings)
    assert names(tmp_path / "stopped") == names(tmp_path / "whole") == ["i4_l8", "i8_l8", "i12_l8"]


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_stop_does_not_lose_a_sample(tmp_path):
    settings = {"max_steps": 6, "sample_every": 3, "sample_length": 5}
    _, _, first, second = stop_and_go_on(tmp_path, 3, **settings)
    assert [step for step, _ in first.samples + second.samples] == [3, 6]


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_run_stopped_on_a_row_of_its_own_saves_it(whole, tmp_path):
    _, rows = whole
    running = trainer(tmp_path, **BUSY)
    before = []
    for row in running.run():  # as a notebook would
        before.append(row)
        if row.step == 6:
            running.stop()
    assert names(tmp_path)[-1] == "i6_l8"
    assert read_record(tmp_path / "i6_l8").validation_loss == rows[1].validation_loss
    after = list(trainer(tmp_path, resume=True, **BUSY).run())
    assert stripped(before + after) == stripped(rows)


@pytest.mark.slow
def test_a_run_stopped_before_its_first_step_leaves_no_run_behind(tmp_path):
    stopped = trainer(tmp_path, **BUSY)
    stopped.stop()
    assert list(stopped.run()) == []
    assert names(tmp_path) == []
    assert [row.step for row in trainer(tmp_path, **BUSY).run()] == ROWS


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_written_anew(whole, tmp_path):
    folder, rows = whole
    killed = trainer(tmp_path, **BUSY)
    for row in killed.run():
        if row.step == 10:  # the latest checkpoint is of step 8
            break
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [5, 6, 7, 10]
    resumed = list(trainer(tmp_path, resume=True, **BUSY).run())
    assert stripped(resumed) == stripped(rows[3:])
    assert stripped(read_rows(tmp_path / "metrics.csv")) == stripped(rows)
    assert_same_tensors(tmp_path / "i20_l8", folder / "i20_l8")


def test_a_spent_run_resumes_to_nothing(whole):
    folder, _ = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert list(trainer(folder, resume=True, **BUSY).run()) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_larger_budget_goes_on(tmp_path):
    list(trainer(tmp_path, max_steps=6, log_every=6).run())
    rows = list(trainer(tmp_path, max_steps=12, log_every=6, resume=True).run())
    assert [row.step for row in rows] == [7, 12]
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [6, 7, 12]
    list(trainer(tmp_path / "whole", max_steps=12, log_every=6).run())
    weights = tensors(tmp_path / "i12_l8"), tensors(tmp_path / "whole" / "i12_l8")
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_repeats_itself_with_its_seed_and_with_no_other(tmp_path, cell):
    runs = {}
    for name, seed in [("first", 3), ("again", 3), ("other", 4)]:
        settings = {**BUSY, "seed": seed, "max_steps": 8}
        runs[name] = stripped(trainer(tmp_path / name, cell=cell, **settings).run())
    assert runs["first"] == runs["again"]
    assert_same_tensors(tmp_path / "first" / "i8_l8", tmp_path / "again" / "i8_l8")
    assert not {row.train_loss for row in runs["first"]} & {row.train_loss for row in runs["other"]}


# What is learnt from


def kernel_rows_trained(folder, text, vocabulary, **settings):
    """Which characters' rows of the first kernel a run moves; a one-hot input moves those of characters it read."""
    learner = trainer(folder, ids=vocabulary.encode(text), vocabulary=vocabulary, max_steps=14, dropout=0.0, **settings)
    before = learner.model.get_layer("lstm_0").get_weights()[0]
    list(learner.run())
    moved = (learner.model.get_layer("lstm_0").get_weights()[0] != before).any(axis=1)
    return vocabulary.decode(np.flatnonzero(moved))


@pytest.mark.slow
def test_the_held_out_part_is_never_trained_on(tmp_path):
    text = "abcd" * 11 + "xyz" * 6  # enough held out that the streams would reach into it
    vocabulary = Vocabulary.from_text(text)
    assert kernel_rows_trained(tmp_path / "held", text, vocabulary, validation_fraction=0.3) == "abcd"
    assert kernel_rows_trained(tmp_path / "all", text, vocabulary, validation_fraction=0.0) == "abcdxyz"


@pytest.mark.slow
def test_validation_scores_the_held_out_part_with_dropout_off(tmp_path):
    text = "abcd" * 14 + "a" + "ddcbaa"
    vocabulary = Vocabulary.from_text(text)
    learner = trainer(tmp_path, ids=vocabulary.encode(text), vocabulary=vocabulary, max_steps=3, dropout=0.5)
    assert learner.validation_characters == 6
    (row,) = learner.run()
    probabilities = learner.model(np.tile(vocabulary.encode("ddcba").astype(np.int32), (2, 1)), training=False).numpy()[0]
    expected = -np.log(probabilities[np.arange(5), vocabulary.encode("dcbaa")]).mean()
    assert row.validation_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_without_validation_the_whole_text_is_trained_on_and_the_interval_is_ignored(tmp_path):
    whole_text = trainer(tmp_path, max_steps=9, validation_fraction=0.0, validate_every=2, log_every=100)
    assert whole_text.steps_per_epoch == (63 - 1) // 8
    assert whole_text.validation_characters == 0
    rows = list(whole_text.run())
    assert [row.step for row in rows][-1] == 9
    assert all(row.validation_loss is None for row in rows)
    assert find("best", tmp_path) == find("latest", tmp_path)


@pytest.mark.slow
def test_a_switched_off_validation_interval_makes_no_rows(tmp_path):
    rows = list(trainer(tmp_path, max_steps=6, validation_fraction=0.0, validate_every=2, log_every=100).run())
    assert [row.step for row in rows] == [6]


@pytest.mark.slow
def test_a_text_too_short_is_refused_and_nothing_is_made(tmp_path):
    with pytest.raises(TextError, match=r"too short: 8 characters to train on.*needs 9"):
        trainer(tmp_path / "run", ids=IDS[:8], validation_fraction=0.0, max_steps=1)
    with pytest.raises(TextError, match="single character"):
        trainer(tmp_path / "run", ids=IDS[:19], validation_fraction=0.1, max_steps=1)
    assert list(tmp_path.iterdir()) == []
    assert [row.step for row in trainer(tmp_path / "run", ids=IDS[:9], validation_fraction=0.0, max_steps=1).run()] == [1]


# Beginning from weights, and folders that hold a run


@pytest.mark.slow
def test_init_from_begins_with_the_weights_and_nothing_else(whole, tmp_path):
    folder, _ = whole
    tuned = trainer(tmp_path, init_from=folder / "i20_l8", max_steps=2, dropout=0.0)
    saved = tensors(folder / "i20_l8")
    for name, variable in tuned.state.variables()["weights"].items():
        key = f"weights/{name.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(variable.numpy(), saved[key], err_msg=name)
    assert tuned.step == 0
    assert not any(np.any(part.numpy()) for layer in tuned.state.recurrent for part in layer)
    assert not any(np.any(each.numpy()) for each in tuned.state.optimizer.variables[2:])
    assert [row.step for row in tuned.run()] == [2]
    assert read_record(tmp_path / "i2_l8").init_from == str(folder / "i20_l8")


@pytest.mark.slow
def test_init_from_learns_on_where_the_other_run_ended(tmp_path):
    settings = {"dropout": 0.0, "optimizer": "sgd", "learning_rate": 1e-30}
    list(trainer(tmp_path / "old", max_steps=60, dropout=0.0).run())
    (tuned,) = trainer(tmp_path / "new", max_steps=1, init_from=tmp_path / "old" / "i60_l8", **settings).run()
    (fresh,) = trainer(tmp_path / "fresh", max_steps=1, **settings).run()
    assert tuned.train_loss < fresh.train_loss - 0.1


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    list(trainer(tmp_path, max_steps=3).run())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"holds a run already. Use --resume .* --overwrite .* --checkpoint-dir"):
        trainer(tmp_path, max_steps=3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    list(trainer(tmp_path, max_steps=5).run())
    strangers = [tmp_path / "notes.txt", tmp_path / "i5_l8.txt", tmp_path / "plots" / "loss.png"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("mine")
    list(trainer(tmp_path, max_steps=3, overwrite=True).run())
    assert names(tmp_path) == ["i3_l8"]
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [3]
    assert [stranger.read_text() for stranger in strangers] == ["mine"] * 3


@pytest.mark.slow
def test_overwrite_begins_in_an_empty_folder_too(tmp_path):
    assert [row.step for row in trainer(tmp_path / "new", max_steps=1, overwrite=True).run()] == [1]


def test_to_resume_there_must_be_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints"):
        trainer(tmp_path, max_steps=3, resume=True)


# Samples


@pytest.mark.slow
def test_samples_reach_the_display_and_are_those_of_the_step(tmp_path):
    watcher = Watcher()
    settings = {"sample_every": 4, "sample_prime": ("mat ", "sat"), "sample_length": 12, "sample_top_n": 3}
    list(trainer(tmp_path, max_steps=8, save_every=4, seed=2, sample_temperature=0.7, **settings).run(watcher))
    assert [(step, text[:3]) for step, text in watcher.samples] == [(4, "mat"), (4, "sat"), (8, "mat"), (8, "sat")]
    for step, text in watcher.samples:
        prime = "mat " if text.startswith("mat ") else "sat"
        assert len(text) == len(prime) + 12
        sampler = Sampler.from_checkpoint(tmp_path / f"i{step}_l8")
        assert text == sampler.sample(prime, 12, top_n=3, temperature=0.7, seed=2 + step)


@pytest.mark.slow
def test_samples_after_each_epoch(tmp_path):
    watcher = Watcher()
    list(trainer(tmp_path, max_steps=15, sample_every="epoch", sample_length=5).run(watcher))
    assert [step for step, _ in watcher.samples] == [7, 14, 15]  # and at the end


def test_a_strategy_needs_its_replicas(tmp_path):
    with pytest.raises(ConfigError, match=r"strategy mirrored needs its replicas: Trainer\(\.\.\., replicas=Mirrored\(\)\)"):
        trainer(tmp_path, strategy="mirrored")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_bytes_are_saved_as_bytes_and_nothing_else_is(tmp_path):
    ids = np.frombuffer(TEXT.encode() * 2, np.uint8)
    list(trainer(tmp_path / "bytes", ids=ids, vocabulary=ByteVocabulary(), max_steps=1).run())
    record = read_record(find("latest", tmp_path / "bytes"))
    assert (record.vocabulary, record.train.vocabulary) == (ByteVocabulary(), "bytes")
    with pytest.raises(ConfigError, match="vocabulary bytes needs a ByteVocabulary"):
        Trainer(ModelConfig(len(VOCABULARY)), TrainConfig(vocabulary="bytes"), VOCABULARY, IDS, tmp_path / "other")


@pytest.mark.slow
def test_a_notebook_shows_a_trainer_s_losses(tmp_path):
    run = trainer(tmp_path, **BUSY)
    assert run._repr_html_() is None
    list(run.run())
    found = re.fullmatch(r'<img alt="Losses" style="[^"]*" src="data:image/svg\+xml;base64,([^"]+)">', run._repr_html_())
    assert base64.b64decode(found[1]).startswith(b"<svg ")


@pytest.mark.slow
def test_samples_do_not_change_the_run(whole, tmp_path):
    _, rows = whole
    sampled = trainer(tmp_path, **BUSY, sample_every=3, sample_length=5)
    assert stripped(sampled.run(Watcher())) == stripped(rows)


# What follows from the machine


@pytest.mark.parametrize(
    ("settings", "xla"),
    [
        ({}, True),
        ({"max_seconds": 9.0}, True),
        ({"max_steps": 1000}, True),
        ({"max_steps": 999}, False),
        ({"epochs": 143}, True),  # of 7 steps
        ({"epochs": 142}, False),
        ({"epochs": 142, "max_steps": 1000}, False),
        ({"batch_size": 8, "num_steps": 1}, True),
        ({"batch_size": 9, "num_steps": 1}, False),
        ({"batch_size": 9, "num_steps": 1, "max_steps": 10**6}, False),
        ({"max_steps": 1, "xla": True}, True),
        ({"xla": False}, False),
    ],
)
def test_xla_compiles_where_streams_are_few_and_steps_many_or_as_asked(tmp_path, settings, xla):
    assert trainer(tmp_path, **settings).config.xla is xla


def test_shards_are_as_many_as_cores_or_as_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 2)
    assert [trainer(tmp_path, batch_size=10, shards=shards).config.shards for shards in (None, 1, 5)] == [2, 1, 5]


@pytest.mark.parametrize("settings", [{}, {"max_steps": 3}])
def test_on_a_gpu_a_batch_is_whole_and_xla_is_off(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(runtime, "available_cores", lambda: 2)
    monkeypatch.setattr(training, "gpus", lambda: 1)
    for batch_size in (2, 10):
        config = trainer(tmp_path, batch_size=batch_size, shards=None, **settings).config
        assert (config.shards, config.xla) == (1, False)


@pytest.mark.slow
def test_a_resumed_run_keeps_what_was_completed(tmp_path, monkeypatch):
    list(trainer(tmp_path, batch_size=4, shards=None, max_steps=2).run())
    monkeypatch.setattr(runtime, "available_cores", lambda: 4)
    config = trainer(tmp_path, batch_size=4, shards=None, max_steps=2000, resume=True).config
    assert (config.shards, config.xla, config.max_steps) == (1, False, 2000)


def test_resume_in_a_folder_without_a_run_leaves_nothing_behind(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        trainer(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("xla", [None, True])
def test_what_was_completed_is_saved(tmp_path, monkeypatch, xla):
    monkeypatch.setattr(runtime, "available_cores", lambda: 2)
    list(trainer(tmp_path, batch_size=10, shards=None, max_steps=1, xla=xla).run())
    record = read_record(find("latest", tmp_path))
    assert (record.train.shards, record.train.xla) == (2, bool(xla))
    assert record.in_force == training.in_force()


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_stopped_and_resumed_run_with_xla_writes_what_one_never_stopped_does(tmp_path):
    settings = {**BUSY, "xla": True}
    rows = list(trainer(tmp_path / "whole", **settings).run())
    before, after, _, _ = stop_and_go_on(tmp_path / "stopped", 9, **settings)
    assert stripped(before + after) == stripped(rows)
    assert_same_tensors(tmp_path / "stopped" / "i20_l8", tmp_path / "whole" / "i20_l8")


@pytest.mark.parametrize(
    ("precision", "has", "notes"),
    [
        ("float32", False, []),
        ("bfloat16", True, []),
        ("bfloat16", False, ["This machine has no products in bfloat16: training in float32."]),
    ],
)
def test_that_bfloat16_is_not_there_is_noted(tmp_path, monkeypatch, precision, has, notes):
    monkeypatch.setattr(steps, "has_bfloat16", lambda: has)
    assert trainer(tmp_path, precision=precision).notes == notes


@pytest.mark.slow
def test_what_changed_since_the_checkpoint_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "in_force", lambda: {"processor": "abacus", "cores": 2, "onednn": "1"})
    begun = trainer(tmp_path, max_steps=1)
    assert begun.notes == []
    list(begun.run())
    assert trainer(tmp_path, resume=True, max_steps=2).notes == []
    monkeypatch.setattr(training, "in_force", lambda: {"processor": "slide rule", "cores": 2, "onednn": "0", "new": 1})
    resumed = trainer(tmp_path, resume=True, max_steps=2)
    assert resumed.notes == [
        "The run was begun with processor abacus, now slide rule; onednn 1, now 0: losses may differ in their last digits."
    ]
    list(resumed.run())
    assert trainer(tmp_path, resume=True, max_steps=3).notes == []
    assert trainer(tmp_path, overwrite=True, max_steps=3).notes == []


def test_nothing_changes_on_the_machine_that_began_the_run(whole):
    folder, _ = whole
    done = "All steps of this run are done. To go on, give a larger --max-steps or --epochs."
    assert trainer(folder, resume=True, **BUSY).notes == [done]


@pytest.mark.slow
def test_a_run_whose_time_is_over_says_so(tmp_path):
    list(trainer(tmp_path, max_seconds=100.0, started=time.monotonic() - 99).run())
    over = trainer(tmp_path, max_seconds=100.0, resume=True, started=time.monotonic() - 99)
    assert over.notes == ["The time of this run is over. To go on, give a larger --max-seconds, or --max-steps or --epochs."]
    assert list(over.run()) == []
    assert trainer(tmp_path, max_seconds=10_000.0, resume=True).notes == []


# Memory

MEMORY = """
import json, pathlib, sys

from charrnn_tf import ModelConfig

from charrnn_tf import TrainConfig

from charrnn_tf import Trainer

from charrnn_tf import Vocabulary

text = "the cat sat on a mat. " * 200
vocabulary = Vocabulary.from_text(text)
config = TrainConfig(
    batch_size=4, num_steps=8, max_steps=3000, log_every=10, validate_every=200, save_every=200, xla=json.loads(sys.argv[2])
)
trainer = Trainer(ModelConfig(len(vocabulary), hidden_size=16), config, vocabulary, vocabulary.encode(text), sys.argv[1])
rows = trainer.run()
print(json.dumps({row.step: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) for row in rows}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process's memory")
@pytest.mark.parametrize("xla", [False, True])
def test_a_run_needs_no_more_memory_the_longer_it_lasts(tmp_path, xla):
    command = [sys.executable, "-c", MEMORY, str(tmp_path), json.dumps(xla)]  # forked, it would begin with others' pages
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    pages = json.loads(printed)
    assert pages["3000"] < 1.02 * pages["300"], pages
    assert pages["3000"] < 1.005 * pages["2000"], pages
