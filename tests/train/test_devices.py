import os
import shutil

import pytest

from mis.errors import MisError
from mis.settings import cores
from mis.train.devices import gpu_memory_mb
from mis.train.promised_gpus import find_promise

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


# ---- GPUs that were promised ----


@pytest.mark.parametrize(
    ("env", "promise"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "CUDA_VISIBLE_DEVICES=0,1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, "CUDA_VISIBLE_DEVICES=GPU-8932f937"),
        ({"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"}, "SLURM_JOB_GPUS=0"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "2,3", "SLURM_JOB_GPUS": "0-3"}, "SLURM_STEP_GPUS=2,3"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}, "SLURM_GPUS_ON_NODE=4"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "0"}, None),
    ],
)
def test_what_promises_a_gpu(tmp_path, env, promise):
    assert find_promise(env, device_files=tmp_path) == promise


def test_the_file_of_a_gpu_promises_it_unless_it_is_hidden_or_a_job_has_asked_for_none(tmp_path):
    (tmp_path / "nvidiactl").touch()
    assert find_promise({}, device_files=tmp_path) is None
    file = tmp_path / "nvidia0"
    file.touch()
    assert find_promise({}, device_files=tmp_path) == str(file)
    assert find_promise({"CUDA_VISIBLE_DEVICES": "-1"}, device_files=tmp_path) is None
    assert find_promise({"SLURM_JOB_ID": "7"}, device_files=tmp_path) is None
    file.unlink()
    file.mkdir()  # as one that may not be opened
    assert find_promise({}, device_files=tmp_path) is None


def test_what_ray_has_reserved_is_promised(tmp_path):
    assert find_promise({}, 0.5, tmp_path) == "Ray, which has reserved 0.5 for this process,"


REFUSED = """
import json
from mis.quiet import import_tensorflow
import_tensorflow()
from mis.errors import MisError
from mis.train.devices import claim

try:
    result = list(claim(1).names)
except MisError as error:
    result = str(error)
print(json.dumps(result))
"""


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_promised_gpus_that_cannot_be_loaded_are_one_line_that_says_what_is_missing(run_script):
    line = run_script(REFUSED, env=os.environ | {"CUDA_VISIBLE_DEVICES": "0"})
    assert line == (
        "TensorFlow must find the GPUs that CUDA_VISIBLE_DEVICES=0 promises, got none: the driver's library cannot be "
        "loaded (libcuda.so.1: cannot open shared object file: No such file or directory); install its CUDA libraries "
        "(make install EXTRAS=dev,cuda) or a newer driver; to train on the CPU, hide the GPUs with "
        "CUDA_VISIBLE_DEVICES=-1, from Ray with ray start --num-gpus=0"
    )
    assert run_script(REFUSED, env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}) == ["CPU:0"]
