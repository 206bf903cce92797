"""config.json and SHA256SUMS: what they hold, and every way in which they can be damaged."""

import dataclasses
import hashlib
import json
import random
import re
import time

import pytest
from conftest import CHECKPOINT_FILES, TEXT, flip, rewrite, write_checkpoint

from charrnn_tf import ModelConfig, TrainConfig, Vocabulary
from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs import checkpoint, record
from charrnn_tf.runs.find import find, latest_checkpoint
from charrnn_tf.runs.metrics import read_rows
from charrnn_tf.runs.record import Record, read_record
from charrnn_tf.text.corpus import Source, TextRecord
from charrnn_tf.training.state import RunState


def test_config_json_can_be_read_by_a_person(trained):
    text = (latest_checkpoint(trained("lstm")) / "config.json").read_text(encoding="utf-8")
    assert text.count("\n") > 40
    data = json.loads(text)
    assert data["format"] == 3
    assert data["model"] == {
        "vocab_size": len(set(TEXT)), "cell": "lstm", "hidden_size": 16, "num_layers": 2, "dropout": 0.1,
        "embedding_size": 0, "init": "default",
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


def test_config_json_holds_characters_unescaped(tmp_path):
    path = write_checkpoint(tmp_path, characters="\n\0é漢😀\ufeff")
    assert "é漢😀" in (path / "config.json").read_text(encoding="utf-8")
    assert read_record(path).vocabulary == Vocabulary("\n\0é漢😀\ufeff")


def test_sha256sums_lists_every_other_file(made):
    lines = (made / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)  # the form that sha256sum reads
    assert sorted(sums) == CHECKPOINT_FILES[1:]
    for name, expected in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == expected


def test_the_record_comes_back_as_it_was_written(tmp_path):
    model = ModelConfig(3, cell="gru", hidden_size=5, num_layers=2, dropout=0.25, embedding_size=2, init="tf1")
    train = TrainConfig(
        batch_size=2, num_steps=3, max_steps=9, max_seconds=60, optimizer="rmsprop", schedule="step", sample_every="epoch",
        sample_prime=("a", ""), seed=2**63 - 1, precision="bfloat16", shards=2, xla=True, unknown="skip",
    )  # fmt: skip
    files = (Source("/a text.txt", "a" * 64, 1200), Source("/caf\udce9.txt", "b" * 64, 34))  # whose name is not UTF-8
    saved = Record(
        model, train, Vocabulary("cab"), TextRecord(files, "f" * 64, 1234), step=12345, epoch=1 / 3,
        seconds=0.1, train_loss=None, validation_loss=2.0000000000000004, only_while_best=True, init_from="a/i1_l5",
        in_force={"processor": "a", "cores": 2},
    )  # fmt: skip
    path = checkpoint.write(tmp_path, saved, RunState(model, train).variables())
    assert path.name == "i12345_l5"
    assert read_record(path) == saved
    assert read_record(str(path)) == read_record(path)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_saved_as_none(tmp_path, loss):
    path = write_checkpoint(tmp_path, train_loss=loss)  # a run that has diverged still ends with row and checkpoint
    assert read_record(path).train_loss is None


def test_characters_that_utf_8_can_t_encode_are_saved(tmp_path):
    path = write_checkpoint(tmp_path, characters="a\ud800")  # half of a surrogate pair, as in file names of other encodings
    assert read_record(path).vocabulary.characters == "a\ud800"


def test_files_are_hashed_once_while_they_do_not_change(duplicate, monkeypatch):
    now, hashed, sha256 = time.time(), [], record.sha256
    monkeypatch.setattr(record.time, "time", lambda: now + 60)  # recent file times would not be relied on
    monkeypatch.setattr(record, "sha256", lambda file: (hashed.append(file.name), sha256(file))[1])
    for _ in range(2):
        assert read_record(duplicate).step == 7
        assert hashed == CHECKPOINT_FILES[1:]
    time.sleep(0.05)  # longer than the resolution of file times
    flip(duplicate / "variables.index")
    with pytest.raises(CheckpointError, match="damaged"):
        read_record(duplicate)


def test_recent_file_times_are_not_relied_on(duplicate, monkeypatch):
    hashed, sha256 = [], record.sha256
    monkeypatch.setattr(record, "sha256", lambda file: (hashed.append(file.name), sha256(file))[1])
    monkeypatch.setattr(record.time, "time", lambda: (duplicate / "config.json").stat().st_ctime)
    for times in (1, 2):
        assert read_record(duplicate).step == 7
        assert hashed == CHECKPOINT_FILES[1:] * times


# Damage


@pytest.mark.parametrize("name", CHECKPOINT_FILES[1:])
def test_a_flipped_bit_is_found(duplicate, name):
    file, draw = duplicate / name, random.Random(name)
    size = file.stat().st_size
    for byte in (0, size - 1, *(draw.randrange(size) for _ in range(40))):
        bit = draw.randrange(8)
        flip(file, byte, bit)
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read_record(duplicate)
        flip(file, byte, bit)
    assert read_record(duplicate).step == 7


def test_a_flipped_bit_in_the_sums_is_found(duplicate):
    file = duplicate / "SHA256SUMS"
    ends = [place for place, byte in enumerate(file.read_bytes()) if byte == ord("\n")]
    for byte in range(file.stat().st_size):
        if byte in ends:
            continue  # other control characters end a line as well, so the sums still hold
        flip(file, byte, byte % 8)
        with pytest.raises(CheckpointError, match=re.escape(str(duplicate))):
            read_record(duplicate)
        flip(file, byte, byte % 8)
    assert read_record(duplicate).step == 7


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.98])
def test_a_truncated_file_is_found(duplicate, name, left):
    data = (duplicate / name).read_bytes()
    (duplicate / name).write_bytes(data[: int(len(data) * left)])
    with pytest.raises(CheckpointError, match=re.escape(str(duplicate) if name == "SHA256SUMS" else name)):
        read_record(duplicate)


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_missing_file_is_found(duplicate, name):
    (duplicate / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_record(find("i7_l8", duplicate.parent))
    with pytest.raises(CheckpointError, match=re.escape(str(duplicate))):
        read_record(find(duplicate, duplicate.parent))


def test_a_file_without_a_sum_is_found(duplicate):
    lines = (duplicate / "SHA256SUMS").read_text().splitlines(keepends=True)
    for left_out in range(3):
        (duplicate / "SHA256SUMS").write_text("".join(line for n, line in enumerate(lines) if n != left_out))
        with pytest.raises(CheckpointError, match=r"SHA256SUMS.* is incomplete"):
            read_record(duplicate)


def setting(group, name, value):
    def change(data):
        (data[group] if group else data)[name] = value

    return pytest.param(change, id=f"{group}.{name}={json.dumps(value)}" if group else f"{name}={json.dumps(value)}")


def without(group, name):
    return pytest.param(lambda data: (data[group] if group else data).pop(name), id=f"without {group}.{name}")


def test_another_format_is_refused(duplicate):
    rewrite(duplicate, lambda data: data.update(format=4))
    told = r"config.json' has format 4, this version reads 3\. Install the version that wrote it\."
    with pytest.raises(CheckpointError, match=told):
        read_record(duplicate)


@pytest.mark.parametrize("text", ["", "{", "not JSON", "null", "[]", "7", '"text"', "{}", '{"format": 3}'])
def test_a_config_that_is_not_a_record_is_refused(duplicate, text):
    rewrite(duplicate, text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_record(duplicate)


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
        setting("train", "sample_prime", [5]),
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
def test_absurd_values_in_the_config_are_refused(duplicate, change):
    rewrite(duplicate, change)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_record(duplicate)


def test_a_path_that_is_not_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} is not a checkpoint")):
            read_record(path)


@pytest.mark.parametrize(("then", "now", "kept"), [(0, 0, True), (2, 1, True), (1, 0, False), (0, 1, False)])
def test_shards_are_decided_again_where_a_run_moves_between_cpu_and_gpu(made, then, now, kept):
    saved = read_record(made)
    saved = dataclasses.replace(saved, in_force={"gpus": then}, train=dataclasses.replace(saved.train, shards=2, xla=True))
    train = saved.train_on(now)
    assert (train.shards, train.xla) == ((2, True) if kept else (None, None))
    assert dataclasses.replace(train, shards=2, xla=True) == saved.train
