"""Models of the notebooks and of Keras: made in the original layout, read, and compared over 500 characters; and back."""

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import logits_after
from processes import run

from charrnn_tf import evaluate
from charrnn_tf.cli.main import cli
from charrnn_tf.errors import ConfigError
from charrnn_tf.formats.importing import import_model
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint, list_checkpoints
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("one_process")
CHARACTERS = "\n abcdefghijé"
V, H, LAYERS = len(CHARACTERS), 10, 2
IDS = np.random.default_rng(0).integers(0, V, 500)


def logits_of(checkpoint, ids=IDS):
    """What a checkpoint of ours says after each character, [characters, V]."""
    model, record = load_model(checkpoint)
    return logits_after(model, record.model, ids)


def assert_same_distributions(found, expected, atol=1e-4):
    """Logits that differ by a constant a row are the same."""
    np.testing.assert_allclose(tf.nn.log_softmax(found), tf.nn.log_softmax(expected), atol=atol)


# PyTorch


def torch_notebook(cell="lstm", hidden=H, layers=LAYERS):
    """A model in the PyTorch notebook's manner, and what its file holds."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]

    class CharRNN(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, cell, kind(V, hidden, layers, dropout=0.5, batch_first=True))
            self.dropout = torch.nn.Dropout(0.5)
            self.fc = torch.nn.Linear(hidden, V)

        def forward(self, x):
            out, _ = getattr(self, cell)(x)
            return self.fc(self.dropout(out))

    net = CharRNN().eval()
    saved = {"n_hidden": hidden, "n_layers": layers, "state_dict": net.state_dict(), "tokens": tuple(CHARACTERS)}
    return torch, net, saved


def torch_logits(torch, net):
    with torch.no_grad():
        return net(torch.nn.functional.one_hot(torch.tensor(IDS[None]), V).float())[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_pytorch_notebooks_file_is_read_and_written(tmp_path, cell):
    torch, net, saved = torch_notebook(cell)
    path = tmp_path / "rnn_20_epoch.net"
    with open(path, "wb") as file:
        torch.save(saved, file)
    checkpoint = import_model(path, tmp_path / "run")
    assert checkpoint.name == f"i0_l{H}"
    assert read_record(checkpoint).vocabulary == Vocabulary(CHARACTERS)
    assert_same_distributions(logits_of(checkpoint), torch_logits(torch, net))
    result = CliRunner().invoke(
        cli, ["export", "--format", "torch", "--checkpoint-dir", str(tmp_path / "run"), "-o", str(tmp_path / "back.net")]
    )
    assert result.exit_code == 0, result.output
    back = torch.load(tmp_path / "back.net", weights_only=True)
    assert (back["n_hidden"], back["n_layers"], back["tokens"]) == (H, LAYERS, tuple(CHARACTERS))
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    net.load_state_dict(back["state_dict"])
    assert_same_distributions(torch_logits(torch, net), logits_of(checkpoint))


class Evil:
    """What leaves a file where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("run-by-the-file"),))


@pytest.mark.slow
def test_characters_in_the_file_are_not_replaced_by_others(tmp_path):
    torch, _, saved = torch_notebook()
    torch.save(saved, tmp_path / "a.net")
    with pytest.raises(ConfigError, match="its characters are in the file, and others are given"):
        import_model(tmp_path / "a.net", tmp_path / "run", Vocabulary(CHARACTERS[::-1]))
    assert import_model(tmp_path / "a.net", tmp_path / "run", Vocabulary(CHARACTERS)).is_dir()


def test_nothing_in_a_pytorch_file_runs(tmp_path, monkeypatch):
    torch, _, saved = torch_notebook()

    monkeypatch.chdir(tmp_path)
    torch.save({**saved, "extra": Evil()}, tmp_path / "a.net")
    with pytest.raises(ConfigError, match="no file of weights that"):
        import_model(tmp_path / "a.net", tmp_path / "run")
    assert not (tmp_path / "run-by-the-file").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("tokens"), "no notebook's file: it needs n_layers, state_dict and tokens"),
        (lambda saved: saved["state_dict"].pop("fc.bias"), "fc.bias is missing"),
        (lambda saved: saved["state_dict"].pop("lstm.bias_hh_l1"), "lstm.bias_hh_l1 is missing"),
        (lambda saved: saved.update(tokens=tuple("abc")), f"the model has {V} characters, the vocabulary 3"),
        (lambda saved: saved.update(tokens=(1, 2)), "tokens are not single characters"),
        (lambda saved: saved.update(n_layers=1), "more layers than its n_layers, 1"),
        (lambda saved: saved.update(state_dict=saved["state_dict"]["fc.bias"]), "no notebook's file"),
        (
            lambda saved: saved["state_dict"].update({"fc.bias": saved["state_dict"]["fc.bias"][:3]}),
            f"the output has a kernel of {H} x {V} and a bias of 3",
        ),
        (
            lambda saved: saved["state_dict"].update({"lstm.bias_ih_l0": saved["state_dict"]["fc.bias"]}),
            r"a\.net': ",
        ),
        (
            lambda saved: saved["state_dict"].update({"lstm.weight_hh_l0": saved["state_dict"]["fc.weight"]}),
            "neither an LSTM's",
        ),
    ],
)
def test_a_pytorch_file_that_lacks_something_is_told(tmp_path, change, message):
    torch, _, saved = torch_notebook()
    change(saved)
    torch.save(saved, tmp_path / "a.net")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.net", tmp_path / "run")


# TensorFlow 1

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


@pytest.fixture(scope="module")
def tf1(tmp_path_factory):
    """The notebook's checkpoint, and the logits of its graph."""
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras, which TensorFlow 1's recurrent cells come from today")
    path = tmp_path_factory.mktemp("tf1") / "i200_l10.ckpt"
    arguments = [str(V), str(H), str(path), json.dumps(IDS.tolist())]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return path, np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_a_tensorflow_1_checkpoint_is_read_by_its_prefix_or_any_of_its_files(tf1, tmp_path, ending):
    path, expected = tf1
    checkpoint = import_model(f"{path}{ending}", tmp_path, Vocabulary(CHARACTERS))
    assert checkpoint.name == f"i200_l{H}"
    assert "tf_keras" not in sys.modules
    assert_same_distributions(logits_of(checkpoint), expected)


def test_older_names_of_a_tensorflow_1_checkpoint_are_known(tmp_path):
    draw = np.random.default_rng(0)
    cell = "rnn/multi_rnn_cell/cell_{}/basic_lstm_cell/{}"
    values = {"softmax/Variable": draw.normal(size=(H, V)), "softmax/Variable_1": draw.normal(size=V)}
    for n, inputs in enumerate((V, H)):
        values[cell.format(n, "weights")] = draw.normal(size=(inputs + H, 4 * H))
        values[cell.format(n, "biases")] = draw.normal(size=4 * H)
        values[cell.format(n, "biases") + "/Adam"] = draw.normal(size=4 * H)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=value.astype(np.float32)) for name, value in values.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(tmp_path / "i40_l10.ckpt"))
    checkpoint = import_model(tmp_path / "i40_l10.ckpt", tmp_path / "run", Vocabulary(CHARACTERS))
    _, recurrent, bias = load_model(checkpoint)[0].get_layer("lstm_0").get_weights()
    old = values[cell.format(0, "weights")][V:]
    np.testing.assert_allclose(recurrent[:, H : 2 * H], old[:, 2 * H : 3 * H], rtol=1e-6)
    np.testing.assert_allclose(bias[H : 2 * H], values[cell.format(0, "biases")][2 * H : 3 * H] + 1, rtol=1e-6)


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    tf.train.Checkpoint(a=tf.Variable([1.0])).write(str(tmp_path / "other.ckpt"))
    with pytest.raises(ConfigError, match="no notebook's checkpoint: it needs multi_rnn_cell"):
        import_model(tmp_path / "other.ckpt", tmp_path / "run", Vocabulary(CHARACTERS))


# Keras


def keras_model(cell="lstm", embedding=0, size=V, layers=LAYERS):
    kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell]
    keras.utils.set_random_seed(1)
    stack = [keras.Input((None, size))] if not embedding else [keras.Input((None,)), keras.layers.Embedding(size, embedding)]
    for n in range(layers):
        stack += [kind(H, return_sequences=True, bias_initializer="glorot_uniform" if cell == "gru" else "ones")]
        stack += [keras.layers.Dropout(0.3)] if n else []
    return keras.Sequential([*stack, keras.layers.Dense(size)])


def keras_logits(model, embedding, ids=IDS, size=V):
    inputs = ids[None] if embedding else tf.one_hot(ids[None], size)
    return tf.function(model)(tf.constant(inputs)).numpy()[0]


@pytest.mark.slow
@pytest.mark.parametrize("embedding", [0, 6])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_keras_file_is_read(tmp_path, ending, cell, embedding):
    model = keras_model(cell, embedding)
    path = tmp_path / f"model{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    checkpoint = import_model(path, tmp_path / "run", Vocabulary(CHARACTERS))
    assert_same_distributions(logits_of(checkpoint), keras_logits(model, embedding))


@pytest.mark.slow
def test_many_layers_stay_in_their_order(tmp_path):
    model = keras_model(layers=12)
    model.save_weights(tmp_path / "a.weights.h5")
    imported, _ = load_model(import_model(tmp_path / "a.weights.h5", tmp_path / "run", Vocabulary(CHARACTERS)))
    for n, layer in enumerate(layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)):
        for found, expected in zip(imported.get_layer(f"lstm_{n}").get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert n == 11


class Tutorial(keras.Model):
    """As in TensorFlow's "Text generation with an RNN": id 0 is for unknown characters."""

    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(V + 1, 6)
        self.gru = keras.layers.GRU(H, return_sequences=True, return_state=True)
        self.dense = keras.layers.Dense(V + 1)

    def call(self, ids):
        return self.dense(self.gru(self.embedding(ids))[0])


@pytest.mark.slow
def test_the_tutorials_weights_lose_only_the_unknown_character(tmp_path):
    model = Tutorial()
    expected = tf.function(model)(tf.constant(IDS[None] + 1)).numpy()[0, :, 1:]
    model.save_weights(tmp_path / "ckpt.weights.h5")
    checkpoint = import_model(tmp_path / "ckpt.weights.h5", tmp_path / "run", Vocabulary(CHARACTERS))
    assert_same_distributions(logits_of(checkpoint), expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            lambda: [keras.layers.Bidirectional(keras.layers.LSTM(H, return_sequences=True)), keras.layers.Dense(V)],
            "no stack of",
        ),
        (lambda: [keras.layers.LSTM(H, return_sequences=True), keras.layers.GRU(H), keras.layers.Dense(V)], "no stack of"),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(4), keras.layers.Dense(V)], "no stack of"),
        (lambda: [keras.layers.GRU(H, reset_after=False), keras.layers.Dense(V)], "reset_after False; only True can be"),
        (lambda: [keras.layers.LSTM(6, return_sequences=True), keras.layers.LSTM(H), keras.layers.Dense(V)], "of one width"),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(5)], "weights of 13 x 40, 10 x 40, 40; 5 x 40, "),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(V + 1)], "weights of 13 x 40, "),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(V, use_bias=False)], "Dense has use_bias False; only True can"),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(V, activation="relu")], "Dense has activation 'relu'; only"),
        (
            lambda: [keras.layers.GRU(H, recurrent_activation="hard_sigmoid"), keras.layers.Dense(V)],
            "GRU has recurrent_activation 'hard_sigmoid'; only 'sigmoid' can",
        ),
        (lambda: [keras.layers.BatchNormalization(), keras.layers.LSTM(H), keras.layers.Dense(V)], "a layer BatchNormal"),
    ],
)
def test_another_keras_model_is_told(tmp_path, layers, message):
    keras.Sequential([keras.Input((None, V)), *layers()]).save(tmp_path / "a.keras")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.keras", tmp_path / "run", Vocabulary(CHARACTERS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [keras.layers.GRU(H, reset_after=False), keras.layers.Dense(V)], "weights of 13 x 30, 10 x 30, 30; "),
        (lambda: [keras.layers.BatchNormalization(), keras.layers.LSTM(H), keras.layers.Dense(V)], "no stack of"),
        (lambda: [keras.layers.LSTM(H), keras.layers.Dense(4), keras.layers.Dense(V)], "no stack of"),
        (lambda: [keras.layers.Dense(V)], "no stack of"),
    ],
)
def test_weights_of_another_keras_model_are_told(tmp_path, layers, message):
    keras.Sequential([keras.Input((None, V)), *layers()]).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.weights.h5", tmp_path / "run", Vocabulary(CHARACTERS))
    assert not (tmp_path / "run").exists()


OLDER = """
import sys, json, numpy as np, tf_keras as keras
V, H, embedding, path = map(eval, sys.argv[1:5])
ids = np.array(json.loads(sys.argv[5]))
keras.utils.set_random_seed(2)
first = [keras.layers.Embedding(V, embedding)] if embedding else []
stack = [kind(H, return_sequences=True) for kind in [keras.layers.GRU if embedding else keras.layers.LSTM] * 2]
model = keras.Sequential([*first, *stack, keras.layers.TimeDistributed(keras.layers.Dense(V))])
logits = model(np.array(ids[None] if embedding else np.eye(V, dtype="float32")[ids][None]))
model.save(path + ".keras")
model.save_weights(path + ".weights.h5")
print(json.dumps(np.array(logits)[0].tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("embedding", [0, 6])
def test_files_of_keras_2_are_read(tmp_path, embedding):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras, which is Keras 2")
    arguments = [str(V), str(H), str(embedding), repr(str(tmp_path / "old")), json.dumps(IDS.tolist())]
    done = run(["-c", OLDER, *arguments], check=True, capture_output=True, text=True)
    expected = np.array(json.loads(done.stdout.splitlines()[-1]))
    for ending in (".keras", ".weights.h5"):
        checkpoint = import_model(tmp_path / f"old{ending}", tmp_path / ending[1:], Vocabulary(CHARACTERS))
        assert_same_distributions(logits_of(checkpoint), expected)


def test_code_in_a_keras_file_does_not_run(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, V)), keras.layers.Lambda(lambda x: x), keras.layers.LSTM(H), keras.layers.Dense(V)]
    )
    model.save(tmp_path / "a.keras")
    with pytest.raises(
        ConfigError, match="no stack of LSTM or of GRU layers with one dense layer after it: it has a layer Lambda"
    ):
        import_model(tmp_path / "a.keras", tmp_path / "run", Vocabulary(CHARACTERS))


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("gru", 5)])
def test_an_exported_keras_model_is_plain_layers_and_says_what_step_says(tmp_path, cell, embedding):
    keras_model(cell, embedding).save(tmp_path / "first.keras")
    checkpoint = import_model(tmp_path / "first.keras", tmp_path / "run", Vocabulary(CHARACTERS))
    arguments = [
        "export",
        "--format",
        "keras",
        "--checkpoint-dir",
        str(tmp_path / "run"),
        "-o",
        str(tmp_path / "second.keras"),
    ]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'second.keras'}\n")
    plain = """
import json, sys, numpy as np, keras, tensorflow as tf
assert not any(name.startswith("charrnn_tf") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
ids = np.array(json.loads(sys.argv[2]), np.int32)[None]
whole = model(ids)
traced = tf.function(lambda ids: model(ids), input_signature=[tf.TensorSpec([None, None], tf.int32)])
for call in (model, traced):
    np.testing.assert_allclose(call(tf.constant(ids[:, :1])), whole[:, :1], atol=1e-6)
print(json.dumps(np.log(whole)[0].tolist()))
"""
    path = str(tmp_path / "second.keras")
    done = run(["-c", plain, path, json.dumps(IDS.tolist())], check=True, capture_output=True, text=True, cwd=tmp_path)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), tf.nn.log_softmax(logits_of(checkpoint)), atol=1e-5)
    beside = json.loads((tmp_path / "second.vocabulary.json").read_text(encoding="utf-8"))
    assert beside == {"characters": list(CHARACTERS)}
    again = import_model(path, tmp_path / "again", Vocabulary(CHARACTERS))
    np.testing.assert_array_equal(logits_of(again), logits_of(checkpoint))


# The command


@pytest.fixture
def keras_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras_model().save("i30_l10.keras")
    Path("text.txt").write_text(CHARACTERS * 40, encoding="utf-8")
    Path("vocabulary.json").write_text(json.dumps({"characters": list(CHARACTERS)}), encoding="utf-8")
    return "i30_l10.keras"


@pytest.mark.slow
@pytest.mark.parametrize("source", [("--text", "text.txt"), ("--vocabulary-file", "vocabulary.json")])
def test_what_was_imported_samples_evaluates_exports_and_trains_on(keras_file, source):
    call = lambda *arguments: CliRunner().invoke(cli, list(map(str, arguments)))  # noqa: E731
    result = call("import", keras_file, *source, "--checkpoint-dir", "old")
    assert (result.exit_code, result.stdout) == (0, "old/i30_l10\n"), result.output
    sampled = call("sample", "--checkpoint-dir", "old", "--length", 30, "--seed", 1, "--prime", "abc")
    assert len(sampled.stdout) == 34
    scored = call("evaluate", "text.txt", "--checkpoint-dir", "old", "--json")
    expected = evaluate(latest_checkpoint("old"), CHARACTERS * 40).nats_per_character
    assert json.loads(scored.stdout)["nats_per_character"] == pytest.approx(expected)
    assert call("export", "--checkpoint-dir", "old", "-o", "saved").exit_code == 0
    assert (
        call("report", "--checkpoint-dir", "old", "--text", "text.txt", "--limit-chars", 50, "-o", "r.html").exit_code == 0
    )
    assert "another tool" in Path("r.html").read_text(encoding="utf-8")
    resumed = call("train", "--resume", "--max-steps", 50, "--checkpoint-dir", "old")
    assert resumed.exit_code == 1
    assert "was imported and has no run to go on with" in resumed.stderr
    more = call(
        "train", "text.txt", "--init-from", "old", "--checkpoint-dir", "new", "--max-steps", 200, "--batch-size", 2,
        "--num-steps", 8, "--learning-rate", 0.02, "--warmup-steps", 0, "--quiet",
    )  # fmt: skip
    assert more.exit_code == 0, more.output
    after = json.loads(call("evaluate", "text.txt", "--checkpoint-dir", "new", "--json").stdout)
    assert after["nats_per_character"] < expected - 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "its characters are not in the file. Give the text it learnt from with --text, or --vocabulary-file."),
        (("--text", "missing.txt"), "can't read 'missing.txt'"),
        (("--vocabulary-file", "text.txt"), "holds no vocabulary"),
        (("--vocabulary-file", "number.json"), "holds no vocabulary"),
        (("--text", "short.txt"), "the model has 13 characters, the vocabulary 2"),
    ],
)
def test_what_is_missing_is_one_line(keras_file, arguments, message):
    Path("number.json").write_text("[1, 2]", encoding="utf-8")
    Path("short.txt").write_text("abab", encoding="utf-8")
    result = CliRunner().invoke(cli, ["import", keras_file, *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    "name",
    [
        "text.txt",
        "missing.net",
        "missing.keras",
        "missing.ckpt",
        "a.zip",
        "a.pickle",
        "a.keras",
        "pipe.net",
        "empty.weights.h5",
    ],
)
def test_another_kind_of_file_is_one_line_and_nothing_runs(keras_file, name):
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a", "b")
    Path("a.pickle").write_bytes(pickle.dumps(Evil()))
    Path("a.net").write_bytes(pickle.dumps(Evil()))
    Path("a.keras").write_bytes(b"PK" * 40)
    os.mkfifo("pipe.net")
    Path("empty.weights.h5").write_bytes(b"")
    result = CliRunner().invoke(cli, ["import", name, "--text", "text.txt"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert name in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("run-by-the-file").exists()
    assert not Path("checkpoints").exists()


def test_a_folder_that_holds_a_run_is_left_alone(keras_file):
    assert CliRunner().invoke(cli, ["import", keras_file, "--text", "text.txt"]).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("checkpoints").rglob("*")}
    result = CliRunner().invoke(cli, ["import", keras_file, "--text", "text.txt"])
    assert result.exit_code == 1
    assert "holds a run already" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("checkpoints").rglob("*")} == before
    for path in list_checkpoints("checkpoints"):
        shutil.rmtree(path)
    result = CliRunner().invoke(cli, ["import", keras_file, "--text", "text.txt"])
    assert result.stderr == "Error: 'checkpoints' holds a run already. Use another --checkpoint-dir.\n"
