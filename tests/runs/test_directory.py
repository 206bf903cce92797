"""The folder of a run: the checkpoints that it keeps, its metrics.csv, its lock."""

import dataclasses
import errno
import math
import os
import re
import shutil
import stat

import pytest
import tensorflow as tf
from conftest import flip, names, tree

from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.directory import ReadOnlyDirectory, RunDirectory
from charrnn_tf.runs.find import find, list_checkpoints
from charrnn_tf.runs.metrics import MetricsFile, Row, read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.training.state import RunState

ROWS = [Row(step, step / 100, step / 8, 2.5, None, 0.002, 9.5) for step in (10, 20, 30)]


def opened(path, keep=2, **how):
    return RunDirectory(path, keep, **how)


@pytest.fixture(scope="module")
def saved_record(made):
    """A checkpoint's record, and variables that fit it."""
    saved = read_record(made)
    return saved, RunState(saved.model, saved.train).variables()


@pytest.fixture(scope="module")
def save(saved_record):
    """A function that saves a checkpoint of a step into a run's folder."""
    saved, variables = saved_record

    def write(run, step, loss=None, only_while_best=False):
        record = dataclasses.replace(saved, step=step, validation_loss=loss, only_while_best=only_while_best)
        path = run.save(record, variables)
        assert path == run.path / f"i{step}_l8"
        assert read_record(path).validation_loss == (None if loss is None or math.isnan(loss) else loss)

    return write


def steps(run):
    """The steps of the checkpoints on disk, after a check that TensorFlow's index and `records` have the same."""
    found = [record.step for record in map(read_record, list_checkpoints(run.path))]
    state = tf.train.get_checkpoint_state(str(run.path))
    assert list(state.all_model_checkpoint_paths) == [str(run.path / f"i{step}_l8" / "variables") for step in found]
    assert state.model_checkpoint_path == state.all_model_checkpoint_paths[-1]
    assert sorted(record.step for record in run.records.values()) == found
    assert [name for name in names(run.path) if re.match(r"\.(i\d|checkpoint|metrics)", name)] == []  # no temporary names
    return found


def test_the_newest_are_kept(tmp_path, save):
    run = opened(tmp_path / "new" / "run", keep=2)
    kept = []
    for step in (1, 2, 3, 12):
        save(run, step)
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [2, 3], [3, 12]]


def test_the_best_is_kept_too(tmp_path, save):
    run = opened(tmp_path, keep=1)
    kept = []
    for step, loss in ((1, 2.0), (2, 3.0), (3, None), (4, 2.5), (5, 1.9), (6, 1.9), (7, None)):
        save(run, step, loss)
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [1, 3], [1, 4], [5], [5, 6], [5, 7]]
    assert run.best.validation_loss == 1.9
    assert find("best", tmp_path).name == "i5_l8"


def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path, save):
    run = opened(tmp_path, keep=1)
    for step, loss in ((1, float("nan")), (2, 2.0), (3, 1.5), (4, 3.0)):
        save(run, step, loss)
    assert run.best.validation_loss == 1.5
    assert steps(run) == [3, 4]


def test_a_checkpoint_saved_only_as_best_is_removed_once_another_is_better(tmp_path, save):
    run = opened(tmp_path, keep=2)
    kept = []
    for step, loss in ((1, None), (2, 3.0), (3, None), (4, 2.0), (5, 2.5), (6, None), (7, 1.0)):
        save(run, step, loss, only_while_best=step in (2, 4, 7))
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7]]  # two besides the best, each time


def test_the_latest_is_kept_even_if_it_was_saved_only_as_best_and_no_longer_is(tmp_path, save):
    run = opened(tmp_path, keep=1)
    save(run, 1, 1.0)
    save(run, 2, 1.5, only_while_best=True)
    assert steps(run) == [1, 2]
    save(run, 3, None)
    assert steps(run) == [1, 3]


def test_a_second_save_of_a_step_replaces_the_first(tmp_path, save):
    run = opened(tmp_path)
    save(run, 1)
    save(run, 1, 2.5)
    assert steps(run) == [1]
    assert run.best.validation_loss == 2.5


def test_a_resumed_run_has_the_records_of_its_folder(tmp_path, save):
    run = opened(tmp_path, keep=5)
    for step, loss in ((1, 1.5), (2, 3.0), (3, None), (4, 2.0)):
        save(run, step, loss)
    again = opened(tmp_path, keep=1, resume=True)
    assert again.best.validation_loss == 1.5
    assert again.records == {path: read_record(path) for path in list_checkpoints(tmp_path)}
    save(again, 5)
    assert steps(again) == [1, 5]


def test_a_new_folder_is_created_empty(tmp_path):
    run = opened(tmp_path / "a" / "b")
    assert run.records == {}
    assert run.best is None
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("sign", ["metrics.csv", "checkpoint", "i7_l8"])
def test_a_second_run_into_a_folder_is_refused(duplicate, tmp_path, sign):
    folder = tmp_path / "other"
    folder.mkdir()
    if sign == "i7_l8":
        shutil.copytree(duplicate, folder / sign)
    else:
        (folder / sign).write_text("of another run")
    before = tree(folder)
    way = (
        r"a run that has saved nothing\. Use `overwrite`" if sign == "metrics.csv" else r"a run\. Use `resume` .*`overwrite`"
    )
    with pytest.raises(CheckpointError, match=rf"other' already holds {way} .*`checkpoint_dir`"):
        opened(folder)
    assert tree(folder) == before


def test_overwrite_removes_only_what_a_run_writes_and_only_once_the_new_run_has_saved(tmp_path, save):
    run = opened(tmp_path)
    with run.open(0):
        run.append(ROWS[0])
        for step in (1, 2):
            save(run, step)
    old = tree(tmp_path)
    mine = {"README.md": b"mine", "data/anna.txt": b"text", "i3_l8.txt": b"a file", ".idea_local.old/a": b"settings"}
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in (".i5_l8.partial", ".i4_l8.removed", ".i1_l8.replaced"):
        (tmp_path / name).mkdir()
    again = opened(tmp_path, overwrite=True)
    assert (again.records, again.rows, tree(tmp_path)) == ({}, [], {**mine, **old})
    with again.open(0):
        again.append(ROWS[1])
        assert (again.rows, tree(tmp_path)) == (ROWS[1:2], {**mine, **old, ".lock": b""})
        save(again, 1)
        assert steps(again) == [1]
        again.append(ROWS[2])
        assert read_rows(tmp_path / "metrics.csv") == again.rows == ROWS[1:]
    written = {name: data for name, data in tree(tmp_path).items() if name not in old}
    assert written == mine
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".idea_local.old"]


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_stays_where_the_one_that_is_to_replace_it_cannot_save(tmp_path, save, monkeypatch, step):
    run = opened(tmp_path)
    save(run, 2)
    before = tree(tmp_path)
    again = opened(tmp_path, overwrite=True)
    monkeypatch.setattr(checkpoint, "to_json", full)
    with again.open(0), pytest.raises(CheckpointError, match="can't save"):
        save(again, step)
    assert tree(tmp_path) == before


def full(record):
    raise OSError(28, "No space left on device")


def test_a_folder_that_can_t_be_used_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=re.escape(f"can't use the folder {str(path)!r}")):
            opened(path)


def test_a_run_whose_checkpoints_are_all_damaged_can_t_resume(duplicate):
    flip(duplicate / "variables.index")
    with pytest.raises(CheckpointError, match="is damaged"):
        opened(duplicate.parent, resume=True)
    assert names(duplicate.parent) == ["i7_l8"]


def test_a_second_run_is_refused_while_the_first_is_open(tmp_path, save):
    run = opened(tmp_path)
    with run.open(0):
        save(run, 1)
        for how in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(
                CheckpointError, match=r"another run is writing to '.*'\. Wait for it, stop it, or use another"
            ):
                opened(tmp_path, **how)
    assert steps(opened(tmp_path, resume=True)) == [1]


def test_a_run_is_refused_if_another_has_written_since_it_was_prepared(tmp_path, save):
    first, second = opened(tmp_path), opened(tmp_path, overwrite=True)
    with second.open(0):
        save(second, 1)
    with pytest.raises(CheckpointError, match=r"another run has written to '.*' meanwhile\. Start again\."), first.open(0):
        pass


@pytest.mark.parametrize("lock_too", [False, True])
def test_a_folder_that_is_emptied_or_removed_during_a_run_is_created_again(tmp_path, save, caplog, lock_too):
    run = opened(tmp_path / "run", keep=9)
    with run.open(0):
        run.append(ROWS[0])
        save(run, 10)
        for path in run.path.glob("*" if lock_too else "[!.]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if lock_too:
            run.path.rmdir()
        run.append(ROWS[1])
        save(run, 20)
        assert "was removed or emptied during the run; it is created again" in caplog.text
        with pytest.raises(CheckpointError, match="another run is writing to"):
            opened(run.path, resume=True)
    assert steps(run) == [20]
    assert read_rows(run.path / "metrics.csv") == ROWS[:2]


def test_a_worker_that_is_not_the_chief_writes_nothing(duplicate):
    before = tree(duplicate.parent)
    folder = ReadOnlyDirectory(duplicate.parent, resume=True)
    assert (folder.latest, folder.records[duplicate].step) == (duplicate, 7)
    with folder.open(7):
        folder.append(ROWS[0])
    assert tree(duplicate.parent) == before
    new = ReadOnlyDirectory(duplicate.parent / "none", resume=False)
    assert (new.records, new.path.exists()) == ({}, False)
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        ReadOnlyDirectory(duplicate.parent / "none", resume=True)


# metrics.csv


def test_a_resumed_run_continues_its_metrics(tmp_path, save):
    run = opened(tmp_path)
    with run.open(0):
        for row in ROWS:
            run.append(row)
        save(run, 20)
    again = opened(tmp_path, resume=True)
    with again.open(20):
        again.append(ROWS[2])
    assert read_rows(tmp_path / "metrics.csv") == ROWS


def test_rows_are_on_the_disk_before_their_checkpoint(tmp_path, save, monkeypatch):
    order = []
    to_disk, write = MetricsFile.to_disk, checkpoint.write
    monkeypatch.setattr(MetricsFile, "to_disk", lambda file: (order.append("rows"), to_disk(file)))
    monkeypatch.setattr(checkpoint, "write", lambda *arguments: (order.append("checkpoint"), write(*arguments))[1])
    run = opened(tmp_path)
    with run.open(0):
        save(run, 1)
    save(run, 2)  # outside a run's rows there is nothing to wait for
    assert order == ["rows", "checkpoint", "checkpoint"]


# A save is proved before it is needed


def test_a_save_that_would_fail_fails_before_it_is_needed_and_leaves_nothing(tmp_path, save, saved_record, monkeypatch):
    record, variables = saved_record
    run = opened(tmp_path / "run")
    run.prove(record, variables)
    assert names(tmp_path / "run") == []
    monkeypatch.setattr(checkpoint, "to_json", full)
    with pytest.raises(CheckpointError, match="no space left"):
        run.prove(record, variables)
    assert names(tmp_path / "run") == []


def test_a_save_that_reads_back_as_something_else_fails(tmp_path, saved_record, monkeypatch):
    record, variables = saved_record
    run = opened(tmp_path / "run")
    changed = dataclasses.replace(record, step=record.step + 1)
    monkeypatch.setattr(checkpoint, "read_record", lambda path: changed)
    with pytest.raises(CheckpointError, match="reads differently from what was written"):
        run.prove(record, variables)


def test_a_save_that_lacks_a_variable_fails(tmp_path, saved_record, monkeypatch):
    record, variables = saved_record
    run = opened(tmp_path / "run")
    less = {group: dict(list(named.items())[1:]) for group, named in variables.items()}
    written = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda directory, record, variables: written(directory, record, less))
    with pytest.raises(CheckpointError, match="does not fit its own record"):
        run.prove(record, variables)


def test_a_save_is_proved_again_only_after_a_change_of_versions(tmp_path, save, saved_record, monkeypatch):
    record, variables = saved_record
    run = opened(tmp_path)
    save(run, 1)
    proved = []
    monkeypatch.setattr(checkpoint, "prove", lambda *arguments: proved.append(arguments))
    run.prove(record, variables)
    assert proved == []
    monkeypatch.setattr("charrnn_tf.runs.directory.read_versions", lambda path: {"tensorflow": "2.21.0"})
    run.prove(record, variables)
    assert len(proved) == 1


# File systems that refuse what others allow


@pytest.mark.parametrize("code", ["EINVAL", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES"])
def test_a_folder_that_can_t_be_flushed_is_written_all_the_same(tmp_path, save, monkeypatch, code):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    run = opened(tmp_path)
    save(run, 1)
    assert steps(run) == [1]


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"])
def test_a_folder_without_locks_is_used_with_a_warning(tmp_path, save, monkeypatch, caplog, code):
    def refuse(descriptor, operation):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr("fcntl.flock", refuse)
    run = opened(tmp_path)
    with run.open(0):
        save(run, 1)
    assert steps(run) == [1]
    assert f"the file system of '{tmp_path}' has no locks: don't start a second run in this folder." in caplog.text


def test_a_run_that_was_stopped_before_its_first_step_does_not_block_its_folder(tmp_path, save):
    with opened(tmp_path).open(0):
        pass
    assert read_rows(tmp_path / "metrics.csv") == []
    again = opened(tmp_path)
    with again.open(0):
        again.append(ROWS[0])
    with pytest.raises(CheckpointError, match="already holds a run"):
        opened(tmp_path)
