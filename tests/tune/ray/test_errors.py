"""What is said of a trial that failed, from the text that Ray keeps."""

from types import SimpleNamespace

import pytest
import ray

from mis.errors import MisError, NodeAwayError
from mis.tune.ray.errors import LONGEST, is_own_fault, reason_of
from mis.tune.ray.visible import _error_of

GRAPH = """ray::ImplicitFunc.train() (pid=7, ip=10.0.0.1)
  File "execute.py", line 59, in quick_execute
    except TypeError as e:
tensorflow.python.framework.errors_impl.{kind}: Graph execution error:

Detected at node {node} defined at (most recent call last):
<stack traces unavailable>
{said}
\t [[{{{{node {node}}}}}]]
\t [[IteratorGetNext]] [Op:__inference_multi_step_on_iterator_213]"""

EAGER = (
    "tensorflow.python.framework.errors_impl.DataLossError: {{function_node __wrapped__IteratorGetNext_device_CPU:0}} "
    "corrupted record at 0 (Is this even a TFRecord file?) [Op:IteratorGetNext] name: "
)

USER_CODE = """ValueError: in user code:

    File "model.py", line 24, in f  *
        return tf.reshape(x, (3, 5))

    ValueError: Cannot reshape a tensor with 7 elements for '{{node Reshape}} = Reshape(x)'
"""

KERAS = """ValueError: Exception encountered when calling Sequential.call().

\x1b[1mInput 0 of layer 'dense' is incompatible with the layer\x1b[0m

Arguments received by Sequential.call():
  • inputs=tf.Tensor(shape=(2, 3), dtype=float32)
  • kwargs=<class 'inspect._empty'>"""

WORKER = """mis.errors.WorkerError: worker 1 on node-b failed:
Traceback (most recent call last):
  File "worker.py", line 3, in work
    raise OSError("no device")
OSError: no device"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GRAPH.format(kind="DataLossError", node="IteratorGetNext", said="corrupted record at 0"),
            "DataLossError: corrupted record at 0",
        ),
        (
            GRAPH.format(kind="InvalidArgumentError", node="ParseExample", said="Could not parse example input"),
            "reading the data: Could not parse example input",
        ),
        (EAGER, "DataLossError: corrupted record at 0 (Is this even a TFRecord file?)"),
        (
            USER_CODE,
            "ValueError: Cannot reshape a tensor with 7 elements for '{{node Reshape}} = Reshape(x)'",
        ),
        (KERAS, "ValueError: Input 0 of layer 'dense' is incompatible with the layer"),
        (WORKER, "OSError: no device"),
        ("mis.tune.ray.errors.ValuesError: groups must divide, got 8", "ValuesError: groups must divide, got 8"),
        ("  File 'x.py', line 3\nKeyboardInterrupt", "KeyboardInterrupt"),
        ("The worker process has died.", "its process died"),
        ("what nobody knows", "what nobody knows"),
        (f"ValueError: {'x' * 999}", f"ValueError: {'x' * 999}"[:LONGEST]),
    ],
)
def test_the_reason_says_what_happened(tmp_path, text, reason):
    file = tmp_path / "error.txt"
    file.write_text(
        f"Failure # 1 (occurred at 2026-11-26)\nOSError: an earlier one\nFailure # 2 (occurred at ...)\n{text}\n"
    )
    assert reason_of(SimpleNamespace(error_file=file)) == reason


def test_a_process_that_left_no_text_died():
    assert reason_of(SimpleNamespace(error_file=None)) == "its process died"


def test_an_error_in_the_data_is_not_the_trials_own_fault():
    """A file on the disk of the node may be at fault."""
    assert is_own_fault("InvalidArgumentError: shapes must match")
    assert not is_own_fault("reading the data: Could not parse example input")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ray.exceptions.GetTimeoutError(), NodeAwayError),
        (ray.exceptions.NodeDiedError("the node is gone"), NodeAwayError),
        (ray.exceptions.TaskUnschedulableError("the node is gone"), NodeAwayError),
        (ray.exceptions.RuntimeEnvSetupError("no module named mis"), MisError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_node_that_does_not_answer_or_is_lost_is_no_error_of_the_input(monkeypatch, tmp_path, raised, kind):
    def get(*_, **__):
        raise raised

    monkeypatch.setattr(ray, "get", get)
    error = _error_of("n2", None, tmp_path, tmp_path, tmp_path / "proof")
    assert type(error) is kind
    assert "every node must" in str(error)
