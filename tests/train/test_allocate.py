import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.errors import MisError
from mis.train.allocate import Node, Share, allocate, allocate_workers

nodes = st.lists(st.builds(Node, cpus=st.integers(1, 64), gpus=st.integers(0, 8)), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("there", "devices", "limit", "expected"),
    [
        ([Node(2, 0)], 1, None, Share(1, 1, 2, {"CPU": 1})),
        ([Node(2, 0)], 2, None, Share(2, 1, 1, {"CPU": 2})),
        ([Node(7, 0)], 2, None, Share(2, 1, 3, {"CPU": 2})),
        ([Node(8, 0), Node(3, 0)], 2, None, Share(2, 1, 5, {"CPU": 2})),
        ([Node(8, 0), Node(1, 0)], 2, None, Share(2, 1, 4, {"CPU": 2})),
        ([Node(8, 0)], 1, 3, Share(1, 1, 3, {"CPU": 1})),
        ([Node(8, 0)], 2, 5, Share(2, 1, 2, {"CPU": 2})),
        ([Node(40, 4)], 1, None, Share(1, 10, 4, {"CPU": 10, "GPU": 1})),
        ([Node(40, 4)], 4, None, Share(4, 10, 1, {"CPU": 40, "GPU": 4})),
        ([Node(40, 4)] * 8, 1, None, Share(1, 10, 32, {"CPU": 10, "GPU": 1})),
        ([Node(40, 4)] * 2, 3, None, Share(3, 10, 2, {"CPU": 30, "GPU": 3})),
        ([Node(40, 4), Node(16, 0)], 1, None, Share(1, 10, 4, {"CPU": 10, "GPU": 1})),
        ([Node(40, 4), Node(8, 2)], 1, None, Share(1, 4, 6, {"CPU": 4, "GPU": 1})),
        ([Node(40, 4)], 1, 2, Share(1, 10, 2, {"CPU": 10, "GPU": 1})),
        ([Node(2, 0)], 0.5, None, Share(1, 1, 4, {"CPU": 0.5}, 0.5)),
        ([Node(40, 4)] * 2, 0.25, None, Share(1, 2, 32, {"CPU": 2, "GPU": 0.25}, 0.25)),
        ([Node(40, 4)], 0.5, 1, Share(1, 5, 2, {"CPU": 5, "GPU": 0.5}, 0.5)),
        ([Node(4, 2)], 0.25, None, Share(1, 1, 8, {"CPU": 0.5, "GPU": 0.25}, 0.25)),
        ([Node(8, 1)], 1 / 3, None, Share(1, 2, 3, {"CPU": 2, "GPU": 0.3333}, 0.3333)),
        ([Node(2, 0), Node(2, 0)], 4, None, Share(2, 1, 1, {"CPU": 2}, processes=2)),
        ([Node(40, 4)] * 8, 8, None, Share(4, 10, 4, {"CPU": 40, "GPU": 4}, processes=2)),
        ([Node(40, 4)] * 8, 32, None, Share(4, 10, 1, {"CPU": 40, "GPU": 4}, processes=8)),
        ([Node(3, 0), Node(3, 0)], 5, None, Share(1, 1, 1, {"CPU": 1}, processes=5)),
    ],
)
def test_by_hand(there, devices, limit, expected):
    assert allocate(there, devices, limit) == expected


@given(there=nodes, parts=st.integers(2, 12))
def test_fractions_of_a_device_fit_together(there, parts):
    share, whole = allocate(there, 1 / parts), allocate(there, 1)
    assert share.concurrent == parts * whole.concurrent
    for kind, amount in share.bundle.items():
        assert 0 < round(10_000 * amount) * parts <= 10_000 * whole.bundle[kind], "Ray counts in ten-thousandths"


@given(there=nodes, devices=st.integers(1, 8), limit=st.none() | st.integers(1, 16))
def test_no_node_gives_more_than_it_has_and_one_more_share_would_not_fit(there, devices, limit):
    kind = "GPU" if any(node.gpus for node in there) else "CPU"
    counts = [node.gpus if kind == "GPU" else node.cpus for node in there]
    try:
        share = allocate(there, devices, limit)
    except MisError:
        assert devices > sum(counts) or (limit is not None and devices > limit)
        return
    assert share.replicas == devices
    assert share.bundle[kind] >= share.devices
    assert share.concurrent >= 1
    assert share.concurrent * devices <= min(sum(counts), limit or sum(counts))
    for node, count in zip(there, counts, strict=True):
        # All shares of a node at once, on its cores. A core is the least that a device has.
        if kind == "CPU" or node.cpus >= node.gpus:
            assert count // share.devices * share.bundle["CPU"] <= node.cpus
    fitting = sum(count // share.devices for count in counts)
    assert share.processes <= fitting
    assert (share.processes > 1) == (devices > max(counts)), "more processes only where no node has so many devices"
    if limit is None:
        assert share.concurrent == fitting // share.processes


@pytest.mark.parametrize(
    ("there", "devices", "limit", "message"),
    [
        ([Node(2, 0)], 3, None, "the 2 CPU cores that may be used, got 3"),
        ([Node(2, 0), Node(2, 0)], 5, None, "the 4 CPU cores that may be used, got 5"),
        ([Node(64, 4)], 8, None, "the 4 GPUs that may be used, got 8"),
        ([Node(8, 0)], 4, 2, "the 2 CPU cores that may be used, got 4"),
    ],
)
def test_more_devices_than_there_are_or_may_be_used_are_refused(there, devices, limit, message):
    with pytest.raises(MisError, match=message):
        allocate(there, devices, limit)


# ---- The workers of a training ----


@pytest.mark.parametrize(
    ("there", "workers", "devices", "expected"),
    [
        ([Node(2, 0)], 1, 1, Share(1, 2, 1, {"CPU": 2})),
        ([Node(2, 0)], 2, 1, Share(1, 1, 2, {"CPU": 1})),
        ([Node(8, 0), Node(4, 0)], 3, 1, Share(1, 4, 3, {"CPU": 4})),
        ([Node(16, 0)] * 2, 2, 4, Share(4, 4, 2, {"CPU": 16})),
        ([Node(40, 4)] * 2, 4, 2, Share(2, 10, 4, {"CPU": 20, "GPU": 2})),
        ([Node(40, 4), Node(64, 0)], 4, 1, Share(1, 10, 4, {"CPU": 10, "GPU": 1})),
    ],
)
def test_workers_by_hand(there, workers, devices, expected):
    assert allocate_workers(there, workers, devices) == expected


@given(there=nodes, workers=st.integers(1, 12), devices=st.integers(1, 4), limit=st.none() | st.integers(1, 16))
def test_all_workers_fit_and_with_another_thread_they_would_not(there, workers, devices, limit):
    gpus = any(node.gpus for node in there)

    def workers_that_fit(threads):
        return sum(min(node.cpus // (threads * devices), node.gpus // devices if gpus else node.cpus) for node in there)

    try:
        share = allocate_workers(there, workers, devices, limit)
    except MisError:
        assert workers_that_fit(1) < workers or (limit is not None and workers * devices > limit)
        return
    assert limit is None or workers * devices <= limit
    assert (share.devices, share.concurrent) == (devices, workers)
    assert share.bundle == {"CPU": share.threads * devices} | ({"GPU": devices} if gpus else {})
    assert workers_that_fit(share.threads) >= workers > workers_that_fit(share.threads + 1)


def test_more_workers_than_there_are_devices_for_are_refused():
    with pytest.raises(MisError, match="at most 2, for which there are devices: each has 2 GPUs of one node, got 3"):
        allocate_workers([Node(40, 3), Node(40, 2)], 3, 2)
    with pytest.raises(MisError, match=r"at most 1, .* each has 1 CPU core of one node, got 2"):
        allocate_workers([Node(8, 0)], 2, 1, limit=1)
    with pytest.raises(MisError, match=r"at most 0, .* each has 1 CPU core of 8 threads of one node, got 2"):
        allocate_workers([Node(4, 0)], 2, 1, threads=8)
