import os
import shutil

import pytest

from mis.errors import MisError
from mis.settings import cores
from mis.train.devices import gpu_memory_mb

pytestmark = pytest.mark.slow

# TensorFlow's devices are chosen once a process.
CLAIM = """
import json
from mis.quiet import import_tensorflow
import_tensorflow()
import tensorflow as tf
from mis.errors import MisError
from mis.train.devices import claim
from mis.settings import cores

result = {"cores": cores()}
for wanted in (cores() + 1, 1000):
    try:
        claim(wanted)
    except MisError as error:
        result[f"refused {wanted}"] = str(error)
first = claim(2, threads=1)
result["names"], result["threads"] = list(first.names), first.threads
result["logical before"] = len(tf.config.get_logical_device_configuration(tf.config.list_physical_devices("CPU")[0]))
for name in first.names:
    with tf.device(name):
        result[name] = (tf.constant(1.0) + 1).device
result["logical"] = len(tf.config.list_logical_devices("CPU"))
result["again"] = claim(2, threads=1) == first
result["intra"] = tf.config.threading.get_intra_op_parallelism_threads()
result["inter"] = tf.config.threading.get_inter_op_parallelism_threads()
try:
    claim(1, threads=1)
except (RuntimeError, ValueError) as error:
    result["other"] = str(error)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def claimed(run_script):
    if cores() < 2:
        pytest.skip("two logical devices need two cores")
    return run_script(CLAIM, env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"})


def test_there_are_as_many_devices_as_claimed_and_each_computes(claimed):
    assert claimed["names"] == ["CPU:0", "CPU:1"]
    assert claimed["logical before"] == claimed["logical"] == 2
    for name in claimed["names"]:
        assert claimed[name].endswith(f"device:{name}")


def test_threads_are_those_of_each_device_and_all_devices_work_at_once(claimed):
    assert (claimed["threads"], claimed["intra"], claimed["inter"]) == (1, 1, 2)


def test_the_same_claim_may_come_again_and_another_may_not(claimed):
    assert claimed["again"]
    assert "cannot be modified" in claimed["other"]


def test_more_devices_than_there_are_is_one_line_with_both_numbers(claimed):
    there = claimed["cores"]
    for wanted in (there + 1, 1000):
        assert claimed[f"refused {wanted}"] == (
            f"a training can have at most the {there} CPU cores that may be used, got {wanted} devices"
        )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="the driver's tool is there")
def test_a_gpu_whose_memory_nobody_tells_is_not_shared():
    with pytest.raises(MisError, match=r"need nvidia-smi to tell its memory.*got GPU 0; give each trial a whole one"):
        gpu_memory_mb()
