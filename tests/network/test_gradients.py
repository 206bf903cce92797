"""Gradients that are traced into graphs, and freed with them."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from charrnn_tf.network.model import build_model
from charrnn_tf.settings.schema import ModelConfig

IDS = np.arange(8, dtype=np.int32).reshape(2, 4)


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(11, hidden_size=8, num_layers=1), 2)


def traced(model):
    """A function of nothing that reads IDS from a zero state, in a graph."""

    def read():
        for part in model.get_layer("lstm_0").states:
            part.assign(tf.zeros_like(part))
        return tf.reduce_sum(model(IDS) ** 2)

    return tf.function(read, autograph=False)


def test_a_graph_with_gradients_is_freed_although_tensorflow_registers_them_for_ever(model):
    gc.collect()
    names = len(ops.gradient_registry.list())
    graph = weakref.ref(traced(model).get_concrete_function().graph)
    gc.collect()
    assert graph() is None
    assert len(ops.gradient_registry.list()) == names


def test_a_gradient_outlives_the_graphs_of_other_functions(model):
    read = traced(model)
    read()
    traced(model)()
    gc.collect()
    variables = [variable.value for variable in model.trainable_variables]
    found = []
    for function in (read, read.python_function):
        with tf.GradientTape(persistent=True) as tape:
            squares = function()
        found += [tape.gradient(squares, variables), tape.gradient(squares, variables)]
    for gradients in zip(*found, strict=True):
        for gradient in gradients[1:]:
            np.testing.assert_allclose(gradient, gradients[0], rtol=1e-5, atol=1e-7)
        assert np.abs(gradients[0]).max() > 0
