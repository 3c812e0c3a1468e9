"""Whether all nodes see the files of a study: where they do not, trials begin anew, and their results are lost."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mis.errors import MisError
from mis.files import new_file, remove_file
from mis.storage.remote import RemoteFolder, probe
from mis.train.allocate import Node
from mis.train.checkpoint import SEEN_WITHIN_S, seen
from mis.train.nodes import LOST, NOT_ANSWERED, NoAnswer, ask_nodes, node_names
from mis.tune.ray import errors

PROBE_S = 30.0
"""Seconds for which a node waits for a server that does not answer; less than it is waited for the node itself."""

ANSWER_S = 60.0
"""Seconds beyond `SEEN_WITHIN_S` in which a node must have started a process that looks."""


def check_nodes_see(folder: Path, records: Path, nodes: Sequence[Node]) -> None:
    """Refuse a cluster with a node that does not see what this process writes, or whose writing is not seen here.

    Args:
        folder: The study's folder, by its absolute path.
        records: The folder of records.
        nodes: The nodes of the cluster.

    Raises:
        MisError: A node does not see the folder within a minute, and so on; the message has its name.
        NodeAwayError: It does not answer.
    """
    for error in find_blind_nodes(folder, records, nodes).values():
        raise error


def check_nodes_reach(remote: RemoteFolder) -> None:
    """Refuse a cluster with a node whose processes may not write to the storage, or do not reach it.

    Raises:
        MisError: The server refuses it; the message has the node's name.
        NodeAwayError: The node does not answer, or the server does not answer it.
    """
    for name, answer in ask_nodes(node_names(), probe, remote, PROBE_S).items():
        if isinstance(answer, NoAnswer):
            if answer.reason.startswith(NOT_ANSWERED):
                raise errors.node_does_not_answer(name)
            raise errors.node_cannot_run(name, answer.reason)
        if answer.value:
            raise errors.node_does_not_reach(name, remote.url, answer.value)


def find_blind_nodes(folder: Path, records: Path, nodes: Sequence[Node]) -> dict[str, MisError]:
    """Return what is wrong with each node that does not see what this process writes, or the other way round.

    This process' own node is not asked: it sees what it writes.

    Args:
        folder: A folder that all must share, by its absolute path.
        records: The folder of records.
        nodes: The nodes of the cluster.

    Returns:
        The errors, by Ray's names of the nodes.
    """
    own = ray.get_runtime_context().get_node_id()
    others = [node.name for node in nodes if node.name != own]
    if not others:
        return {}
    proof = folder / f".proof-{secrets.token_hex(8)}"
    with new_file(proof) as unfinished:
        unfinished.write_text(own, encoding="utf-8")
    try:
        looks = {name: _look_on(name, proof, records) for name in others}
        ray.wait(list(looks.values()), num_returns=len(looks), timeout=SEEN_WITHIN_S + ANSWER_S)
        found = {name: _error_of(name, look, folder, records, proof) for name, look in looks.items()}
        return {name: error for name, error in found.items() if error is not None}
    finally:
        for path in (proof, *(_answer(proof, name) for name in others)):
            remove_file(path)


def _look_on(node: str, proof: Path, records: Path) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_look)
    return look.remote(proof, _answer(proof, node), records)


def _look(proof: Path, answer: Path, records: Path) -> tuple[str, bool, bool]:
    """Return this host's name, whether it sees the proof, and whether it sees the records; write an answer."""
    sees = seen(proof.exists)
    if sees:
        with suppress(OSError):
            answer.write_text(os.uname().nodename, encoding="utf-8")
    # One minute is enough for both: who waits for the answer would take the node for lost.
    return os.uname().nodename, sees, seen(records.exists) if sees else records.exists()


def _error_of(node: str, look: Any, folder: Path, records: Path, proof: Path) -> MisError | None:
    try:
        host, sees, sees_records = ray.get(look, timeout=0)
    except (ray.exceptions.GetTimeoutError, *LOST):
        return errors.node_does_not_answer(node)
    except ray.exceptions.RayError as error:
        return errors.node_cannot_run(node, str(error).strip().splitlines()[-1])
    for path, is_seen in ((folder, sees), (records, sees_records)):
        if not is_seen:
            return errors.node_does_not_see(host, path)
    return None if seen(_answer(proof, node).exists) else errors.node_not_seen(host, folder)


def _answer(proof: Path, node: str) -> Path:
    return proof.with_name(f"{proof.name}-{node}")
