"""Keras's files: read from Keras 2 and 3 without executing anything in them, and written as plain layers."""

import importlib.util
import json
import os
import subprocess
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import write_checkpoint
from models import CHARACTERS, IDS, VOCABULARY, H, V, assert_same_distributions, keras_logits, keras_model, logits_of
from processes import run

from charrnn_tf.errors import ConfigError
from charrnn_tf.formats import keras_file
from charrnn_tf.formats.detection import kind_of
from charrnn_tf.formats.importing import import_model
from charrnn_tf.settings.schema import CELLS

LSTM, GRU, Dense = keras.layers.LSTM, keras.layers.GRU, keras.layers.Dense


def same_arrays(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("embedding", [0, 6])
@pytest.mark.parametrize("cell", CELLS)
def test_both_kinds_of_file_are_read(tmp_path, cell, embedding):
    model = keras_model(cell, embedding)
    model.save(tmp_path / "i30_l10.keras")
    model.save_weights(tmp_path / "i30_l10.weights.h5")
    checkpoint = import_model(tmp_path / "i30_l10.keras", tmp_path / "run", VOCABULARY)
    assert checkpoint.name == f"i30_l{H}"
    assert_same_distributions(logits_of(checkpoint), keras_logits(model, embedding))
    weights = keras_file.read(tmp_path / "i30_l10.weights.h5")
    same_arrays(weights.arrays(), model.get_weights())
    assert (weights.config(), weights.step) == (keras_file.read(tmp_path / "i30_l10.keras").config(), 30)


def test_many_layers_stay_in_order(tmp_path):
    model = keras_model(layers=12)
    model.save_weights(tmp_path / "a.weights.h5")
    found = keras_file.read(tmp_path / "a.weights.h5")
    assert len(found.layers) == 12
    same_arrays(found.arrays(), model.get_weights())


def weights_alone(path, whole, **attributes):
    """Write the weights of a whole-model .h5 file as Keras 2's `save_weights` did."""
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(source["model_weights"][name], target, name)
        target.attrs.update({**source["model_weights"].attrs, **attributes})


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("embedding", [0, 6])
def test_an_older_file_is_read_under_any_name(tmp_path, cell, embedding):
    model = keras_model(cell, embedding, layers=3)
    model.save(tmp_path / "i30_l10.h5")
    (tmp_path / "i30_l10.h5").rename(tmp_path / "i30_l10.hdf5[1]")
    weights_alone(tmp_path / "weights", tmp_path / "i30_l10.hdf5[1]")
    for name, step in (("i30_l10.hdf5[1]", 30), ("weights", 0)):
        assert kind_of(tmp_path / name) == "keras_file"
        found = keras_file.read(tmp_path / name)
        same_arrays(found.arrays(), model.get_weights())
        assert (found.cell, found.step) == (cell, step)


@pytest.mark.filterwarnings("ignore:You are saving")
def test_settings_of_an_older_file_are_checked(tmp_path):
    model = keras.Sequential([keras.Input((None, V)), LSTM(H, activation="relu"), Dense(V)])
    model.save(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match="LSTM has activation 'relu'; only 'tanh' can be imported"):
        import_model(tmp_path / "a.h5", tmp_path / "run", VOCABULARY)
    with h5py.File(tmp_path / "a.h5", "a") as file:  # as Keras 2.2.2 and earlier wrote the layers of a Sequential
        settings = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps({**settings, "config": settings["config"]["layers"]}).encode()
    with pytest.raises(ConfigError, match="LSTM has activation 'relu'; only 'tanh' can be imported"):
        import_model(tmp_path / "a.h5", tmp_path / "run", VOCABULARY)


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize(("version", "warned"), [("2.2.4", True), ("2.1.6-tf", True), ("2.3.1", False), ("3.15.1", False)])
def test_weights_of_a_keras_with_another_default_are_read_with_a_warning(tmp_path, caplog, version, warned):
    keras_model().save(tmp_path / "a.h5")
    weights_alone(tmp_path / f"{version}.h5", tmp_path / "a.h5", keras_version=version)
    keras_file.read(tmp_path / f"{version}.h5")
    assert ("recurrent_activation hard_sigmoid unless told" in caplog.text) == warned


def test_textgenrnns_weights_are_named(tmp_path):
    with h5py.File(tmp_path / "textgenrnn_weights.hdf5", "w") as file:
        file.attrs["layer_names"] = np.array([b"input", b"embedding", b"rnn_1", b"rnn_2", b"rnn_concat", b"attention"])
    with pytest.raises(ConfigError, match="dense layer, but textgenrnn's network"):
        import_model(tmp_path / "textgenrnn_weights.hdf5", tmp_path / "run", VOCABULARY)


@pytest.mark.filterwarnings("ignore:You are saving")
def test_a_file_does_not_lead_to_another_file(tmp_path):
    keras_model().save(tmp_path / "other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/model_weights")
    with pytest.raises(ConfigError, match="not a stack of LSTM"):
        import_model(tmp_path / "a.h5", tmp_path / "run", VOCABULARY)


class Tutorial(keras.Model):
    """As in TensorFlow's "Text generation with an RNN": id 0 is for unknown characters."""

    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(V + 1, 6)
        self.gru = GRU(H, return_sequences=True, return_state=True)
        self.dense = Dense(V + 1)

    def call(self, ids):
        return self.dense(self.gru(self.embedding(ids))[0])


@pytest.mark.slow
def test_the_tutorials_weights_lose_only_the_unknown_character(tmp_path):
    model = Tutorial()
    expected = tf.function(model)(tf.constant(IDS[None] + 1)).numpy()[0, :, 1:]
    model.save_weights(tmp_path / "ckpt.weights.h5")
    checkpoint = import_model(tmp_path / "ckpt.weights.h5", tmp_path / "run", VOCABULARY)
    assert_same_distributions(logits_of(checkpoint), expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [keras.layers.Bidirectional(LSTM(H, return_sequences=True)), Dense(V)], "not a stack of"),
        (lambda: [LSTM(H, return_sequences=True), GRU(H), Dense(V)], "not a stack of"),
        (lambda: [LSTM(H), Dense(4), Dense(V)], "not a stack of"),
        (lambda: [GRU(H, reset_after=False), Dense(V)], "reset_after False; only True can be"),
        (lambda: [LSTM(6, return_sequences=True), LSTM(H), Dense(V)], "must have the same width"),
        (lambda: [LSTM(H), Dense(5)], "weights of 13 x 40, 10 x 40, 40 instead of 5 x 40, "),
        (lambda: [LSTM(H), Dense(V + 1)], "weights of 13 x 40, "),
        (lambda: [LSTM(H), Dense(V, use_bias=False)], "Dense has use_bias False; only True can"),
        (lambda: [LSTM(H), Dense(V, activation="relu")], "Dense has activation 'relu'; only"),
        (
            lambda: [GRU(H, recurrent_activation="hard_sigmoid"), Dense(V)],
            "GRU has recurrent_activation 'hard_sigmoid'; only 'sigmoid' can",
        ),
        (lambda: [keras.layers.BatchNormalization(), LSTM(H), Dense(V)], "a layer BatchNormal"),
        (
            lambda: [keras.layers.Lambda(lambda x: x), LSTM(H), Dense(V)],
            "not a stack of LSTM or of GRU layers followed by one dense layer: it has a layer Lambda",
        ),
    ],
)
def test_another_model_in_a_keras_file_is_an_error(tmp_path, layers, message):
    keras.Sequential([keras.Input((None, V)), *layers()]).save(tmp_path / "a.keras")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.keras", tmp_path / "run", VOCABULARY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [GRU(H, reset_after=False), Dense(V)], "weights of 13 x 30, 10 x 30, 30 instead of "),
        (lambda: [keras.layers.BatchNormalization(), LSTM(H), Dense(V)], "not a stack of"),
        (lambda: [LSTM(H), Dense(4), Dense(V)], "not a stack of"),
        (lambda: [Dense(V)], "not a stack of"),
    ],
)
def test_weights_of_another_model_are_an_error(tmp_path, layers, message):
    keras.Sequential([keras.Input((None, V)), *layers()]).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.weights.h5", tmp_path / "run", VOCABULARY)
    assert not (tmp_path / "run").exists()


KERAS_2 = """
import sys, json, numpy as np, tensorflow as tf, tf_keras as keras
V, H, folder, ids = json.loads(sys.argv[1])
ids = np.array(ids)
keras.utils.set_random_seed(2)
found = {}
for name, embedding, kind in (("one-hot", 0, keras.layers.LSTM), ("embedded", 6, keras.layers.GRU)):
    first = [keras.layers.Embedding(V, embedding)] if embedding else []
    stack = [kind(H, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([*first, *stack, keras.layers.TimeDistributed(keras.layers.Dense(V))])
    inputs = tf.constant(ids[None] if embedding else np.eye(V, dtype="float32")[ids][None])
    found[name] = tf.function(model)(inputs)[0].numpy().tolist()
    model.save(f"{folder}/{name}.keras")
    model.save_weights(f"{folder}/{name}.weights.h5")
    model.save(f"{folder}/{name}.h5")
    model.save_weights(f"{folder}/{name}-weights.h5")
print(json.dumps(found))
"""


@pytest.mark.slow
def test_files_of_keras_2_are_read(tmp_path):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras, which is Keras 2")
    given = json.dumps([V, H, str(tmp_path), IDS.tolist()])
    done = run(["-c", KERAS_2, given], check=True, capture_output=True, text=True)
    for name, expected in json.loads(done.stdout.splitlines()[-1]).items():
        checkpoint = import_model(tmp_path / f"{name}.keras", tmp_path / name, VOCABULARY)
        assert_same_distributions(logits_of(checkpoint), np.array(expected))
        whole = keras_file.read(tmp_path / f"{name}.keras")
        for suffix in (".weights.h5", ".h5", "-weights.h5"):
            same_arrays(keras_file.read(tmp_path / f"{name}{suffix}").arrays(), whole.arrays())


PLAIN = """
import json, sys, numpy as np, keras, tensorflow as tf
assert not any(name.startswith("charrnn_tf") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
ids = np.array(json.loads(sys.argv[2]), np.int32)[None]
traced = tf.function(lambda ids: model(ids), input_signature=[tf.TensorSpec([None, None], tf.int32)])
whole = traced(ids)
for call in (model, traced):
    np.testing.assert_allclose(call(tf.constant(ids[:, :1])), whole[:, :1], atol=1e-6)
print(json.dumps(np.log(whole)[0].tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("gru", 5)])
def test_an_exported_model_is_plain_layers_with_the_same_distributions(tmp_path, cell, embedding):
    checkpoint = write_checkpoint(
        tmp_path, characters=CHARACTERS, cell=cell, hidden_size=H, num_layers=2, embedding_size=embedding, init="pytorch"
    )
    path = tmp_path / "second.keras"
    assert keras_file.export_checkpoint(checkpoint, path) == ""
    done = run(["-c", PLAIN, path, json.dumps(IDS.tolist())], check=True, capture_output=True, text=True, cwd=tmp_path)
    logits = logits_of(checkpoint)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), tf.nn.log_softmax(logits), atol=1e-5)
    beside = json.loads((tmp_path / "second.vocabulary.json").read_text(encoding="utf-8"))
    assert beside == {"characters": list(CHARACTERS)}
    again = import_model(path, tmp_path / "again", VOCABULARY)
    np.testing.assert_array_equal(logits_of(again), logits)


KNOWN = {  # arguments of layers in Keras 3.4, the oldest version that reads our files
    "InputLayer": {"name", "dtype", "batch_shape", "batch_size", "shape", "sparse"},
    "Embedding": {"name", "dtype", "trainable", "input_dim", "output_dim", "mask_zero"},
    "Reshape": {"name", "dtype", "trainable", "target_shape"},
    "CategoryEncoding": {"name", "dtype", "num_tokens", "output_mode"},
    "LSTM": {"name", "dtype", "trainable", "units", "activation", "return_sequences"},
    "GRU": {"name", "dtype", "trainable", "units", "activation", "return_sequences", "reset_after"},
    "Dense": {"name", "dtype", "trainable", "units", "activation", "use_bias"},
}


@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("gru", 5)])
def test_an_older_keras_knows_all_settings_of_an_exported_model(tmp_path, cell, embedding):
    checkpoint = write_checkpoint(tmp_path, cell=cell, hidden_size=H, embedding_size=embedding)
    keras_file.export_checkpoint(checkpoint, tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert {layer["class_name"] for layer in layers} >= {"InputLayer", cell.upper(), "Dense"}
    for layer in layers:
        assert set(layer["config"]) <= KNOWN[layer["class_name"]]
        assert layer["config"]["dtype"] in ("float32", "int32")


@pytest.mark.slow
def test_an_older_keras_reads_an_exported_model(tmp_path):
    python = os.environ.get("CHARRNN_OLD_KERAS")
    if not python:
        pytest.skip("CHARRNN_OLD_KERAS names no Python that has an older Keras")
    checkpoint = write_checkpoint(tmp_path, characters=CHARACTERS, hidden_size=H, num_layers=2, init="pytorch")
    keras_file.export_checkpoint(checkpoint, tmp_path / "new.keras")
    command, plain = [python, "-c", PLAIN, "new.keras", json.dumps(IDS.tolist())], dict(os.environ)
    plain.pop("PYTHONPATH", None)
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=plain)
    expected = tf.nn.log_softmax(logits_of(checkpoint))
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-5)


def test_an_export_must_end_with_keras(tmp_path):
    with pytest.raises(ConfigError, match=r"`output` must end with \.keras, got 'model\.h5'"):
        keras_file.export_checkpoint(tmp_path, "model.h5")
