"""Checkpoints of the TensorFlow 1 notebook, written by its own graph."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from models import IDS, VOCABULARY, H, V, assert_same_distributions, logits_of

from charrnn_tf.errors import ConfigError
from charrnn_tf.formats import tf1_file
from charrnn_tf.formats.detection import kind_of
from charrnn_tf.formats.importing import import_model

NOTEBOOK = """
import json, sys
import numpy as np, tensorflow as tf
v1 = tf.compat.v1
v1.disable_eager_execution()
V, H, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ids = np.array(json.loads(sys.argv[4]))
x = v1.placeholder(tf.int32, (1, None))
lstm = lambda: v1.nn.rnn_cell.DropoutWrapper(v1.nn.rnn_cell.BasicLSTMCell(H), output_keep_prob=1.0)
cell = v1.nn.rnn_cell.MultiRNNCell([lstm() for _ in range(2)])
outputs, _ = v1.nn.dynamic_rnn(cell, tf.one_hot(x, V), initial_state=cell.zero_state(1, tf.float32))
with v1.variable_scope("softmax"):
    w = v1.Variable(v1.truncated_normal((H, V), stddev=0.1, seed=1))
    b = v1.Variable(tf.random.uniform([V]))
logits = tf.matmul(tf.reshape(outputs, (-1, H)), w) + b
loss = tf.reduce_mean(logits ** 2)
variables = v1.trainable_variables()
update = v1.train.AdamOptimizer(0.01).apply_gradients(zip(tf.gradients(loss, variables), variables))
saver = v1.train.Saver(max_to_keep=100)
with v1.Session() as session:
    session.run(v1.global_variables_initializer())
    for _ in range(3):
        session.run(update, {x: ids[None, :50]})
    saver.save(session, path)
    print(json.dumps(session.run(logits, {x: ids[None]}).tolist()))
"""


@pytest.mark.slow
def test_a_checkpoint_is_read_by_its_prefix_or_any_of_its_files(tmp_path):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras, which TensorFlow 1's recurrent cells come from today")
    path = tmp_path / "i200_l10.ckpt"
    arguments = [str(V), str(H), str(path), json.dumps(IDS.tolist())]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", NOTEBOOK, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    checkpoint = import_model(path, tmp_path / "run", VOCABULARY)
    assert checkpoint.name == f"i200_l{H}"
    assert "tf_keras" not in sys.modules
    assert_same_distributions(logits_of(checkpoint), np.array(json.loads(done.stdout.splitlines()[-1])))
    whole = tf1_file.read(path)
    for suffix in (".index", ".meta", ".data-00000-of-00001"):
        assert kind_of(f"{path}{suffix}") == "tf1_file"
        part = tf1_file.read(f"{path}{suffix}")
        assert part.step == whole.step == 200
        for a, b in zip(part.arrays(), whole.arrays(), strict=True):
            np.testing.assert_array_equal(a, b)


CELL = "rnn/multi_rnn_cell/cell_{}/basic_lstm_cell/{}"


def save_older(path):
    """Write a checkpoint with the names of TensorFlow 1.0 and returns its arrays."""
    draw = np.random.default_rng(0)
    values = {"softmax/Variable": draw.normal(size=(H, V)), "softmax/Variable_1": draw.normal(size=V)}
    for n, inputs in enumerate((V, H)):
        values[CELL.format(n, "weights")] = draw.normal(size=(inputs + H, 4 * H))
        values[CELL.format(n, "biases")] = draw.normal(size=4 * H)
        values[CELL.format(n, "biases") + "/Adam"] = draw.normal(size=4 * H)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=value.astype(np.float32)) for name, value in values.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(path))
    return values


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The prefix of a checkpoint, alone in its folder."""
    path = tmp_path_factory.mktemp("older") / "i40_l10.ckpt"
    save_older(path)
    return path


def test_older_names_are_known_and_the_forget_bias_is_added(tmp_path):
    values = save_older(tmp_path / "i40_l10.ckpt")
    _, recurrent, bias = tf1_file.read(tmp_path / "i40_l10.ckpt").layers[0]
    old = values[CELL.format(0, "weights")][V:]
    np.testing.assert_allclose(recurrent[:, H : 2 * H], old[:, 2 * H : 3 * H], rtol=1e-6)
    np.testing.assert_allclose(bias[H : 2 * H], values[CELL.format(0, "biases")][2 * H : 3 * H] + 1, rtol=1e-6)


@pytest.mark.parametrize("folder", ["q[1]", "a\\b", "x*y?", "new\nline", "caf\udce9"])
@pytest.mark.parametrize("name", ["i40_l10.ckpt", "[i40]\\"])
def test_a_name_that_is_a_glob_pattern_is_read_as_it_stands(tmp_path, monkeypatch, older, folder, name):
    place = tmp_path / folder
    place.mkdir()
    for file in older.parent.glob(f"{older.name}.*"):
        shutil.copy(file, place / file.name.replace(older.name, name))
    expected = tf1_file.read(older).arrays()
    monkeypatch.chdir(tmp_path)
    for path in (place / name, f"{folder}/{name}.index"):
        for a, b in zip(tf1_file.read(path).arrays(), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_usable_temporary_folder_is_an_error(tmp_path, monkeypatch, older):
    place = shutil.copytree(older.parent, tmp_path / "q[1]")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with pytest.raises(ConfigError, match=r"TensorFlow can't read the temporary folder .* Set TMPDIR"):
        tf1_file.read(place / older.name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"without a temporary folder: no such file or directory\. Set TMPDIR"):
        tf1_file.read(place / older.name)


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    tf.train.Checkpoint(a=tf.Variable([1.0])).write(str(tmp_path / "other.ckpt"))
    with pytest.raises(ConfigError, match=r"of tf\.train\.Checkpoint, such as Keras 2's save_weights writes"):
        import_model(tmp_path / "other.ckpt", tmp_path / "run", VOCABULARY)
