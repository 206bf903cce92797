"""One replica of a model, and the interface that several share; `distributed.strategies` has those.

Each replica reads its own streams of the whole batch, keeps their states, and has its own weights and optimizer. Gradients
are summed over all replicas before they are clipped, so all make the same update and the weights stay equal. The chief
decides what all processes must do alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..errors import ConfigError
from ..network.products import Tensor

# Errors that TensorFlow's operations end with when a worker is lost
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError, tf.errors.InternalError, tf.errors.UnknownError,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What all processes of a run do next. The chief decides, except that any process can ask to stop."""

    stop: bool = False  # save and return
    end: bool = False  # the budget is used up, or patience has run out
    save: bool = False
    improved: bool = False  # the last validation was the best
    loss: float = 0.0  # of a validation, nats per character
    steps: int = 0  # of the next compiled call
    time_fraction: float = 0.0  # used of max_seconds
    shards: int = 0  # of a batch


class Replicas:
    """A single replica; base class of several."""

    alone = True
    count = 1  # over all processes
    first = 0  # number of this process's first replica
    is_chief = True
    devices: Sequence[str] = ("",)  # of this process's replicas

    @property
    def here(self) -> int:
        """Number of replicas in this process."""
        return len(self.devices)

    def rows(self, batch_size: int) -> slice:
        """The streams of the whole batch that this process reads."""
        each = batch_size // self.count
        return slice(self.first * each, (self.first + self.here) * each)

    def shards(self, whole: int | None) -> int:
        """Shards of each replica, given those of the whole batch."""
        return max((whole or 1) // self.count, 1)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `function(n, *arguments)` for each replica n of this process; called in a graph."""
        return [function(0, *arguments)]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums of float tensors over all replicas; called inside `run`."""
        return list(tensors)

    def collected(self, slices: tf.IndexedSlices) -> tf.IndexedSlices:
        """The slices of all replicas, concatenated; called inside `run`."""
        return slices

    def agree(self, plan: Plan) -> Plan:
        """The chief's plan, with `stop` set if any process set it: the same in all processes."""
        return plan

    def complete(self, whole: tf.Variable) -> None:
        """Fill in the rows of other processes: [batch_size, ...], of which each process holds its own."""


ALONE = Replicas()


def check_share(batch_size: int, replicas: int) -> None:
    """Raise ConfigError for a batch that the replicas can't share evenly."""
    if batch_size % replicas:
        raise ConfigError(f"`batch_size` {batch_size} must be a multiple of the number of replicas, {replicas}")
