"""The training run: rows, validations, checkpoints and samples, budgets, stopping and resuming.

With the fixture `instant` steps compute nothing: for tests of everything around them.
"""

import dataclasses
import gc
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import names, tree
from gpu import NAME as GPU
from gpu import stand_in

from charrnn_tf.api.summary import notes
from charrnn_tf.errors import CheckpointError, ConfigError, TextError
from charrnn_tf.inference.sampling import Sampler
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.find import find, list_checkpoints
from charrnn_tf.runs.metrics import MetricsFile, read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary
from charrnn_tf.training import trainer as module
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
VALIDATE = Trainer._validate  # which `instant` replaces


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
    """Rows without times."""
    return [dataclasses.replace(row, seconds=0.0, chars_per_second=0.0) for row in rows]


def saved(directory):
    """The names of a run's checkpoints."""
    return [path.name for path in list_checkpoints(directory)]


def tensors(path):
    """All tensors of a checkpoint by name."""
    reader = tf.train.load_checkpoint(str(path / "variables"))
    held = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in held if name != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def assert_same_tensors(path, other):
    left, right = tensors(path), tensors(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(right[name], value, err_msg=name)


class Watcher:
    """A display that remembers what it was told, and stops the run at a step."""

    def __init__(self, to_stop=None, at=None):
        self.to_stop, self.at = to_stop, at
        self.reached, self.samples = [], []

    def activity(self, doing):
        pass

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


@pytest.fixture
def validations(monkeypatch, instant):
    """A function that sets the losses of the coming validations; steps compute nothing."""

    def set_losses(*losses):
        left = iter(losses)
        monkeypatch.setattr(Trainer, "_validate", lambda self, display: next(left))

    return set_losses


# Rows


def test_rows_come_at_every_event_and_never_two_for_a_step(whole):
    folder, rows = whole
    assert [row.step for row in rows] == ROWS
    assert [row.step for row in rows if row.validation_loss is not None] == [6, 12, 18, 20]
    assert [row.epoch for row in rows] == [step / 7 for step in ROWS]
    assert all(0 < row.train_loss < 5 and row.chars_per_second > 0 for row in rows)
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    cosine = [0.02 * 0.5 * (1 + np.cos(np.pi * (step - 1) / 20)) for step in ROWS]  # of the step just done
    np.testing.assert_allclose([row.learning_rate for row in rows], cosine, rtol=1e-5)
    assert read_rows(folder / "metrics.csv") == rows
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,seconds,train_loss,validation_loss,learning_rate,chars_per_second"


def test_train_loss_is_the_mean_since_the_row_before(whole, tmp_path):
    _, rows = whole
    single = [row.train_loss for row in trainer(tmp_path, **{**BUSY, "log_every": 1}).run()]
    assert len(single) == 20
    for before, row in zip([0, *ROWS], rows, strict=False):
        assert row.train_loss == pytest.approx(np.mean(single[before : row.step]), rel=1e-12)


@pytest.mark.usefixtures("instant")
def test_the_interval_of_validation_is_an_epoch_by_default(tmp_path):
    rows = list(trainer(tmp_path, max_steps=16, log_every=100).run())
    assert [row.step for row in rows] == [7, 14, 16]
    assert all(row.validation_loss is not None for row in rows)


@pytest.mark.usefixtures("instant")
def test_rows_come_while_the_run_goes_on(tmp_path):
    running = trainer(tmp_path, **BUSY)
    rows = running.run()
    assert next(rows).step == running.step == 5
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [5]
    rows.close()


@pytest.mark.usefixtures("instant")
def test_the_display_is_told_of_every_call(tmp_path):
    watcher = Watcher()
    rows = list(trainer(tmp_path, max_steps=10, log_every=5, validation_fraction=0.0).run(watcher))
    steps, losses, speeds = zip(*watcher.reached, strict=True)
    assert steps[0] == 1  # a first short call, so that the speed is known
    assert list(steps) == sorted(set(steps))
    assert {5, 7, 10} <= set(steps)
    assert losses[steps.index(5)] == rows[0].train_loss
    assert min(speeds) > 0


@pytest.mark.usefixtures("instant")
def test_a_notebook_shows_a_trainer_s_losses(tmp_path):
    run = trainer(tmp_path, **BUSY)
    assert run._repr_html_() is None
    list(run.run())
    assert run._repr_html_().startswith("<svg ")


# Budgets and the run's end


@pytest.mark.usefixtures("instant")
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
    assert rows[-1].validation_loss is not None
    assert saved(tmp_path)[-1] == f"i{end}_l8"


@pytest.mark.parametrize("stalled", [0, 7])
def test_a_budget_in_seconds_includes_validations_and_saves(tmp_path, monkeypatch, instant, stalled):
    """With a fake clock: 2 s to start, 4 s for the first call, 0.1 s per step, 3 s per validation, 1 s per save."""
    now, used = [1000.0], []
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(module.time, name, lambda: now[0])

    def taking(seconds, function):
        def call(*arguments, **more):
            now[0] += seconds
            return function(*arguments, **more)

        return call

    compile_instantly = module.compile_steps

    def compile_steps(*arguments):
        call = compile_instantly(*arguments)

        def timed(windows, time_fraction):
            used.append(time_fraction)
            now[0] += (4.0 if len(used) == 1 else 0.1 * len(windows)) + (5.0 if len(used) == stalled else 0.0)
            call(windows, time_fraction)

        return timed

    monkeypatch.setattr(module, "compile_steps", compile_steps)
    monkeypatch.setattr(module.Evaluator, "evaluate", taking(3.0, lambda *_, **__: SimpleNamespace(nats_per_character=2.5)))
    monkeypatch.setattr(Trainer, "_validate", VALIDATE)
    monkeypatch.setattr(Trainer, "_save", taking(1.0, Trainer._save))
    timed = trainer(tmp_path, max_seconds=60.0, max_steps=10**6, validate_every=200, save_every=150, started=998.0)
    rows = list(timed.run())
    assert 55 < now[0] - 998 <= 60
    assert rows[-1].step == timed.step
    assert rows[-1].validation_loss == 2.5
    assert saved(tmp_path)[-1] == f"i{timed.step}_l8"
    assert used == sorted(used)
    assert used[0] < 0.1
    assert used[-1] > 0.9  # so a schedule comes to its end with the time


@pytest.mark.usefixtures("instant")
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


@pytest.mark.usefixtures("instant")
def test_a_run_ends_with_validation_row_and_checkpoint_in_this_order(tmp_path, monkeypatch):
    events = []
    append, write = MetricsFile.append, checkpoint.write

    def logged_append(self, row):
        events.append(f"row {row.step}")
        append(self, row)

    def logged_write(directory, record, variables):
        if directory.name == checkpoint.TRIAL:
            return write(directory, record, variables)
        on_disk = [row.step for row in read_rows(directory / "metrics.csv")]
        assert on_disk == [step for step in ROWS if step <= record.step]
        events.append(f"checkpoint {record.step}")
        return write(directory, record, variables)

    monkeypatch.setattr(Trainer, "_validate", lambda self, display: events.append("validation") or 2.5)
    monkeypatch.setattr(MetricsFile, "append", logged_append)
    monkeypatch.setattr(checkpoint, "write", logged_write)
    list(trainer(tmp_path, **BUSY).run())
    assert events[-3:] == ["validation", "row 20", "checkpoint 20"]
    assert events.count("validation") == 4
    assert events.count("checkpoint 20") == 1


# Checkpoints


@pytest.mark.usefixtures("instant")
def test_the_notebook_preset_saves_at_its_steps_under_its_names(tmp_path):
    text = "The cat sat Far on a mat. " * 20
    vocabulary = Vocabulary.from_text(text)
    tiny = {"hidden_size": 8, "batch_size": 2, "num_steps": 4, "sample_length": 5, "sample_every": 400}
    model_config, config = preset("notebook-tf1", len(vocabulary), max_steps=450, **tiny)
    watcher = Watcher()
    rows = list(Trainer(model_config, config, vocabulary, vocabulary.encode(text), tmp_path).run(watcher))
    assert saved(tmp_path) == ["i200_l8", "i400_l8", "i450_l8"]
    assert all(row.validation_loss is None for row in rows)
    assert [text[:3] for _, text in watcher.samples[:2]] == ["The", "Far"]


@pytest.mark.usefixtures("instant")
def test_keep_bounds_the_number_of_checkpoints(tmp_path):
    list(trainer(tmp_path, max_steps=14, save_every=4, keep=2, validation_fraction=0.0).run())
    assert saved(tmp_path) == ["i12_l8", "i14_l8"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "i14_l8" / "variables")


def test_a_checkpoint_saved_only_as_best_lasts_until_another_is_better(tmp_path, validations):
    validations(3.0, 2.0, 2.5, 1.0, 1.5)
    seen = []
    for _ in trainer(tmp_path, max_steps=10, validate_every=2, log_every=1).run():
        seen.append(saved(tmp_path))
    after_steps = dict(enumerate(seen[1:], 1))  # the row of step n + 1 is yielded after the save of step n
    assert after_steps[2] == ["i2_l8"]
    assert after_steps[4] == after_steps[6] == ["i4_l8"]
    assert after_steps[8] == ["i8_l8"]
    assert saved(tmp_path) == ["i8_l8", "i10_l8"]
    assert find("best", tmp_path).name == "i8_l8"
    assert find("latest", tmp_path).name == "i10_l8"


def test_keep_does_not_count_a_checkpoint_saved_only_as_best(tmp_path, validations):
    validations(1.0, 2.0, 3.0)
    list(trainer(tmp_path, max_steps=12, validate_every=5, save_every=3, keep=2).run())
    assert saved(tmp_path) == ["i5_l8", "i9_l8", "i12_l8"]
    assert [read_record(path).only_while_best for path in list_checkpoints(tmp_path)] == [True, False, False]


@pytest.mark.usefixtures("step_by_step")
def test_without_an_interval_a_run_saves_a_minute_after_its_last_regular_save(tmp_path, monkeypatch, validations):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    validations(5.0, 4.0, 3.0, 2.0, 1.0)  # saves that do not count
    for _ in trainer(tmp_path, max_steps=20, validate_every=4, log_every=1, keep=100).run():
        now[0] += 10.0
    assert saved(tmp_path) == ["i7_l8", "i14_l8", "i20_l8"]


def test_a_record_holds_the_run_s_position_and_losses(whole):
    folder, rows = whole
    record = read_record(folder / "i20_l8")
    assert (record.step, record.epoch, record.name) == (20, 20 / 7, "i20_l8")
    assert (record.train_loss, record.validation_loss) == (rows[-1].train_loss, rows[-1].validation_loss)
    assert record.train.seed == 3
    assert record.vocabulary == VOCABULARY
    assert read_record(folder / "i16_l8").train_loss == next(row.train_loss for row in rows if row.step == 15)
    assert read_record(folder / "i16_l8").validation_loss is None


@pytest.mark.usefixtures("instant")
def test_bytes_are_saved_as_bytes_and_characters_are_not(tmp_path):
    ids = np.frombuffer(TEXT.encode() * 2, np.uint8)
    list(trainer(tmp_path / "bytes", ids=ids, vocabulary=ByteVocabulary(), max_steps=1).run())
    record = read_record(find("latest", tmp_path / "bytes"))
    assert (record.vocabulary, record.train.vocabulary) == (ByteVocabulary(), "bytes")
    with pytest.raises(ConfigError, match=r"`vocabulary` bytes needs charrnn_tf\.text\.vocabulary\.ByteVocabulary"):
        Trainer(ModelConfig(len(VOCABULARY)), TrainConfig(vocabulary="bytes"), VOCABULARY, IDS, tmp_path / "other")


# Patience


def test_a_run_ends_after_so_many_validations_without_improvement(tmp_path, validations):
    validations(3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.9)
    run = trainer(tmp_path, max_steps=100, validate_every=2, patience=3)
    assert [row.step for row in run.run()][-1] == 14
    assert run.out_of_patience
    assert run.last_validation == 1.9
    assert saved(tmp_path) == ["i8_l8", "i14_l8"]
    assert find("best", tmp_path).name == "i8_l8"
    again = trainer(tmp_path, max_steps=100, validate_every=2, patience=3, resume=True)
    assert list(again.run()) == []
    assert saved(tmp_path) == ["i8_l8", "i14_l8"]


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
    assert notes(run) == []
    assert [row.validation_loss for row in run.run() if row.validation_loss] == [2.0]
    assert run.step == 16


def test_more_patience_continues_the_run(tmp_path, validations):
    validations(1.0, *[2.0] * 20)
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=2).run())
    assert saved(tmp_path)[-1] == "i6_l8"
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=4, resume=True).run())
    assert saved(tmp_path)[-1] == "i10_l8"
    list(trainer(tmp_path, max_steps=40, validate_every=2, patience=0, resume=True).run())
    assert saved(tmp_path)[-1] == "i40_l8"


@pytest.mark.usefixtures("step_by_step", "instant")
@pytest.mark.parametrize("at", [6, 7, 8])
def test_a_stop_does_not_change_when_patience_ends(tmp_path, at):
    settings = {"max_steps": 100, "validate_every": 2, "patience": 3}  # no validation improves on the first
    list(trainer(tmp_path / "whole", **settings).run())
    assert saved(tmp_path / "whole")[-1] == "i8_l8"
    stop_and_resume(tmp_path / "parts", at, **settings)
    assert stripped(read_rows(tmp_path / "whole" / "metrics.csv")) == stripped(read_rows(tmp_path / "parts" / "metrics.csv"))


# Stopping and resuming


@pytest.fixture
def step_by_step(monkeypatch):
    """Calls of one step, so that a run can be stopped at any."""
    monkeypatch.setattr(Pace, "steps", lambda self, seconds_left: 1)


def stop_and_resume(folder, *stops, resume=False, **settings):
    """A run that is stopped at some steps and resumed each time -> the rows of all its parts, and their displays."""
    rows, displays = [], []
    for at in stops:
        stopped = trainer(folder, resume=resume, **settings)
        displays.append(Watcher(stopped, at))
        before = list(stopped.run(displays[-1]))
        assert stopped.stopped
        assert stopped.step == at
        assert saved(folder)[-1] == f"i{at}_l8"
        assert all(row.step < at for row in before)
        rows += before
        assert read_rows(folder / "metrics.csv") == rows
        resume = True
    displays.append(Watcher())
    rows += trainer(folder, resume=True, **settings).run(displays[-1])
    return rows, displays


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_stopped_and_resumed_run_writes_the_same_as_one_never_stopped(whole, tmp_path):
    folder, rows = whole
    # where nothing is due, at a row, a validation, an epoch, nothing, validation and save, the end
    resumed, _ = stop_and_resume(tmp_path, 1, 5, 6, 7, 9, 12, 20, **BUSY)
    assert stripped(resumed) == stripped(rows)
    assert stripped(read_rows(tmp_path / "metrics.csv")) == stripped(rows)
    assert_same_tensors(tmp_path / "i20_l8", folder / "i20_l8")


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_stopped_and_resumed_run_with_xla_writes_the_same_as_one_never_stopped(tmp_path):
    settings = {**BUSY, "xla": True}
    rows = list(trainer(tmp_path / "whole", **settings).run())
    resumed, _ = stop_and_resume(tmp_path / "stopped", 9, **settings)
    assert stripped(resumed) == stripped(rows)
    assert_same_tensors(tmp_path / "stopped" / "i20_l8", tmp_path / "whole" / "i20_l8")


@pytest.mark.usefixtures("step_by_step")
def test_a_stop_does_not_change_how_long_a_checkpoint_lasts(tmp_path, validations):
    settings = {"max_steps": 12, "save_every": 4, "validate_every": 4}
    validations(3.0, 2.0, 1.0)
    list(trainer(tmp_path / "whole", **settings).run())
    validations(3.0, 2.0, 1.0)
    stop_and_resume(tmp_path / "stopped", 4, **settings)
    assert saved(tmp_path / "stopped") == saved(tmp_path / "whole") == ["i4_l8", "i8_l8", "i12_l8"]


@pytest.mark.usefixtures("step_by_step", "instant")
def test_a_stop_does_not_lose_a_sample(tmp_path):
    settings = {"max_steps": 6, "sample_every": 3, "sample_length": 5}
    _, (first, second) = stop_and_resume(tmp_path, 3, **settings)
    assert [step for step, _ in first.samples + second.samples] == [3, 6]


@pytest.mark.usefixtures("step_by_step", "instant")
def test_a_run_stopped_while_it_yields_a_row_saves_it(tmp_path):
    rows = list(trainer(tmp_path / "whole", **BUSY).run())
    running = trainer(tmp_path, **BUSY)
    before = []
    for row in running.run():  # as a notebook would
        before.append(row)
        if row.step == 6:
            running.stop()
    assert saved(tmp_path)[-1] == "i6_l8"
    assert read_record(tmp_path / "i6_l8").validation_loss == rows[1].validation_loss == 2.5
    after = list(trainer(tmp_path, resume=True, **BUSY).run())
    assert stripped(before + after) == stripped(rows)


@pytest.mark.usefixtures("instant")
def test_a_run_stopped_before_its_first_step_leaves_no_run_behind(tmp_path):
    stopped = trainer(tmp_path, **BUSY)
    stopped.stop()
    assert list(stopped.run()) == []
    assert saved(tmp_path) == []
    assert [row.step for row in trainer(tmp_path, **BUSY).run()] == ROWS


@pytest.mark.slow
def test_a_stop_during_a_validation_leaves_it_and_its_row_to_the_resumed_run(whole, tmp_path, monkeypatch):
    folder, rows = whole
    run = trainer(tmp_path, **BUSY)
    evaluate = run._validator._evaluator.evaluate

    def interrupted(ids, stopped):
        if run.step == 12:
            run.stop()
        return evaluate(ids, stopped=stopped)

    monkeypatch.setattr(run._validator._evaluator, "evaluate", interrupted)
    before = list(run.run())
    assert [row.step for row in before] == [5, 6, 7, 10]
    assert read_record(find("latest", tmp_path)).step == 12
    assert stripped(before + list(trainer(tmp_path, resume=True, **BUSY).run())) == stripped(rows)
    assert_same_tensors(tmp_path / "i20_l8", folder / "i20_l8")


def test_rows_after_the_checkpoint_are_written_again(whole, tmp_path):
    folder, rows = whole
    killed = trainer(tmp_path, **BUSY)
    for row in killed.run():
        if row.step == 10:  # the latest checkpoint is of step 8
            break
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [5, 6, 7, 10]
    shutil.rmtree(tmp_path / "i10_l8")  # which a killed run would not have saved
    resumed = list(trainer(tmp_path, resume=True, **BUSY).run())
    assert stripped(resumed) == stripped(rows[3:])
    assert stripped(read_rows(tmp_path / "metrics.csv")) == stripped(rows)
    assert_same_tensors(tmp_path / "i20_l8", folder / "i20_l8")


@pytest.mark.usefixtures("instant")
def test_a_run_whose_budget_is_used_up_resumes_to_nothing(whole):
    folder, _ = whole
    before = tree(folder)
    spent = trainer(folder, resume=True, **BUSY)
    assert notes(spent) == ["All steps of this run are done. To continue, pass a larger `max_steps` or `epochs`."]
    watcher = Watcher()
    assert list(spent.run(watcher)) == []
    assert watcher.samples == []
    assert tree(folder) == before


@pytest.mark.slow
def test_a_larger_budget_continues_a_run(tmp_path):
    list(trainer(tmp_path, max_steps=6, log_every=6).run())
    rows = list(trainer(tmp_path, max_steps=12, log_every=6, resume=True).run())
    assert [row.step for row in rows] == [7, 12]
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [6, 7, 12]
    list(trainer(tmp_path / "whole", max_steps=12, log_every=6).run())
    assert_same_tensors(tmp_path / "i12_l8", tmp_path / "whole" / "i12_l8")


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_is_repeated_by_its_seed_and_by_no_other(tmp_path, cell):
    def rows(name, seed):
        return stripped(trainer(tmp_path / name, cell=cell, **{**BUSY, "seed": seed, "max_steps": 8}).run())

    first = rows("first", 3)
    assert rows("again", 3) == first
    assert_same_tensors(tmp_path / "first" / "i8_l8", tmp_path / "again" / "i8_l8")
    assert not {row.train_loss for row in rows("other", 4)} & {row.train_loss for row in first}


# Training and validation parts


def kernel_rows_trained(folder, text, vocabulary, **settings):
    """The characters whose rows of the first kernel a run changes; a one-hot input changes those of characters it read."""
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


def test_validation_scores_the_held_out_part_with_dropout_off(tmp_path):
    text = "abcd" * 14 + "a" + "ddcbaa"
    vocabulary = Vocabulary.from_text(text)
    learner = trainer(tmp_path, ids=vocabulary.encode(text), vocabulary=vocabulary, max_steps=3, dropout=0.5)
    assert learner.validation_characters == 6
    (row,) = learner.run()
    probabilities = learner.model(np.tile(vocabulary.encode("ddcba").astype(np.int32), (2, 1)), training=False).numpy()[0]
    expected = -np.log(probabilities[np.arange(5), vocabulary.encode("dcbaa")]).mean()
    assert row.validation_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("instant")
def test_without_validation_the_whole_text_is_trained_on_and_the_interval_is_ignored(tmp_path):
    whole_text = trainer(tmp_path, max_steps=6, validation_fraction=0.0, validate_every=2, log_every=100)
    assert whole_text.steps_per_epoch == (63 - 1) // 8
    assert whole_text.validation_characters == 0
    assert [(row.step, row.validation_loss) for row in whole_text.run()] == [(6, None)]
    assert find("best", tmp_path) == find("latest", tmp_path)


@pytest.mark.usefixtures("instant")
def test_a_text_too_short_is_refused_and_leaves_no_folder(tmp_path):
    with pytest.raises(TextError, match=r"too short: 8 characters to train on.*needs 9"):
        trainer(tmp_path / "run", ids=IDS[:8], validation_fraction=0.0, max_steps=1)
    with pytest.raises(TextError, match="single character"):
        trainer(tmp_path / "run", ids=IDS[:19], validation_fraction=0.1, max_steps=1)
    assert list(tmp_path.iterdir()) == []
    assert [row.step for row in trainer(tmp_path / "run", ids=IDS[:9], validation_fraction=0.0, max_steps=1).run()] == [1]


# Initial weights, and folders that hold a run


@pytest.mark.usefixtures("instant")
def test_init_from_takes_only_the_weights(whole, tmp_path):
    folder, _ = whole
    tuned = trainer(tmp_path, init_from=folder / "i20_l8", max_steps=2, dropout=0.0)
    held = tensors(folder / "i20_l8")
    for name, variable in tuned.state.variables()["weights"].items():
        key = f"weights/{name.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(variable.numpy(), held[key], err_msg=name)
    assert tuned.step == 0
    assert not any(np.any(part.numpy()) for layer in tuned.state.recurrent for part in layer)
    assert not any(np.any(each.numpy()) for each in tuned.state.optimizer.variables[2:])
    assert [row.step for row in tuned.run()] == [2]
    assert read_record(tmp_path / "i2_l8").init_from == str(folder / "i20_l8")


@pytest.mark.slow
def test_init_from_continues_to_learn_where_the_other_run_ended(tmp_path):
    settings = {"dropout": 0.0, "optimizer": "sgd", "learning_rate": 1e-30}
    list(trainer(tmp_path / "old", max_steps=60, dropout=0.0).run())
    (tuned,) = trainer(tmp_path / "new", max_steps=1, init_from=tmp_path / "old" / "i60_l8", **settings).run()
    (fresh,) = trainer(tmp_path / "fresh", max_steps=1, **settings).run()
    assert tuned.train_loss < fresh.train_loss - 0.1


def test_overwriting_the_run_that_init_from_reads_is_refused(whole):
    folder, _ = whole
    before = tree(folder)
    with pytest.raises(ConfigError, match=r"`overwrite` would remove the checkpoint of `init_from`, .*i20_l8\. Use another"):
        trainer(folder, init_from=folder / "i20_l8", overwrite=True, max_steps=1)
    assert tree(folder) == before


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(whole):
    folder, _ = whole
    before = tree(folder)
    with pytest.raises(CheckpointError, match=r"already holds a run\. Use `resume` .* `overwrite` .* `checkpoint_dir`"):
        trainer(folder, max_steps=3)
    assert tree(folder) == before


@pytest.mark.usefixtures("instant")
@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("way", ["stop", "break"])
def test_a_run_that_is_stopped_before_its_first_save_leaves_the_one_it_would_replace(tmp_path, way):
    list(trainer(tmp_path, max_steps=6).run())
    before = tree(tmp_path)
    again = trainer(tmp_path, max_steps=50, save_every=40, validate_every=40, overwrite=True)
    for row in again.run():
        if row.step >= 10:
            if way == "break":
                break
            again.stop()
    gc.collect()
    assert again.step >= 10
    assert tree(tmp_path) == before
    later = trainer(tmp_path, max_steps=50, save_every=5, validate_every=40, overwrite=True)
    for row in later.run():
        if row.step >= 10:
            later.stop()
    assert later.directory.latest.name.startswith("i1")
    assert not (tmp_path / "i6_l8").exists()


def test_overwrite_removes_only_what_a_run_wrote(tmp_path):
    list(trainer(tmp_path, max_steps=5).run())
    strangers = [tmp_path / "notes.txt", tmp_path / "i5_l8.txt", tmp_path / "plots" / "loss.png"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("mine")
    list(trainer(tmp_path, max_steps=3, overwrite=True).run())
    assert saved(tmp_path) == ["i3_l8"]
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [3]
    assert [stranger.read_text() for stranger in strangers] == ["mine"] * 3
    assert [row.step for row in trainer(tmp_path / "new", max_steps=1, overwrite=True).run()] == [1]


def test_resume_in_a_folder_without_a_run_leaves_nothing_behind(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match="no checkpoints in"):
            trainer(folder, max_steps=3, resume=True)
    assert names(tmp_path) == []


def test_a_strategy_needs_its_replicas(tmp_path):
    told = r"`strategy` mirrored needs replicas: Trainer\(\.\.\., replicas=Mirrored\(\)\)"
    with pytest.raises(ConfigError, match=told):
        trainer(tmp_path, strategy="mirrored")
    assert names(tmp_path) == []


# Samples


@pytest.mark.slow
def test_samples_are_those_of_the_weights_at_their_step(tmp_path):
    watcher = Watcher()
    settings = {"sample_every": 4, "sample_prime": ("mat ", "sat"), "sample_length": 12, "sample_top_n": 3}
    list(trainer(tmp_path, max_steps=8, save_every=4, seed=2, sample_temperature=0.7, **settings).run(watcher))
    assert [(step, text[:3]) for step, text in watcher.samples] == [(4, "mat"), (4, "sat"), (8, "mat"), (8, "sat")]
    for at in (4, 8):
        sampler = Sampler.from_checkpoint(tmp_path / f"i{at}_l8")
        expected = [sampler.sample(prime, 12, top_n=3, temperature=0.7, seed=2 + at) for prime in ("mat ", "sat")]
        assert [text for step, text in watcher.samples if step == at] == expected
        assert [len(text) for text in expected] == [16, 15]


@pytest.mark.usefixtures("instant")
def test_samples_come_after_each_epoch_and_at_the_end(tmp_path):
    watcher = Watcher()
    list(trainer(tmp_path, max_steps=15, sample_every="epoch", sample_length=5).run(watcher))
    assert [step for step, _ in watcher.samples] == [7, 14, 15]


@pytest.mark.slow
def test_samples_do_not_change_the_run(whole, tmp_path):
    _, rows = whole
    sampled = trainer(tmp_path, **BUSY, sample_every=3, sample_length=5)
    assert stripped(sampled.run(Watcher())) == stripped(rows)


# Settings decided by the machine


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


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("charrnn_tf.machine.hardware.available_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_shards_are_as_many_as_cores_or_as_asked(tmp_path):
    assert [trainer(tmp_path, batch_size=10, shards=shards).config.shards for shards in (None, 1, 5)] == [2, 1, 5]


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("settings", [{}, {"max_steps": 3}])
def test_on_a_gpu_a_batch_is_whole_and_xla_is_off(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(module, "physical_gpus", lambda: 1)
    for batch_size in (2, 10):
        config = trainer(tmp_path, batch_size=batch_size, shards=None, **settings).config
        assert (config.shards, config.xla) == (1, False)


@pytest.mark.usefixtures("instant")
def test_a_resumed_run_keeps_decided_settings(tmp_path, monkeypatch):
    list(trainer(tmp_path, batch_size=4, shards=None, max_steps=2).run())
    monkeypatch.setattr("charrnn_tf.machine.hardware.available_cores", lambda: 4)
    config = trainer(tmp_path, batch_size=4, shards=None, max_steps=2000, resume=True).config
    assert (config.shards, config.xla, config.max_steps) == (1, False, 2000)


@pytest.mark.usefixtures("instant", "two_cores")
@pytest.mark.parametrize(("batch_size", "on_cpu", "on_gpu"), [(10, (2, False), (1, False)), (2, (1, True), (1, False))])
def test_a_run_that_moves_between_cpu_and_gpu_takes_each_devices_shards_and_xla(
    tmp_path, monkeypatch, batch_size, on_cpu, on_gpu
):
    monkeypatch.setattr("charrnn_tf.settings.merge.XLA_STEPS", 2)

    def train(max_steps):
        list(trainer(tmp_path, batch_size=batch_size, shards=None, max_steps=max_steps, resume=max_steps > 2).run())
        record = read_record(find("latest", tmp_path))
        return (record.train.shards, record.train.xla), record.in_force["gpus"], record.in_force.get("gpu")

    assert train(2) == (on_cpu, 0, None)
    with monkeypatch.context() as patch:
        stand_in(patch)
        assert train(4) == (on_gpu, 1, GPU)
        assert train(6) == (on_gpu, 1, GPU)
    assert train(8) == (on_cpu, 0, None)


@pytest.mark.usefixtures("instant", "two_cores")
@pytest.mark.parametrize("xla", [None, True])
def test_decided_settings_are_saved(tmp_path, xla):
    list(trainer(tmp_path, batch_size=10, shards=None, max_steps=1, xla=xla).run())
    record = read_record(find("latest", tmp_path))
    assert (record.train.shards, record.train.xla) == (2, bool(xla))
    assert record.in_force == module.in_force()


@pytest.mark.parametrize(
    ("precision", "has", "expected"),
    [
        ("float32", False, []),
        ("bfloat16", True, []),
        ("bfloat16", False, ["This CPU has no bfloat16 products: training in float32."]),
    ],
)
def test_missing_bfloat16_is_noted(tmp_path, monkeypatch, precision, has, expected):
    monkeypatch.setattr("charrnn_tf.training.state.has_bfloat16", lambda: has)
    assert notes(trainer(tmp_path, precision=precision)) == expected


@pytest.mark.usefixtures("instant")
def test_a_machine_that_changed_since_the_run_was_started_is_noted(tmp_path, monkeypatch):
    def on(**machine):
        monkeypatch.setattr(module, "in_force", lambda: machine)
        monkeypatch.setattr("charrnn_tf.api.summary.in_force", lambda: machine)

    on(processor="abacus", cores=2, onednn="1")
    begun = trainer(tmp_path, max_steps=1)
    assert notes(begun) == []
    list(begun.run())
    assert notes(trainer(tmp_path, resume=True, max_steps=2)) == []
    on(processor="slide rule", cores=2, onednn="0", new=1)
    resumed = trainer(tmp_path, resume=True, max_steps=2)
    changed = "processor abacus, now slide rule; onednn 1, now 0"
    assert notes(resumed) == [f"The run was started with {changed}: losses may differ in their last digits."]
    list(resumed.run())
    assert notes(trainer(tmp_path, resume=True, max_steps=3)) == []
    assert notes(trainer(tmp_path, overwrite=True, max_steps=3)) == []


@pytest.mark.usefixtures("instant")
def test_a_used_up_time_budget_is_noted(tmp_path):
    list(trainer(tmp_path, max_seconds=100.0, patience=0, started=time.monotonic() - 99).run())
    over = trainer(tmp_path, max_seconds=100.0, patience=0, resume=True, started=time.monotonic() - 99)
    how = "pass a larger `max_seconds` (in total), or `max_steps` or `epochs`."
    assert notes(over) == [f"Time budget used up. To continue, {how}"]
    assert list(over.run()) == []
    assert notes(trainer(tmp_path, max_seconds=10_000.0, patience=0, resume=True)) == []


# Memory

MEMORY = """
import json, pathlib, sys
from charrnn_tf import ModelConfig, TrainConfig, Trainer, Vocabulary

text = "the cat sat on a mat. " * 200
vocabulary = Vocabulary.from_text(text)
config = TrainConfig(
    batch_size=4, num_steps=8, max_steps=1500, log_every=10, validate_every=100, save_every=100, xla=json.loads(sys.argv[2])
)
trainer = Trainer(ModelConfig(len(vocabulary), hidden_size=16), config, vocabulary, vocabulary.encode(text), sys.argv[1])
rows = trainer.run()
print(json.dumps({row.step: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) for row in rows}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process's memory")
@pytest.mark.parametrize("xla", [False, True])
def test_a_run_needs_no_more_memory_the_longer_it_lasts(tmp_path, xla):
    command = [sys.executable, "-c", MEMORY, str(tmp_path), json.dumps(xla)]  # a forked process would share pages
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    pages = json.loads(printed)
    assert pages["1500"] < 1.02 * pages["300"], pages
    assert pages["1500"] < 1.005 * pages["1000"], pages
