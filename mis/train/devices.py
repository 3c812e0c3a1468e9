"""The devices that this process computes on.

A device is a GPU or, where there is none, a part of the CPU: a logical device of TensorFlow with
some of the cores as its threads.
"""

import os
import subprocess
from dataclasses import dataclass

import tensorflow as tf

from mis.settings import cores
from mis.train import messages
from mis.train.promised_gpus import find_missing, find_promise

DIVIDED_MEMORY = 0.9
"""The fraction of a GPU's memory that is divided among the processes which share the GPU.

The rest is for their CUDA contexts, of 300 to 500 MB each.
"""


@dataclass(frozen=True)
class Devices:
    """The devices that a process trains on.

    Attributes:
        names: TensorFlow's names, e.g. ("GPU:0", "GPU:1").
        threads: CPU threads of each.
    """

    names: tuple[str, ...]
    threads: int


def claim(
    count: int,
    threads: int | None = None,
    limit: int | None = None,
    *,
    processes: int = 1,
    process: int = 0,
    fraction: float = 1,
    reserved: float = 0,
) -> Devices:
    """Configure TensorFlow in this process for a number of devices.

    It must come before TensorFlow's first operation; a second call may only ask for the same.

    Args:
        count: How many devices.
        threads: CPU threads of each; by default the devices share all cores evenly.
        limit: The most devices that may be used; None means all.
        processes: How many processes on this host share its devices, each with `count` of them.
        process: The number of this process among them, from 0. Where it sees the GPUs of all of them, it takes
            the `count` that are its share; a cluster's manager may show it only those already.
        fraction: The fraction of its GPU's memory that it takes, where several processes share the GPU.
        reserved: How many GPUs Ray has reserved for it.

    Raises:
        MisError: There are fewer GPUs than `count`, or fewer cores where there is no GPU, or GPUs were promised to
            this process and TensorFlow has none.
    """
    gpus = tf.config.list_physical_devices("GPU")
    promise = None if gpus else find_promise(os.environ, reserved)
    if promise is not None:
        raise messages.promised_gpus_missing(promise, find_missing())
    available = len(gpus) or cores()
    usable = available if limit is None else min(available, limit)
    kind = "GPUs" if gpus else "CPU cores"
    if count > usable:
        raise messages.too_many_devices(usable, kind, count)
    if count < len(gpus) < processes * count:
        raise messages.too_few_gpus(len(gpus), processes, count)
    threads = threads or max(1, cores() // (count * processes))
    # TensorFlow ignores OMP_NUM_THREADS. Inside operations all devices of the process share one pool of threads; a
    # pool of a single thread is none: each device computes in the thread that it has between operations.
    tf.config.threading.set_intra_op_parallelism_threads(1 if threads == 1 else threads * count)
    tf.config.threading.set_inter_op_parallelism_threads(max(count, threads))
    first = process * count if len(gpus) >= processes * count else 0
    claimed = gpus[first : first + count]
    if gpus:
        tf.config.set_visible_devices(claimed, "GPU")
    for gpu in claimed:
        if fraction < 1:
            limit_mb = int(fraction * DIVIDED_MEMORY * gpu_memory_mb())
            tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(limit_mb)])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        logical = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    return Devices(tuple(f"{'GPU' if gpus else 'CPU'}:{index}" for index in range(count)), threads)


def gpu_memory_mb() -> int:
    """Return the memory (MB) of the first GPU that this process sees, from nvidia-smi: TensorFlow does not know it.

    Raises:
        MisError: nvidia-smi is not installed, or its output has no number.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", f"--id={gpu}"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
        return int(output.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise messages.unknown_gpu_memory(gpu, error) from None
