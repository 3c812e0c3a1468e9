from mis.train.allocate import Node, allocate
from mis.train.cluster import NODE_LABEL
from mis.tune.allocation import Place
from mis.tune.ray.placing import Nodes, fixed_request, has_room, request_at

NODES = [Node(cpus=40, gpus=4, name="a"), Node(cpus=40, gpus=4, name="b")]


def selected(request):
    """Return the nodes that a request names, a node for each of its processes."""
    return [selector[NODE_LABEL] for selector in request._bound.arguments["bundle_label_selector"]]


def test_a_place_on_a_node_is_one_process_there():
    request = request_at(Place(((1, 2),)), NODES)
    assert request.bundles == [{"CPU": 20.0, "GPU": 2.0}]
    assert selected(request) == ["b"]
    assert not request.head_bundle_is_empty


def test_a_place_on_several_nodes_is_processes_of_the_same_size():
    request = request_at(Place(((0, 4), (1, 2))), NODES)
    assert request.bundles == [{"CPU": 20.0, "GPU": 2.0}] * 3
    assert selected(request) == ["a", "a", "b"]
    assert request.head_bundle_is_empty, "the trial's own process computes nothing"


def test_the_same_place_is_the_same_request_so_that_a_process_is_used_again():
    assert request_at(Place(((0, 1),)), NODES) == request_at(Place(((0, 1),)), NODES)
    assert request_at(Place(((0, 1),)), NODES) != request_at(Place(((1, 1),)), NODES)


def test_a_fixed_share_is_reserved_wherever_it_is_free():
    assert fixed_request(allocate(NODES, 2)).bundles == [{"CPU": 20.0, "GPU": 2.0}]
    assert fixed_request(allocate(NODES, 8)).bundles == [{"CPU": 40.0, "GPU": 4.0}] * 2


def test_a_node_keeps_its_number_when_others_are_lost_and_come():
    nodes = Nodes.of(NODES)
    assert nodes.devices() == (4, 4)
    assert nodes.devices(limit=5) == (4, 1)
    left = nodes.now([NODES[1]])
    assert left.devices() == (0, 4)
    assert left.devices(limit=3) == (0, 3)
    assert left.now([NODES[1], Node(cpus=8, gpus=2, name="c")]).devices() == (0, 4, 2)
    assert left.now(NODES).devices() == (4, 4), "a node that comes back"


def test_a_node_has_room_for_what_a_trial_is_given():
    gpus = [Node(cpus=40, gpus=4, name="a")]
    head = [Node(cpus=8, gpus=0, name="head")]
    assert has_room(gpus, allocate(NODES, 2))
    assert not has_room(head, allocate(NODES, 2)), "a head without GPUs"
    assert not has_room([], allocate(NODES, 1))
    assert has_room(gpus, allocate(NODES, 0.25))
    assert not has_room(gpus, allocate(NODES, 8)), "it needs both"
    assert has_room(NODES, allocate(NODES, 8))


def test_a_request_keeps_away_from_nodes_that_are_left_out():
    request = fixed_request(allocate(NODES, 8), {"b", "c"})
    assert request.bundles == [{"CPU": 40.0, "GPU": 4.0}] * 2
    assert selected(request) == ["!in(b,c)"] * 2
