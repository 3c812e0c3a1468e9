"""From devices of nodes to what Ray reserves for a trial, and back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import tune

from mis.train.allocate import Node, Share, bundle_of, device_counts
from mis.train.cluster import NODE_LABEL
from mis.tune.allocation import Place


def fixed_request(share: Share, without: Collection[str] = ()) -> tune.PlacementGroupFactory:
    """Return what Ray reserves for a trial with a fixed share, on whatever nodes have it free.

    Args:
        share: What the trial has.
        without: The names of nodes that it must not be on.
    """
    options: dict[str, Any] = {"strategy": "PACK"}
    if without:
        options["bundle_label_selector"] = [{NODE_LABEL: f"!in({','.join(sorted(without))})"}] * share.processes
    return _request([dict(share.bundle)] * share.processes, options)


def has_room(nodes: Sequence[Node], share: Share) -> bool:
    """Return whether a trial with a fixed share has room on some nodes, where nothing else runs."""
    cpus, gpus = float(share.bundle.get("CPU", 0)), float(share.bundle.get("GPU", 0))
    fitting = [
        min(node.cpus / cpus if cpus else share.processes, node.gpus / gpus if gpus else share.processes)
        for node in nodes
    ]
    return sum(int(count + 1e-6) for count in fitting) >= share.processes


def request_at(place: Place, nodes: Sequence[Node]) -> tune.PlacementGroupFactory:
    """Return what Ray reserves for a trial at a place: a process on its node, or several processes of the same size."""
    selectors = [{NODE_LABEL: nodes[node].name} for node in place.process_nodes]
    bundles = [bundle_of(nodes, place.devices_per_process)] * len(selectors)
    return _request(bundles, {"bundle_label_selector": selectors})


def _request(bundles: list[dict[str, float]], options: dict[str, Any]) -> tune.PlacementGroupFactory:
    if len(bundles) == 1:
        return tune.PlacementGroupFactory(bundles, **options)
    # The trial's own process computes nothing then: it watches those that do, see `mis.tune.ray.gang_trial`.
    return tune.PlacementGroupFactory([{}, *bundles], **options)


def share_in_force(share: Share) -> Share:
    """Return the share of the trial that this process runs, from what Ray has reserved for it.

    Args:
        share: The share that a trial has at its start.
    """
    reserved = tune.get_context().get_trial_resources().bundles
    devices = int(reserved[0].get("GPU", reserved[0]["CPU"] / share.threads))
    return replace(share, devices=devices, processes=len(reserved), bundle=reserved[0])


@dataclass(frozen=True)
class Nodes:
    """The nodes of a cluster by the numbers that places have; a number stays a node's own, also when that is lost.

    Attributes:
        nodes: Every node that was there at some time.
        alive: The names of those that are there now.
    """

    nodes: tuple[Node, ...]
    alive: frozenset[str]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> "Nodes":
        """Return nodes that are all there."""
        return cls(tuple(nodes), frozenset(node.name for node in nodes))

    def now(self, nodes: Sequence[Node]) -> "Nodes":
        """Return the nodes after some have come or gone."""
        known = {node.name for node in self.nodes}
        new = tuple(node for node in nodes if node.name not in known)
        return Nodes((*self.nodes, *new), frozenset(node.name for node in nodes))

    def devices(self, limit: int | None = None) -> tuple[int, ...]:
        """Return how many devices each node has now, at most so many in all."""
        counts = device_counts(self.nodes)
        left = sum(counts) if limit is None else limit
        usable = []
        for node, count in zip(self.nodes, counts, strict=True):
            usable.append(min(count, left) if node.name in self.alive else 0)
            left -= usable[-1]
        return tuple(usable)
