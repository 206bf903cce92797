"""Export formats by name, and the text on which the loss added by rounding is measured."""

import os
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from commandline import call, refuse
from conftest import make_text

from charrnn_tf import errors
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.formats import keras_file
from charrnn_tf.formats.exporting import FORMATS, export_checkpoint, held_out_ids
from charrnn_tf.runs.record import Record
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.corpus import load_corpus

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def record(tmp_path):
    """The record of a run on two files that held out a tenth."""
    texts = [tmp_path / name for name in ("a.txt", "b.txt")]
    for n, path in enumerate(texts):
        path.write_text(make_text(2000, seed=n), encoding="utf-8")
    train = TrainConfig(separator="~", limit_chars=3000, validation_fraction=0.1)
    corpus = load_corpus(texts, separator="~", limit_chars=3000)
    model = ModelConfig(len(corpus.vocabulary))
    return Record(model, train, corpus.vocabulary, corpus.text, 1, 0.0, 0.0, None, None)


def test_an_unknown_format_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"`format` must be one of savedmodel, keras, torch, onnx, web, got 'pickle'"):
        export_checkpoint(tmp_path, tmp_path / "model", "pickle")


@pytest.mark.parametrize("module", FORMATS.values())
def test_a_format_is_a_module_with_one_function(module):
    export = import_module(f"charrnn_tf.formats.{module}").export_checkpoint
    assert list(signature(export).parameters) == ["checkpoint", "output", "held_out"]


@pytest.mark.parametrize("folder", ["run[1]", "a\\b", "x*y?", "new\nline", "caf\udce9"])
@pytest.mark.parametrize("format", ["keras", "onnx", "web"])
def test_a_file_is_written_into_a_folder_of_any_name(made, tmp_path, monkeypatch, folder, format):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    name = f"{folder}/{folder}.{format}"
    result = call("export", "--checkpoint-dir", made.parent, "--format", format, "-o", name)
    assert (result.exit_code, result.stdout_bytes) == (0, os.fsencode(f"{name}\n"))
    if format == "keras":
        assert keras_file.read(name).config() == keras_file.read_checkpoint(made, "keras").config()
    assert Path(name).stat().st_size > 1000


@pytest.mark.parametrize("folder", ["run[1]", "a\\b", "caf\udce9"])
def test_a_savedmodel_that_tensorflow_could_not_load_is_refused(made, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    message = refuse("export", "--checkpoint-dir", made.parent, "-o", f"{folder}/model")
    assert "the path has a '[', a backslash or bytes that are not UTF-8. Choose another --output." in message


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["run[1]", "x*y?"])
def test_a_savedmodel_loads_by_its_relative_path_from_any_folder(made, tmp_path, monkeypatch, caplog, folder):
    import tensorflow as tf

    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    errors.warn.cache_clear()
    export_checkpoint(made, "model", "savedmodel")
    assert "generate" in tf.saved_model.load("model").signatures
    assert ("'model' by this relative path only" in caplog.text) == ("[" in folder)


def test_the_held_out_part_of_a_run_is_read_from_its_files(record, tmp_path):
    whole = (make_text(2000, seed=0) + "~" + make_text(2000, seed=1))[:3000]
    np.testing.assert_array_equal(held_out_ids(record, None), record.vocabulary.encode(whole[2700:]))
    (tmp_path / "b.txt").write_text("changed", encoding="utf-8")
    assert held_out_ids(record, None) is None


def test_a_run_on_standard_input_has_no_held_out_text(record, tmp_path, monkeypatch):
    from dataclasses import replace

    sources = (replace(record.text.sources[0], path="-"),)
    assert held_out_ids(replace(record, text=replace(record.text, sources=sources)), None) is None


def test_a_given_text_comes_before_the_held_out_part(record, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("The sea é.\n" * 12_000, encoding="utf-8")
    found = held_out_ids(record, str(other))
    assert record.vocabulary.decode(found[:10]) == "The sea .\n"
    assert len(found) == 90_909  # 100,000 without every eleventh, the unknown é
    other.write_text("é T é", encoding="utf-8")
    assert record.vocabulary.decode(held_out_ids(record, str(other))) == " T "
    other.write_text("Té", encoding="utf-8")
    with pytest.raises(TextError, match=r"other\.txt"):
        held_out_ids(record, str(other))
