"""TensorFlow's start: switches, threads, messages, the record of them, and Keras's settings."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import processes
import pytest
import tensorflow as tf
from gpu import NAME as GPU
from gpu import stand_in

from charrnn_tf import train
from charrnn_tf.errors import ConfigError, warn
from charrnn_tf.machine import startup
from charrnn_tf.machine.hardware import available_cores, processor

SWITCHES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS")


def run(code, *arguments, **environment):
    """The output of a fresh interpreter, with these switches set and no others."""
    plain = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    how = {"capture_output": True, "text": True, "check": True, "timeout": 60}
    return processes.run(["-c", code, *arguments], env={**plain, **environment}, **how).stdout


@pytest.mark.slow
def test_in_force_is_what_the_environment_says():
    code = "import json; from charrnn_tf.machine.startup import in_force; print(json.dumps(in_force()))"
    plain = json.loads(run(code))
    assert plain == {
        "processor": processor(),
        "cores": available_cores(),
        "gpus": plain["gpus"],
        "intra_op_threads": "0",
        "inter_op_threads": "0",
        "onednn": "TensorFlow's choice",
    }
    switched = json.loads(run(code, TF_NUM_INTRAOP_THREADS="3", TF_NUM_INTEROP_THREADS="5", TF_ENABLE_ONEDNN_OPTS="0"))
    assert switched == {**plain, "intra_op_threads": "3", "inter_op_threads": "5", "onednn": "0"}


@pytest.mark.slow
def test_start_sets_only_what_the_user_has_not_set():
    code = (
        "import json, sys\nfrom charrnn_tf.machine import startup\nstartup.available_cores = lambda: 6\n"
        "startup._imported_before = lambda: False  # these processes begin with TensorFlow loaded\n"
        "startup.start(*map(int, sys.argv[1:]))\nprint(json.dumps(startup.in_force()))"
    )
    names = ("intra_op_threads", "inter_op_threads", "onednn")
    for arguments, switches, expected in [
        ([2], {}, ["3", "6", "1"]),
        ([4], {}, ["1", "6", "1"]),
        ([64], {}, ["1", "6", "1"]),
        ([], {}, ["1", "6", "1"]),  # a shard per core
        ([2], {"TF_NUM_INTRAOP_THREADS": "5", "TF_ENABLE_ONEDNN_OPTS": "0"}, ["5", "6", "0"]),
    ]:
        started = json.loads(run(code, *arguments, **switches))
        assert [started[name] for name in names] == expected


def fresh(code):
    """Output and errors of a true process: what it does before TensorFlow is loaded counts."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    code = f"from charrnn_tf.machine import startup\nstartup.available_cores = lambda: 2\n{code}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=plain)
    return done.stdout, done.stderr


@pytest.mark.slow
def test_parts_of_the_library_start_tensorflow_as_the_command_does():
    code = (
        "import charrnn_tf as cr, sys\n"
        "vocabulary = cr.Vocabulary('ab')\n"
        "assert 'tensorflow' not in sys.modules\n"
        "cr.Sampler(cr.ModelConfig(2, hidden_size=4), vocabulary).sample('a', 3, seed=1)\n"
        "there = startup.in_force()\n"
        "print(there['intra_op_threads'], there['inter_op_threads'], there['onednn'])"
    )
    assert fresh(code) == ("1 2 1\n", "")


HOST = (
    "import os, keras, tensorflow as tf  # these set variables of their own\n"
    "startup.onednn_by_default = lambda: {onednn}\n"
    "{before}\n"
    "environment = dict(os.environ)\n"
    "from charrnn_tf import ModelConfig, build_model\n"
    "models = [build_model(ModelConfig(3, hidden_size=4), 1) for _ in range(2)]\n"
    "print(dict(os.environ) == environment, tf.config.threading.get_intra_op_parallelism_threads())"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("onednn", "before", "threads", "missed"),
    [
        (True, "", 1, None),  # no device has started: nothing is lost
        (False, "tf.constant(1)", 0, "TF_ENABLE_ONEDNN_OPTS=1 and TF_NUM_INTRAOP_THREADS=1"),
    ],
)
def test_a_host_that_imported_tensorflow_keeps_its_environment(onednn, before, threads, missed):
    printed, errors = fresh(HOST.format(onednn=onednn, before=before))
    assert printed == f"True {threads}\n"
    warnings = [line for line in errors.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == bool(missed)
    assert all(f" Set {missed} in the environment" in line for line in warnings)


# Keras's settings


@pytest.fixture
def before_keras(monkeypatch, tmp_path):
    """A function that sets KERAS_BACKEND and keras.json, in a process that seems not to have imported Keras."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)

    def settings(backend, entries):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        (tmp_path / "keras.json").write_text(json.dumps(entries))

    return settings


@pytest.mark.parametrize(
    ("backend", "entries", "message"),
    [
        ("", {}, None),
        ("tensorflow", {"backend": "jax"}, None),
        ("", {"floatx": "float64", "epsilon": 1.0}, None),
        ("torch", {}, "Keras has the backend torch, and charrnn_tf needs TensorFlow: set KERAS_BACKEND=tensorflow"),
        ("", {"backend": "jax"}, "Keras has the backend jax, "),
        ("", {"epsilon": 1}, "keras.json' stops Keras and TensorFlow: floatx must be one of float16, float32, float64, eps"),
        ("", {"floatx": "bfloat16"}, "Correct the file, or remove it."),
    ],
)
def test_another_backend_of_keras_is_one_line(before_keras, backend, entries, message):
    before_keras(backend, entries)
    if not message:
        startup.check_backend()
        return
    with pytest.raises(ConfigError) as caught:
        startup.check_backend()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_backend_that_keras_was_imported_with_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(config=SimpleNamespace(backend=lambda: "torch")))
    with pytest.raises(ConfigError, match="backend torch"):
        train("no-such-file")


@pytest.mark.parametrize(
    ("backend", "entries", "ignored"),
    [
        ("", {}, None),
        ("tensorflow", {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_first"}, None),
        ("jax", {}, "KERAS_BACKEND=jax"),
        ("torch", {"backend": "jax", "epsilon": 1}, "KERAS_BACKEND=torch and backend jax, epsilon 1 in {file}"),
    ],
)
def test_the_command_says_which_settings_of_keras_it_ignores(before_keras, caplog, tmp_path, backend, entries, ignored):
    before_keras(backend, entries)
    warn.cache_clear()
    startup.use_own_keras()
    startup.check_backend()
    said = ignored and f"Warning: charrnn-tf ignores {ignored}: it computes with TensorFlow in float32."
    assert caplog.messages == ([said.format(file=tmp_path / "keras.json")] if said else [])


def noise():
    os.write(2, b"noise\n")  # as TensorFlow does, past sys.stderr


@pytest.mark.parametrize(("level", "expected"), [(None, ""), ("3", ""), ("0", "noise\n"), ("2", "noise\n")])
def test_start_up_messages_are_shown_only_on_request(monkeypatch, capfd, level, expected):
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    else:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with startup._silence():
        noise()
    assert capfd.readouterr().err == expected
    noise()
    assert capfd.readouterr().err == "noise\n"


def test_start_up_messages_are_shown_when_the_start_fails(capfd):
    def fail():
        with startup._silence():
            noise()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capfd.readouterr().err == "noise\n"


def test_a_cpu_without_avx_is_told_instead_of_aborting(monkeypatch):
    monkeypatch.setattr(startup, "lacks_avx", lambda: True)
    with pytest.raises(ConfigError, match="this CPU has no AVX instructions"):
        startup.load()


@pytest.mark.parametrize("unused", [True, False])
def test_a_gpu_that_tensorflow_can_t_use_is_told(monkeypatch, caplog, unused):
    monkeypatch.setattr(startup, "_started", [])
    monkeypatch.setattr(startup, "unused_gpu", lambda: unused)
    warn.cache_clear()
    startup.start()
    assert ("there is an NVIDIA GPU, but TensorFlow can't use it" in caplog.text) is unused


@pytest.mark.parametrize(
    ("variable", "before", "limits", "grows"),
    [
        (None, None, None, [True, True]), ("true", None, None, []), ("false", None, None, []), (None, False, None, []),
        (None, True, None, []), (None, None, [1024], []),
    ],
)  # fmt: skip
def test_the_memory_of_a_gpu_grows_unless_the_user_has_decided(monkeypatch, variable, before, limits, grows):
    stand_in(monkeypatch, count=2)
    found, config = [], tf.config
    monkeypatch.setattr(startup, "_started", [])
    monkeypatch.setattr(config, "get_logical_device_configuration", lambda gpu: limits)
    monkeypatch.setattr(config.experimental, "get_memory_growth", lambda gpu: before)
    monkeypatch.setattr(config.experimental, "set_memory_growth", lambda gpu, grows: found.append(grows))
    monkeypatch.delenv(startup.GROWTH, raising=False)
    if variable:
        monkeypatch.setenv(startup.GROWTH, variable)
    startup.start()
    assert found == grows


def test_devices_that_the_host_has_started_keep_their_memory(monkeypatch):
    asked = []

    def fail(gpu, grows):
        asked.append(grows)
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    stand_in(monkeypatch)
    monkeypatch.setattr(startup, "_started", [])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", fail)
    startup.start()
    assert asked == [True]


def test_in_force_names_gpu_tf32_and_cudnn(monkeypatch):
    plain = startup.in_force()
    stand_in(monkeypatch)
    assert startup.in_force() == {**plain, "gpus": 1, "gpu": GPU, "tf32": True, "cudnn": startup.cudnn_version()}


@pytest.mark.slow
def test_an_abort_while_tensorflow_starts_is_shown():
    code = "import os\nfrom charrnn_tf.machine.startup import _silence\nwith _silence():\n    os.abort()"
    plain = {name: value for name, value in os.environ.items() if name != startup.LOG_LEVEL}
    ended = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=False)
    assert ended.returncode < 0
    assert "Fatal Python error: Aborted" in ended.stderr
