import pytest

from mis.errors import MisError
from mis.scaling.session import _share
from mis.settings import Settings
from mis.train.allocate import Node


def test_more_devices_than_a_node_has_are_refused(tmp_path):
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri="")
    nodes = [Node(cpus=2, gpus=0)] * 2
    assert _share(nodes, 2, settings).devices == 2
    with pytest.raises(MisError, match="must be at most the 2 devices of a node, for now, got 4"):
        _share(nodes, 4, settings)
