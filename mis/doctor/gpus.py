"""Whether TensorFlow can use the GPUs that this machine promises: asked in a process of its own, which then ends.

TensorFlow takes seconds to import, and a process that has it does not give it up again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mis.machine.diagnosis import Diagnosis
from mis.track.provenance import PACKAGE
from mis.train.messages import LET_GPUS_BE_USED

ANSWER_S = 120.0
"""Seconds in which TensorFlow must have been imported, from a shared file system too."""


@dataclass(frozen=True)
class Gpus:
    """What TensorFlow has found.

    Attributes:
        found: How many GPUs it can use.
        promise: What promises GPUs to this process, as the subject of a sentence; None where nothing does.
        missing: What keeps it from using them, where it has none that are promised.
        failure: Why it could not be asked; "" where it was.
    """

    found: int = 0
    promise: str | None = None
    missing: str = ""
    failure: str = ""


def ask_tensorflow(reserved: float = 0) -> Gpus:
    """Return what TensorFlow finds in a process of its own.

    Args:
        reserved: How many GPUs Ray has reserved for this process.
    """
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", __name__, str(reserved)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Gpus(failure=f"its import takes more than {ANSWER_S:.0f} s")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode != 0:
        reason = lines[-1] if lines else f"its process ended with {done.returncode}"
        return Gpus(failure=f"it cannot be imported: {reason}")
    return Gpus(**json.loads(lines[-1]))


def look(reserved: float) -> Gpus:
    """Return what TensorFlow finds in this process, which imports it."""
    from mis.quiet import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from mis.train.promised_gpus import find_missing, find_promise

    found, promise = len(tf.config.list_physical_devices("GPU")), find_promise(os.environ, reserved)
    return Gpus(found, promise, find_missing() if promise and not found else "")


def judge_gpus(host: str, gpus: Gpus) -> Diagnosis:
    """Return what there is to say of TensorFlow and the GPUs of a machine.

    Args:
        host: The machine's name.
        gpus: What TensorFlow has found.
    """
    if gpus.failure:
        return Diagnosis("error", "TensorFlow", f"{host}: {gpus.failure}", "make install (EXTRAS=dev,cuda for GPUs)")
    if gpus.promise and not gpus.found:
        return Diagnosis(
            "error",
            "GPUs",
            f"{host}: TensorFlow has none, though {gpus.promise} promises some: {gpus.missing}",
            LET_GPUS_BE_USED,
        )
    if not gpus.found:
        return Diagnosis("ok", "GPUs", f"{host}: none, and none is promised: trainings run on the CPU")
    return Diagnosis("ok", "GPUs", f"{host}: TensorFlow has {gpus.found}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print what TensorFlow finds, as JSON."""
    reserved = float((sys.argv[1:] if argv is None else argv)[0])
    print(json.dumps(asdict(look(reserved))))  # noqa: T201 - for the process that asks
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
