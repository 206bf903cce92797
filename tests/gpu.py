"""A stand-in for GPUs, for tests on machines without one, and the operations of traced graphs."""

from collections import Counter
from importlib import import_module

import tensorflow as tf

NAME, OPERATION, GRADIENT = "Abacus 80", "CudnnRNNV3", "CudnnRNNBackpropV3"


def stand_in(monkeypatch, *, cudnn=False, count=1):
    """Make TensorFlow report GPUs; what is computed still runs on the CPU.

    cudnn: where its layers may use cuDNN, Keras traces that operation, which no CPU can run; otherwise its own loop.
    """
    rnn = import_module("keras.src.backend.tensorflow.rnn")  # the package has a function of this name
    monkeypatch.setattr(rnn, "_is_gpu_available", lambda: cudnn)
    devices = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(count)]
    for name in ("list_logical_devices", "list_physical_devices", "get_visible_devices"):
        monkeypatch.setattr(tf.config, name, _with_gpus(devices, getattr(tf.config, name)))
    details = {"device_name": NAME, "compute_capability": (9, 0)}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details if device in devices else {})
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda device: None)
    for name in ("get_memory_growth", "set_memory_growth"):
        monkeypatch.setattr(tf.config.experimental, name, lambda *arguments: None)


def _with_gpus(devices, listed):
    return lambda kind=None: devices if kind == "GPU" else listed(kind)


def operations(definition):
    """How often each kind of operation is in a GraphDef, with the functions that it calls."""
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return Counter(node.op for node in nodes)
