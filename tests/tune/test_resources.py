"""What the trials of a study have of a machine, and of a cluster, where not all devices may be used."""

import pytest

from mis.errors import MisError
from mis.train.allocate import Node, allocate
from mis.tune.resources import _check_all_may_run

LIMITED = """
import json
import sys
import tempfile
from pathlib import Path

import ray

from mis.params.load import load_params
from mis.settings import Settings
from mis.tune.resources import resources

folder = Path(tempfile.mkdtemp())
settings = Settings(root=folder, workspace=folder, tracking_uri="", devices=1, leases=folder)
with resources(load_params(Path("pipelines/plain.yaml")).tune, 0, settings, print) as found:
    print(json.dumps([ray.cluster_resources()["CPU"], found.share.concurrent]))
"""


@pytest.mark.slow
def test_a_local_ray_has_no_more_room_than_may_be_used(run_script):
    # A population's trials are given to Ray all at once: it lets as many run as there is room for.
    assert run_script(LIMITED) == [1, 1]


def test_a_limit_for_a_population_on_a_cluster_is_refused():
    nodes = [Node(cpus=4, gpus=0)] * 2
    _check_all_may_run(allocate(nodes, 1, limit=8), allocate(nodes, 1))
    with pytest.raises(MisError, match=r"MIS_DEVICES must leave room for 8 trials at once, got for 2; unset"):
        _check_all_may_run(allocate(nodes, 1, limit=2), allocate(nodes, 1))
