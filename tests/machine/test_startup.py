"""What the machine decides: shards, XLA, bfloat16, and what was in force."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn_tf.machine import startup as runtime
from charrnn_tf.machine.hardware import available_cores, has_bfloat16, processor
from charrnn_tf.machine.startup import default_xla
from charrnn_tf.settings.merge import default_shards

SWITCHES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS")
CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: Abacus 9 amx_bf16 @ 2: fast
flags\t\t: fpu avx2 {flags} avx512vl

processor\t: 1
model name\t: Slide Rule
flags\t\t: fpu amx_bf16
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """A function that sets what the system tells of its processors."""
    return lambda text: monkeypatch.setattr(runtime, "_cpuinfo", lambda: text)


def run(code, *arguments, **environment):
    """What a fresh interpreter prints, with these of the switches set and no others."""
    plain = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env={**plain, **environment}, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    ("cores", "batch_size", "shards"),
    [
        (1, 128, 1),
        (2, 10, 2),
        (2, 9, 1),  # odd
        (2, 8, 1),  # 4 streams each would be too few
        (2, 128, 2),
        (4, 32, 4),
        (4, 18, 3),
        (4, 16, 2),
        (8, 128, 8),
        (64, 128, 16),
        (64, 1, 1),
    ],
)
def test_a_batch_has_a_shard_for_each_core_as_far_as_it_divides(monkeypatch, cores, batch_size, shards):
    monkeypatch.setattr(runtime, "available_cores", lambda: cores)
    assert default_shards(batch_size) == shards


@pytest.mark.parametrize(
    ("batch_size", "total_steps", "xla"),
    [(1, None, True), (8, None, True), (8, 1000, True), (8, 999, False), (9, None, False), (9, 10**6, False)],
)
def test_xla_is_for_few_streams_and_many_steps(batch_size, total_steps, xla):
    assert default_xla(batch_size, total_steps) is xla


@pytest.mark.parametrize(
    ("flags", "has"),
    [("avx512_bf16", True), ("amx_bf16", True), ("avx512_bf16 amx_bf16", True), ("avx512f", False), ("xamx_bf16", False)],
)
def test_bfloat16_is_there_where_the_first_processors_flags_say_so(cpuinfo, flags, has):
    cpuinfo(CPUINFO.format(flags=flags))
    assert has_bfloat16() is has


@pytest.mark.parametrize(("flags", "alone"), [("", True), ("avx512f", False), ("avx512f avx512_bf16", False)])
def test_avx2_is_alone_where_there_is_no_avx512(cpuinfo, flags, alone):
    cpuinfo(CPUINFO.format(flags=f"avx2 {flags}"))
    assert runtime.only_avx2() is alone


@pytest.mark.parametrize("text", ["", ARM, "flags\n", "\n"])
def test_where_the_system_tells_no_flags_nothing_is_known_to_be_there(cpuinfo, text):
    cpuinfo(text)
    assert has_bfloat16() is False
    assert runtime.only_avx2() is False


def test_the_processors_name_is_that_of_the_first(cpuinfo):
    cpuinfo(CPUINFO)
    assert processor() == "Abacus 9 amx_bf16 @ 2: fast"


@pytest.mark.parametrize("text", ["", ARM])
def test_a_processor_without_a_name_has_pythons(cpuinfo, monkeypatch, text):
    cpuinfo(text)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    for known, name in [("Sunway", "Sunway"), ("", "riscv64")]:
        monkeypatch.setattr(platform, "processor", lambda known=known: known)
        assert processor() == name


def test_a_system_without_cpuinfo_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "Path", lambda path: tmp_path / Path(path).name)
    assert runtime._cpuinfo() == ""
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: \xff\n")
    assert runtime._cpuinfo() == "model name\t: \ufffd\n"


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
def test_the_command_sets_what_the_user_has_not_set():
    code = (
        "import json\nfrom charrnn_tf import runtime\nruntime.available_cores = lambda: 6\nruntime.start(2)\n"
        "print(json.dumps(runtime.in_force()))"
    )
    names = ("intra_op_threads", "inter_op_threads", "onednn")
    ours, theirs = json.loads(run(code)), json.loads(run(code, TF_NUM_INTRAOP_THREADS="5", TF_ENABLE_ONEDNN_OPTS="0"))
    assert [ours[name] for name in names] == ["3", "6", "1"]
    assert [theirs[name] for name in names] == ["5", "6", "0"]


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
