"""A stand-in for a GPU, for tests on machines without one, and the operations of traced graphs."""

from collections import Counter
from importlib import import_module

import tensorflow as tf

NAME, OPERATION, GRADIENT = "Abacus GPU", "CudnnRNNV3", "CudnnRNNBackpropV3"


def stand_in(monkeypatch, *, cudnn):
    """Make TensorFlow report a GPU; what is computed still runs on the CPU.

    cudnn: where its layers may use cuDNN, Keras traces that operation, which no CPU can run; otherwise its own loop.
    """
    listed = tf.config.list_logical_devices
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")

    def logical_devices(kind=None):
        return [tf.config.LogicalDevice("/device:GPU:0", "GPU")] if kind == "GPU" else listed(kind)

    visible = tf.config.get_visible_devices
    monkeypatch.setattr(tf.config, "list_logical_devices", logical_devices)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [device] if kind == "GPU" else visible(kind))
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda of: {"device_name": NAME} if of is device else {}
    )
    rnn = import_module("keras.src.backend.tensorflow.rnn")  # the package has a function of this name
    monkeypatch.setattr(rnn, "_is_gpu_available", lambda: cudnn)


def operations(definition):
    """How often each kind of operation is in a GraphDef, with the functions that it calls."""
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return Counter(node.op for node in nodes)
