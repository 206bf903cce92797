"""A run's folder: what is written and read back, what is damaged, half written, pruned or not ours."""

import dataclasses
import hashlib
import json
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf import ModelConfig, TrainConfig, Vocabulary, build_model
from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs import checkpoint
from charrnn_tf.runs.directory import RunDirectory
from charrnn_tf.runs.find import find, iteration, latest_checkpoint, list_checkpoints, read_run
from charrnn_tf.runs.metrics import COLUMNS, MetricsFile, Row, read_rows
from charrnn_tf.runs.record import Record, read_record
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.corpus import Source, TextRecord
from charrnn_tf.training.state import RunState

FILES = ["SHA256SUMS", "config.json", "variables.data-00000-of-00001", "variables.index"]
GROUPS = ["weights", "state", "counters", "optimizer"]
POINTS = ["folder", "variables", "sums", "complete", "renamed", "indexed"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint that nothing changes; copy it to damage it."""
    return write_checkpoint(tmp_path_factory.mktemp("made"), step=7)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run" / made.name)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def state_of(record):
    return RunState(record.model, record.train)


def values(run):
    return {f"{group}/{name}": np.array(each) for group, part in run.variables().items() for name, each in part.items()}


def scrambled(record, seed=3):
    """A run's state in which every variable holds something of its own."""
    run, draw = state_of(record), np.random.default_rng(seed)
    for group in run.variables().values():
        for each in group.values():
            whole = np.issubdtype(each.dtype.as_numpy_dtype, np.integer)
            each.assign(draw.integers(1, 2**40, each.shape) if whole else draw.normal(size=each.shape))
    return run


# ---- what is written


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_layout_of_a_run_s_folder(trained, cell):
    directory = trained(cell)
    assert names(directory) == ["checkpoint", "i300_l16", "i600_l16", "metrics.csv"]
    for name in ("i300_l16", "i600_l16"):
        assert names(directory / name) == FILES


def test_the_folder_s_name_is_iteration_and_hidden_size(made):
    assert made.name == "i7_l8"


@pytest.mark.slow
def test_config_json_can_be_read_by_a_person(trained):
    text = (latest_checkpoint(trained("lstm")) / "config.json").read_text(encoding="utf-8")
    assert text.count("\n") > 40
    data = json.loads(text)
    assert data["format"] == 3
    assert data["model"] == {
        "vocab_size": len(set(TEXT)), "cell": "lstm", "hidden_size": 16, "num_layers": 2, "dropout": 0.1,
        "embedding_size": 0, "init": "wide",
    }  # fmt: skip
    assert set(data["train"]) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert data["train"]["max_steps"] == 600
    assert data["vocabulary"] == "".join(sorted(set(TEXT)))
    assert data["counters"]["step"] == 600
    assert data["counters"]["epoch"] == pytest.approx(600 / ((2700 - 1) // 32))
    assert data["counters"]["seconds"] > 0
    rows = read_rows(trained("lstm") / "metrics.csv")
    assert data["losses"] == {"train_loss": rows[-1].train_loss, "validation_loss": rows[-1].validation_loss}
    assert {"charrnn-tf", "tensorflow", "keras", "numpy", "python"} <= set(data["versions"])


def test_characters_stand_in_config_json_as_they_are(tmp_path):
    path = write_checkpoint(tmp_path, characters="\n\0é漢😀\ufeff")
    assert "é漢😀" in (path / "config.json").read_text(encoding="utf-8")
    assert read_record(path).vocabulary == Vocabulary("\n\0é漢😀\ufeff")


def test_sha256sums_holds_every_other_file(made):
    lines = (made / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)  # the form that sha256sum reads
    assert sorted(sums) == FILES[1:]
    for name, expected in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == expected


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


def test_the_record_comes_back_as_it_was_written(tmp_path):
    model = ModelConfig(3, cell="gru", hidden_size=5, num_layers=2, dropout=0.25, embedding_size=2, init="tf1")
    train = TrainConfig(
        batch_size=2, num_steps=3, max_steps=9, max_seconds=60, optimizer="rmsprop", schedule="step", sample_every="epoch",
        sample_prime=("a", ""), seed=2**63 - 1, precision="bfloat16", shards=2, xla=True, unknown="skip",
    )  # fmt: skip
    files = (Source("/a text.txt", "a" * 64, 1200), Source("/caf\udce9.txt", "b" * 64, 34))  # whose name is not UTF-8
    record = Record(
        model, train, Vocabulary("cab"), TextRecord(files, "f" * 64, 1234), step=12345, epoch=1 / 3,
        seconds=0.1, train_loss=None, validation_loss=2.0000000000000004, only_while_best=True, init_from="a/i1_l5",
        in_force={"processor": "a", "cores": 2},
    )  # fmt: skip
    path = checkpoint.write(tmp_path, record, RunState(model, train).variables())
    assert path.name == "i12345_l5"
    assert read_record(path) == record
    assert read_record(str(path)) == read_record(path)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_can_be_saved(tmp_path, loss):
    """A run that has diverged still ends with its row and its checkpoint, or with an error of ours."""
    try:
        path = write_checkpoint(tmp_path, train_loss=loss)
    except CheckpointError:
        assert names(tmp_path) == []
    else:
        assert read_record(path).step == 1


def test_what_utf_8_can_t_hold_is_written_all_the_same(tmp_path):
    path = write_checkpoint(
        tmp_path, characters="a\ud800"
    )  # half of a surrogate pair, as in names of files that are not UTF-8
    assert read_record(path).vocabulary.characters == "a\ud800"


# ---- restoring


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_everything_is_restored_bit_for_bit(tmp_path, cell, optimizer):
    record = read_record(write_checkpoint(tmp_path, cell=cell, num_layers=2))
    record = dataclasses.replace(record, train=dataclasses.replace(record.train, optimizer=optimizer))
    run, again = scrambled(record), state_of(record)
    path = checkpoint.write(tmp_path / "run", record, run.variables())
    checkpoint.restore(path, again.variables())
    before, after = values(run), values(again)
    assert list(before) == list(after)
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert value.tobytes() == after[name].tobytes(), name
    stored = [name for name, _ in tf.train.list_variables(str(path / "variables")) if not name.startswith("_")]
    assert len(stored) == len(before)  # and nothing is left over in the file


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


# ---- damage


def flip(file, byte, bit):
    data = bytearray(file.read_bytes())
    data[byte] ^= 1 << bit
    file.write_bytes(data)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_flipped_bit_is_found(copy, name):
    file, draw = copy / name, random.Random(name)
    size = file.stat().st_size
    for byte in (0, size - 1, *(draw.randrange(size) for _ in range(40))):
        bit = draw.randrange(8)
        flip(file, byte, bit)
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read_record(copy)
        flip(file, byte, bit)
    assert read_record(copy).step == 7


def test_a_flipped_bit_in_the_sums_is_found(copy):
    file = copy / "SHA256SUMS"
    ends = [place for place, byte in enumerate(file.read_bytes()) if byte == ord("\n")]
    for byte in range(file.stat().st_size):
        if byte in ends:
            continue  # another control character may end a line just as well: nothing that is checked has changed
        flip(file, byte, byte % 8)
        with pytest.raises(CheckpointError, match=re.escape(str(copy))):
            read_record(copy)
        flip(file, byte, byte % 8)
    assert read_record(copy).step == 7


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.98])
def test_a_truncated_file_is_found(copy, name, left):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(len(data) * left)])
    with pytest.raises(CheckpointError, match=re.escape(str(copy) if name == "SHA256SUMS" else name)):
        read_record(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_record(find("i7_l8", copy.parent))
    with pytest.raises(CheckpointError, match=re.escape(str(copy))):
        read_record(find(copy, copy.parent))


def test_best_says_which_checkpoint_is_damaged(copy, caplog):
    other = write_checkpoint(copy.parent, step=9, validation_loss=1.0)
    flip(copy / "variables.index", 5, 0)
    assert find("best", copy.parent) == other
    assert str(copy / "variables.index") in caplog.text


def test_a_file_without_a_sum_is_found(copy):
    lines = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    for left_out in range(3):
        (copy / "SHA256SUMS").write_text("".join(line for n, line in enumerate(lines) if n != left_out))
        with pytest.raises(CheckpointError, match=r"SHA256SUMS.* is incomplete"):
            read_record(copy)


def rewrite(path, change):
    """Change config.json and its sum with it, as someone would who edits it: only what it says is wrong then."""
    text = (path / "config.json").read_text(encoding="utf-8")
    if callable(change):
        data = json.loads(text)
        change(data)
        change = json.dumps(data)
    sums = (path / "SHA256SUMS").read_text()
    (path / "config.json").write_text(change, encoding="utf-8")
    before, after = (hashlib.sha256(each.encode()).hexdigest() for each in (text, change))
    assert before in sums
    (path / "SHA256SUMS").write_text(sums.replace(before, after))


def setting(group, name, value):
    def change(data):
        (data[group] if group else data)[name] = value

    return pytest.param(change, id=f"{group}.{name}={json.dumps(value)}" if group else f"{name}={json.dumps(value)}")


def without(group, name):
    return pytest.param(lambda data: (data[group] if group else data).pop(name), id=f"without {group}.{name}")


def test_another_format_is_refused_by_its_number(copy):
    rewrite(copy, lambda data: data.update(format=4))
    with pytest.raises(
        CheckpointError, match=r"config.json' has format 4, this version reads 3\. Install the one that wrote"
    ):
        read_record(copy)


@pytest.mark.parametrize("text", ["", "{", "not JSON", "null", "[]", "7", '"text"', "{}", '{"format": 3}'])
def test_a_config_that_is_no_record_is_refused(copy, text):
    rewrite(copy, text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_record(copy)


@pytest.mark.parametrize(
    "change",
    [
        *(setting("model", "hidden_size", value) for value in (0, -8, "8", 8.5, None, True, 10**30)),
        setting("model", "cell", "rnn"),
        setting("model", "dropout", 1.5),
        setting("model", "colour", "red"),
        without("model", "vocab_size"),
        *(setting("train", "batch_size", value) for value in (0, "2", None)),
        setting("train", "seed", -1),
        setting("train", "sample_prime", "The "),
        *(setting("", "vocabulary", value) for value in ("", "aab c", None, 5)),
        *(setting("", "vocabulary", value) for value in ("ab", "\n abcdef")),  # more or fewer than vocab_size
        *(setting("counters", "step", value) for value in ("7", None, -7, 7.5)),
        setting("counters", "epoch", "one"),
        setting("counters", "seconds", None),
        setting("counters", "colour", "red"),
        without("counters", "step"),
        setting("losses", "validation_loss", "low"),
        without("losses", "train_loss"),
        setting("", "text", {"sources": ["-"]}),
        setting("", "text", 5),
        without("", "only_while_best"),
    ],
)
def test_absurd_values_in_the_config_are_refused(copy, change):
    rewrite(copy, change)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_record(copy)


def test_a_config_that_does_not_fit_the_variables_is_refused(copy):
    rewrite(copy, lambda data: data["model"].update(hidden_size=9))
    with pytest.raises(CheckpointError, match=re.escape(str(copy))):
        checkpoint.load_model(copy)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} is not a checkpoint")):
            read_record(path)


# ---- finding


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
def test_names_of_checkpoints_are_told_from_others_and_come_in_order(tmp_path_factory, known, others):
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
        for step in range(2000):
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


def test_a_run_whose_listed_checkpoints_are_all_removed_is_read_anew(several, monkeypatch):
    listings = [[several / "i1_l8"], list_checkpoints(several)]
    monkeypatch.setattr("charrnn_tf.runs.record.list_checkpoints", lambda directory: listings.pop(0))
    assert [path.name for path in read_run(several)] == ["i100_l8", "i20_l8", "i10_l8", "i9_l8", "i2_l8"]
    assert not listings


@given(which=st.text(st.characters(exclude_categories=())))
def test_whatever_is_asked_for_is_found_or_refused_in_our_words(several, which):
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


def test_the_best_is_the_earliest_of_equal_ones_and_without_validation_the_latest(several, tmp_path):
    assert find("best", several).name == "i9_l8"
    for step in (3, 1, 2):
        write_checkpoint(tmp_path, step=step)
    assert find("best", tmp_path).name == "i3_l8"


def test_a_folder_named_latest_does_not_hide_the_latest(several, tmp_path, monkeypatch):
    shutil.copytree(several / "i2_l8", tmp_path / "latest")
    monkeypatch.chdir(tmp_path)
    assert find("latest", several) == several / "i100_l8"


@pytest.mark.parametrize("which", ["i300_l8", "notes", "i5_l8.txt", "", "\0", "x" * 300, "x" * 5000])
def test_what_is_not_there_is_told_with_what_is(several, which):
    with pytest.raises(CheckpointError) as error:
        find(which, several)
    assert str(error.value) == (
        f"no checkpoint {which!r} in {str(several)!r}; found: i2_l8, i9_l8, i10_l8, i20_l8, i100_l8."
    )


def test_of_many_checkpoints_the_newest_are_named(several, tmp_path):
    directory = shutil.copytree(several, tmp_path / "run")
    write_checkpoint(directory, step=101)
    with pytest.raises(CheckpointError, match="found: 1 older and i9_l8, i10_l8, i20_l8, i100_l8, i101_l8"):
        find("i1_l8", directory)


@pytest.mark.parametrize("which", ["latest", "best", "i1_l8"])
def test_without_checkpoints_the_error_says_how_to_make_one(tmp_path, which):
    with pytest.raises(CheckpointError, match=re.escape(f"no checkpoints in {str(tmp_path)!r}. Train one with: charrnn-tf")):
        find(which, tmp_path)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(CheckpointError, match=r"Its run has saved none yet: wait for one, or begin anew with --overwrite\."):
        find(which, tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoints in .*nowhere': no such file or directory\. Train one with"):
        find(which, tmp_path / "nowhere")


# ---- failures while writing


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


def write_until(directory, record, point, error):
    def reached(here):
        if here == point:
            raise error

    checkpoint.write(directory, record, scrambled(record).variables(), reached)


def all_whole(directory):
    """Every checkpoint that can be seen is whole, and TensorFlow's index leads to one of them."""
    for path in list_checkpoints(directory):
        checkpoint.restore(path, state_of(read_record(path)).variables())
    return Path(tf.train.latest_checkpoint(str(directory))).parent in list_checkpoints(directory)


def test_the_points_of_writing(tmp_path, made):
    points, record = [], read_record(made)
    checkpoint.write(tmp_path, record, state_of(record).variables(), points.append)
    assert points == POINTS


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_while_writing_leaves_whole_checkpoints(copy, point):
    directory, before = copy.parent, tree(copy)
    checkpoint.write_index(directory)
    record = dataclasses.replace(read_record(copy), step=9)
    with pytest.raises(Killed):
        write_until(directory, record, point, Killed())
    for _ in range(2):  # as it is found, and mended
        assert tree(copy) == before
        done = point in ("renamed", "indexed")
        assert [path.name for path in list_checkpoints(directory)] == ["i7_l8", *(["i9_l8"] if done else [])]
        assert all_whole(directory)
        checkpoint.clean(directory)
    assert names(directory) == ["checkpoint", "i7_l8", *(["i9_l8"] if done else [])]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_while_replacing_a_checkpoint_leaves_a_whole_one(copy, point):
    directory, before, record = copy.parent, tree(copy), read_record(copy)
    checkpoint.write_index(directory)
    with pytest.raises(Killed):
        write_until(directory, record, point, Killed())
    done = point in ("renamed", "indexed")
    for _ in range(2):
        assert [path.name for path in list_checkpoints(directory)] == ["i7_l8"]
        assert (tree(copy) != before) == done
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


def test_a_run_killed_between_the_renames_gets_its_checkpoint_back(copy, monkeypatch):
    directory, before = copy.parent, tree(copy)
    stop_between_the_renames(monkeypatch, Killed())
    with pytest.raises(Killed):
        write_until(directory, read_record(copy), None, None)
    assert names(directory) == [".i7_l8.partial", ".i7_l8.replaced"]
    checkpoint.clean(directory)
    assert names(directory) == ["i7_l8"]
    assert tree(copy) == before


def test_a_refused_rename_leaves_the_checkpoint_that_was_to_be_replaced(copy, monkeypatch):
    directory, before = copy.parent, tree(copy)
    stop_between_the_renames(monkeypatch, OSError(13, "Permission denied"))
    with pytest.raises(CheckpointError, match="permission denied"):
        write_until(directory, read_record(copy), None, None)
    assert names(directory) == ["i7_l8"]
    assert tree(copy) == before


DISK_FULL = [OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "disk full")]


@pytest.mark.parametrize("error", DISK_FULL)
@pytest.mark.parametrize("point", POINTS[:4])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(copy, point, error):
    before = tree(copy.parent)
    record = dataclasses.replace(read_record(copy), step=9)
    with pytest.raises(CheckpointError, match=r"can't save '.*i9_l8': (no space left on device|disk full)\. Make room"):
        write_until(copy.parent, record, point, error)
    assert tree(copy.parent) == before
    assert names(copy.parent) == ["i7_l8"]


def test_clean_leaves_what_is_not_ours(copy):
    directory = copy.parent
    for name in (".idea_local.old", ".i3_lines.d", "i3_l8.partial"):
        (directory / name).mkdir()
        (directory / name / "notes.txt").write_text("mine")
    (directory / ".i9_l8.removed").mkdir()
    (directory / ".i9_l8.removed" / "config.json").write_text("{}")
    checkpoint.clean(directory)
    assert names(directory) == [".i3_lines.d", ".idea_local.old", "i3_l8.partial", "i7_l8"]


# ---- the folder of a run


def opened(path, keep=2, **how):
    return RunDirectory(path, keep, **({"resume": False, "overwrite": False} | how))


@pytest.fixture
def save(made):
    """Saves a checkpoint of a step into a run's folder."""
    variables = state_of(read_record(made)).variables()

    def write(run, step, loss=None, only_while_best=False):
        record = dataclasses.replace(read_record(made), step=step, validation_loss=loss, only_while_best=only_while_best)
        path = run.save(record, variables)
        assert path == run.path / f"i{step}_l8"
        assert read_record(path).validation_loss == loss

    return write


def steps(run):
    """The steps of the checkpoints on the disk, which are those of TensorFlow's index too."""
    found = [record.step for record in map(read_record, list_checkpoints(run.path))]
    state = tf.train.get_checkpoint_state(str(run.path))
    assert list(state.all_model_checkpoint_paths) == [str(run.path / f"i{step}_l8" / "variables") for step in found]
    assert state.model_checkpoint_path == state.all_model_checkpoint_paths[-1]
    assert sorted(record.step for record in run.records.values()) == found
    assert [name for name in names(run.path) if re.match(r"\.(i\d|checkpoint|metrics)", name)] == []  # nothing half done
    return found


def test_the_newest_are_kept(tmp_path, save):
    run = opened(tmp_path / "new" / "run", keep=2)
    kept = []
    for step in (1, 2, 3, 12):
        save(run, step)
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [2, 3], [3, 12]]


def test_the_best_is_kept_besides(tmp_path, save):
    run = opened(tmp_path, keep=1)
    kept = []
    for step, loss in ((1, 2.0), (2, 3.0), (3, None), (4, 2.5), (5, 1.9), (6, 1.9), (7, None)):
        save(run, step, loss)
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [1, 3], [1, 4], [5], [5, 6], [5, 7]]
    assert run.best.validation_loss == 1.9
    assert find("best", tmp_path).name == "i5_l8"


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    run = opened(tmp_path, keep=1)
    for step, loss in ((1, float("nan")), (2, 2.0), (3, 1.5), (4, 3.0)):
        record = dataclasses.replace(read_record(write_checkpoint(tmp_path / "made")), step=step, validation_loss=loss)
        run.save(record, state_of(record).variables())
    assert run.best.validation_loss == 1.5
    assert steps(run) == [3, 4]


def test_what_was_saved_for_being_best_goes_once_it_is_beaten(tmp_path, save):
    run = opened(tmp_path, keep=2)
    kept = []
    for step, loss in ((1, None), (2, 3.0), (3, None), (4, 2.0), (5, 2.5), (6, None), (7, 1.0)):
        save(run, step, loss, only_while_best=step in (2, 4, 7))
        kept.append(steps(run))
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7]]  # two besides the best, each time


def test_the_latest_is_kept_even_if_it_was_saved_for_being_best_and_is_not(tmp_path, save):
    run = opened(tmp_path, keep=1)
    save(run, 1, 1.0)
    save(run, 2, 1.5, only_while_best=True)
    assert steps(run) == [1, 2]
    save(run, 3, None)
    assert steps(run) == [1, 3]


def test_the_same_step_once_more_takes_its_place(tmp_path, save):
    run = opened(tmp_path)
    save(run, 1)
    save(run, 1, 2.5)
    assert steps(run) == [1]
    assert run.best.validation_loss == 2.5


def test_a_resumed_run_knows_what_is_there(tmp_path, save):
    run = opened(tmp_path, keep=5)
    for step, loss in ((1, 1.5), (2, 3.0), (3, None), (4, 2.0)):
        save(run, step, loss)
    again = opened(tmp_path, keep=1, resume=True)
    assert again.best.validation_loss == 1.5
    assert again.records == {path: read_record(path) for path in list_checkpoints(tmp_path)}
    save(again, 5)
    assert steps(again) == [1, 5]


def test_a_new_folder_is_made_with_nothing_in_it(tmp_path):
    run = opened(tmp_path / "a" / "b")
    assert run.records == {}
    assert run.best is None
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("sign", ["metrics.csv", "checkpoint", "i7_l8"])
def test_a_second_run_into_a_folder_is_refused(copy, tmp_path, sign):
    folder = tmp_path / "other"
    folder.mkdir()
    if sign == "i7_l8":
        shutil.copytree(copy, folder / sign)
    else:
        (folder / sign).write_text("of another run")
    before = tree(folder)
    with pytest.raises(CheckpointError, match=r"other' holds a run already\. Use --resume .*--overwrite .*--checkpoint-dir"):
        opened(folder)
    assert tree(folder) == before


def test_overwrite_removes_what_a_run_writes_and_nothing_else(tmp_path, save):
    run = opened(tmp_path)
    for step in (1, 2):
        save(run, step)
    with run.open(0):
        pass
    mine = {"README.md": b"mine", "data/anna.txt": b"text", "i3_l8.txt": b"a file", ".idea_local.old/a": b"settings"}
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in (".i5_l8.partial", ".i4_l8.removed", ".i1_l8.replaced"):
        (tmp_path / name).mkdir()
    again = opened(tmp_path, overwrite=True)
    assert again.records == {}
    assert tree(tmp_path) == mine
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".idea_local.old"]
    save(again, 1)
    assert steps(again) == [1]


def test_a_folder_that_can_t_be_used_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=re.escape(f"can't use the folder {str(path)!r}")):
            opened(path)


def test_where_every_checkpoint_is_damaged_a_run_can_t_go_on(copy):
    flip(copy / "variables.index", 0, 0)
    with pytest.raises(CheckpointError, match="is damaged"):
        opened(copy.parent, resume=True)
    assert names(copy.parent) == ["i7_l8"]


# ---- metrics.csv

ROWS = [
    Row(10, 0.1, 1.25, 3.3333333333333335, None, 0.002, 12345.6),
    Row(20, 0.2, 2.5, 2.1, 2.0000000000000004, 5.478104412759421e-06, 0.0),
    Row(30, 0.3, 3.75, float("inf"), None, 1e-30, 9.5),
]


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, keep_to_step=0)
    for row in ROWS:
        file.append(row)
    file.close()
    return path


def test_rows_come_back_as_they_were_written(metrics):
    assert read_rows(metrics) == read_rows(str(metrics)) == ROWS
    lines = metrics.read_bytes().decode().split("\n")
    assert lines[0] == "step,epoch,seconds,train_loss,validation_loss,learning_rate,chars_per_second"
    assert lines[1] == "10,0.1,1.25,3.3333333333333335,,0.002,12345.6"
    assert lines[-1] == ""
    assert names(metrics.parent) == ["metrics.csv"]


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv", keep_to_step=0)
    for count, row in enumerate(ROWS, 1):
        file.append(row)
        assert read_rows(tmp_path / "metrics.csv") == ROWS[:count]
    file.to_disk()
    file.close()


@pytest.mark.parametrize(("step", "left"), [(0, 0), (9, 0), (10, 1), (25, 2), (30, 3), (99, 3)])
def test_rows_after_a_checkpoint_are_dropped_and_written_anew(metrics, step, left):
    file = MetricsFile(metrics, keep_to_step=step)
    assert read_rows(metrics) == ROWS[:left]
    file.append(ROWS[2])
    file.close()
    assert read_rows(metrics) == [*ROWS[:left], ROWS[2]]


def test_a_resumed_run_without_the_file_begins_one(tmp_path):
    MetricsFile(tmp_path / "metrics.csv", keep_to_step=20).close()
    assert read_rows(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "step,loss\n1,2\n", "\n", ",".join(COLUMNS) + "\nten,0,0,0,0,0,0\n", ",".join(COLUMNS) + "\n10,0.1\n",
        ",".join(COLUMNS) + "\n10,0.1,1,3,,0.002,1,1\n", ",".join(COLUMNS) + "\n\n", "\xff", '"' + "x" * 200_000,
    ],
    ids=["empty", "other columns", "blank", "no step", "too few", "too many", "blank row", "no header", "a huge cell"],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=re.escape(f"can't read {str(path)!r}: ")):
        read_rows(path)
    with pytest.raises(CheckpointError, match="can't read"):
        MetricsFile(path, keep_to_step=20)
    assert path.read_text(encoding="latin-1") == text


def test_a_row_cut_short_after_the_checkpoint_does_not_stop_a_resumed_run(metrics):
    data = metrics.read_bytes()
    for cut in range(1, len(data.splitlines(keepends=True)[-1])):  # the machine stopped while the last row was on its way
        metrics.write_bytes(data[:-cut])
        MetricsFile(metrics, keep_to_step=20).close()
        assert read_rows(metrics) == ROWS[:2]


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"can't read '.*metrics\.csv': no such file or directory"):
        read_rows(tmp_path / "metrics.csv")
    with pytest.raises(CheckpointError, match=r"can't write '.*metrics\.csv': no such file or directory"):
        MetricsFile(tmp_path / "nowhere" / "metrics.csv", keep_to_step=0)


def test_a_run_s_rows_are_those_of_its_folder(tmp_path, save):
    run = opened(tmp_path)
    with run.open(0) as file:
        for row in ROWS:
            file.append(row)
        save(run, 20)
    with opened(tmp_path, resume=True).open(20) as file:
        file.append(ROWS[2])
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
