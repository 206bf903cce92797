"""Ids -> windows: every window's place in its stream, the true next character as target, and reading across epochs."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.settings.schema import VALIDATION_LIMIT
from charrnn_tf.text.windows import Streams, hold_out, windows

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(0, 23))


def streams_of(sizes):
    """Streams over ids that all differ, with a remainder of any length below a step."""
    batch_size, num_steps, steps, remainder = sizes
    used = batch_size * num_steps
    return Streams.cut(np.arange(used * steps + 1 + remainder % used, dtype=np.uint16), batch_size, num_steps)


@given(SIZES)
def test_windows_cover_each_stream_in_order(sizes):
    batch_size, num_steps, steps, _ = sizes
    streams = streams_of(sizes)
    inputs = np.concatenate([x for x, _ in windows(streams.ids, batch_size, num_steps)], axis=1)
    assert streams.steps_per_epoch == steps
    assert inputs.tolist() == streams.ids[: inputs.size].reshape(batch_size, steps * num_steps).tolist()


@given(SIZES)
def test_every_target_is_the_true_next_character(sizes):
    batch_size, num_steps, *_ = sizes
    for inputs, targets in windows(streams_of(sizes).ids, batch_size, num_steps):
        assert inputs.shape == targets.shape == (batch_size, num_steps)
        assert np.array_equal(targets, inputs + 1)  # the ids count up, so this holds for the last of window and stream too


@given(SIZES)
def test_a_window_ends_with_the_character_the_next_one_begins_with(sizes):
    streams = streams_of(sizes)
    epoch = streams.read(0, streams.steps_per_epoch)
    assert np.array_equal(epoch[:-1, :, -1], epoch[1:, :, 0])


@given(SIZES, st.integers(0, 20), st.integers(1, 9))
def test_reading_many_steps_equals_reading_them_one_by_one_across_epochs(sizes, step, count):
    streams = streams_of(sizes)
    one_by_one = np.concatenate([streams.read(step + n, 1) for n in range(count)])
    assert np.array_equal(streams.read(step, count), one_by_one)
    assert np.array_equal(streams.read(step + streams.steps_per_epoch, count), one_by_one)


@given(SIZES, st.slices(4))
def test_some_rows_are_those_of_all(sizes, rows):
    streams = streams_of(sizes)
    assert np.array_equal(streams.read(1, 2, rows), streams.read(1, 2)[:, rows])


def test_the_windows_of_a_small_text():
    streams = Streams.cut(np.arange(10, 24, dtype=np.uint8), 2, 3)
    assert streams.steps_per_epoch == 2
    expected = [[[10, 11, 12, 13], [16, 17, 18, 19]], [[13, 14, 15, 16], [19, 20, 21, 22]]]
    assert streams.read(0, 2).tolist() == expected
    assert streams.read(3, 2).tolist() == expected[::-1]
    assert streams.read(0, 1).dtype == np.int32
    assert streams.window(4, 2).tolist() == [[14, 15, 16], [20, 21, 22]]


def test_streams_may_overlap_and_end_with_a_shorter_window():
    streams = Streams(np.arange(10), np.array([0, 3]), length=5, num_steps=3)
    assert streams.steps_per_epoch == 2
    assert streams.window(0, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert streams.window(3, 2).tolist() == [[3, 4, 5], [6, 7, 8]]


def test_windows_are_one_epoch():
    assert [(x.tolist(), y.tolist()) for x, y in windows(np.arange(14), 2, 3)] == [
        ([[0, 1, 2], [6, 7, 8]], [[1, 2, 3], [7, 8, 9]]),
        ([[3, 4, 5], [9, 10, 11]], [[4, 5, 6], [10, 11, 12]]),
    ]


@pytest.mark.parametrize(("batch_size", "num_steps", "need"), [(2, 4, "9"), (1, 1, "2"), (50, 100, "5,001")])
def test_a_text_that_is_too_short_is_refused_with_the_number_needed(batch_size, num_steps, need):
    enough = np.zeros(batch_size * num_steps + 1, np.uint8)
    assert Streams.cut(enough, batch_size, num_steps).steps_per_epoch == 1
    with pytest.raises(TextError, match=f"needs {need}\\.") as caught:
        Streams.cut(enough[1:], batch_size, num_steps)
    assert f"{len(enough) - 1:,} characters" in str(caught.value)
    with pytest.raises(TextError, match=re.escape(str(caught.value))):
        next(windows(enough[1:], batch_size, num_steps))


@pytest.mark.parametrize(
    ("batch_size", "num_steps", "named"), [(0, 1, "batch_size"), (1, 0, "num_steps"), (1, 2.0, "num_st")]
)
def test_sizes_that_are_no_whole_numbers_are_refused(batch_size, num_steps, named):
    with pytest.raises(ConfigError, match=f"^`{named}.* must be a whole number of at least 1"):
        Streams.cut(np.zeros(100, np.uint8), batch_size, num_steps)


def test_ids_may_live_on_disk(tmp_path):
    on_disk = np.memmap(tmp_path / "ids", np.uint8, "w+", shape=(100,))
    on_disk[:] = np.arange(100)
    on_disk.flush()
    ids = np.memmap(tmp_path / "ids", np.uint8, "r")
    in_memory = list(windows(np.arange(100, dtype=np.uint8), 3, 5))
    for (x, y), (expected_x, expected_y) in itertools.zip_longest(windows(ids, 3, 5), in_memory):
        assert np.array_equal(x, expected_x)
        assert np.array_equal(y, expected_y)
    assert len(in_memory) == 6


def test_the_end_is_held_out_and_validations_read_its_beginning():
    ids = np.arange(VALIDATION_LIMIT + 10)
    training, validation = hold_out(ids, 7)
    assert np.array_equal(training, ids[:7])
    assert np.array_equal(validation, ids[7 : 7 + VALIDATION_LIMIT])
    assert len(hold_out(ids, len(ids))[1]) == 0
    with pytest.raises(TextError, match=r"^the validation part is a single character\. .*`validation_fraction` 0\.$"):
        hold_out(ids, len(ids) - 1)
