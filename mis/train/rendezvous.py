"""How the workers of a training find each other: by TF_CONFIG, or through the folders of a step of SLURM."""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mis.errors import MisError

MEETING_S = 300.0
"""Seconds that workers which were started apart wait for each other."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among the workers of a training.

    Attributes:
        addresses: `host:port` of every worker; the first is the chief.
        index: Which of them this process is, from 0.
        card: The file with this worker's address, where they met in a folder; it is removed at the end.
    """

    addresses: tuple[str, ...]
    index: int
    card: Path | None = None

    @property
    def host(self) -> str:
        """The host of this worker."""
        return _host(self.addresses[self.index])

    @property
    def local_rank(self) -> int:
        """How many of the workers before this one are on the same host."""
        return [_host(address) for address in self.addresses[: self.index]].count(self.host)

    @property
    def local_workers(self) -> int:
        """How many workers are on this one's host."""
        return [_host(address) for address in self.addresses].count(self.host)

    def tf_config(self) -> str:
        """Return the value of TF_CONFIG.

        >>> Place(("a:1", "b:2"), 1).tf_config()
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
        """
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})


def find_place(env: Mapping[str, str], meeting: Path, workers: int) -> Place | None:
    """Return this process' place where TF_CONFIG or SLURM's variables give it one.

    TF_CONFIG has the addresses. Under `srun` with several tasks each one finds a free port and
    writes its address to a folder that all share.

    Args:
        env: The environment.
        meeting: The folder where addresses are exchanged; it is made.
        workers: How many there must be.

    Returns:
        The place, or None where this process was not started as one of several.

    Raises:
        MisError: There are more or fewer workers than `workers`, TF_CONFIG cannot be read, some
            did not come, or this node has no address that others reach.
    """
    if env.get("TF_CONFIG"):
        place = _read_tf_config(env["TF_CONFIG"])
        _check_count(len(place.addresses), workers, "TF_CONFIG names")
        return place
    if env.get("RAY_ADDRESS") or int(env.get("SLURM_STEP_NUM_TASKS") or 1) == 1:
        return None
    tasks = int(env["SLURM_STEP_NUM_TASKS"])
    _check_count(tasks, workers, "srun started")
    host = own_host(env.get("SLURM_LAUNCH_NODE_IPADDR"))
    if _is_loopback(host) and int(env.get("SLURM_STEP_NUM_NODES") or 1) > 1:
        host = _address_of(env.get("SLURMD_NODENAME", ""))
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    folder = meeting / "-".join(env.get(name, "0") for name in names)
    return meet(folder, int(env["SLURM_PROCID"]), tasks, host)


def _check_count(there: int, workers: int, who: str) -> None:
    if there != workers:
        raise MisError(
            f"distribute.workers must be the number of workers that {who} ({there})",
            got=workers,
            do=f"--set distribute.workers={there}",
        )


def _is_loopback(host: str) -> bool:
    return host.startswith("127.")


def _address_of(node: str) -> str:
    """Return the address that a node's name stands for, as other nodes reach it."""
    try:
        host = socket.gethostbyname(node)
    except OSError:
        host = "none"
    if host == "none" or _is_loopback(host):
        raise MisError(
            f"the name of the node {node!r} must stand for an address that the other nodes reach",
            got=host,
            do="mend /etc/hosts, or set TF_CONFIG on every node",
        )
    return host


def _read_tf_config(text: str) -> Place:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        roles = [role for role in ("chief", "worker") if role in cluster]
        addresses = [(role, address) for role in roles for address in cluster[role]]
        first = {"chief": 0, "worker": len(cluster.get("chief", ()))}[task["type"]]
        index = first + int(task["index"])
        addresses[index]
    except (ValueError, KeyError, IndexError, TypeError):
        raise MisError(
            'TF_CONFIG must be JSON, of a chief or worker, like {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}',
            got=repr(text),
        ) from None
    return Place(tuple(address for _, address in addresses), index)


def meet(folder: Path, rank: int, count: int, host: str, timeout_s: float = MEETING_S) -> Place:
    """Exchange addresses through a folder that all workers share.

    Args:
        folder: One for each start; it is made.
        rank: Which worker this is.
        count: How many there are.
        host: The address under which the others reach this one.
        timeout_s: How long to wait for them.

    Raises:
        MisError: Some did not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card, address, seen = folder / str(rank), f"{host}:{free_port(host)}", ""
    deadline = time.monotonic() + timeout_s
    while True:
        if _read(card) != f"{address} {seen}":
            _write(card, f"{address} {seen}")
        cards = [_read(folder / str(other)) for other in range(count)]
        addresses = tuple(other.partition(" ")[0] for other in cards)
        # All must have seen the same addresses: a card may still lie there from a start that was killed.
        if seen == ",".join(addresses) and all(other.partition(" ")[2] == seen for other in cards):
            return Place(addresses, rank, card)
        seen = ",".join(addresses)
        if time.monotonic() > deadline:
            missing = [str(other) for other, text in enumerate(cards) if seen not in text or not text]
            raise MisError(
                f"all {count} workers must come to {folder} within {timeout_s:.0f} s, got none of {', '.join(missing)}",
                do="look at what they say; the folder must be the same on every node",
            )
        time.sleep(0.1)


def _write(card: Path, text: str) -> None:
    unfinished = card.with_name(f".{card.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(card)


def _read(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except FileNotFoundError:  # not there yet
        return ""


def own_host(towards: str | None = None) -> str:
    """Return the address of this host as another one sees it; the loopback address where there is no other."""
    if towards is None:
        return "127.0.0.1"
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((towards, 1))  # nothing is sent: it only chooses the route
        return str(probe.getsockname()[0])


def free_port(host: str) -> int:
    """Return a port that is free on this host now."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _host(address: str) -> str:
    return address.rpartition(":")[0]
