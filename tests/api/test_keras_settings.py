"""Global settings of Keras that a user has made change nothing of a run's numbers."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT

import charrnn_tf as cr

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_process")]

SETTINGS = {"hidden_size": 8, "num_layers": 1, "dropout": 0.1, "batch_size": 2, "num_steps": 8, "seed": 1}
OUTPUTS = {"savedmodel": "model", "keras": "model.keras", "onnx": "model.onnx", "web": "model.html"}


def outcome(folder):
    """Numbers, texts and files of a run that trains, resumes, samples, evaluates and exports."""
    given = {"text": TEXT, "checkpoint_dir": folder / "run", "display": False}
    cr.train(max_steps=4, log_every=2, optimizer="rmsprop", **given, **SETTINGS)
    run = cr.train(max_steps=6, resume=True, **given)
    for format, name in OUTPUTS.items():
        run.export(folder / name, format)
    exported = tf.saved_model.load(str(folder / "model")).signatures["score"](tf.constant(["The boat"]))
    plain = keras.saving.load_model(folder / "model.keras")(np.array([[1, 2, 3]], np.int32))
    other = cr.build_model(cr.ModelConfig(5, "gru", hidden_size=4, embedding_size=3, init="tf1"), 1)(np.array([[1, 2]]))
    return {
        "losses": [(row.step, row.train_loss, row.validation_loss) for row in run.history],
        "evaluation": run.evaluate(TEXT),
        "sample": str(run.sample("The ", 30, seed=1)),
        "savedmodel": exported["nats"].numpy().tobytes(),
        "keras": (plain.dtype, plain.numpy().tobytes()),
        "onnx": (folder / "model.onnx").read_bytes(),
        "web": (folder / "model.html").read_bytes(),
        "model": (other.dtype, other.numpy().tobytes()),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defaults")
    return folder, outcome(folder)


@pytest.mark.parametrize(("policy", "floatx", "epsilon"), [("mixed_float16", "float32", 1.0), (None, "float64", 1e-7)])
def test_global_settings_of_keras_change_no_number(tmp_path, expected, policy, floatx, epsilon):
    before = keras.config.floatx(), keras.config.epsilon()
    try:
        keras.config.set_floatx(floatx)
        keras.config.set_epsilon(epsilon)
        if policy:
            keras.config.set_dtype_policy(policy)
        found = outcome(tmp_path)
        assert (keras.config.floatx(), keras.config.epsilon()) == (floatx, epsilon)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_epsilon(before[1])
        keras.config.set_dtype_policy("float32")
    for name, value in expected[1].items():
        assert found[name] == value, name


COMMANDS = """
import sys, charrnn_tf.cli.main as m
for arguments in (["evaluate", "text.txt", "--json"], ["sample", "--prime", "The ", "--length", "30", "--seed", "1"],
                  ["export", "--format", "keras", "-o", "model.keras"], ["export", "--format", "web", "-o", "model.html"]):
    m.cli.main([*arguments, "--checkpoint-dir", sys.argv[1]], standalone_mode=False)
"""


def test_the_command_loads_the_weights_whatever_backend_keras_has(tmp_path, expected):
    """Under KERAS_BACKEND=jax, `evaluate` exited 0 with the loss of the initial weights."""
    folder, known = expected
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps({"floatx": "float64", "epsilon": 1}))
    (tmp_path / "text.txt").write_text(TEXT)
    user = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, folder / "run"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=user | {"KERAS_BACKEND": "torch", "HOME": str(tmp_path)},
    )  # fmt: skip
    score, rest = done.stdout.split("\n", 1)
    assert json.loads(score) == known["evaluation"].as_dict()
    assert rest.startswith(known["sample"])
    ignored = f"KERAS_BACKEND=torch and floatx float64, epsilon 1 in {tmp_path}/.keras/keras.json"
    said, *others = done.stderr.splitlines()
    assert said == f"Warning: charrnn-tf ignores {ignored}: it computes with TensorFlow in float32."
    assert [line[:14] for line in others] == ["16-bit weights"]  # of the web page
    plain = keras.saving.load_model(tmp_path / "model.keras")(np.array([[1, 2, 3]], np.int32))
    assert plain.numpy().tobytes() == known["keras"][1]
    assert (tmp_path / "model.html").read_bytes() == known["web"]
