"""Many training steps in one compiled call; a step's result does not depend on how many steps a call has."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..errors import DivergedError
from ..machine.startup import check_process
from ..network.cells import State
from ..network.model import join, shard
from ..network.products import Tensor
from ..settings.schema import ModelConfig, TrainConfig
from .budget import steps_per_call
from .randomness import zero_states
from .schedule import learning_rate, progress
from .state import HOST, RunState
from .step import train_step

MOST_SKIPPED = 10  # skipped steps in a row that end a run
TrainSteps = Callable[[npt.NDArray[np.int32], float], None]


def compile_steps(run: RunState, model_config: ModelConfig, config: TrainConfig, steps_per_epoch: int) -> TrainSteps:
    """Compile the loop over steps: a function of windows [n, B, T + 1] and the used fraction of `max_seconds`.

    It makes one update for each window, and returns early once `MOST_SKIPPED` steps in a row were skipped. n is at most
    `budget.steps_per_call`. XLA compiles for a single shape, so for it the windows are padded to that many.
    """
    replicas = run.replicas
    here = range(replicas.here)
    rows, replica_rows = replicas.rows(config.batch_size), [replicas.rows(config.batch_size, n) for n in here]

    def one_step(windows: Tensor, states: list[list[State]]) -> tuple[Tensor, list[list[State]], Tensor, Tensor]:
        """Run `train_step` on this process's replicas, each with its part of the windows and a state of its own."""

        def one_replica(n: int, windows: Tensor, states: list[list[State]]) -> Any:
            state = zero_states(config, steps_per_epoch, run.step, states[n], replica_rows[n])
            return train_step(run, config, model_config.dropout, shard(windows, n, len(here)), state, n)

        losses, after, made, norms = zip(*replicas.run(one_replica, windows, states), strict=True)
        return losses[0], list(after), made[0], norms[0]

    def run_steps(windows: Tensor, count: Tensor, time_fraction: Tensor) -> None:
        def body(n: Tensor, states: Any) -> Any:
            with tf.device(HOST):
                rate = learning_rate(config, steps_per_epoch, run.step, time_fraction)
            for _, optimizer in run.copies:
                optimizer.learning_rate.assign(rate)
            loss, states, made, norm = one_step(windows[n], states)
            with tf.device(HOST):
                _count(run, loss, made, norm)
            if config.averaging:
                used = progress(config, steps_per_epoch, run.step, time_fraction)
                tf.cond(used > 1 - config.averaging, run.average, run.forget_averages)
            return n + 1, states

        def goes_on(n: Tensor, _: Any) -> Tensor:
            return (n < count) & (run.skipped_in_a_row < MOST_SKIPPED)

        before = [[tuple(part.value()[rows_n] for part in layer) for layer in run.recurrent] for rows_n in replica_rows]
        _, states = tf.while_loop(goes_on, body, (0, before), parallel_iterations=1)
        after = join(states)
        for variable, value in zip(tf.nest.flatten(run.recurrent), tf.nest.flatten(after), strict=True):
            variable.assign(tf.concat([variable[: rows.start], value, variable[rows.stop :]], 0))

    capacity = steps_per_call(config) if config.xla else None
    signature = (
        tf.TensorSpec([capacity, config.batch_size // replicas.count * replicas.here, config.num_steps + 1], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.float64),
    )
    compiled = tf.function(run_steps, autograph=False, jit_compile=bool(config.xla)).get_concrete_function(*signature)

    def call(windows: npt.NDArray[np.int32], time_fraction: float) -> None:
        check_process()
        padded = np.pad(windows, ((0, capacity - len(windows)), (0, 0), (0, 0))) if capacity else windows
        with run.lock:
            run.to_train()
            compiled(tf.constant(padded), tf.constant(len(windows)), tf.constant(time_fraction, tf.float64))

    return call


def check_losses(run: RunState, config: TrainConfig, last_saved: str) -> None:
    """Raise DivergedError after MOST_SKIPPED skipped steps in a row. last_saved: a sentence on the last checkpoint."""
    if int(run.skipped_in_a_row) >= MOST_SKIPPED:
        off = [name for name in ("clip_norm", "weight_decay") if not getattr(config, name)]
        ways = ["a lower `learning_rate`", *(f"`{name}`" for name in off)]
        raise DivergedError(
            f"the loss or its gradient was not finite in {MOST_SKIPPED} steps in a row, up to step {int(run.step):,}, at a "
            f"learning rate of {float(run.optimizer.learning_rate):g}. {last_saved}Start again with {' or '.join(ways)}."
        )


def _count(run: RunState, loss: Tensor, made: Tensor, norm: Tensor) -> None:
    """Advance the run's counters by one step."""
    skipped = tf.cast(~made, tf.int64)
    run.gradient_norm.assign(norm)
    run.loss_sum.assign_add(tf.where(made, tf.cast(loss, tf.float64), 0.0))
    run.loss_steps.assign_add(1)
    run.skipped.assign_add(skipped)
    run.skipped_in_a_row.assign((run.skipped_in_a_row + 1) * skipped)
    run.step.assign_add(1)
