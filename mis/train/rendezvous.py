"""How the workers of a training find each other: by TF_CONFIG, or through a folder that the tasks of SLURM share."""

import json
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from mis.errors import MisError
from mis.ports import LOOPBACK, free_port
from mis.train.signals import ended_by

RENDEZVOUS_S = 300.0
"""Seconds that workers which were started separately wait for each other's addresses."""

WAITING_S = 15.0
"""Seconds after which a worker says that it waits for the others."""

SAY_AGAIN_S = 60.0
"""Seconds after which it says so again."""

POLL_S = 0.1
"""Seconds between two looks into the folder of addresses."""


@dataclass(frozen=True)
class Rendezvous:
    """What a worker knows once the workers of its training have found each other.

    Attributes:
        addresses: `host:port` of every worker, by rank; the first worker is the chief.
        rank: The number of this worker, from 0.
        address_file: The file with this worker's address, where addresses were exchanged through a folder.
    """

    addresses: tuple[str, ...]
    rank: int
    address_file: Path | None = None

    @property
    def host(self) -> str:
        """The host of this worker."""
        return _host(self.addresses[self.rank])

    def name(self, rank: int | None = None) -> str:
        """Return the name of a worker for messages, by default of this one."""
        rank = self.rank if rank is None else rank
        return f"worker {rank} on {_host(self.addresses[rank])}"

    @property
    def local_rank(self) -> int:
        """How many workers of a lower rank are on the same host."""
        return [_host(address) for address in self.addresses[: self.rank]].count(self.host)

    @property
    def local_workers(self) -> int:
        """How many workers are on the host of this one, itself included."""
        return [_host(address) for address in self.addresses].count(self.host)

    def tf_config(self) -> str:
        """Return the value of TF_CONFIG for this worker.

        >>> Rendezvous(("a:1", "b:2"), 1).tf_config()
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
        """
        task = {"type": "worker", "index": self.rank}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})

    def remove_address_file(self) -> None:
        """Delete this worker's address file, and the folder with the last of them."""
        if self.address_file is not None:
            self.address_file.unlink(missing_ok=True)
            with suppress(OSError):  # the folder still has the files of other workers
                self.address_file.parent.rmdir()


def find_rendezvous(env: Mapping[str, str], folder: Path, workers: int) -> Rendezvous | None:
    """Return the rendezvous of this process where TF_CONFIG or SLURM's variables make it one of several workers.

    TF_CONFIG has the addresses. Under `srun` with several tasks each task finds a free port and writes its address
    to a folder that all tasks share.

    Args:
        env: The environment variables.
        folder: Below it addresses are exchanged, in a folder of each step of SLURM; it is made.
        workers: How many workers the parameters ask for.

    Returns:
        The rendezvous, or None where this process was not started as one of several.

    Raises:
        MisError: There are more or fewer workers than `workers`, TF_CONFIG cannot be read, some workers wrote no
            address in time, or this node has no address that the others can reach.
    """
    if env.get("TF_CONFIG"):
        rendezvous = _read_tf_config(env["TF_CONFIG"])
        _check_count(len(rendezvous.addresses), workers, "TF_CONFIG names")
        return rendezvous
    if env.get("RAY_ADDRESS") or int(env.get("SLURM_STEP_NUM_TASKS") or 1) == 1:
        return None
    tasks = int(env["SLURM_STEP_NUM_TASKS"])
    _check_count(tasks, workers, "srun started")
    host = local_address(env.get("SLURM_LAUNCH_NODE_IPADDR"))
    if _is_loopback(host) and int(env.get("SLURM_STEP_NUM_NODES") or 1) > 1:
        host = _address_of_node(env.get("SLURMD_NODENAME", ""))
    step = "-".join(env.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return exchange_addresses(folder / step, int(env["SLURM_PROCID"]), tasks, host)


def _check_count(found: int, workers: int, source: str) -> None:
    if found != workers:
        raise MisError(
            f"distribute.workers must be the number of workers that {source} ({found})",
            got=workers,
            do=f"--set distribute.workers={found}",
        )


def _is_loopback(host: str) -> bool:
    return host.startswith("127.")


def _address_of_node(name: str) -> str:
    """Return the address that a node's name stands for, as other nodes reach it."""
    try:
        host = socket.gethostbyname(name)
    except OSError:
        host = "none"
    if host == "none" or _is_loopback(host):
        raise MisError(
            f"the name of the node {name!r} must stand for an address that the other nodes reach",
            got=host,
            do="mend /etc/hosts, or set TF_CONFIG on every node",
        )
    return host


def _read_tf_config(text: str) -> Rendezvous:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        roles = [role for role in ("chief", "worker") if role in cluster]
        addresses = tuple(address for role in roles for address in cluster[role])
        first_rank = {"chief": 0, "worker": len(cluster.get("chief", ()))}[task["type"]]
        rank = first_rank + int(task["index"])
        addresses[rank]
    except (ValueError, KeyError, IndexError, TypeError):
        raise MisError(
            'TF_CONFIG must be JSON, of a chief or worker, like {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}',
            got=repr(text),
        ) from None
    return Rendezvous(addresses, rank)


def exchange_addresses(folder: Path, rank: int, workers: int, host: str, timeout_s: float = RENDEZVOUS_S) -> Rendezvous:
    """Exchange addresses with the other workers through a folder that all of them share.

    The address file of a rank has the worker's address, a space, and the addresses of all workers, joined by commas,
    as that worker has read them last. All workers are ready when every file has the same list.

    Args:
        folder: A folder of this start of the workers alone; it is made.
        rank: The number of this worker, from 0.
        workers: How many workers there are.
        host: The address under which the other workers reach this one.
        timeout_s: Seconds to wait for the others.

    Raises:
        MisError: Some workers wrote no address in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = Rendezvous((f"{host}:{free_port(host)}",) * workers, rank, folder / str(rank))
    with ended_by(signal.SIGTERM, clean_up=mine.remove_address_file):
        try:
            return _exchange(mine, timeout_s)
        except BaseException:
            mine.remove_address_file()
            raise


def _exchange(mine: Rendezvous, timeout_s: float) -> Rendezvous:
    """Exchange addresses, see `exchange_addresses`.

    Args:
        mine: The address and the file of this worker; the addresses of the others are not known yet.
        timeout_s: Seconds to wait for the others.
    """
    rank, workers, read_before = mine.rank, len(mine.addresses), ""
    address, address_file = mine.addresses[rank], mine.address_file
    if address_file is None:
        raise RuntimeError("addresses are exchanged through files")
    folder = address_file.parent
    begun = time.monotonic()
    say_at = begun + WAITING_S
    while True:
        if _read(address_file) != f"{address} {read_before}":
            _write(address_file, f"{address} {read_before}")
        contents = [_read(folder / str(other)) for other in range(workers)]
        addresses = tuple(content.partition(" ")[0] for content in contents)
        # All must have read the same addresses: a file may still lie there from a start that was killed.
        if read_before == ",".join(addresses) and all(content.partition(" ")[2] == read_before for content in contents):
            return Rendezvous(addresses, rank, address_file)
        read_before = ",".join(addresses)
        ready = [bool(content) and content.partition(" ")[2] == read_before for content in contents]
        missing = ", ".join(str(other) for other in range(workers) if not ready[other] and other != rank)
        now = time.monotonic()
        if now - begun > timeout_s:
            raise MisError(
                f"all {workers} workers must write their address to {folder} within {timeout_s:.0f} s, "
                f"got none from worker {missing}",
                do="look at their output; the folder must be the same on every node",
            )
        if now > say_at and missing:
            say(f"worker {rank} is waiting for the address of worker {missing} in {folder}, at most {timeout_s:.0f} s")
            say_at = now + SAY_AGAIN_S
        time.sleep(POLL_S)


def _write(address_file: Path, content: str) -> None:
    unfinished = address_file.with_name(f".{address_file.name}")
    unfinished.write_text(content, encoding="utf-8")
    unfinished.rename(address_file)


def _read(address_file: Path) -> str:
    try:
        return address_file.read_text(encoding="utf-8")
    except FileNotFoundError:  # its worker has not come so far
        return ""


def say(line: str) -> None:
    """Print a line for a person who wonders why nothing happens."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def local_address(towards: str | None = None) -> str:
    """Return the address of this host as the host `towards` sees it; the loopback address without another host."""
    if towards is None:
        return LOOPBACK
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((towards, 1))  # nothing is sent: it only chooses the route
        return str(probe.getsockname()[0])


def _host(address: str) -> str:
    return address.rpartition(":")[0]
