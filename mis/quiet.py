"""Import TensorFlow without the lines that it prints before it reads its log level, and in half the time."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

UNUSED = ("jax", "matplotlib", "pandas", "sklearn")
"""What TensorFlow and Keras import where it is installed, for wrappers and converters that nothing here uses."""


@cache
def import_tensorflow() -> None:
    """Import TensorFlow; what it writes to stderr meanwhile is shown only if the import fails.

    Before TF_CPP_MIN_LOG_LEVEL is in force, C++ code prints four lines on instruction sets and absent CUDA libraries.
    After a progress bar, or from each of many workers, they hide what matters. An entry point calls this first.

    Its modules stay until the process ends: the garbage collector, which takes a fifth of the import's time, neither
    runs meanwhile nor looks through them later. A second call does nothing: a process that runs trials one after
    another calls this for each, and what one has left must not be kept from the collector.

    `UNUSED` is not there for TensorFlow and Keras: its import takes longer than their own, in each process of a search.
    Another module that imports one of them finds it as ever.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            with _hidden(*UNUSED), _uncollected():
                import keras  # noqa: F401
                import tensorflow as tf

            # Every training traces new functions, which TensorFlow's warning on many traces takes for a mistake.
            tf.get_logger().setLevel("ERROR")
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage in this block, and never look for any in what it has left."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Let an import of these packages fail in this block as if they were not installed, where it would be their first.

    Keras' own backend is not hidden from it.
    """
    hidden = [name for name in packages if name not in sys.modules and name != os.environ.get("KERAS_BACKEND")]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python writes "not to be found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
