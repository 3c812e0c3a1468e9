"""How errors are told; tests/train/test_strategy.py has what workers compute, test_gang.py how they fail."""

import pytest
import tensorflow as tf

from mis.train.worker import first_line, is_lost


def test_the_first_line_of_an_error_of_tensorflow_has_no_graph_nodes():
    error = ValueError("{{function_node __wrapped__X}} Collective ops is aborted by: gone\nAdditional lines")
    assert first_line(error) == "Collective ops is aborted by: gone"
    assert first_line(ValueError()) == "ValueError"
    text = "Graph execution error:\n\nDetected at node X defined at:\n<stack traces unavailable>\nSocket closed\nmore"
    assert first_line(ValueError(text)) == "Socket closed"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (tf.errors.UnavailableError(None, None, "Socket closed"), True),
        (tf.errors.UnknownError(None, None, "Could not start gRPC server"), True),
        (tf.errors.InternalError(None, None, "NCCL: unhandled system error"), True),
        (tf.errors.InternalError(None, None, "Blas GEMM launch failed"), False),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), False),
        (ValueError("collective nonsense"), False),
    ],
)
def test_what_is_tried_again_is_the_loss_of_others_and_of_the_network(error, lost):
    assert is_lost(error) == lost
