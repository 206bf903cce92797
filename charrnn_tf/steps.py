"""The training step and many of them in one compiled call.

Randomness is drawn statelessly from the seed, the step, and what it is for, so that nothing random needs saving; a step's
result does not depend on how many steps a call has.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .config import LARGEST_RATE, ModelConfig, TrainConfig
from .layers import PLAIN, Engine, State, Tensor
from .model import build_model, character_losses, recurrent_layers, shard, state_names, weights, zero_state
from .pace import steps_a_call
from .replicas import ALONE, Replicas
from .runtime import gpus, has_bfloat16

COUNTERS = ("step", "loss_sum", "loss_steps", "skipped", "skipped_in_a_row")
MOST_SKIPPED = 10  # steps in a row whose loss or gradient is not finite: then the run ends


class RunState:
    """Everything that a step reads and writes, each in one variable that a checkpoint saves."""

    def __init__(self, model_config: ModelConfig, config: TrainConfig, replicas: Replicas = ALONE) -> None:
        self.replicas = replicas
        self.engine = choose_engine(config)
        self.copies = [self._copy(model_config, config, device) for device in replicas.devices]
        self.model, self.optimizer = self.copies[0]
        zeros = zero_state(model_config, config.batch_size)
        self.recurrent = [tuple(tf.Variable(zero, trainable=False) for zero in layer) for layer in zeros]
        self.state_names = state_names(model_config)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)  # steps done
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)  # of the steps since the last row
        self.loss_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False)  # of these, for a loss or gradient that is not finite
        self.skipped_in_a_row = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.gradient_norm = tf.Variable(0.0, trainable=False)  # of the latest step, before clipping: told, not saved

    @staticmethod
    def _copy(model_config: ModelConfig, config: TrainConfig, device: str) -> tuple[keras.Model, keras.optimizers.Optimizer]:
        """Weights and optimizer of a replica of this process."""
        with tf.device(device):
            model = build_model(model_config, config.batch_size, seed=config.seed)
            optimizer = build_optimizer(config)
            optimizer.build(model.trainable_variables)
        return model, optimizer

    def spread(self) -> None:
        """Give all replicas of this process the weights and the optimizer of its first."""
        for model, optimizer in self.copies[1:]:
            for own, first in [(model, self.model), (optimizer, self.optimizer)]:
                for variable, value in zip(own.variables, first.variables, strict=True):
                    variable.assign(value)

    def variables(self) -> dict[str, dict[str, Any]]:
        """All variables by name, as checkpoints hold them."""
        recurrent = [part for layer in self.recurrent for part in layer]
        return {
            "weights": weights(self.model),
            "optimizer": {f"{n:03d}.{each.name}": each.value for n, each in enumerate(self.optimizer.variables)},
            "state": dict(zip(self.state_names, recurrent, strict=True)),
            "counters": {name: getattr(self, name) for name in COUNTERS},
        }


def choose_engine(config: TrainConfig) -> Engine:
    """cuDNN where TensorFlow lists a GPU, else products in the precision asked for, as far as the processor has it."""
    if gpus():
        return Engine(cudnn=True)
    return Engine({"float32": None, "bfloat16": tf.bfloat16 if has_bfloat16() else None}[config.precision])


class Adam(keras.optimizers.Adam):
    """Keras's Adam, but that a dense gradient's update is one operation of TensorFlow's instead of a dozen."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One variable's part of a step."""
        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        place = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[place].value.handle, v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step, beta2_power=self.beta_2**step, lr=learning_rate, beta1=self.beta_1,
            beta2=self.beta_2, epsilon=self.epsilon, grad=gradient,
        )  # fmt: skip


def build_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer by its name; Adam's epsilon is 1e-8, as in its paper, TensorFlow 1 and PyTorch.

    `train_step` calls its `update_step` alone: what Keras does outside of that (weight decay, averages) is not done.
    """
    if config.optimizer == "adam":
        return Adam(config.learning_rate, epsilon=1e-8)
    return {"sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}[config.optimizer](config.learning_rate)


def learning_rate(config: TrainConfig, steps_per_epoch: int, step: Tensor, time_fraction: Tensor) -> Tensor:
    """The rate of a step (counted from 0), float32.

    A schedule's progress is the largest of the given budgets' fractions; `time_fraction` is that of max_seconds.
    """
    step = tf.cast(step, tf.float64)
    rate = tf.constant(config.learning_rate, tf.float64)
    if config.warmup_steps:
        rate *= tf.minimum((step + 1) / config.warmup_steps, 1.0)
    if config.schedule == "cosine":
        progress = time_fraction
        if most := config.most_steps(steps_per_epoch):
            progress = tf.maximum(progress, step / most)
        rate *= 0.5 * (1 + tf.cos(math.pi * tf.minimum(progress, 1.0)))
    elif config.schedule == "step":
        rate *= config.gamma ** tf.floor(step / (config.step_epochs * steps_per_epoch))
    return tf.cast(tf.minimum(rate, LARGEST_RATE), tf.float32)


def begin_window(
    config: TrainConfig, steps_per_epoch: int, step: Tensor, state: list[State], rows: slice = slice(None)
) -> list[State]:
    """The states before a step's window, zero where a stream begins anew: all at an epoch's start, each by chance.

    rows: which of the batch's streams these are.
    """
    seed = _seed(config, step, "reset")
    bits = tf.random.stateless_uniform((config.batch_size, 1), seed, None, None, tf.int32, alg="philox")  # as under XLA
    fresh = (tf.cast(bits, tf.float64) / 2**32 + 0.5 < config.state_reset) | (step % steps_per_epoch == 0)
    return tf.nest.map_structure(lambda part: tf.where(fresh[rows], tf.zeros_like(part), part), state)


def window_loss(
    model: keras.Model,
    config: TrainConfig,
    rate: float,
    step: Tensor,
    window: Tensor,
    state: list[State],
    engine: Engine = PLAIN,
    numbers: range | None = None,
) -> tuple[Tensor, list[State]]:
    """The mean loss of a window, nats a character: ids [B, T + 1], of which all but the first are targets, and states.

    The window is computed in shards, side by side. rate: of dropout on the layers' outputs. numbers: of the shards, where
    the window is a part of a batch that has `config.shards` of them.
    """
    numbers = numbers or range(config.shards or 1)
    shards = len(numbers)
    losses, after = [], []
    kernels = _thinned(model, config, step)
    for n in range(shards):
        part = tf.nest.map_structure(lambda whole, n=n: shard(whole, n, shards), (window, state))

        def dropout(layer: int, outputs: Tensor, n: int = n) -> Tensor:
            seed = _seed(config, step, f"dropout of layer {layer}, shard {numbers[n]}")
            return outputs * dropout_mask(tf.shape(outputs), rate, seed)

        with keras.StatelessScope(state_mapping=kernels):
            nats, new = character_losses(model, part[0], part[1], dropout if rate else None, engine)
        losses.append(tf.reduce_mean(nats))
        after.append(new)
    joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *after)
    return tf.add_n(losses) / shards, joined


def _thinned(model: keras.Model, config: TrainConfig, step: Tensor) -> list[tuple[keras.Variable, Tensor]]:
    """The recurrent kernels beside what a step takes for them: some of their weights are 0 for the whole batch and window.

    DropConnect on the recurrent weights, as in Merity, Keskar and Socher, arXiv 1708.02182.
    """
    kernels = [layer.cell.recurrent_kernel for layer in recurrent_layers(model)] if config.weight_dropout else []
    return [
        (
            kernel,
            kernel * dropout_mask(tf.shape(kernel), config.weight_dropout, _seed(config, step, f"weights of layer {n}")),
        )
        for n, kernel in enumerate(kernels)
    ]


def dropout_mask(shape: Tensor, rate: float, seed: Tensor) -> Tensor:
    """1 / (1 - rate) where a unit is kept and 0 where it is dropped, float32 of the shape; 0 <= rate < 1.

    Sixteen random bits decide for a unit, so that a random number serves two: that takes two thirds of the time of
    `tf.nn.experimental.stateless_dropout` (`tests/benchmarks/parts.py`). The rate is rounded to a multiple of 2^-16 (above
    0).
    """
    dropped = min(max(round(rate * 2**16), 1), 2**16 - 1)
    count = tf.reduce_prod(shape)
    bits = tf.random.stateless_uniform([(count + 1) // 2], seed, None, None, tf.int32, alg="philox")
    halves = tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[:count]
    kept = tf.reshape(halves >= tf.constant(dropped, tf.uint16), shape)
    return tf.cast(kept, tf.float32) * (2**16 / (2**16 - dropped))


def train_step(
    run: RunState, config: TrainConfig, rate: float, window: Tensor, state: list[State], n: int = 0
) -> tuple[Tensor, list[State], Tensor, Tensor]:
    """Gradients of one window, clipped by their global norm, and one update of the weights -> loss, states after, whether
    the step was taken, the norm.

    n: number of the replica in this process, whose part of the batch the window is; the loss and the gradients are those of
    the whole batch. A step whose loss or gradient is not finite, or too large for the rate, is not taken: weights, optimizer
    and states stay as they were.
    """
    (model, optimizer), replicas = run.copies[n], run.replicas
    with tf.GradientTape() as tape:
        loss, after = window_loss(model, config, rate, run.step, window, state, run.engine, _shards(config, replicas, n))
        loss /= replicas.count
    variables = [variable.value for variable in model.trainable_variables]
    loss, gradients = _summed(replicas, loss, tape.gradient(loss, variables))
    norm = tf.linalg.global_norm(gradients)
    taken = tf.math.is_finite(loss) & tf.math.is_finite(norm * optimizer.learning_rate)
    if config.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm, norm)

    def update() -> Tensor:
        for gradient, variable in zip(gradients, variables, strict=True):  # `apply` would sum over the replicas once more
            optimizer.update_step(gradient, variable, optimizer.learning_rate)
        optimizer.iterations.assign_add(1)
        return tf.constant(True)

    tf.cond(taken, update, lambda: tf.constant(False))
    return loss, tf.nest.map_structure(lambda new, old: tf.where(taken, new, old), after, state), taken, norm


def _shards(config: TrainConfig, replicas: Replicas, n: int) -> range:
    """The numbers of a replica's shards."""
    each = replicas.shards(config.shards)
    first = (replicas.first + n) * each
    return range(first, first + each)


def _summed(replicas: Replicas, loss: Tensor, gradients: list[Any]) -> tuple[Tensor, list[Any]]:
    """The loss and the gradients of the whole batch; rows of an embedding stay rows."""
    dense = [gradient for gradient in gradients if not isinstance(gradient, tf.IndexedSlices)]
    loss, *dense = replicas.summed([loss, *dense])
    left = iter(dense)
    return loss, [replicas.collected(each) if isinstance(each, tf.IndexedSlices) else next(left) for each in gradients]


def compile_steps(run: RunState, model_config: ModelConfig, config: TrainConfig, steps_per_epoch: int) -> Any:
    """The function that trains on windows [n, B, T + 1], one step each, given the fraction of max_seconds used.

    It returns early once `MOST_SKIPPED` steps in a row could not be taken.

    n is at most `pace.steps_a_call`. XLA compiles for one shape only: for it the windows are filled up to that many.
    """

    replicas = run.replicas
    rows = replicas.rows(config.batch_size)

    def all_replicas(window: Tensor, state: list[State]) -> tuple[Tensor, list[State], Tensor, Tensor]:
        def one(n: int, window: Tensor, state: list[State]) -> tuple[Tensor, list[State], Tensor, Tensor]:
            window, state = tf.nest.map_structure(lambda whole: shard(whole, n, replicas.here), (window, state))
            return train_step(run, config, model_config.dropout, window, state, n)

        losses, after, taken, norms = zip(*replicas.run(one, window, state), strict=True)
        return losses[0], tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *after), taken[0], norms[0]

    def run_steps(windows: Tensor, count: Tensor, time_fraction: Tensor) -> None:
        def body(n: Tensor, state: Any) -> Any:
            state = begin_window(config, steps_per_epoch, run.step, state, rows)
            rate = learning_rate(config, steps_per_epoch, run.step, time_fraction)
            for _, optimizer in run.copies:
                optimizer.learning_rate.assign(rate)
            loss, state, taken, norm = all_replicas(windows[n], state)
            run.gradient_norm.assign(norm)
            skipped = tf.cast(~taken, tf.int64)
            run.loss_sum.assign_add(tf.where(taken, tf.cast(loss, tf.float64), 0.0))
            run.loss_steps.assign_add(1)
            run.skipped.assign_add(skipped)
            run.skipped_in_a_row.assign((run.skipped_in_a_row + 1) * skipped)
            run.step.assign_add(1)
            return n + 1, state

        before = [tuple(part.value()[rows] for part in layer) for layer in run.recurrent]

        def goes_on(n: Tensor, _: Any) -> Tensor:
            return (n < count) & (run.skipped_in_a_row < MOST_SKIPPED)

        _, after = tf.while_loop(goes_on, body, (0, before), parallel_iterations=1)
        for variable, value in zip(tf.nest.flatten(run.recurrent), tf.nest.flatten(after), strict=True):
            variable.assign(tf.concat([variable[: rows.start], value, variable[rows.stop :]], 0))

    capacity = steps_a_call(config) if config.xla else None
    signature = (
        tf.TensorSpec([capacity, config.batch_size // replicas.count * replicas.here, config.num_steps + 1], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.float64),
    )
    compiled = tf.function(run_steps, autograph=False, jit_compile=bool(config.xla)).get_concrete_function(*signature)

    def call(windows: npt.NDArray[np.int32], time_fraction: float) -> None:
        filled = np.pad(windows, ((0, capacity - len(windows)), (0, 0), (0, 0))) if capacity else windows
        compiled(tf.constant(filled), tf.constant(len(windows)), tf.constant(time_fraction, tf.float64))

    return call


def _seed(config: TrainConfig, step: Tensor, purpose: str) -> Tensor:
    """The seed of one use of randomness in one step, [2]."""
    return tf.random.fold_in([config.seed, step], sum(ord(c) * 31**n for n, c in enumerate(purpose)) % 2**31)
