"""The learning rate of each step."""

import math

import tensorflow as tf

from ..network.products import Tensor
from ..settings.schema import LARGEST_RATE, TrainConfig


def learning_rate(config: TrainConfig, steps_per_epoch: int, step: Tensor, time_fraction: Tensor) -> Tensor:
    """The learning rate of a step (counted from 0), float32.

    A cosine schedule's progress is the largest used fraction of the given budgets; `time_fraction` is that of `max_seconds`.
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
