"""Draws all random numbers of training from the seed, the step and their purpose; no generator state is saved.

State resets are drawn for the whole batch, so they don't depend on the number of shards or workers; dropout masks are drawn
for each shard.
"""

from collections.abc import Sequence

import tensorflow as tf

from ..network.cells import State
from ..network.products import Tensor
from ..settings.schema import TrainConfig


def zero_states(
    config: TrainConfig, steps_per_epoch: int, step: Tensor, state: list[State], rows: slice = slice(None)
) -> list[State]:
    """The states before a step's window: zero at an epoch's start, and otherwise per stream with chance `state_reset`.

    With `lines` there are no random resets, which would cut lines: each line starts from a zero state anyway.
    rows: streams of the whole batch that the states belong to.
    """
    bits = tf.random.stateless_uniform(  # integers, since XLA converts them to floats differently
        (config.batch_size, 1), seed_of(config, step, "reset"), None, None, tf.int32, alg="philox"
    )
    fresh = (tf.cast(bits, tf.float64) / 2**32 + 0.5 < (0.0 if config.lines else config.state_reset)) | (
        step % steps_per_epoch == 0
    )
    return tf.nest.map_structure(lambda part: tf.where(fresh[rows], tf.zeros_like(part), part), state)


def drop_outputs(config: TrainConfig, rate: float, step: Tensor, layer: int, shard: int, outputs: Tensor) -> Tensor:
    """Apply dropout to a layer's outputs [T, B, H] in one shard of the batch."""
    seed = seed_of(config, step, f"dropout of layer {layer}, shard {shard}")
    return outputs * dropout_mask(tf.shape(outputs), rate, seed)


def drop_weights(config: TrainConfig, step: Tensor, kernels: Sequence[Tensor]) -> list[Tensor]:
    """Apply DropConnect to the recurrent kernels, the same for the whole batch and window (Merity et al. 2017).

    Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", arXiv 1708.02182.
    """
    return [
        kernel * dropout_mask(tf.shape(kernel), config.weight_dropout, seed_of(config, step, f"weights of layer {n}"))
        for n, kernel in enumerate(kernels)
    ]


def dropout_mask(shape: Tensor, rate: float, seed: Tensor) -> Tensor:
    """Inverted-dropout mask: 1 / (1 - rate) where a unit is kept and 0 where it is dropped, float32; 0 <= rate < 1.

    Sixteen random bits per unit, so that each random number serves two: this takes two thirds of the time of
    `tf.nn.experimental.stateless_dropout` (`tests/benchmarks/parts.py`). The rate is rounded to a multiple of 2^-16.
    """
    dropped = min(max(round(rate * 2**16), 1), 2**16 - 1)
    count = tf.reduce_prod(shape)
    bits = tf.random.stateless_uniform([(count + 1) // 2], seed, None, None, tf.int32, alg="philox")
    halves = tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[:count]
    kept = tf.reshape(halves >= tf.constant(dropped, tf.uint16), shape)
    return tf.cast(kept, tf.float32) * (2**16 / (2**16 - dropped))


def seed_of(config: TrainConfig, step: Tensor, purpose: str) -> Tensor:
    """The seed of one use of randomness in one step, [2]."""
    return tf.random.fold_in([config.seed, step], sum(ord(c) * 31**n for n, c in enumerate(purpose)) % 2**31)
