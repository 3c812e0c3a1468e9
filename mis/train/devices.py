"""What this process computes on.

A device is a GPU or, where there is none, a share of the CPU: a logical device of TensorFlow with
some of the cores as its threads.
"""

import os
import subprocess
from dataclasses import dataclass

import tensorflow as tf

from mis.errors import MisError
from mis.settings import cores

RESERVED = 0.9
"""Of a GPU's memory, what processes that share it divide: each has a CUDA context beside, of some 300 to 500 MB."""


@dataclass(frozen=True)
class Devices:
    """The devices that one process trains on.

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
    part: float = 1,
) -> Devices:
    """Configure TensorFlow in this process for a number of devices.

    It must come before TensorFlow's first operation; a second call may only ask for the same.

    Args:
        count: How many devices.
        threads: CPU threads of each; by default the devices share all cores evenly.
        limit: At most this many devices may be used; None means all.
        processes: How many processes on this host share its devices, each with `count` of them.
        process: Which of them this is. It takes its own GPUs where it sees those of all; a
            cluster's manager may have given it its own already.
        part: How much of its one GPU's memory it takes, where several processes share it.

    Raises:
        MisError: There are fewer GPUs than `count`, or fewer cores where there is no GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    there = len(gpus) or cores()
    usable = there if limit is None else min(there, limit)
    kind = "GPUs" if gpus else "CPU cores"
    if count > usable:
        raise MisError(f"a training can have at most the {usable} {kind} that may be used", got=f"{count} devices")
    if count < len(gpus) < processes * count:
        raise MisError(
            f"the {len(gpus)} GPUs of this host must be enough for its {processes} workers", got=f"{count} for each"
        )
    threads = threads or max(1, cores() // (count * processes))
    # TensorFlow ignores OMP_NUM_THREADS. Inside operations all devices of the process share one pool of threads; a
    # pool of one is none: each device computes in the thread that it has between operations.
    tf.config.threading.set_intra_op_parallelism_threads(1 if threads == 1 else threads * count)
    tf.config.threading.set_inter_op_parallelism_threads(max(count, threads))
    first = process * count if len(gpus) >= processes * count else 0
    own = gpus[first : first + count]
    if gpus:
        tf.config.set_visible_devices(own, "GPU")
    for gpu in own:
        if part < 1:
            limit_mb = int(part * RESERVED * gpu_memory_mb())
            tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(limit_mb)])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        logical = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    return Devices(tuple(f"{'GPU' if gpus else 'CPU'}:{index}" for index in range(count)), threads)


def gpu_memory_mb() -> int:
    """Return the memory (MB) of the first GPU that this process sees; TensorFlow does not tell it.

    Raises:
        MisError: The tool is not there, or tells nothing.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
        return int(told.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise MisError(
            f"trials that share a GPU need nvidia-smi to tell its memory: {error}",
            got=f"GPU {first}",
            do="give each trial a whole one: tune.devices_per_trial=1",
        ) from None
