"""What a trial does in its worker, without one."""

import pytest
import tensorflow as tf

from mis.train.trial import GRAPH_CACHE
from mis.tune.epochs import reports
from mis.tune.ray.training import is_memory_full, within_memory


class Batch:
    """A training for which there is no memory while its batch is above 2."""

    def __init__(self, size, smallest=1):
        self.size = size
        self.smallest = smallest
        self.tried = []

    def train(self):
        self.tried.append(self.size)
        if self.size > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    def halve(self):
        self.size //= 2
        return self.size >= self.smallest


def test_half_the_batch_until_the_memory_suffices():
    batch = Batch(16)
    within_memory(batch.train, batch.halve)
    assert batch.tried == [16, 8, 4, 2]


@pytest.mark.slow
def test_a_tensor_that_no_memory_can_hold_is_such_an_error():
    sizes = [2**50, 1]
    within_memory(lambda: tf.zeros(sizes[0]), lambda: bool(sizes.pop(0)))
    assert sizes == [1]


def test_what_is_kept_beside_goes_before_the_batch_is_halved(monkeypatch):
    monkeypatch.setitem(GRAPH_CACHE.idle, "another", None)
    batch = Batch(4)
    within_memory(batch.train, batch.halve)
    assert batch.tried == [4, 4, 2]
    assert not GRAPH_CACHE.idle


def test_where_no_half_is_wanted_the_reason_is_told():
    batch = Batch(8, smallest=4)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        within_memory(batch.train, batch.halve)
    assert batch.tried == [8, 4]


def test_another_error_is_none_of_memory():
    def fail():
        raise ValueError("of another kind")

    with pytest.raises(ValueError, match="of another kind"):
        within_memory(fail, pytest.fail)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages: ..."), True),
        (tf.errors.InternalError(None, None, "CUBLAS_STATUS_ALLOC_FAILED"), True),
        (tf.errors.InternalError(None, None, "Failed to allocate 1.2GiB"), True),
        (tf.errors.NotFoundError(None, None, "a.tfrecord; No such file or directory"), False),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_ECC_UNCORRECTABLE"), False),
        (tf.errors.InvalidArgumentError(None, None, "out of memory"), False),
    ],
)
def test_a_gpus_full_memory_has_several_names(error, expected):
    assert is_memory_full(error) is expected


def test_the_best_so_far_never_falls():
    told = reports([{"val/dice": dice} for dice in (0.2, 0.5, 0.3, 0.6)])
    assert [one["best/dice"] for one in told] == [0.2, 0.5, 0.5, 0.6]
    assert [one["epoch"] for one in told] == [1, 2, 3, 4]
