"""The lines before a run: the device, and remarks on it."""

from types import SimpleNamespace

import pytest
import tensorflow as tf
from gpu import NAME as GPU
from gpu import stand_in

from charrnn_tf.api import summary as module
from charrnn_tf.api.summary import introduction, notes
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.training.trainer import Trainer

TEXT = "the cat sat\non a mat\n" * 8
TF32 = "`precision` bfloat16 counts on a CPU only: on a GPU cuDNN computes in float32 (products in TF32)."


def trainer(directory, **settings):
    vocabulary = Vocabulary.from_text(TEXT)
    model = ModelConfig(len(vocabulary), hidden_size=8, num_layers=1)
    config = TrainConfig(**{"batch_size": 2, "num_steps": 4, "max_steps": 1, **settings})
    return Trainer(model, config, vocabulary, vocabulary.encode(TEXT), directory)


def lines_of(run):
    return list(introduction(run, SimpleNamespace(chosen={}, budget_given=True)))


def device_of(run):
    (line,) = (line for line in lines_of(run) if line.startswith("Device: "))
    return line


@pytest.mark.parametrize("unused", [False, True])
def test_the_device_line_of_a_cpu_says_if_a_gpu_is_there(tmp_path, monkeypatch, unused):
    monkeypatch.setattr(module, "unused_gpu", lambda: unused)
    monkeypatch.setattr(module, "available_cores", lambda: 3)
    said = " (TensorFlow can't use the NVIDIA GPU)" if unused else ""
    assert device_of(trainer(tmp_path)) == f"Device: CPU, 3 cores{said}, TensorFlow {tf.__version__}."


@pytest.mark.parametrize(
    ("count", "replicas", "settings", "said"),
    [
        (1, 1, {}, f"{GPU}, cuDNN"),
        (4, 1, {}, f"{GPU} (1 of 4 GPUs), cuDNN"),
        (4, 4, {}, f"4 x {GPU}, cuDNN"),
        (1, 1, {"lines": True}, f"{GPU}, without cuDNN because of `lines`"),
    ],
)
def test_the_device_line_names_the_gpus_that_are_used(tmp_path, monkeypatch, count, replicas, settings, said):
    stand_in(monkeypatch, count=count)
    run = trainer(tmp_path, **settings)
    monkeypatch.setattr(type(run.replicas), "devices", [""] * replicas)
    assert device_of(run) == f"Device: GPU {said}, TensorFlow {tf.__version__}."


@pytest.mark.parametrize(
    ("precision", "tf32", "expected"),
    [
        ("float32", True, []),
        ("bfloat16", True, [TF32]),
        ("bfloat16", False, [TF32.replace(" (products in TF32)", "")]),
    ],
)
def test_bfloat16_on_a_gpu_is_told_to_be_float32(tmp_path, monkeypatch, precision, tf32, expected):
    stand_in(monkeypatch)
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: tf32)
    monkeypatch.setattr("charrnn_tf.training.state.has_bfloat16", lambda: False)  # of the CPU
    assert notes(trainer(tmp_path, precision=precision)) == expected
