"""The sentences of the errors of a training, apart from what it computes: to mend one makes no training stale."""

from pathlib import Path

from mis.errors import MisError

WORKERS_LISTEN = (
    "the workers' TensorFlow servers listen on all interfaces of their nodes and ask for no password: docs/security.md"
)
"""Said where a training is to have several workers: TensorFlow has no option for either."""

LET_GPUS_BE_USED = (
    "install its CUDA libraries (make install EXTRAS=dev,cuda) or a newer driver; to train on the CPU, hide the GPUs "
    "with CUDA_VISIBLE_DEVICES=-1, from Ray with ray start --num-gpus=0"
)
"""What to do where TensorFlow cannot use GPUs that are there."""


def float16_without_gpu() -> MisError:
    """Return the error for half precision of 16-bit floats on a CPU."""
    return MisError(
        "train.precision mixed_float16 needs a GPU: TensorFlow has no float16 pooling for CPUs",
        do="use mixed_bfloat16 or float32",
    )


def too_many_devices(usable: int, kind: str, wanted: int) -> MisError:
    """Return the error for more devices than may be used.

    Args:
        usable: How many may be used.
        kind: `GPUs` or `CPU cores`.
        wanted: How many devices the training asks for.
    """
    return MisError(f"a training can have at most the {usable} {kind} that may be used", got=f"{wanted} devices")


def too_few_gpus(gpus: int, workers: int, wanted: int) -> MisError:
    """Return the error for a host whose GPUs are not enough for its workers.

    Args:
        gpus: GPUs of the host.
        workers: Workers on the host.
        wanted: GPUs that each worker asks for.
    """
    return MisError(f"the {gpus} GPUs of this host must be enough for its {workers} workers", got=f"{wanted} for each")


def promised_gpus_missing(promise: str, missing: str) -> MisError:
    """Return the error for GPUs that TensorFlow cannot use.

    Args:
        promise: What promises them.
        missing: What keeps TensorFlow from using them.
    """
    return MisError(
        f"TensorFlow must find the GPUs that {promise} promises",
        got=f"none: {missing}",
        do=LET_GPUS_BE_USED,
    )


def unknown_gpu_memory(gpu: str, error: Exception) -> MisError:
    """Return the error for trials that share a GPU whose memory nvidia-smi does not give."""
    return MisError(
        f"trials that share a GPU need nvidia-smi to tell its memory: {error}",
        got=f"GPU {gpu}",
        do="give each trial a whole one: tune.devices_per_trial=1",
    )


def state_of_another_network(state: Path) -> ValueError:
    """Return the error for a checkpoint whose weights do not fit the network or the optimizer."""
    return ValueError(f"{state} is of another network or optimizer")


def unreadable_checkpoint(checkpoint: Path, error: BaseException, *, one_is_left: bool) -> str:
    """Return what is said of a checkpoint that cannot be read.

    Args:
        checkpoint: The checkpoint.
        error: What reading it has raised.
        one_is_left: Whether there is one before it, which is read next.
    """
    reason = " ".join(str(error).split()) or type(error).__name__
    what = "going on from the one before" if one_is_left else "no checkpoint is left that can be read: beginning again"
    return f"checkpoint {checkpoint} cannot be read ({reason[:120]}): {what}"


def checkpoints_removed(folder: Path) -> FileNotFoundError:
    """Return the error for a result that is used after its checkpoints were removed."""
    return FileNotFoundError(f"the checkpoints of this training were removed from {folder}")
