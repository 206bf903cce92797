"""The events of a run by step, and the measurement of its pace."""

import math

import pytest

from charrnn_tf.settings.schema import TrainConfig
from charrnn_tf.training.budget import Calendar, Pace, steps_per_call


def calendar(validates=True, **settings):
    """Of a run with 7 steps per epoch."""
    plain = {"batch_size": 2, "num_steps": 4, "log_every": 5, "validate_every": 6, "save_every": 4, "max_steps": 20}
    return Calendar(TrainConfig(**plain | settings), 7, validates)


def steps(due):
    return [step for step in range(1, 21) if due(step)]


def test_events_come_at_their_intervals_and_at_the_end():
    busy = calendar(sample_every=3)
    assert steps(lambda step: busy.validation(step, step == 20)) == [6, 12, 18, 20]
    assert steps(lambda step: busy.row(step, step == 20)) == [5, 6, 7, 10, 12, 14, 15, 18, 20]
    assert steps(lambda step: busy.save(step, 1e9)) == [4, 8, 12, 16, 20]
    assert steps(lambda step: busy.every("epoch", step)) == [7, 14]
    assert steps(lambda step: busy.every(None, step)) == []
    assert steps(busy.steps_done) == [20]


def test_the_steps_to_the_next_event_never_skip_one():
    assert [calendar().steps_to_event(step) for step in range(20)] == [
        4,
        3,
        2,
        1,
        1,
        1,
        1,
        1,
        2,
        1,
        2,
        1,
        2,
        1,
        1,
        1,
        2,
        1,
        2,
        1,
    ]
    assert calendar(sample_every=3).steps_to_event(0) == 3
    assert calendar(save_every=None, log_every=100, validate_every=100).steps_to_event(15) == 5  # the end
    assert calendar(save_every=None, log_every=100, validate_every=100, max_steps=None).steps_to_event(15) == 6  # the epoch


def test_without_a_validation_part_its_interval_has_no_rows():
    silent = calendar(validates=False)
    assert not any(silent.validation(step, end) for step in range(20) for end in (False, True))
    assert steps(lambda step: silent.row(step, False)) == [5, 7, 10, 14, 15, 20]


def test_without_an_interval_saves_come_once_a_minute():
    assert [calendar(save_every=None).save(3, seconds) for seconds in (0.0, 59.9, 60.0, 1e9)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("budget", "end"),
    [({"max_steps": 9}, 9), ({"epochs": 2}, 14), ({"max_steps": 9, "epochs": 2}, 9), ({"max_seconds": 1.0}, None)],
)
def test_the_first_budget_in_steps_or_epochs_ends_a_run(budget, end):
    ends = calendar(**{"max_steps": None} | budget)
    assert ends.total_steps == end
    assert [ends.steps_done(step) for step in (8, 9, 14)] == [end is not None and step >= end for step in (8, 9, 14)]


@pytest.mark.parametrize(
    ("patience", "best", "step", "used"),
    [
        (3, 6, 18, False), (3, 6, 24, True), (3, None, 600, False), (0, 6, 600, False), (1, 6, 12, True),
        (3, 8, 23, False), (3, 8, 24, True),  # the best at the end of an earlier budget, between 6 and 12
        (3, 11, 24, True),
    ],
)  # fmt: skip
def test_patience_counts_the_validations_at_their_interval(patience, best, step, used):
    assert calendar(patience=patience).patience_used(step, best) is used


@pytest.fixture
def clock(monkeypatch):
    """The time that calls take, in a list to add to."""
    now = [0.0]
    monkeypatch.setattr("charrnn_tf.training.budget.time.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("stalled", [0, 1, 4])
def test_a_stalled_call_does_not_lengthen_the_estimate_of_a_validation(clock, stalled):
    """A machine that stalls once must not end a run long before its time; the validation takes 100 steps' time."""
    pace = Pace(TrainConfig(batch_size=2, num_steps=4), validation_characters=800)
    for call in range(6):
        with pace.training(1):
            clock[0] += 3.0 if call == stalled else 0.1
        assert pace.seconds_to_finish < 15
    assert pace.seconds_to_finish == pytest.approx(2 + 100 * 0.1 + 0.5 + 0.5)
    with pace.ending("validating"):
        clock[0] += 7.0
    assert pace.seconds_to_finish == pytest.approx(7 + 0.5 + 0.5)


def test_a_call_is_short_enough_for_signals_and_for_the_time_left(clock):
    pace = Pace(TrainConfig(batch_size=2, num_steps=4), validation_characters=0)
    assert pace.steps(math.inf) == 1  # the first, so that the speed is known
    with pace.training(1):
        clock[0] += 0.01
    assert [pace.steps(left) for left in (math.inf, 10.0, 0.1, 0.015, 0.001, -5.0)] == [25, 25, 10, 1, 1, 1]
    with pace.training(100):
        clock[0] += 0.001
    assert pace.steps(math.inf) == 1000


@pytest.mark.parametrize(
    ("batch_size", "num_steps", "most"), [(2, 4, 1000), (128, 100, 1000), (512, 1023, 32), (10**5, 10**3, 1)]
)
def test_the_windows_of_a_call_fit_in_64_mib(batch_size, num_steps, most):
    assert steps_per_call(TrainConfig(batch_size=batch_size, num_steps=num_steps)) == most


def test_speed_is_measured_from_row_to_row(clock):
    pace = Pace(TrainConfig(batch_size=2, num_steps=4), validation_characters=0)
    assert pace.chars_per_second == 0
    for steps, seconds in ((1, 0.5), (3, 0.5)):
        with pace.training(steps):
            clock[0] += seconds
        clock[0] += 10.0  # a validation, a save
    assert pace.chars_per_second == 4 * 8 / 1.0
    pace.new_row()
    assert pace.chars_per_second == 0
