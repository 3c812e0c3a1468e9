import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.train.cores import cores_of

SOURCE = """
import json, os, threading
from mis.train.cores import bind, cores_at_start
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
bind([{device}], 1)
bind([{device}], 1)
found = {{tuple(os.sched_getaffinity(int(name))) for name in os.listdir("/proc/self/task")}}
stop.set()
print(json.dumps([sorted(found), cores_at_start()]))
"""


@given(threads=st.integers(1, 4), devices=st.integers(1, 8), spare=st.integers(0, 3))
def test_all_devices_of_a_node_have_cores_of_their_own(threads, devices, spare):
    available = list(range(0, 2 * (threads * devices + spare), 2))
    cores = [cores_of([device], threads, available) for device in range(devices)]
    assert all(len(own) == threads for own in cores)
    assert len({core for own in cores for core in own}) == threads * devices
    assert cores_of(range(devices), threads, available) == tuple(core for own in cores for core in own)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not bind processes")
def test_every_thread_of_the_process_is_bound(run_script):
    bound, at_start = run_script(SOURCE.format(device=0))
    assert bound == [[at_start[0]]]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not bind processes")
def test_a_node_that_claims_more_cores_than_it_has_binds_nothing(run_script):
    bound, at_start = run_script(SOURCE.format(device=10_000))
    assert bound == [at_start]
