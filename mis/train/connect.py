"""Let TensorFlow connect the workers without standing still: Python's threads and signals go on meanwhile.

TensorFlow connects the workers of a training in `TFE_EnableCollectiveOps`, which waits until all are there. It holds
Python's global lock all the time, so that no other thread of the process answers anything, and takes SIGTERM for a
notice of preemption, which nothing here reads, so that `kill` and a cluster's time limit do not end the process. The
same function of TensorFlow's library is called here through `ctypes`, which gives the lock away.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.framework import errors_impl

from mis.train.signals import signals_as_they_are

POLL_S = 0.2
"""Seconds between two looks at whether TensorFlow has connected the workers."""

_kept: list[object] = []
"""TensorFlow's contexts that a thread still uses when its caller was interrupted: one that is deleted would crash."""


@contextmanager
def connecting_beside_python() -> Iterator[None]:
    """In this block TensorFlow connects the workers without holding Python's global lock.

    In the main thread the handlers of SIGTERM and SIGINT stay those that were set before.
    """
    library = _library()
    if library is None:
        yield
        return
    before = pywrap_tfe.TFE_EnableCollectiveOps
    pywrap_tfe.TFE_EnableCollectiveOps = lambda context, server: _connect(library, context, server)
    try:
        yield
    finally:
        pywrap_tfe.TFE_EnableCollectiveOps = before


def _library() -> ctypes.CDLL | None:
    """Return TensorFlow's library where it has the function, as version 2.21 does for Linux and macOS."""
    for path in sorted(Path(tf.__file__).parent.glob("libtensorflow_cc.*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "TFE_EnableCollectiveOps"):
            library.TF_NewStatus.restype = ctypes.c_void_p
            library.TF_Message.restype = ctypes.c_char_p
            return library
    return None


def _connect(library: ctypes.CDLL, context: object, server: bytes) -> None:
    """Do what TensorFlow's own wrapper of `TFE_EnableCollectiveOps` does, in a thread.

    Args:
        library: TensorFlow's.
        context: The capsule with a pointer to TensorFlow's context.
        server: The description of the workers, as a serialised `ServerDef`.
    """
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    status = ctypes.c_void_p(library.TF_NewStatus())
    arguments: tuple[Any, ...] = (ctypes.c_void_p(get_pointer(context, None)), server, ctypes.c_size_t(len(server)))
    # A daemon: when a signal ends the program, it is not waited for.
    thread = threading.Thread(target=library.TFE_EnableCollectiveOps, args=(*arguments, status), daemon=True)
    with signals_as_they_are() as restore:
        thread.start()
        _kept.append(context)
        while thread.is_alive():
            thread.join(POLL_S)
            restore()
        _kept.remove(context)
    code, message = library.TF_GetCode(status), library.TF_Message(status).decode(errors="replace")
    library.TF_DeleteStatus(status)
    if code:
        raise errors_impl.exception_type_from_error_code(code)(None, None, message)
