"""Where the time of a run goes, on a clock that only training steps and validations move."""

import dataclasses
import random
import re
from types import SimpleNamespace

import pytest
from test_trainer import VALIDATE, trainer

from charrnn_tf.api.summary import conclusion
from charrnn_tf.runs.metrics import Row
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.training.trainer import Trainer
from charrnn_tf.training.validation import Validator

ROW = Row(0, 0.0, 0.0, 2.0, 2.5, 0.01, 1.0)


@pytest.fixture
def clock(instant, monkeypatch):
    """The seconds that a step and a validation take, and how long a validation is thought to take beforehand."""
    clock = SimpleNamespace(now=1000.0, step=0.1, validation=5.0, estimate=5.0)
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(f"charrnn_tf.training.budget.time.{name}", lambda: clock.now)

    def compile_steps(run, model_config, config, steps_per_epoch):
        def call(windows, time_fraction):
            clock.now += clock.step * len(windows)
            for counter, increase in ((run.step, 1), (run.loss_steps, 1), (run.loss_sum, 2.0)):
                counter.assign_add(increase * len(windows))

        return call

    def loss(self, stopped):
        clock.now += clock.validation
        return 2.5

    monkeypatch.setattr("charrnn_tf.training.trainer.compile_steps", compile_steps)
    monkeypatch.setattr(Trainer, "_validate", VALIDATE)
    monkeypatch.setattr(Validator, "loss", loss)
    monkeypatch.setattr(Validator, "seconds", lambda self: clock.estimate)
    return clock


@pytest.mark.parametrize("validate_every", [7, 25, 70, 10_000])
@pytest.mark.parametrize("estimate", [0.0, 5.0, 6.0])
def test_a_run_uses_its_budget_and_hardly_more(tmp_path, clock, validate_every, estimate):
    clock.estimate = estimate
    run = trainer(tmp_path, max_seconds=40.0, validate_every=validate_every, patience=0, log_every=10_000)
    rows = list(run.run())
    assert rows[-1].validation_loss == 2.5
    unforeseen = clock.validation if estimate == 0 and validate_every == 10_000 else 0.0
    assert 36.0 <= run.seconds <= 40.8 + unforeseen


def test_no_validation_is_begun_that_would_not_end_in_time(tmp_path, clock):
    run = trainer(tmp_path, max_seconds=20.0, validate_every=50, patience=0, log_every=10_000)
    rows = [row for row in run.run() if row.validation_loss is not None]
    assert [row.step for row in rows][:1] == [50]  # after 10 s: at 15 s the next one and the last don't both fit
    assert len(rows) == 2
    assert run.seconds <= 20.0


def test_a_validation_that_used_the_time_up_is_the_last(tmp_path, clock):
    clock.estimate, clock.validation = 5.0, 14.0  # longer than it was thought
    run = trainer(tmp_path, max_seconds=20.0, validate_every=50, patience=0, log_every=10_000)
    assert [row.step for row in run.run() if row.validation_loss is not None] == [50]
    assert run.seconds == pytest.approx(19.0)


def test_the_end_says_where_the_time_went(tmp_path, clock):
    run = trainer(tmp_path, max_seconds=40.0, validate_every=100, patience=0, log_every=10_000)
    list(run.run())
    (said,) = [line for line in conclusion(run) if line.startswith("Time:")]
    assert re.fullmatch(r"Time: 40 s; training 2[45] s, validating 15 s, the rest starting\.", said)


def test_the_time_before_a_run_was_resumed_is_told_apart(tmp_path, clock):
    list(trainer(tmp_path, max_seconds=20.0, validate_every=10_000, patience=0, log_every=10_000).run())
    resumed = trainer(tmp_path, max_seconds=60.0, validate_every=10_000, patience=0, log_every=10_000, resume=True)
    assert resumed.nothing_to_do is None
    list(resumed.run())
    (said,) = [line for line in conclusion(resumed) if line.startswith("Time:")]
    assert re.fullmatch(r"Time: (59 s|1 min 0 s), (19|20) s of it before this; training 3\d s, validating 5 s, .*", said)


@pytest.mark.parametrize(
    ("first", "second", "goes_on"),
    [
        ({"max_seconds": 20.0}, {"max_seconds": 20.0}, False),  # it ended after 17 s: its last validation was quick
        ({"max_seconds": 20.0}, {"max_seconds": 21.0}, True),
        ({"max_seconds": 100.0, "max_steps": 53}, {"max_seconds": 100.0, "max_steps": 60}, True),
    ],
)
def test_a_run_that_ended_by_its_time_has_none_left(tmp_path, clock, caplog, first, second, goes_on):
    clock.estimate, clock.validation = 4.0, 1.0
    settings = {"validate_every": 10_000, "patience": 0, "log_every": 10_000}
    ended = trainer(tmp_path, **first, **settings)
    list(ended.run())
    resumed = trainer(tmp_path, **second, **settings, resume=True)
    assert (resumed.nothing_to_do is None) is goes_on
    list(resumed.run())
    assert (resumed.step > ended.step) is goes_on
    assert ("Time budget used up" in caplog.text) is not goes_on


def test_a_run_stopped_shortly_before_its_end_goes_on(tmp_path, clock):
    settings = {"max_seconds": 40.0, "validate_every": 10_000, "patience": 0, "log_every": 7}
    run = trainer(tmp_path, **settings)
    for row in run.run():
        if row.seconds > 10:
            break
    resumed = trainer(tmp_path, **settings, resume=True)
    assert resumed.nothing_to_do is None
    assert [row.validation_loss for row in resumed.run()][-1] == 2.5


# A held-out part that is unlike the rest


LINES = [f"{first}{rest}" for first in "abcdefghij" for rest in ("ne mi so", "ta mo ne", "so ta ne") * 90]
SORTED, MIXED = "\n".join(LINES), "\n".join(random.Random(1).sample(LINES, len(LINES)))


@pytest.mark.parametrize(("text", "says"), [(SORTED, True), (MIXED, False)])
def test_a_sorted_text_is_told_and_does_not_end_the_run_while_it_learns(tmp_path, clock, caplog, text, says):
    vocabulary = Vocabulary.from_text(text)
    run = trainer(tmp_path, vocabulary=vocabulary, ids=vocabulary.encode(text), max_steps=50, validate_every=1, patience=3)
    list(run.run())
    begin = vocabulary.decode(run._validator._held_out[:40])
    said = f"the held-out part, the end of the text from {begin!r} on, is unlike the rest: the validation loss says little"
    assert (said in caplog.text) is says
    falling = [dataclasses.replace(ROW, step=step, train_loss=3 - 0.1 * step) for step in range(20)]
    assert run._validator.stops(falling, patience=3) is not says
    assert run._validator.stops([ROW] * 20, patience=3)
    since = [dataclasses.replace(ROW, step=step, train_loss=loss) for step, loss in enumerate((3.0, 2.0, 2.0, 2.0))]
    assert run._validator.stops(since, patience=3) is not says  # it fell since the first of four


def test_a_validation_that_takes_most_of_the_time_is_left_out(tmp_path, clock, caplog):
    clock.estimate = clock.validation = 25.0
    run = trainer(tmp_path, max_seconds=40.0, validate_every=7, patience=0, log_every=10_000)
    rows = list(run.run())
    assert 36.0 <= run.seconds <= 40.0
    assert all(row.validation_loss is None for row in rows)
    assert "this run is not validated, since that would take more than half of its `max_seconds`: about 25 s" in caplog.text
