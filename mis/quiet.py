"""Import TensorFlow without the lines that it writes before it reads its log level."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow; what it writes to stderr meanwhile is shown only if the import fails.

    Four lines on instruction sets and absent CUDA libraries come from C++ before
    TF_CPP_MIN_LOG_LEVEL is in force. Behind a progress bar, or from each of many workers, they hide
    what matters. Call it first in an entry point.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            # Each training traces its own functions: the warning on many traces is about something else.
            tf.get_logger().setLevel("ERROR")
        except BaseException:
            noise.seek(0)
            os.write(kept, noise.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
