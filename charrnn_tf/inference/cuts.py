"""Applies temperature, min-p, top-n and top-p to the next character's distribution, and draws from it."""

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
    """Draw one id per row: logits [B, V] and uniform numbers in [0, 1) [B] -> ids [B]; see `chooser`."""
    return chooser(cuts, logits.shape[-1])(logits, uniform)


def chooser(cuts: Cuts, vocab_size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Prepare `choose` for many draws with the same cuts: a function of logits and uniform numbers.

    A uniform number is a place in the distribution, which has the likeliest character first.
    """
    limits = _limits(cuts, vocab_size)
    needed = tf.reduce_max(limits.top_n)

    def choose(logits: Tensor, uniform: Tensor) -> Tensor:
        place = uniform[:, None]

        def from_needed() -> Tensor:
            values, ids = tf.math.top_k(logits, needed)
            return _draw(values, ids, place, limits)

        if vocab_size < LARGE:
            return from_needed()
        return tf.cond(needed <= HEAD, from_needed, lambda: _draw_from_head(logits, place, limits, from_needed))

    return choose


class _Limits(NamedTuple):
    """Cuts as a draw reads them; each tensor is [1], or [B, 1] where rows have cuts of their own."""

    top_n: Tensor  # 1 to V
    top_p: Tensor  # 2 where nothing is cut
    temperature: Tensor  # above 0
    least: Tensor  # scaled logit, relative to the likeliest's, below which min_p cuts


def _limits(cuts: Cuts, vocab_size: int) -> _Limits:
    top_n, top_p, temperature, min_p = (tf.convert_to_tensor(cut)[..., None] for cut in cuts)
    few = tf.where(top_n > 0, tf.minimum(top_n, vocab_size), vocab_size)
    return _Limits(
        tf.where(temperature > 0, few, 1),
        tf.where(top_p < 1, top_p, 2.0),  # a sum of probabilities may round to more than 1
        tf.where(temperature > 0, temperature, 1.0),
        tf.math.log(min_p),
    )


def _draw_from_head(logits: Tensor, place: Tensor, limits: _Limits, otherwise: Callable[[], Tensor]) -> Tensor:
    """Draw ids [B] from the HEAD likeliest characters if every row's place is surely among them, else by `otherwise`.

    It nearly always is, and sorting a large vocabulary takes longer than summing its probabilities.
    """
    values, ids = tf.math.top_k(logits, HEAD)
    in_head, in_all = (
        tf.reduce_sum(tf.exp(_scaled(each, values[:, :1], limits)), axis=1, keepdims=True) for each in (values, logits)
    )
    few, uncut, nucleus = limits.top_n <= HEAD, limits.top_n == logits.shape[-1], limits.top_p < 1
    share = tf.where(few, 1.0, in_head / in_all)  # of the probability that the cuts leave
    reached = tf.where(nucleus, limits.top_p, place) / share  # within the head
    head = limits._replace(top_p=tf.where(nucleus, reached, limits.top_p))
    return tf.cond(
        tf.reduce_all(few | uncut & (reached < 1 - MARGIN)),
        lambda: _draw(values, ids, tf.where(nucleus, place, reached), head),
        otherwise,
    )


def _draw(values: Tensor, ids: Tensor, place: Tensor, limits: _Limits) -> Tensor:
    """Draw from logits that fall [B, count], with their ids: places in [0, 1) [B, 1] -> ids [B]."""
    scaled = _scaled(values, values[:, :1], limits)
    if limits.top_n.shape.rank > 1:  # otherwise no row has more values than its top_n
        scaled = tf.where(tf.range(tf.shape(values)[1]) < limits.top_n, scaled, -np.inf)
    probabilities = tf.nn.softmax(scaled)
    cumulative = tf.cumsum(probabilities, axis=1)
    kept = (scaled > -np.inf) & (cumulative - probabilities < limits.top_p)  # the first always is
    last = tf.maximum(tf.reduce_sum(tf.cast(kept, tf.int32), axis=1, keepdims=True) - 1, 0)
    total = tf.gather(cumulative, last, batch_dims=1)
    drawn = tf.reduce_sum(tf.cast(cumulative <= place * total, tf.int32), axis=1, keepdims=True)
    return tf.gather(ids, tf.minimum(drawn, last), batch_dims=1)[:, 0]


def _scaled(logits: Tensor, largest: Tensor, limits: _Limits) -> Tensor:
    """Logits over temperature, relative to the largest of their row; -inf where min_p cuts."""
    scaled = (logits - largest) / limits.temperature
    return tf.where(scaled >= limits.least, scaled, -np.inf)
