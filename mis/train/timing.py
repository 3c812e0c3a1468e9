"""Where the time of a training goes: input, communication, computing; and its memory."""

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

REPEATS = 3
"""How often the communication of a step is timed after an epoch; the median counts."""


class TimeSteps(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Adds to the logs of each epoch how fast it was, what its steps waited for, and the memory that it took.

    - `epoch_s`: seconds of the epoch, validation included.
    - `step_s`, `samples_per_s`: mean seconds of a step, and cases a second. The first step of a process,
      which traces the network, is left out unless it is the only step.
    - `input_share`: of a step, the part in which it waits for its batch.
    - `communication_share`: the part that the step's all-reduces take, of the gradients and of batch norm's
      statistics, timed by themselves after the epoch on the same devices. Waiting for a slower replica is not in
      it, and what overlaps with computing is.
    - `compute_share`: the rest.
    - `devices`: how many devices the epoch was spread over.
    - `host_peak_bytes`: the most memory that the process has had so far; `device_peak_bytes`: the most that one of
      its GPUs had in this epoch.

    With several workers each measures itself; the chief's figures are reported.
    """

    def __init__(self, cases: int, steps: int) -> None:
        """Take the cases of an epoch, without those that only fill up its last batch, and its steps."""
        super().__init__()
        self.cases = cases
        self.steps = steps
        self.communication: Communication | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Let the training step measure how long it waits for its input."""
        self.communication = Communication(self.model)
        step = self.model.train_function
        self.step = step if isinstance(step, _TimedStep) else _TimedStep(step, self._wait_for_devices)
        self.model.train_function = self.step

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clocks."""
        for gpu in tf.config.list_logical_devices("GPU"):
            tf.config.experimental.reset_memory_stats(gpu.name)
        self.begun = time.perf_counter()
        self.trained_s = 0.0
        self.step.begin()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Note that the epoch's last step has ended: validation follows."""
        self._wait_for_devices()
        self.trained_s = time.perf_counter() - self.begun

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Add the figures to the logs."""
        logs["epoch_s"] = time.perf_counter() - self.begun
        waits = self.step.waits
        if self.step.first_s and self.steps > 1:
            step_s = (self.trained_s - self.step.first_s) / (self.steps - 1)
        else:
            step_s = self.trained_s / self.steps
        waited_s = sum(float(wait) for wait in waits)
        communication_s = self.communication.measure() if self.communication else 0.0
        logs["step_s"] = step_s
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
        keras.ops.convert_to_numpy(self.model.optimizer.iterations)  # the last thing that a step writes


class _TimedStep:
    """Keras' training step of a network, which also measures how long it waits for its batch.

    It stays with the network, and is traced once, however many trainings the network has.

    Attributes:
        waits: Seconds that the steps of this epoch have waited for their batch.
        first_s: Seconds of the step that was traced, if that was in this epoch; else 0.
    """

    def __init__(self, step: Callable[[Sequence[Any]], dict[str, Any]], wait: Callable[[], None]) -> None:
        """Take the step, and a function that waits until a step has ended."""
        self.wait = wait
        self.traced = False
        self.begin()

        # Input and step are in one graph, as in Keras: under a strategy of several workers, batches that are passed to
        # a graph take seconds to be freed after several epochs.
        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def fetch_and_step(iterator: Any) -> tuple[dict[str, Any], tf.Tensor]:  # noqa: ANN401 - one of several classes
            asked_at = tf.timestamp()
            with tf.control_dependencies([asked_at]):
                batch = iterator.get_next()
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                received_at = tf.timestamp()
            batch = tf.nest.map_structure(lambda leaf: _after(received_at, leaf), batch, expand_composites=True)
            return step([batch]), received_at - asked_at

        self.function = tf.function(fetch_and_step, reduce_retracing=True)

    def begin(self) -> None:
        """Forget the waits of the epoch before."""
        self.waits: list[tf.Tensor] = []
        self.first_s = 0.0

    def __call__(self, iterator: Any) -> dict[str, Any]:  # noqa: ANN401
        """Take a step, and return Keras' logs."""
        begun = time.perf_counter()
        outputs: dict[str, Any]
        outputs, waited = self.function(iterator)
        if self.traced:
            self.waits.append(waited)
        else:  # this step traces the network: it is timed to its end, apart from the others
            self.wait()
            self.traced = True
            self.first_s = time.perf_counter() - begun
        return outputs


class Communication:
    """The all-reduces of a training step, without the rest of the step."""

    def __init__(self, model: keras.Model) -> None:
        """Take the sizes from a compiled model, whose strategy is used."""
        self.strategy = model.distribute_strategy
        self.gradients = [tuple(weight.shape) for weight in model.trainable_weights]
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        # Keras sums up three statistics of each layer one by one, and their gradients on the way back.
        self.statistics = [layer.moving_mean.shape[0] for layer in layers if layer.synchronized for _ in range(6)]
        self._reduce: Callable[[], Any] = tf.function(self._reduce_all)

    def measure(self) -> float:
        """Return the seconds of a step's all-reduces: the median of several; 0 with one replica.

        All workers must call it together.
        """
        if self.strategy.num_replicas_in_sync == 1:
            return 0.0
        seconds = []
        for _ in range(1 + REPEATS):  # the first one may trace
            begun = time.perf_counter()
            float(self.strategy.experimental_local_results(self._reduce())[0])
            seconds.append(time.perf_counter() - begun)
        return sorted(seconds[1:])[REPEATS // 2]

    def _reduce_all(self) -> tf.Tensor:
        return self.strategy.run(self._reduce_on_replica)

    def _reduce_on_replica(self) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        total = tf.distribute.ReduceOp.SUM
        value = tf.constant(0.0)
        for size in self.statistics:  # each waits for the one before, as in the network
            value = tf.reduce_max(context.all_reduce(total, tf.fill((size,), value)))
        return _last(context.all_reduce(total, [tf.fill(shape, value) for shape in self.gradients]))


def _after(earlier: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor that is not there before `earlier`: else a thread may compute it before the clock is read."""
    with tf.device(tensor.device), tf.control_dependencies([earlier]):
        return tf.identity(tensor)


def _last(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.reshape(tensor, (-1,))[0] for tensor in tensors])
