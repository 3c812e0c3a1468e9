"""The time of a training, divided into input, communication and computing, and its memory."""

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

REPETITIONS = 3
"""How often the communication of a step is timed after each epoch; the median is reported."""


class TimeSteps(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Adds to the logs of each epoch how fast it was, what its steps waited for, and the memory that it took.

    - `epoch_s`: seconds of the epoch, validation included.
    - `step_s`, `samples_per_s`: mean seconds of a step, and cases a second. The first step of a process,
      which traces the network, is left out unless it is the only step.
    - `input_share`: the part of a step in which it waits for its batch, from 0 to 1.
    - `communication_share`: the part of a step that its all-reduces take, from 0 to 1: those of the gradients and
      those of batch norm's statistics. They are timed by themselves after the epoch, on the same devices. The time in
      which a replica waits for a slower replica is not included; communication that overlaps with computing is.
    - `compute_share`: the part of a step that is left, from 0 to 1.
    - `devices`: how many devices the epoch was spread over.
    - `host_peak_bytes`: the most memory that the process has had so far; `device_peak_bytes`: the most memory that
      any of its GPUs had in this epoch.

    With several workers, each measures its own steps, and the figures of the chief are reported.
    """

    def __init__(self, cases: int, steps: int) -> None:
        """Prepare for a training.

        Args:
            cases: How many cases an epoch has, without those that only fill up its last batch.
            steps: How many steps an epoch has.
        """
        super().__init__()
        self.cases = cases
        self.steps = steps
        self.communication: Communication | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Let the training step measure how long it waits for its input."""
        self.communication = Communication(self.model)
        train_function = self.model.train_function
        if not isinstance(train_function, _TimedStep):
            train_function = _TimedStep(train_function, self._wait_for_devices)
        self.timed_step = self.model.train_function = train_function

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clocks."""
        for gpu in tf.config.list_logical_devices("GPU"):
            tf.config.experimental.reset_memory_stats(gpu.name)
        self.begun = time.perf_counter()
        self.trained_s = 0.0
        self.timed_step.start_epoch()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Note that the epoch's last step has ended: validation follows."""
        self._wait_for_devices()
        self.trained_s = time.perf_counter() - self.begun

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Add the figures to the logs."""
        logs["epoch_s"] = time.perf_counter() - self.begun
        waits = self.timed_step.input_waits
        if self.timed_step.traced_step_s and self.steps > 1:
            step_s = (self.trained_s - self.timed_step.traced_step_s) / (self.steps - 1)
        else:
            step_s = self.trained_s / self.steps
        waited_s = sum(float(wait) for wait in waits)
        communication_s = self.communication.measure() if self.communication else 0.0
        logs["step_s"] = step_s
        logs["traced_s"] = max(0.0, self.timed_step.traced_step_s - step_s)
        logs["samples_per_s"] = self.cases / (step_s * self.steps)
        logs["input_share"] = min(1.0, waited_s / (len(waits) * step_s)) if waits else 0.0
        logs["communication_share"] = min(1 - logs["input_share"], communication_s / step_s)
        logs["compute_share"] = 1 - logs["input_share"] - logs["communication_share"]
        logs["devices"] = self.model.distribute_strategy.num_replicas_in_sync if self.model.distribute_strategy else 1
        logs["host_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
        if gpus:
            logs["device_peak_bytes"] = max(tf.config.experimental.get_memory_info(name)["peak"] for name in gpus)

    def _wait_for_devices(self) -> None:
        """Return when the devices have finished all steps so far."""
        keras.ops.convert_to_numpy(self.model.optimizer.iterations)  # a step writes them last


class _TimedStep:
    """The training step of a network, which also measures how long it waits for its batch.

    It replaces the `train_function` of the Keras model. It stays with the model and is traced once, however many
    trainings the model has.

    Attributes:
        input_waits: Seconds that each step of this epoch has waited for its batch, without the step that was traced.
        traced_step_s: Seconds of the step that was traced, if that was in this epoch; else 0.
    """

    def __init__(
        self, train_function: Callable[[Sequence[Any]], dict[str, Any]], wait_for_devices: Callable[[], None]
    ) -> None:
        """Wrap a training step.

        Args:
            train_function: The step as Keras has made it.
            wait_for_devices: Returns when the devices have finished all steps so far.
        """
        self.wait_for_devices = wait_for_devices
        self.traced = False
        self.start_epoch()

        # Input and step are in one graph, as in Keras: under a strategy of several workers, batches that are passed to
        # a graph take seconds to be freed after several epochs.
        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def fetch_and_step(iterator: Any) -> tuple[dict[str, Any], tf.Tensor]:  # noqa: ANN401 - TensorFlow has several classes of it
            asked_at = tf.timestamp()
            with tf.control_dependencies([asked_at]):
                batch = iterator.get_next()
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                received_at = tf.timestamp()
            batch = tf.nest.map_structure(lambda leaf: _after(received_at, leaf), batch, expand_composites=True)
            return train_function([batch]), received_at - asked_at

        self.function = tf.function(fetch_and_step, reduce_retracing=True)

    def start_epoch(self) -> None:
        """Remove the times of the epoch before."""
        self.input_waits: list[tf.Tensor] = []
        self.traced_step_s = 0.0

    def __call__(self, iterator: Any) -> dict[str, Any]:  # noqa: ANN401
        """Train on the next batch, and return the logs of Keras."""
        begun = time.perf_counter()
        outputs: dict[str, Any]
        outputs, waited = self.function(iterator)
        if self.traced:
            self.input_waits.append(waited)
        else:  # this step traces the network: it is timed to its end, apart from the others
            self.wait_for_devices()
            self.traced = True
            self.traced_step_s = time.perf_counter() - begun
        return outputs


class Communication:
    """The all-reduces of a training step, without the rest of the step."""

    def __init__(self, model: keras.Model) -> None:
        """Take the sizes from a compiled model, whose strategy is used."""
        self.strategy = model.distribute_strategy
        self.gradients = [tuple(weight.shape) for weight in model.trainable_weights]
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        # Keras reduces three statistics of each layer separately, and in the backward pass their gradients.
        self.statistics = [layer.moving_mean.shape[0] for layer in layers if layer.synchronized for _ in range(6)]
        self._reduce: Callable[[], Any] = tf.function(self._reduce_all)

    def measure(self) -> float:
        """Return the median seconds of a step's all-reduces; 0 with a single replica.

        All workers must call it at the same time.
        """
        if self.strategy.num_replicas_in_sync == 1:
            return 0.0
        seconds = []
        for _ in range(1 + REPETITIONS):  # the first repetition may trace
            begun = time.perf_counter()
            float(self.strategy.experimental_local_results(self._reduce())[0])
            seconds.append(time.perf_counter() - begun)
        return sorted(seconds[1:])[REPETITIONS // 2]

    def _reduce_all(self) -> tf.Tensor:
        """Run all reductions of a step on every replica."""
        return self.strategy.run(self._reduce_on_replica)

    def _reduce_on_replica(self) -> tf.Tensor:
        """Reduce what a replica has: first batch norm's statistics, then all gradients together."""
        context = tf.distribute.get_replica_context()
        total = tf.distribute.ReduceOp.SUM
        value = tf.constant(0.0)
        for size in self.statistics:  # each waits for the reduction before, as in the network
            value = tf.reduce_max(context.all_reduce(total, tf.fill((size,), value)))
        return _depend_on_all(context.all_reduce(total, [tf.fill(shape, value) for shape in self.gradients]))


def _after(earlier: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Return the same tensor, available only after `earlier`: else it could be computed before the clock is read."""
    with tf.device(tensor.device), tf.control_dependencies([earlier]):
        return tf.identity(tensor)


def _depend_on_all(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return a scalar that needs all the tensors: who reads it has waited for them."""
    return tf.add_n([tf.reshape(tensor, (-1,))[0] for tensor in tensors])
