"""Keras 3 on several workers of TensorFlow.

Keras' `fit` fails under `tf.distribute.MultiWorkerMirroredStrategy` (keras issue 20585): it reduces
tuples, and scalars along an axis, which this strategy alone refuses. `KerasMultiWorkerStrategy`
answers both; nothing else is changed, so that models stay plain Keras models.
"""

import os
from typing import Any

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.distribute import multi_worker_util
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tensorflow.python.eager import context

from mis.train.connect import connecting_beside_python
from mis.train.devices import Devices
from mis.train.rendezvous import Rendezvous
from mis.train.signals import signals_as_they_are


def make_multiworker_strategy(
    rendezvous: Rendezvous, devices: Devices, connect_s: float | None = None
) -> "KerasMultiWorkerStrategy":
    """Connect this worker with the others and return the strategy of them all; every worker calls it.

    Args:
        rendezvous: The addresses of the workers, and the rank of this one.
        devices: This worker's devices, as `claim` gave them.
        connect_s: See `KerasMultiWorkerStrategy`.
    """
    os.environ["TF_CONFIG"] = rendezvous.tf_config()
    return KerasMultiWorkerStrategy(devices, connect_s)


class KerasMultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]  # TensorFlow has no types
    """`tf.distribute.MultiWorkerMirroredStrategy` under which Keras 3 trains.

    A process can have one in its life, made before TensorFlow's first operation.
    """

    def __init__(self, devices: Devices, connect_s: float | None = None) -> None:
        """Connect with the other workers that TF_CONFIG names; collective operations use NCCL on GPUs, else rings.

        Args:
            devices: This worker's devices, as `claim` gave them.
            connect_s: Seconds after which TensorFlow gives up to connect the workers, up to five more where the chief
                is not there; by default it waits for the others without end.

        Raises:
            tf.errors.DeadlineExceededError: Not all workers were there after `connect_s`.
        """
        on_gpu = devices.names[0].startswith("GPU")
        kind = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind.NCCL if on_gpu else kind.RING)
        if connect_s is not None:
            _limit_connecting(connect_s)
        with signals_as_they_are(), connecting_beside_python():
            if on_gpu or len(devices.names) == 1:
                super().__init__(communication_options=options)
            else:
                # TensorFlow takes one CPU device for each worker, however many there are; only its private class takes
                # several.
                tf.distribute.Strategy.__init__(self, _SeveralCpus(self, devices, options))

    def reduce(self, reduce_op: object, value: Any, axis: int | None = None) -> Any:  # noqa: ANN401 - any tensors
        """Reduce values over the replicas, see `tf.distribute.Strategy.reduce`, in the two cases of Keras as well.

        Keras reduces a structure of tensors only to learn their shapes: the first local value of each leaf is
        returned. Scalars have no axis to reduce over: they are reduced over replicas alone.
        """
        if isinstance(value, tuple | list | dict):
            return tf.nest.map_structure(lambda leaf: self.experimental_local_results(leaf)[0], value)
        if axis is not None and all(local.shape.rank == 0 for local in self.experimental_local_results(value)):
            axis = None
        return super().reduce(reduce_op, value, axis=axis)


def _limit_connecting(seconds: float) -> None:
    """Let TensorFlow wait for the other workers for some seconds at most, which its strategy has no argument for."""
    spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    jobs = [CoordinatedJob(name=job, num_tasks=spec.num_tasks(job)) for job in ("chief", "worker") if job in spec.jobs]
    # Otherwise as the strategy configures it.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=multi_worker_util.coordination_leader(spec),
        cluster_register_timeout_in_ms=int(1000 * seconds),
        coordinated_jobs=jobs,
    )
    # Without it the limit is not for the first worker, which has registered with itself.
    context.context().coordination_service.cluster_register_with_barrier = True


class _SeveralCpus(CollectiveAllReduceExtended):  # type: ignore[misc]  # TensorFlow has no types
    """The part of the strategy that counts a worker's devices, for several logical CPU devices."""

    def __init__(self, strategy: tf.distribute.Strategy, devices: Devices, options: object) -> None:
        self.names = devices.names
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        super().__init__(strategy, cluster_resolver=resolver, communication_options=options)

    def _initialize_local_devices(self, cluster_resolver: object, worker_device: str) -> tuple[tuple[str, ...], str]:  # noqa: ARG002
        return tuple(f"{worker_device}/device:{name}" for name in self.names), "CPU"
