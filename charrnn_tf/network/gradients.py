"""`tf.custom_gradient` whose graphs can be freed."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

KEPT = "_charrnn_gradients"  # attribute of a graph


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient`, except that a gradient traced into a graph lives only as long as that graph.

    TensorFlow registers every traced gradient under a name of its own, for ever. The gradient refers to the tensors of its
    graph, so the graph and the weights that it reads would never be freed.
    """
    differentiable = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*inputs: Any) -> Any:
        outputs = differentiable(*inputs)
        if not tf.executing_eagerly():
            _tie_to_graph(tf.nest.flatten(outputs)[0].op)
        return outputs

    return call


def _tie_to_graph(op: Any) -> None:
    """Move an operation's gradient from TensorFlow's registry, which keeps a weak reference to it, to its graph."""
    name = op.get_attr("_gradient_op_type").decode()
    entries = ops.gradient_registry._registry
    gradient = entries[name]["type"]
    setattr(op.graph, KEPT, [*getattr(op.graph, KEPT, ()), gradient])
    reference = weakref.ref(gradient)

    def registered(op: Any, *d_outputs: Any) -> Any:
        return reference()(op, *d_outputs)  # type: ignore[misc]

    entries[name]["type"] = registered
    weakref.finalize(op.graph, entries.pop, name, None).atexit = False
