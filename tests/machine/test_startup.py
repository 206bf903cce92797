"""TensorFlow's start: switches, threads, messages, and the record of them; the library itself changes nothing."""

import json
import os

import processes
import pytest

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


@pytest.mark.slow
def test_the_library_leaves_its_hosts_environment_alone(tmp_path):
    code = (
        "import os, sys\n"
        "import keras, tensorflow as tf  # these set variables of their own\n"
        "before = dict(os.environ), tf.config.threading.get_intra_op_parallelism_threads()\n"
        "from charrnn_tf import ModelConfig, TrainConfig, Trainer, Vocabulary, build_model\n"
        "text = 'the cat sat on a mat. ' * 4\n"
        "vocabulary = Vocabulary.from_text(text)\n"
        "model = ModelConfig(len(vocabulary), hidden_size=4)\n"
        "build_model(model, 1)(tf.constant([[0, 1]]))\n"
        "config = TrainConfig(batch_size=2, num_steps=4, max_steps=1)\n"
        "rows = list(Trainer(model, config, vocabulary, vocabulary.encode(text), sys.argv[1]).run())\n"
        "print(len(rows), (dict(os.environ), tf.config.threading.get_intra_op_parallelism_threads()) == before)"
    )
    assert run(code, tmp_path / "run") == "1 True\n"


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
