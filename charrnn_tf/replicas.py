"""Replicas of a model, on several devices of this machine or on several machines; `tf.distribute` carries what they sum.

Each replica reads streams of its own, by their numbers in the whole batch, keeps their states, and has weights and an
optimizer of its own. Gradients are summed over all replicas before they are clipped, so that all make the same update and
weights stay equal. What one process must decide for all (how long, when to save) the chief decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from .errors import PeerError
from .layers import Tensor
from .rendezvous import Cluster

SUM = tf.distribute.ReduceOp.SUM
Communication = tf.distribute.experimental.CommunicationImplementation


def physical_gpus() -> int:
    """GPUs of this machine that TensorFlow can use; asking does not start its devices yet, as `runtime.gpus` does."""
    return len(tf.config.list_physical_devices("GPU"))


class Replicas:
    """One replica alone, and what those of several share."""

    alone = True
    count = 1  # of all processes together
    first = 0  # number of this process's first
    is_chief = True
    devices: Sequence[str] = ("",)  # of this process's replicas

    @property
    def here(self) -> int:
        """Replicas of this process."""
        return len(self.devices)

    def rows(self, batch_size: int) -> slice:
        """The streams of this process, of the whole batch's."""
        each = batch_size // self.count
        return slice(self.first * each, (self.first + self.here) * each)

    def shards(self, whole: int | None) -> int:
        """Parts that each replica cuts its share of a batch into, of the whole batch's; on GPUs one."""
        return max((whole or 1) // self.count, 1)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(n, *arguments)` gives for each replica of this process, n counted from 0; called in a graph."""
        return [function(0, *arguments)]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Float tensors summed over all replicas; called by a function that `run` runs."""
        return list(tensors)

    def collected(self, slices: tf.IndexedSlices) -> tf.IndexedSlices:
        """The slices of all replicas one after another; called by a function that `run` runs."""
        return slices

    def agree(self, flag: bool, *numbers: float) -> tuple[Any, ...]:
        """Whether the flag is set in any process, and the chief's numbers: the same everywhere."""
        return flag, *numbers

    def complete(self, whole: tf.Variable) -> None:
        """Fill in the rows of other processes: [batch_size, ...], of which each process knows its own."""


ALONE = Replicas()
# What a lost worker makes TensorFlow's operations end with
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError, tf.errors.InternalError, tf.errors.UnknownError,
)  # fmt: skip


class _Strategy(Replicas):
    alone = False

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.count = strategy.num_replicas_in_sync
        self.devices = strategy.extended.worker_devices

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        def one(*given: Any) -> Any:
            number = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
            return function(number - self.first, *given)

        results = self._strategy.run(one, args=arguments)
        leaves = [self._strategy.experimental_local_results(leaf) for leaf in tf.nest.flatten(results)]
        return [tf.nest.pack_sequence_as(results, [leaf[n] for leaf in leaves]) for n in range(self.here)]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        flat = tf.distribute.get_replica_context().all_reduce(SUM, flat)
        parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def collected(self, slices: tf.IndexedSlices) -> tf.IndexedSlices:
        gather = tf.distribute.get_replica_context().all_gather
        return tf.IndexedSlices(gather(slices.values, 0), gather(slices.indices, 0), slices.dense_shape)


class Mirrored(_Strategy):
    """One replica on each GPU of this machine, or on each of its logical CPU devices where it has several."""

    def __init__(self) -> None:
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        super().__init__(tf.distribute.MirroredStrategy([device.name for device in devices]))


class Workers(_Strategy):
    """Replicas in several processes, as TF_CONFIG tells them: one in each, or one on each of its GPUs.

    Raises PeerError where TensorFlow can't bring them together.
    """

    def __init__(self, cluster: Cluster) -> None:
        kind = Communication.AUTO if physical_gpus() else Communication.RING
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
        try:
            super().__init__(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options))
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise PeerError(f"the workers can't begin together: {str(error).splitlines()[0]}") from error
        self.first = cluster.rank * self.here
        self.is_chief = cluster.is_chief
        self._total = tf.function(lambda own: self.run(self._counted_once, own)[0], autograph=False)

    def _counted_once(self, n: int, own: Tensor) -> Tensor:
        """What processes have, summed, though each may have several replicas."""
        return self.summed([tf.zeros_like(own) if n else tf.identity(own)])[0]

    def agree(self, flag: bool, *numbers: float) -> tuple[Any, ...]:
        """See `Replicas`."""
        told = [float(number) if self.is_chief else 0.0 for number in numbers]
        flags, *agreed = self._total(tf.constant([float(flag), *told], tf.float64)).numpy().tolist()
        return flags > 0, *agreed

    def complete(self, whole: tf.Variable) -> None:
        """See `Replicas`."""
        rows = self.rows(whole.shape[0])
        own = tf.concat([tf.zeros_like(whole[: rows.start]), whole[rows], tf.zeros_like(whole[rows.stop :])], 0)
        whole.assign(self._total(own))
