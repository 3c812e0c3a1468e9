"""`python -m mis.slurm.first_node ...`: a step's command on another node, and what is done where the first is lost.

The batch script runs on the first node of a job. Where that node is lost, SLURM keeps the job (`--no-kill`), and
nothing would be left that queues it again: so the others do. Ray tells them nothing of it where packets are dropped:
its connections stay open. This runs outside of a container, where SLURM's commands are.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from mis.errors import MisError
from mis.slurm.allocation import cancel, id_of, requeue, state_of
from mis.slurm.steps import say

POLL_S = 15.0
"""Seconds between two looks; SLURM takes a node for lost after some minutes (SlurmdTimeout)."""

CONNECT_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("python -m mis.slurm.first_node", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--node", required=True, help="the name of the first node for SLURM")
    parser.add_argument("--address", required=True, help="Ray's head on it, as host:port")
    parser.add_argument("--last-turn", action="store_true", help="the job is not to be queued again")
    parser.add_argument("words", nargs="+", help="after --: the command")
    options = parser.parse_args(argv)
    step = subprocess.Popen(options.words)
    is_told = False

    def end(*_: object) -> None:
        nonlocal is_told
        is_told = True
        step.terminate()

    signal.signal(signal.SIGTERM, end)
    addresses, code = addresses_of(options.address, os.environ), None
    while code is None:
        try:
            code = step.wait(POLL_S)
        except subprocess.TimeoutExpired:
            is_doubtful = not answers(addresses)
        else:
            is_doubtful = code != 0
        if is_doubtful and not is_told:
            watch(options.node, addresses, id_of(os.environ), last_turn=options.last_turn)
    return code if code >= 0 else 128 - code


def addresses_of(head: str, env: Mapping[str, str]) -> list[str]:
    """Return the addresses of the first node, as host:port: Ray's, and the one under which SLURM has it.

    Args:
        head: Where Ray's head is, on a network that MIS_INTERFACE may have named and this node need not have.
        env: The environment of a step.
    """
    launched_from = env.get("SLURM_LAUNCH_NODE_IPADDR")
    return [head, f"{launched_from}:{head.rpartition(':')[2]}"] if launched_from else [head]


def watch(node: str, addresses: Sequence[str], job: str, *, last_turn: bool) -> None:
    """Queue a job again that has lost its first node; return where it has not, or is ended.

    Args:
        node: The name of the first node for SLURM.
        addresses: Its addresses, as host:port.
        job: The job for SLURM's commands.
        last_turn: Whether the job has been queued as often as it may be: then it is ended.
    """
    while True:
        try:
            state = state_of(job)
            if state.has_ended:
                return
            if node not in state.nodes:
                say(f"{node} with the batch script is lost: the job is {'ended' if last_turn else 'queued again'}")
                (cancel if last_turn else requeue)(job)
                return
        except MisError as error:
            say(str(error))
        if answers(addresses):
            return  # the batch script is there; or SLURM learns by itself that it is not, from the node's new start
        time.sleep(POLL_S)


def answers(addresses: Sequence[str]) -> bool:
    """Return whether a machine answers, be it that nothing listens at the port.

    Args:
        addresses: Its addresses, as host:port.
    """
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            continue
        return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())
