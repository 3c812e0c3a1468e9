"""Import TensorFlow without the lines that it prints before it reads its log level."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow; what it writes to stderr meanwhile is shown only if the import fails.

    Before TF_CPP_MIN_LOG_LEVEL is in force, C++ code prints four lines on instruction sets and absent CUDA libraries.
    After a progress bar, or from each of many workers, they hide what matters. An entry point calls this first.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
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
