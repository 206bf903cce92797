"""ONNX files: valid, and computed by ONNX Runtime as the network computes."""

import json
import sys

import numpy as np
import pytest
from conftest import write_checkpoint
from models import CHARACTERS, IDS, H, V, logits_of

import charrnn_tf
from charrnn_tf.errors import ConfigError
from charrnn_tf.formats import onnx_file
from charrnn_tf.formats.detection import kind_of
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import ByteVocabulary

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def session(tmp_path):
    """A function that exports a checkpoint and opens the valid file in ONNX Runtime."""

    def open_export(checkpoint):
        path = tmp_path / "model.onnx"
        assert onnx_file.export_checkpoint(checkpoint, path) == ""
        onnx.checker.check_model(onnx.load(path), full_check=True)
        return onnxruntime.InferenceSession(path)

    return open_export


def read(model, ids, state=None):
    """Logits and states after ids [N, T], from a zero state if none is given."""
    names = [each.name for each in model.get_inputs()[1:]]
    state = state or [np.zeros((len(ids), H), np.float32) for _ in names]
    logits, *after = model.run(None, {"ids": ids, **dict(zip(names, state, strict=True))})
    return logits, after


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("embedding", [0, 5])
def test_logits_are_those_of_the_network_for_any_batch_and_length(session, tmp_path, cell, layers, embedding):
    checkpoint = write_checkpoint(
        tmp_path, characters=CHARACTERS, cell=cell, hidden_size=H, num_layers=layers, embedding_size=embedding, init="wide"
    )
    model, expected = session(checkpoint), logits_of(checkpoint)
    whole, after = read(model, IDS[None])
    np.testing.assert_allclose(whole[0], expected, atol=1e-4)

    states = [None]  # before each window of a hundred
    for window in np.split(IDS, 5):
        states.append(read(model, window[None], states[-1])[1])
    np.testing.assert_allclose(states[-1], after, atol=1e-4)
    rows, last = [1, 4, 2], IDS.reshape(5, 100)  # each from a state of its own
    together = [np.concatenate(each) for each in zip(*(states[n] for n in rows), strict=True)]
    logits, _ = read(model, last[rows], together)
    np.testing.assert_allclose(logits, expected.reshape(5, 100, V)[rows], atol=1e-4)
    logits, _ = read(model, last[rows][:, :1], together)
    np.testing.assert_allclose(logits, expected.reshape(5, 100, V)[rows][:, :1], atol=1e-4)


@pytest.mark.parametrize(
    ("cell", "states"), [("lstm", ["hidden_0", "cell_0", "hidden_1", "cell_1"]), ("gru", ["hidden_0", "hidden_1"])]
)
def test_inputs_and_outputs_have_the_promised_names_and_types(session, tmp_path, cell, states):
    model = session(write_checkpoint(tmp_path, characters=CHARACTERS, cell=cell, hidden_size=H, num_layers=2))
    found = [[(each.name, each.type, each.shape) for each in side] for side in (model.get_inputs(), model.get_outputs())]
    real = "tensor(float)"
    assert found[0] == [("ids", "tensor(int64)", ["N", "T"]), *((name, real, ["N", H]) for name in states)]
    assert found[1] == [("logits", real, ["N", "T", V]), *((f"{name}_out", real, ["N", H]) for name in states)]


@pytest.mark.parametrize("characters", ['\n\0 "\\é漢😀\udce9', ByteVocabulary()], ids=["characters", "bytes"])
def test_characters_and_version_are_in_the_metadata(session, tmp_path, characters):
    metadata = session(write_checkpoint(tmp_path, characters=characters)).get_modelmeta().custom_metadata_map
    assert metadata.pop("charrnn_tf") == charrnn_tf.__version__
    assert json.loads(metadata.pop("characters")) == list(getattr(characters, "characters", characters))
    assert not metadata


def test_a_file_needs_no_newer_opset_than_its_operators(made, tmp_path):
    onnx_file.export_checkpoint(made, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 9)]
    assert model.ir_version == 4
    model.opset_import[0].version = 8
    with pytest.raises(onnx.checker.ValidationError, match="OneHot"):
        onnx.checker.check_model(model)


def test_only_the_standards_own_operators_are_in_a_file(made, tmp_path):
    onnx_file.export_checkpoint(made, tmp_path / "model.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("LSTM") == 1
    assert not {"Loop", "Scan", "If"} & set(kinds)


def test_without_the_package_the_extra_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"^ONNX files need the package onnx: pip install 'charrnn-tf\[onnx\]'$"):
        onnx_file.export_checkpoint(made, tmp_path / "model.onnx")


def test_a_model_larger_than_a_file_can_hold_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LIMIT", 1000)
    with pytest.raises(ConfigError, match=r"holds at most 2\.14 GB\. Use `format` savedmodel\.$"):
        onnx_file.export_checkpoint(made, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_import_recognises_an_exported_file(made, tmp_path):
    onnx_file.export_checkpoint(made, tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="is an ONNX or TensorFlow Lite file"):
        kind_of(tmp_path / "model.onnx")
