"""Checkpoint folders: layout, restoring bit for bit, and what interrupted or failed writing leaves."""

import dataclasses
import functools
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import CHECKPOINT_FILES, names, rewrite, tree, write_checkpoint

from charrnn_tf import build_model
from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.find import latest_checkpoint, list_checkpoints
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.training.state import RunState

GROUPS = ["weights", "state", "counters", "optimizer"]
POINTS = ["folder", "variables", "sums", "complete", "renamed", "indexed"]


def state_of(record):
    return RunState(record.model, record.train)


@functools.cache
def shared_state(model, train):
    """A state to save or to restore into, for tests that do not depend on its values before."""
    return RunState(model, train)


def values(run):
    return {f"{group}/{name}": np.array(each) for group, part in run.variables().items() for name, each in part.items()}


def scrambled(run, seed=3):
    """A run's state with other values in every variable."""
    draw = np.random.default_rng(seed)
    for group in run.variables().values():
        for each in group.values():
            whole = np.issubdtype(each.dtype.as_numpy_dtype, np.integer)
            each.assign(draw.integers(1, 2**40, each.shape) if whole else draw.normal(size=each.shape))
    return run


# Layout


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_layout_of_a_run_s_folder(trained, cell):
    directory = trained(cell)
    assert names(directory) == ["checkpoint", "i300_l16", "i600_l16", "metrics.csv"]
    for name in ("i300_l16", "i600_l16"):
        assert names(directory / name) == CHECKPOINT_FILES


def test_the_folder_s_name_is_iteration_and_hidden_size(made):
    assert made.name == "i7_l8"


def test_tensorflow_s_own_functions_find_the_checkpoints(trained):
    directory = trained("lstm")
    prefixes = [str(directory / name / "variables") for name in ("i300_l16", "i600_l16")]
    assert tf.train.latest_checkpoint(str(directory)) == prefixes[1]
    state = tf.train.get_checkpoint_state(str(directory))
    assert list(state.all_model_checkpoint_paths) == prefixes


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "parts"), [("lstm", ["hidden", "cell"]), ("gru", ["hidden"])])
def test_variables_are_saved_under_our_own_names(trained, cell, parts):
    listed = dict(tf.train.list_variables(str(latest_checkpoint(trained(cell)) / "variables")))
    keys = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("..", ".") for name in listed}
    saved = {group: {key.partition("/")[2] for key in keys if key.startswith(f"{group}/")} for group in GROUPS}
    layers = [f"{layer}.{part}" for layer in (f"{cell}_0", f"{cell}_1") for part in ("kernel", "recurrent_kernel", "bias")]
    assert saved["weights"] == {*layers, "logits.kernel", "logits.bias"}
    assert saved["state"] == {f"{part}_{n}" for part in parts for n in (0, 1)}
    assert saved["counters"] == {"step", "loss_sum", "loss_steps", "skipped", "skipped_in_a_row"}
    assert len(saved["optimizer"]) == 2 + 2 * 8  # Adam's step and rate, and two moments of every weight
    assert {key.partition("/")[0] for key in keys} == {*GROUPS, "_CHECKPOINTABLE_OBJECT_GRAPH"}


# Restoring


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_everything_is_restored_bit_for_bit(tmp_path, cell, optimizer):
    record = read_record(write_checkpoint(tmp_path, cell=cell, num_layers=2))
    record = dataclasses.replace(record, train=dataclasses.replace(record.train, optimizer=optimizer))
    run, again = scrambled(state_of(record)), state_of(record)
    path = checkpoint.write(tmp_path / "run", record, run.variables())
    checkpoint.restore(path, again.variables())
    before, after = values(run), values(again)
    assert list(before) == list(after)
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert value.tobytes() == after[name].tobytes(), name
    stored = [name for name, _ in tf.train.list_variables(str(path / "variables")) if not name.startswith("_")]
    assert len(stored) == len(before)  # the file has no others


@pytest.mark.parametrize("batch_size", [1, 5])
def test_weights_are_restored_into_a_model_of_any_batch_size(tmp_path, batch_size):
    path = write_checkpoint(tmp_path, num_layers=2, init="wide", seed=4)
    model, record = checkpoint.load_model(path, batch_size)
    assert model.input_shape == (batch_size, None)
    expected = build_model(record.model, 2, seed=4).get_weights()
    for ours, theirs in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("changes", [{"hidden_size": 4}, {"num_layers": 2}, {"cell": "gru"}, {"embedding_size": 3}])
def test_weights_of_another_shape_are_refused(made, changes):
    model = build_model(dataclasses.replace(read_record(made).model, **changes), 1)
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.restore_weights(made, model)


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"optimizer": "rmsprop"}, {"batch_size": 4}])
def test_a_state_of_another_shape_is_refused(made, changes):
    record = read_record(made)
    run = RunState(record.model, dataclasses.replace(record.train, **changes))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.restore(made, run.variables())


def test_a_restore_that_finds_nothing_to_read_is_refused(made, monkeypatch):
    """With another backend of Keras, nothing that TensorFlow tracks was there, and its own check found nothing to match."""
    model = build_model(read_record(made).model, 1)
    monkeypatch.setattr(checkpoint, "weights", lambda model: {})
    with pytest.raises(CheckpointError, match=r"does not fit .*: 5 variables are only in one of them, such as weights/"):
        checkpoint.restore_weights(made, model)


def test_a_variable_that_keeps_its_value_is_noticed(made, monkeypatch):
    model = build_model(read_record(made).model, 1)
    named = checkpoint.weights(model)
    named["logits.kernel"] = SimpleNamespace(assign=lambda value: None, numpy=lambda: np.zeros((8, 3), np.float32))
    monkeypatch.setattr(checkpoint, "weights", lambda model: named)
    with pytest.raises(CheckpointError, match=r"weights/logits\.\.kernel has another value after it was read"):
        checkpoint.restore_weights(made, model)


def test_a_config_of_another_shape_than_the_variables_is_refused(duplicate):
    rewrite(duplicate, lambda data: data["model"].update(hidden_size=9))
    with pytest.raises(CheckpointError, match=re.escape(str(duplicate))):
        checkpoint.load_model(duplicate)


# Failures while writing


class Killed(BaseException):
    """The process ends here."""


def write_until(directory, record, point, error):
    def reached(here):
        if here == point:
            raise error

    checkpoint.write(directory, record, scrambled(shared_state(record.model, record.train)).variables(), reached)


def all_whole(directory):
    """Whether all listed checkpoints can be restored, and TensorFlow's index leads to one of them."""
    for path in list_checkpoints(directory):
        record = read_record(path)
        checkpoint.restore(path, shared_state(record.model, record.train).variables())
    return Path(tf.train.latest_checkpoint(str(directory))).parent in list_checkpoints(directory)


def test_the_stages_of_writing(tmp_path, made):
    points, record = [], read_record(made)
    checkpoint.write(tmp_path, record, shared_state(record.model, record.train).variables(), points.append)
    assert points == POINTS


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_while_writing_leaves_whole_checkpoints(duplicate, point):
    directory, before = duplicate.parent, tree(duplicate)
    checkpoint.write_index(directory)
    record = dataclasses.replace(read_record(duplicate), step=9)
    with pytest.raises(Killed):
        write_until(directory, record, point, Killed())
    for _ in range(2):  # as the kill left it, and cleaned up
        assert tree(duplicate) == before
        done = point in ("renamed", "indexed")
        assert [path.name for path in list_checkpoints(directory)] == ["i7_l8", *(["i9_l8"] if done else [])]
        assert all_whole(directory)
        checkpoint.clean(directory)
    assert names(directory) == ["checkpoint", "i7_l8", *(["i9_l8"] if done else [])]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_while_replacing_a_checkpoint_leaves_a_whole_one(duplicate, point):
    directory, before, record = duplicate.parent, tree(duplicate), read_record(duplicate)
    checkpoint.write_index(directory)
    with pytest.raises(Killed):
        write_until(directory, record, point, Killed())
    done = point in ("renamed", "indexed")
    for _ in range(2):
        assert [path.name for path in list_checkpoints(directory)] == ["i7_l8"]
        assert (tree(duplicate) != before) == done
        assert all_whole(directory)
        checkpoint.clean(directory)
    assert names(directory) == ["checkpoint", "i7_l8"]
    write_until(directory, record, None, None)
    assert names(directory) == ["checkpoint", "i7_l8"]


def stop_between_the_renames(monkeypatch, error):
    rename = Path.rename

    def stopped(path, target):
        if path.name.endswith(".partial"):
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)


def test_a_run_killed_between_the_renames_gets_its_checkpoint_back(duplicate, monkeypatch):
    directory, before = duplicate.parent, tree(duplicate)
    stop_between_the_renames(monkeypatch, Killed())
    with pytest.raises(Killed):
        write_until(directory, read_record(duplicate), None, None)
    assert names(directory) == [".i7_l8.partial", ".i7_l8.replaced"]
    checkpoint.clean(directory)
    assert names(directory) == ["i7_l8"]
    assert tree(duplicate) == before


def test_a_failed_rename_leaves_the_checkpoint_that_was_being_replaced(duplicate, monkeypatch):
    directory, before = duplicate.parent, tree(duplicate)
    stop_between_the_renames(monkeypatch, OSError(13, "Permission denied"))
    with pytest.raises(CheckpointError, match="permission denied"):
        write_until(directory, read_record(duplicate), None, None)
    assert names(directory) == ["i7_l8"]
    assert tree(duplicate) == before


DISK_FULL = [OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "disk full")]


@pytest.mark.parametrize("error", DISK_FULL)
@pytest.mark.parametrize("point", POINTS[:4])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(duplicate, point, error):
    before = tree(duplicate.parent)
    record = dataclasses.replace(read_record(duplicate), step=9)
    with pytest.raises(CheckpointError, match=r"can't save '.*i9_l8': (no space left on device|disk full)\. Make room"):
        write_until(duplicate.parent, record, point, error)
    assert tree(duplicate.parent) == before
    assert names(duplicate.parent) == ["i7_l8"]


def test_clean_leaves_foreign_files(duplicate):
    directory = duplicate.parent
    for name in (".idea_local.old", ".i3_lines.d", "i3_l8.partial"):
        (directory / name).mkdir()
        (directory / name / "notes.txt").write_text("mine")
    (directory / ".i9_l8.removed").mkdir()
    (directory / ".i9_l8.removed" / "config.json").write_text("{}")
    checkpoint.clean(directory)
    assert names(directory) == [".i3_lines.d", ".idea_local.old", "i3_l8.partial", "i7_l8"]
