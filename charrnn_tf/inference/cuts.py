"""Cuts of the next character's distribution, and the draw from what they leave."""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

from ..network.products import Tensor
from ..settings.schema import check_cuts

SMALLEST, LARGEST = 1e-37, 1e38  # range of positive numbers in full float32 precision
LARGE = 8192  # vocabulary size from which sorting takes a good part of a step
HEAD = 256  # likeliest characters of a large vocabulary that are sorted first; the others only if a draw may need them
MARGIN = 1e-4  # for the rounding of sums of probabilities


class Cuts(NamedTuple):
    """Cuts of the distribution that characters are drawn from, each a scalar tensor, or one value per row [B].

    First, temperature divides the logits (0: always the likeliest). Then only characters with at least min_p times the
    likeliest's probability stay (0: all; Nguyen et al. 2024), then only the top_n likeliest (0: all), then only the smallest
    set of likeliest characters that reaches probability top_p (Holtzman et al. 2020). Ties go to the lower id.
    """

    top_n: Tensor  # int32
    top_p: Tensor  # float32
    temperature: Tensor  # float32
    min_p: Tensor = 0.0  # float32

    @classmethod
    def of(cls, top_n: int = 0, top_p: float = 1.0, temperature: float = 1.0, min_p: float = 0.0) -> Self:
        """Convert numbers to tensors. Raises ConfigError for values out of range."""
        check_cuts(top_n, top_p, temperature, min_p)
        heat = min(max(temperature, SMALLEST), LARGEST) if temperature else 0.0
        real = (tf.constant(number, tf.float32) for number in (max(top_p, SMALLEST), heat, min_p))
        return cls(tf.constant(min(top_n, 2**31 - 1), tf.int32), *real)


def choose(logits: Tensor, uniform: Tensor, cuts: Cuts) -> Tensor:
    """Draw one id per row: logits [B, V] and uniform numbers in [0, 1) [B] -> ids [B].

    A uniform number is a place in the distribution, which has the likeliest character first.
    """
    vocab_size, place = logits.shape[-1], uniform[:, None]
    cuts = Cuts(*(tf.convert_to_tensor(cut)[..., None] for cut in cuts))  # each [1] or [B, 1]
    top_n = tf.where(cuts.top_n > 0, tf.minimum(cuts.top_n, vocab_size), vocab_size)
    cuts = cuts._replace(top_n=tf.where(cuts.temperature > 0, top_n, 1))
    needed = tf.reduce_max(cuts.top_n)

    def from_needed() -> Tensor:
        values, ids = tf.math.top_k(logits, needed)
        return _draw(values, ids, place, cuts)

    if vocab_size < LARGE:
        return from_needed()
    return tf.cond(needed <= HEAD, from_needed, lambda: _draw_from_head(logits, place, cuts, from_needed))


def _draw_from_head(logits: Tensor, place: Tensor, cuts: Cuts, otherwise: Callable[[], Tensor]) -> Tensor:
    """Draw from the HEAD likeliest characters if every row's place is surely among them; ids [B].

    It nearly always is, and sorting all of a large vocabulary takes longer than adding up its probabilities.
    """
    values, ids = tf.math.top_k(logits, HEAD)
    in_head, in_all = (
        tf.reduce_sum(tf.exp(_scaled(each, values[:, :1], cuts)), axis=1, keepdims=True) for each in (values, logits)
    )
    few, uncut, nucleus = cuts.top_n <= HEAD, cuts.top_n == logits.shape[-1], cuts.top_p < 1
    share = tf.where(few, 1.0, in_head / in_all)  # of the probability that the cuts leave
    reached = tf.where(nucleus, cuts.top_p, place) / share  # within the head
    head = cuts._replace(top_p=tf.where(nucleus, reached, cuts.top_p))
    return tf.cond(
        tf.reduce_all(few | uncut & (reached < 1 - MARGIN)),
        lambda: _draw(values, ids, tf.where(nucleus, place, reached), head),
        otherwise,
    )


def _draw(values: Tensor, ids: Tensor, place: Tensor, cuts: Cuts) -> Tensor:
    """Draw from logits that fall [B, count], with their ids: places in [0, 1) [B, 1] -> ids [B]."""
    scaled = tf.where(tf.range(tf.shape(values)[1]) < cuts.top_n, _scaled(values, values[:, :1], cuts), -np.inf)
    probabilities = tf.nn.softmax(scaled)
    cumulative = tf.cumsum(probabilities, axis=1)
    kept = (scaled > -np.inf) & ((cumulative - probabilities < cuts.top_p) | (cuts.top_p >= 1))  # the first always is
    last = tf.maximum(tf.reduce_sum(tf.cast(kept, tf.int32), axis=1, keepdims=True) - 1, 0)
    total = tf.gather(cumulative, last, batch_dims=1)
    drawn = tf.reduce_sum(tf.cast(cumulative <= place * total, tf.int32), axis=1, keepdims=True)
    return tf.gather(ids, tf.minimum(drawn, last), batch_dims=1)[:, 0]


def _scaled(logits: Tensor, largest: Tensor, cuts: Cuts) -> Tensor:
    """Logits over temperature, relative to the largest of their row; -inf where min_p cuts."""
    scaled = (logits - largest) / tf.where(cuts.temperature > 0, cuts.temperature, 1.0)
    return tf.where(scaled >= tf.math.log(cuts.min_p), scaled, -np.inf)
