"""`charrnn-tf import`: which files it takes, where characters come from, and what imported checkpoints can be used for."""

import gzip
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commandline import call, refuse, succeed
from models import CHARACTERS, VOCABULARY, Evil, keras_model

from charrnn_tf import evaluate
from charrnn_tf.errors import ConfigError
from charrnn_tf.formats.detection import kind_of
from charrnn_tf.formats.importing import read_vocabulary
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint, list_checkpoints

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "i30_l10.keras"
    keras_model().save(path)
    return path


@pytest.fixture
def keras_file(saved, tmp_path, monkeypatch):
    """A Keras file in a folder with a text and a vocabulary file."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(saved, ".")
    Path("text.txt").write_text(CHARACTERS * 40, encoding="utf-8")
    Path("vocabulary.json").write_text(json.dumps({"characters": list(CHARACTERS)}), encoding="utf-8")
    return saved.name


@pytest.mark.slow
def test_an_imported_model_samples_evaluates_exports_and_trains_on(keras_file):
    assert succeed("import", keras_file, "--text", "text.txt", "--checkpoint-dir", "old") == "old/i30_l10\n"
    assert succeed("import", keras_file, "--vocabulary-file", "vocabulary.json", "--checkpoint-dir", "b") == "b/i30_l10\n"
    (by_text, first), (by_file, second) = (load_model(latest_checkpoint(run)) for run in ("old", "b"))
    assert first.vocabulary == second.vocabulary == VOCABULARY
    for a, b in zip(by_text.get_weights(), by_file.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    sampled = succeed("sample", "--checkpoint-dir", "old", "--length", 30, "--seed", 1, "--prime", "abc")
    assert len(sampled) == 34
    scored = json.loads(succeed("evaluate", "text.txt", "--checkpoint-dir", "old", "--json"))
    expected = evaluate(latest_checkpoint("old"), CHARACTERS * 40).nats_per_character
    assert scored["nats_per_character"] == pytest.approx(expected)
    succeed("export", "--checkpoint-dir", "old", "-o", "saved")
    succeed("report", "--checkpoint-dir", "old", "--text", "text.txt", "--limit-chars", 50, "-o", "r.html")
    assert "another tool" in Path("r.html").read_text(encoding="utf-8")
    assert "was imported" in refuse("train", "--resume", "--max-steps", 50, "--checkpoint-dir", "old")
    succeed(
        "train", "text.txt", "--init-from", "old", "--checkpoint-dir", "new", "--max-steps", 200, "--batch-size", 2,
        "--num-steps", 8, "--learning-rate", 0.02, "--warmup-steps", 0, "--quiet",
    )  # fmt: skip
    after = json.loads(succeed("evaluate", "text.txt", "--checkpoint-dir", "new", "--json"))
    assert after["nats_per_character"] < expected - 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the file contains no characters. Pass the --text it was trained on, or a --vocabulary-file."),
        (("--text", "missing.txt"), "can't read 'missing.txt'"),
        (("--vocabulary-file", "text.txt"), """is not a vocabulary file such as ["a", "b"]. A text goes to --text"""),
        (("--vocabulary-file", "number.json"), "not all of the vocabulary's entries are single characters"),
        (("--text", "short.txt"), "the model has 13 characters, the vocabulary 2"),
    ],
)
def test_a_missing_vocabulary_is_an_error(keras_file, arguments, message):
    Path("number.json").write_text("[1, 2]", encoding="utf-8")
    Path("short.txt").write_text("abab", encoding="utf-8")
    assert message in refuse("import", keras_file, *arguments)


@pytest.mark.parametrize(
    "content",
    [
        '{"characters": ["ab"]}',
        '{"characters": [1]}',
        '{"characters": ["a", "a"]}',
        "{}",
        "[",
        "[]",
        '["a", "a"]',
        "3",
        '{"a": 1, "b": 2}',
        '{"a": 0, "b": 0}',
        '{"a": null}',
        '{"a": [0]}',
    ],
)
def test_a_vocabulary_file_without_distinct_single_characters_is_an_error(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json' is not a vocabulary file such as"):
        read_vocabulary(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content", ['{"characters": ["b", "a"]}', '["b", "a"]', '"ba"', '{"b": 0, "a": 1}', '{"1": "a", "0": "b"}']
)
def test_a_vocabulary_file_lists_characters_by_id(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read_vocabulary(tmp_path / "a.json").characters == "ba"


@pytest.mark.parametrize(
    "name",
    [
        "text.txt", "missing.net", "missing.keras", "missing.ckpt", "a.zip", "a.pickle", "a.net", "a.keras", "pipe.net",
        "empty.weights.h5",
    ],
)  # fmt: skip
def test_another_kind_of_file_is_an_error_and_nothing_in_it_is_executed(keras_file, name):
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a", "b")
    Path("a.pickle").write_bytes(pickle.dumps(Evil()))
    Path("a.net").write_bytes(pickle.dumps(Evil()))
    Path("a.keras").write_bytes(b"PK" * 40)
    Path("empty.weights.h5").write_bytes(b"")
    if name == "pipe.net":
        os.mkfifo(name)
    assert name in refuse("import", name, "--text", "text.txt")
    assert not Path("run-by-the-file").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\3\0\0\0\1\0\0\0\5\0\0\0\2\0\0\0\6\0\0\0protos", "is a Torch 7 file (.t7)"),
        (b"\4\0\0\0\1\0\0\0\3\0\0\0V 1\x0a\0\0\0nn.gModule", "is a Torch 7 file (.t7)"),
        (b"4\n1\n3\nV 1\n13\nnn.Sequential\n", "is a Torch 7 file (.t7)"),
        (b'\x50\0\0\0\0\0\0\0{"fc.weight":{"dtype":"F32"}}' + b"\0" * 90, "is a safetensors file. Load it with"),
        (b"GGUF\3\0\0\0" + b"\0" * 90, "is a GGUF file, made for transformers"),
        (pickle.dumps({"weights": [1.0]}), "is a Python pickle, which could execute code"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Fetch that with: git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page. Download the file itself"),
        (b'model_checkpoint_path: "i200_l512.ckpt"\n', "is TensorFlow's list of checkpoints"),
        (b"\x93NUMPY\1\0v\0", "is a NumPy array"),
        (b"\x08\x08\x12\x07pytorch", "is an ONNX or TensorFlow Lite file"),
        (b"\x1c\0\0\0TFL3", "is an ONNX or TensorFlow Lite file"),
        (gzip.compress(b"model", mtime=0), "is an archive. Unpack it first."),
        (b"model.net" + b"\0" * 248 + b"ustar\0" + b"\0" * 300, "is an archive. Unpack it first."),
        (b"PK\x03\x04" + b"\0" * 90, "is damaged or incomplete: file is not a zip file. Copy or download it again."),
        (b'{"class_name": "Sequential"}', "is a JSON file: settings or characters. Give the file of the weights."),
        ("é".encode() * 3000, "is a text, not a model. To train on it: charrnn-tf train FILE."),
        ("[é]\n".encode() + b"a" * 4090 + "é".encode(), "is a text, not a model"),
        (b"\xff\xfeh\0e\0", "is not what torch.save wrote (.net, .pt, .pth), a TensorFlow 1 checkpoint, or a Keras file"),
        (bytes(range(256)), "is not what torch.save wrote"),
    ],
)
@pytest.mark.parametrize("name", ["a.any", "a.keras", "rnn.net"])
def test_the_kind_of_a_file_is_told_by_its_content(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    error = refuse("import", name)
    assert error.startswith(f"Error: {name!r} is ")
    assert message in error


def test_a_zip_of_other_files_is_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ConfigError, match=r"is a zip archive, but none of Keras or PyTorch\. Unpack it first"):
        kind_of(tmp_path / "a.zip")


def test_a_checkpoint_of_a_run_needs_no_import(made, monkeypatch):
    monkeypatch.chdir(made.parent)
    for path in (".", made.name, f"{made.name}/variables", f"{made.name}/variables.index", f"{made.name}/config.json"):
        message = refuse("import", path, "--checkpoint-dir", "other")
        assert message.startswith(
            f"Error: {path!r} is from a run of this package and needs no import. Pass it as --checkpoint"
        )


def test_a_savedmodel_is_named_by_any_of_its_files(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    for path in ("model", "model/saved_model.pb", "model/variables", "model/variables/variables.index"):
        with pytest.raises(ConfigError, match=r"model' is a SavedModel, an export.* its run's folder, which needs"):
            kind_of(tmp_path / path)


def test_another_folder_is_named_with_a_checkpoint_in_it(tmp_path):
    (tmp_path / "notebook").mkdir()
    with pytest.raises(ConfigError, match=r"notebook' is a folder\. Give a model's file in it\.$"):
        kind_of(tmp_path / "notebook")
    (tmp_path / "notebook" / "i200_l512.ckpt.index").touch()
    with pytest.raises(ConfigError, match=r"is a folder\. Give a model's file in it, such as '.*/i200_l512\.ckpt'"):
        kind_of(tmp_path / "notebook")
    (tmp_path / "notebook" / "i300_l512.ckpt.meta").touch()
    with pytest.raises(
        ConfigError, match=r"is a part of a TensorFlow checkpoint, whose '.*i300_l512\.ckpt\.index' is missing"
    ):
        kind_of(tmp_path / "notebook" / "i300_l512.ckpt.meta")


def test_a_folder_that_holds_a_run_is_left_alone(keras_file):
    succeed("import", keras_file, "--text", "text.txt")
    message = "Error: 'checkpoints' already holds a run. Use another --checkpoint-dir.\n"
    assert refuse("import", keras_file, "--text", "text.txt") == message
    for path in list_checkpoints("checkpoints"):
        shutil.rmtree(path)
    assert refuse("import", keras_file, "--text", "text.txt") == message  # TensorFlow's index is left
    assert call("import", keras_file, "--text", "text.txt", "--checkpoint-dir", "other").exit_code == 0
