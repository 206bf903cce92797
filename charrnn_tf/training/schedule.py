"""The learning rate of each step, and how much of the budget is used."""

import math

import tensorflow as tf

from ..network.products import Tensor
from ..settings.schema import LARGEST_RATE, TrainConfig


def learning_rate(config: TrainConfig, steps_per_epoch: int, step: Tensor, time_fraction: Tensor) -> Tensor:
    """The learning rate of a step (counted from 0), float32; see `progress`."""
    step = tf.cast(step, tf.float64)
    rate = tf.constant(config.learning_rate, tf.float64)
    if config.warmup_steps:
        rate *= tf.minimum((step + 1) / config.warmup_steps, 1.0)
    if config.schedule == "cosine":
        used = progress(config, steps_per_epoch, step, time_fraction)
        rate *= config.final_rate + (1 - config.final_rate) * 0.5 * (1 + tf.cos(math.pi * used))
    elif config.schedule == "step":
        rate *= config.gamma ** tf.floor(step / (config.step_epochs * steps_per_epoch))
    return tf.cast(tf.minimum(rate, LARGEST_RATE), tf.float32)


def progress(config: TrainConfig, steps_per_epoch: int, steps: Tensor, time_fraction: Tensor) -> Tensor:
    """The largest used fraction of the given budgets after some steps, float64; `time_fraction` is that of `max_seconds`."""
    used = time_fraction
    if most := config.most_steps(steps_per_epoch):
        used = tf.maximum(used, tf.cast(steps, tf.float64) / most)
    return tf.minimum(used, 1.0)
