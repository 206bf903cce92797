"""Replicas on several devices of this machine, or on several machines, summed by `tf.distribute`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ..errors import PeerError
from ..machine.hardware import physical_gpus
from ..network.products import Tensor
from ..training.replicas import Plan, Replicas
from .cluster import Cluster

SUM = tf.distribute.ReduceOp.SUM
Communication = tf.distribute.experimental.CommunicationImplementation


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
        return list(tf.distribute.get_replica_context().all_reduce(SUM, list(tensors)))


class Mirrored(_Strategy):
    """One replica on each GPU of this machine, or on each of its logical CPU devices where it has several."""

    def __init__(self) -> None:
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        super().__init__(tf.distribute.MirroredStrategy([device.name for device in devices]))


class Workers(_Strategy):
    """Replicas in several processes, as TF_CONFIG lists them: one in each, or one on each of its GPUs.

    Raises PeerError where TensorFlow can't connect them.
    """

    def __init__(self, cluster: Cluster) -> None:
        kind = Communication.AUTO if physical_gpus() else Communication.RING
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
        try:
            super().__init__(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options))
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise PeerError(f"the workers can't start together: {str(error).splitlines()[0]}") from error
        self.first = cluster.rank * self.here
        self.is_chief = cluster.is_chief
        self._total = tf.function(lambda own: self.run(self._counted_once, own)[0], autograph=False)

    def _counted_once(self, n: int, own: Tensor) -> Tensor:
        """Sum of a tensor over processes: only the first replica of each contributes."""
        return self.summed([tf.zeros_like(own) if n else tf.identity(own)])[0]

    def agree(self, plan: Plan) -> Plan:
        """See `Replicas`."""
        own = [float(value) if self.is_chief else 0.0 for value in dataclasses.astuple(plan)]
        stops, *agreed = self._total(tf.constant([float(plan.stop), *own], tf.float64)).numpy().tolist()
        kinds = [type(value) for value in dataclasses.astuple(plan)]
        chief = Plan(*(kind(value) for kind, value in zip(kinds, agreed, strict=True)))
        return dataclasses.replace(chief, stop=stops > 0)

    def complete(self, whole: tf.Variable) -> None:
        """See `Replicas`."""
        rows = self.rows(whole.shape[0])
        own = tf.concat([tf.zeros_like(whole[: rows.start]), whole[rows], tf.zeros_like(whole[rows.stop :])], 0)
        whole.assign(self._total(own))
