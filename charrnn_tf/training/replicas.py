"""The interface to one or several replicas of a model; `distributed.strategies` implements several.

Each replica reads its own streams of the batch, keeps their states, and has its own weights and optimizer. Gradients are
summed over all replicas before they are clipped, so all make the same update and the weights stay equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..network.products import Tensor

# Errors of TensorFlow's operations when a worker is lost
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError, tf.errors.InternalError, tf.errors.UnknownError,
)  # fmt: skip


@dataclass
class Plan:
    """Next actions of all processes of a run. The chief decides, except that any process can request a stop."""

    stop: bool = False  # save and return
    end: bool = False  # the budget is used up, or patience has run out
    save: bool = False
    skip: bool = False  # skip a validation that is due, for lack of time
    improved: bool = False  # the latest validation loss is the lowest
    loss: float = 0.0  # of a validation, nats per character
    steps: int = 0  # of the next compiled call
    time_fraction: float = 0.0  # used of max_seconds
    shards: int = 0  # of a batch


class Replicas:
    """A single replica; base class for several."""

    alone = True
    count = 1  # over all processes
    first = 0  # index of this process's first replica among all
    is_chief = True
    devices: Sequence[str] = ("",)  # of this process's replicas

    @property
    def here(self) -> int:
        """Number of replicas in this process."""
        return len(self.devices)

    def rows(self, batch_size: int, n: int | None = None) -> slice:
        """The streams of the whole batch that this process reads, or its replica n."""
        each = batch_size // self.count
        first, replicas = (self.first, self.here) if n is None else (self.first + n, 1)
        return slice(first * each, (first + replicas) * each)

    def shards(self, whole: int | None) -> int:
        """Number of shards per replica, from that of the whole batch."""
        return max((whole or 1) // self.count, 1)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `function(n, *arguments)` for each replica n of this process; called in a graph."""
        return [function(0, *arguments)]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums of float tensors over all replicas; called inside `run`."""
        return list(tensors)

    def agree(self, plan: Plan) -> Plan:
        """The chief's plan, with `stop` set if any process set it; equal in all processes."""
        return plan

    def complete(self, whole: tf.Variable) -> None:
        """Copy into a variable [batch_size, ...] the rows that other processes hold."""


ALONE = Replicas()
