"""One training step: the loss of a window, its gradients, clipping by their global norm, one update of the weights."""

from typing import Any

import keras
import tensorflow as tf

from ..network.cells import Engine, State
from ..network.model import character_losses, join, recurrent_layers, shard
from ..network.products import Tensor
from ..settings.schema import TrainConfig
from .randomness import drop_outputs, drop_weights
from .state import RunState


def train_step(
    run: RunState, config: TrainConfig, dropout: float, window: Tensor, state: list[State], n: int = 0
) -> tuple[Tensor, list[State], Tensor, Tensor]:
    """Make one update from one window: ids [B, T + 1], states -> loss, states after, whether it was made, gradient norm.

    n: number, within this process, of the replica that reads the window; loss and gradients are those of the whole batch.
    A step whose loss or gradient is not finite, or too large for the learning rate, is skipped: weights, optimizer and
    states stay as they were.
    """
    (model, optimizer), replicas = run.copies[n], run.replicas
    shards = replicas.shards(config.shards)
    first = (replicas.first + n) * shards
    with tf.GradientTape() as tape:
        numbers = range(first, first + shards)
        loss, after = window_loss(model, config, dropout, run.step, window, state, run.engine, numbers)
        loss /= replicas.count
    variables = [variable.value for variable in model.trainable_variables]
    own = map(_dense, tape.gradient(loss, variables), variables)
    loss, *gradients = replicas.summed([loss, *own])
    norm = tf.linalg.global_norm(gradients)
    finite = tf.math.is_finite(loss) & tf.math.is_finite(norm * optimizer.learning_rate)
    if config.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm, norm)

    def update() -> Tensor:
        if config.weight_decay:  # decoupled: Loshchilov and Hutter, arXiv 1711.05101
            for weight in model.trainable_variables:
                if weight.name != "bias":
                    weight.value.assign(weight.value * (1.0 - config.weight_decay * optimizer.learning_rate))
        for gradient, variable in zip(gradients, variables, strict=True):  # `apply` would sum over the replicas again
            optimizer.update_step(gradient, variable, optimizer.learning_rate)
        optimizer.iterations.assign_add(1)
        return tf.constant(True)

    tf.cond(finite, update, lambda: tf.constant(False))
    return loss, tf.nest.map_structure(lambda new, old: tf.where(finite, new, old), after, state), finite, norm


def window_loss(
    model: keras.Model,
    config: TrainConfig,
    dropout: float,
    step: Tensor,
    window: Tensor,
    state: list[State],
    engine: Engine = Engine.FLOAT32,
    numbers: range | None = None,
) -> tuple[Tensor, list[State]]:
    """Mean loss of a window, nats per character: ids [B, T + 1], all but the first targets, and states -> loss, states.

    The shards of the window are computed in parallel. dropout: rate on the layers' outputs. numbers: those of the window's
    shards within the whole batch; default: all `config.shards`.
    """
    numbers = numbers or range(config.shards or 1)
    kernels = None
    if config.weight_dropout:
        kernels = drop_weights(config, step, [layer.cell.recurrent_kernel.value for layer in recurrent_layers(model)])
    losses, after = [], []
    for n, number in enumerate(numbers):
        part, before = tf.nest.map_structure(lambda whole, n=n: shard(whole, n, len(numbers)), (window, state))

        def drop(layer: int, outputs: Tensor, number: int = number) -> Tensor:
            return drop_outputs(config, dropout, step, layer, number, outputs)

        nats, new = character_losses(model, part, before, drop if dropout else None, engine, kernels)
        losses.append(tf.reduce_mean(nats))
        after.append(new)
    return tf.add_n(losses) / len(numbers), join(after)


def _dense(gradient: Any, variable: Tensor) -> Tensor:
    """A gradient as one tensor: that of an embedding comes as a row for each character read, and repeated ones add up."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    return gradient
