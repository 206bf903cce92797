"""The rows of a run: interrupted, left, begun twice or never begun."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_trainer import BUSY, assert_same_tensors, saved, stripped, trainer

from charrnn_tf.errors import CharRNNError, CheckpointError
from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.runs.metrics import read_rows

LONG = {"max_steps": 1_000_000, "log_every": 5, "validate_every": 1_000_000, "save_every": 1_000_000}


def left_at(run, step):
    """Take rows up to a step, and keep the iterator."""
    rows = run.run()
    assert next(row for row in rows if row.step == step)
    return rows


def test_a_run_that_is_left_has_saved_and_goes_on_as_if_it_had_not_been(tmp_path):
    whole = stripped(trainer(tmp_path / "whole", **BUSY).run())
    for row in trainer(tmp_path / "left", **BUSY).run():
        if row.step == 10:
            break
    assert saved(tmp_path / "left")[-1] == "i10_l8"
    resumed = stripped(trainer(tmp_path / "left", resume=True, **BUSY).run())
    assert [*stripped(read_rows(tmp_path / "left" / "metrics.csv"))] == whole
    assert resumed == [row for row in whole if row.step > 10]
    assert_same_tensors(tmp_path / "left" / "i20_l8", tmp_path / "whole" / "i20_l8")


def test_a_trainer_that_was_stopped_goes_on_where_it_is(tmp_path):
    whole = stripped(trainer(tmp_path / "whole", **BUSY).run())
    run = trainer(tmp_path / "stopped", **BUSY)
    first = []
    for row in run.run():
        first.append(row)
        if row.step == 10:
            run.stop()
    assert (run.stopped, run.step) == (True, 10)
    assert stripped([*first, *run.run()]) == whole
    assert not run.stopped


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("again", [{"resume": True}, {"overwrite": True}, {}])
def test_ones_own_abandoned_run_does_not_lock_one_out(tmp_path, again):
    rows = left_at(trainer(tmp_path, **LONG), 5)  # as a notebook keeps it after an error in the loop's body
    if not again:
        with pytest.raises(CheckpointError, match="already holds a run"):
            trainer(tmp_path, **LONG)
        assert saved(tmp_path) == ["i5_l8"]
        return
    second = trainer(tmp_path, **LONG | {"max_steps": 9}, **again)
    assert saved(tmp_path) == ["i5_l8"]  # saved when the second was made
    assert second.step == (5 if "resume" in again else 0)
    list(second.run())
    assert list(rows) == []
    assert saved(tmp_path)[-1] == "i9_l8"


@pytest.mark.usefixtures("instant")
def test_a_second_loop_over_a_trainer_ends_the_first(tmp_path):
    run = trainer(tmp_path, **LONG)
    first = left_at(run, 5)
    second = left_at(run, 10)
    assert list(first) == []
    second.close()
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [5, 7, 10]  # an epoch has 7 steps
    assert saved(tmp_path) == ["i5_l8", "i10_l8"]


@pytest.mark.usefixtures("instant")
def test_a_run_that_another_thread_trains_is_not_ended(tmp_path):
    run = trainer(tmp_path, **LONG | {"log_every": 1_000_000})
    thread = threading.Thread(target=lambda: list(run.run()))
    thread.start()
    try:
        while not run.step:
            time.sleep(0.01)
        with pytest.raises(CharRNNError, match="another run is writing to"):
            trainer(tmp_path, overwrite=True, **LONG)
    finally:
        run.stop()
        thread.join()
    assert saved(tmp_path) == [f"i{run.step}_l8"]


@pytest.mark.usefixtures("instant")
def test_rows_that_nobody_holds_any_more_save(tmp_path):
    rows = left_at(trainer(tmp_path, **LONG), 5)
    del rows
    gc.collect()
    assert saved(tmp_path) == ["i5_l8"]


@pytest.mark.usefixtures("instant")
def test_an_interrupt_while_training_saves_and_is_raised(tmp_path):
    run = trainer(tmp_path, **LONG | {"log_every": 1_000_000})

    def interrupt():
        while not run.step:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match=r"stopped; all steps of the run in '.*' are saved"):
        list(run.run())
    thread.join()
    assert run.stopped
    assert saved(tmp_path) == [f"i{run.step}_l8"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("instant")
def test_an_interrupt_between_two_rows_saves_and_is_raised(tmp_path):
    rows = left_at(trainer(tmp_path, **LONG), 10)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # while the loop's body draws a plot, for example
    assert list(rows) == []
    assert saved(tmp_path) == ["i10_l8"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("instant")
def test_a_handler_of_ones_own_is_left_alone(tmp_path):
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGINT, mine)
    try:
        left_at(trainer(tmp_path, **LONG), 5).close()
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("instant")
def test_a_process_that_ends_between_two_rows_saves(tmp_path):
    script = (
        "import numpy as np, charrnn_tf as cr\n"
        "model, train = cr.preset('notebook', 4, hidden_size=8, batch_size=2, num_steps=4, log_every=5, max_steps=99)\n"
        "ids = np.arange(400) % 4\n"
        f"rows = cr.Trainer(model, train, cr.Vocabulary('abcd'), ids, {str(tmp_path)!r}).run()\n"
        "print(next(rows).step)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, saved(tmp_path)) == (0, "5\n", ["i5_l8"]), ended.stderr


@pytest.mark.usefixtures("instant")
def test_a_run_that_nobody_iterates_over_says_so(tmp_path, caplog):
    rows = trainer(tmp_path, **LONG).run()
    assert "Training has not begun: it goes on only while you iterate" in repr(rows)
    assert not caplog.text
    del rows
    assert "Training has not begun: it goes on only while you iterate" in caplog.text
    assert saved(tmp_path) == []


@pytest.mark.usefixtures("instant")
def test_a_run_that_has_nothing_to_do_says_so(tmp_path, caplog):
    run = trainer(tmp_path, max_steps=3)
    assert len(list(run.run())) == 1
    assert not caplog.text
    assert list(run.run()) == []
    assert "All steps of this run are done. To continue, pass a larger `max_steps` or `epochs`." in caplog.text


@pytest.mark.usefixtures("instant")
def test_the_budget_counts_only_while_the_run_has_control(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("charrnn_tf.training.budget.time.monotonic", lambda: now[0])
    for started, seconds in ((None, 0.0), (90.0, 20.0)):  # without a start, and with the command's
        run = trainer(tmp_path / str(started), started=started, **LONG)
        now[0] = 105.0
        rows = left_at(run, 5)
        now[0] = 110.0  # while the caller draws a plot
        next(rows)
        assert run.seconds == seconds
        rows.close()
        assert latest_checkpoint(tmp_path / str(started)).name == "i7_l8"
        now[0] = 100.0
