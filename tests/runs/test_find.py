"""Listing the checkpoints of a folder, and finding one by name, path, `latest` or `best`."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import flip, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs.find import find, iteration, latest_checkpoint, list_checkpoints, read_run
from charrnn_tf.runs.record import read_record


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    directory = tmp_path_factory.mktemp("several")
    for step, loss in ((2, 3.0), (10, 1.5), (9, 1.5), (100, None), (20, 2.0)):  # the latest is not the best
        write_checkpoint(directory, step=step, validation_loss=loss)
    (directory / ".i999_l8.partial").mkdir()
    (directory / "i5_l8.txt").write_text("no checkpoint")
    (directory / "notes").mkdir()
    return directory


def test_checkpoints_are_listed_by_iteration(several):
    assert [path.name for path in list_checkpoints(several)] == ["i2_l8", "i9_l8", "i10_l8", "i20_l8", "i100_l8"]
    assert list_checkpoints(str(several)) == list_checkpoints(several)


@given(
    known=st.lists(st.tuples(st.integers(0, 10**18), st.integers(1, 10**9)), unique_by=lambda name: name[0], max_size=6),
    others=st.lists(st.from_regex(r"\.?i[0-9]{0,3}_?l?[0-9]{0,3}(\.[a-z]{1,8})?", fullmatch=True), max_size=6),
)
def test_only_names_of_checkpoints_are_listed_in_order(tmp_path_factory, known, others):
    directory = tmp_path_factory.mktemp("names")
    names = {f"i{step}_l{hidden}" for step, hidden in known}
    for name in {*names, *others} - {""}:
        (directory / name).mkdir()
    found = list_checkpoints(directory)
    whole = [path.name for path in found if not path.name.startswith(".")]
    assert set(whole) == names | {name for name in others if re.fullmatch(r"i[0-9]+_l[0-9]+", name)}
    assert [iteration(path) for path in found] == sorted(iteration(path) for path in found)
    assert all(path.name.endswith(".replaced") for path in found if path.name not in whole)


def test_a_run_that_replaces_its_only_checkpoint_is_never_seen_without_one(tmp_path):
    (tmp_path / "i0_l8").mkdir()

    def replace():
        for step in range(600):
            (tmp_path / "next").mkdir()
            (tmp_path / "next").rename(tmp_path / f"i{step + 1}_l8")
            (tmp_path / f"i{step}_l8").rmdir()

    seen = []
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace)
        while not writer.done():
            seen.append(list_checkpoints(tmp_path))
    writer.result()
    assert len(seen) > 10
    assert all(seen)


def test_a_run_is_listed_again_if_all_listed_checkpoints_were_removed(several, monkeypatch):
    listings = [[several / "i1_l8"], list_checkpoints(several)]
    monkeypatch.setattr("charrnn_tf.runs.find.list_checkpoints", lambda directory: listings.pop(0))
    assert [path.name for path in read_run(several)] == ["i100_l8", "i20_l8", "i10_l8", "i9_l8", "i2_l8"]
    assert not listings


@given(which=st.text(st.characters(exclude_categories=())))
def test_any_string_is_found_or_refused_with_a_checkpoint_error(several, which):
    told = ""
    try:
        assert read_record(find(which, several))
    except CheckpointError as error:
        told = str(error)
    assert not told or told.startswith(f"no checkpoint {which!r} in")


@pytest.mark.parametrize(("which", "name"), [("latest", "i100_l8"), ("best", "i9_l8"), ("i10_l8", "i10_l8")])
def test_checkpoints_are_found_in_their_folder(several, which, name):
    assert find(which, several) == several / name
    assert find(which, str(several)) == several / name


def test_checkpoints_are_found_by_their_path(several, tmp_path, monkeypatch):
    path = several / "i10_l8"
    assert find(path, tmp_path / "nowhere") == find(str(path), tmp_path) == path
    assert find(path / "variables", tmp_path) == path
    assert find(tf.train.latest_checkpoint(str(several)), tmp_path) == several / "i100_l8"
    monkeypatch.chdir(several)
    assert read_record(find("i10_l8", tmp_path)).step == 10
    assert latest_checkpoint(".") == Path("i100_l8")
    monkeypatch.chdir(several.parent)
    shutil.copytree(several, tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    assert latest_checkpoint() == Path("checkpoints/i100_l8")


def test_best_is_the_earliest_of_equal_ones_and_without_validation_the_latest(several, tmp_path):
    assert find("best", several).name == "i9_l8"
    for step in (3, 1, 2):
        write_checkpoint(tmp_path, step=step)
    assert find("best", tmp_path).name == "i3_l8"


def test_a_folder_named_latest_does_not_hide_the_latest(several, tmp_path, monkeypatch):
    shutil.copytree(several / "i2_l8", tmp_path / "latest")
    monkeypatch.chdir(tmp_path)
    assert find("latest", several) == several / "i100_l8"


@pytest.mark.parametrize("which", ["i300_l8", "notes", "i5_l8.txt", "", "\0", "x" * 300, "x" * 5000])
def test_the_error_for_a_missing_checkpoint_lists_the_others(several, which):
    with pytest.raises(CheckpointError) as error:
        find(which, several)
    assert str(error.value) == (
        f"no checkpoint {which!r} in {str(several)!r}; found: latest, best, i2_l8, i9_l8, i10_l8, i20_l8, i100_l8."
    )


def test_of_many_checkpoints_the_error_lists_the_newest(several, tmp_path):
    directory = shutil.copytree(several, tmp_path / "run")
    write_checkpoint(directory, step=101)
    with pytest.raises(CheckpointError, match="found: latest, best, 1 older and i9_l8, i10_l8, i20_l8, i100_l8, i101_l8"):
        find("i1_l8", directory)


@pytest.mark.parametrize("which", ["latest", "best", "i1_l8"])
def test_without_checkpoints_the_error_says_how_to_make_one(tmp_path, which):
    with pytest.raises(CheckpointError, match=re.escape(f"no checkpoints in {str(tmp_path)!r}. Train one with: charrnn-tf")):
        find(which, tmp_path)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(
        CheckpointError,
        match=r"Its run has saved none\. If it is still training, wait for one; otherwise start again with `overwrite`\.",
    ):
        find(which, tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoints in .*nowhere': no such file or directory\. Train one with"):
        find(which, tmp_path / "nowhere")


def test_best_skips_a_damaged_checkpoint_and_names_it(duplicate, caplog):
    other = write_checkpoint(duplicate.parent, step=9, validation_loss=1.0)
    flip(duplicate / "variables.index", 5, 0)
    assert find("best", duplicate.parent) == other
    assert str(duplicate / "variables.index") in caplog.text
