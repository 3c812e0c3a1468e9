"""Which GPUs this process was promised, and what is missing where TensorFlow has none.

TensorFlow goes on without GPUs where it cannot load its libraries or the driver, and says so only in a log that is
hidden: a training would take a hundred times as long without a word.
"""

import ctypes
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

DEVICE_FILES = Path("/dev")
"""Where NVIDIA's driver has a file for each GPU.

/proc/driver/nvidia/gpus is no promise: a container that was given no GPU sees all of its host there.
"""

SLURM_VARIABLES = {"SLURM_STEP_GPUS": "", "SLURM_JOB_GPUS": "", "SLURM_GPUS_ON_NODE": "0"}
"""What SLURM sets where a job or a step has asked for GPUs, with the value that means none: numbers, and a count."""

DRIVER = "libcuda.so.1"
"""The library that comes with the driver, not with CUDA."""

LIBRARIES = {12: ("libcudart.so.12", "libcublas.so.12", "libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12")}
"""The libraries that TensorFlow loads before it uses a GPU, by CUDA's major version; cuDNN is beside them."""


def find_promise(env: Mapping[str, str], reserved: float = 0, device_files: Path = DEVICE_FILES) -> str | None:
    """Return what promises a GPU to this process, as the subject of a sentence; None where nothing does.

    CUDA_VISIBLE_DEVICES without a GPU, as -1, hides them on purpose.

    Args:
        env: The environment variables.
        reserved: How many GPUs Ray has reserved for this process.
        device_files: The folder with the driver's files.
    """
    if reserved:
        return f"Ray, which has reserved {reserved:g} for this process,"
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        first = visible.split(",")[0].strip()
        # CUDA ignores what follows the first entry that is no GPU; SLURM writes NoDevFiles for a job without any.
        is_gpu = first.isdecimal() or first.startswith(("GPU-", "MIG-"))
        return f"CUDA_VISIBLE_DEVICES={visible}" if is_gpu else None
    for name, none in SLURM_VARIABLES.items():
        if env.get(name, none) not in {"", none}:
            return f"{name}={env[name]}"
    if env.get("SLURM_JOB_ID"):  # a job that has asked for none
        return None
    usable = sorted(file for file in device_files.glob("nvidia[0-9]*") if _can_be_opened(file))
    return str(usable[0]) if usable else None


def _can_be_opened(file: Path) -> bool:
    """Return whether this process may use a GPU: a cluster's manager forbids others to open its file."""
    try:
        os.close(os.open(file, os.O_RDWR))
    except OSError:
        return False
    return True


def find_missing() -> str:
    """Return what keeps TensorFlow from using a GPU, as far as it can be found out."""
    built = tf.sysconfig.get_build_info()
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow was built without CUDA"
    version = str(built.get("cuda_version", ""))
    major = int(version.partition(".")[0] or 0)
    driver = _load(DRIVER)
    if isinstance(driver, OSError):
        return f"the driver's library cannot be loaded ({driver})"
    names = (*LIBRARIES.get(major, ()), f"libcudnn.so.{built.get('cudnn_version', '')}")
    absent = [name for name in names if isinstance(_load(name), OSError)]
    if absent:
        return f"{', '.join(absent)} cannot be loaded"
    return _what_the_driver_says(driver, version)


def _load(name: str) -> ctypes.CDLL | OSError:
    """Load a library as TensorFlow does, which looks among the packages of its extra `and-cuda` first."""
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob(f"nvidia/*/lib/{name}"))
    try:
        return ctypes.CDLL(str(packaged[0]) if packaged else name)
    except OSError as error:
        return error


def _what_the_driver_says(driver: ctypes.CDLL, built_for: str) -> str:
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    supported = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if number.value // 1000 < int(built_for.partition(".")[0] or 0):
        return f"the driver is for CUDA {supported}, and TensorFlow needs {built_for}"
    code, name = driver.cuInit(0), ctypes.c_char_p()
    if code:
        driver.cuGetErrorName(code, ctypes.byref(name))
        return f"the driver does not start ({(name.value or b'error').decode()}, {code})"
    return "all libraries can be loaded, and TensorFlow's log (TF_CPP_MIN_LOG_LEVEL=0) says more"
