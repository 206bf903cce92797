"""`charrnn-tf import`: which files it takes, where characters come from, and what imported checkpoints can be used for."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commandline import call, refuse, succeed
from models import CHARACTERS, VOCABULARY, Evil, keras_model

from charrnn_tf import evaluate
from charrnn_tf.errors import ConfigError
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
        (("--vocabulary-file", "text.txt"), "is not a vocabulary file such as"),
        (("--vocabulary-file", "number.json"), "is not a vocabulary file such as"),
        (("--text", "short.txt"), "the model has 13 characters, the vocabulary 2"),
    ],
)
def test_a_missing_vocabulary_is_an_error(keras_file, arguments, message):
    Path("number.json").write_text("[1, 2]", encoding="utf-8")
    Path("short.txt").write_text("abab", encoding="utf-8")
    assert message in refuse("import", keras_file, *arguments)


@pytest.mark.parametrize(
    "content", ['{"characters": ["ab"]}', '{"characters": [1]}', '{"characters": ["a", "a"]}', "{}", "["]
)
def test_a_vocabulary_file_holds_distinct_single_characters(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json' is not a vocabulary file such as"):
        read_vocabulary(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"characters": ["b", "a"]}', encoding="utf-8")
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


def test_a_folder_that_holds_a_run_is_left_alone(keras_file):
    succeed("import", keras_file, "--text", "text.txt")
    message = "Error: 'checkpoints' already holds a run. Use another --checkpoint-dir.\n"
    assert refuse("import", keras_file, "--text", "text.txt") == message
    for path in list_checkpoints("checkpoints"):
        shutil.rmtree(path)
    assert refuse("import", keras_file, "--text", "text.txt") == message  # TensorFlow's index is left
    assert call("import", keras_file, "--text", "text.txt", "--checkpoint-dir", "other").exit_code == 0
