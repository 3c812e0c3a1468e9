"""`python -m mis.slurm.node`: Ray on this node, until its input ends; what `mis.slurm.steps` starts on each node.

The input is a pipe from the batch script: it ends when the script says so, and when the script is no more.

Ports are those that are free now, and temporary files are on the node's own disk, below a folder of the job alone: two
jobs on one node do not meet.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from mis import cli
from mis.errors import MisError
from mis.files import new_file
from mis.ports import free_port
from mis.settings import cores
from mis.train.rendezvous import local_address

RANDOM = "x" * 8
"""As many letters as `tempfile.mkdtemp` adds to a folder's name."""

LONGEST_FOLDER = 40
"""Letters of the folder of temporary files: Ray makes sockets some 65 letters below, and 107 is the most."""

SHORT = Path("/tmp")  # noqa: S108 - mkdtemp makes the folder below it, with mode 0700
"""Where Ray's temporary files are where no other place will do."""

END_S = 10.0
"""Seconds in which Ray ends by itself; then all that it has started is killed."""

POLL_S = 0.2

GPUS_OF_THE_STEP = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""The variables in which SLURM lists the GPUs of a step, or of the job, on this node."""


def own_address(env: Mapping[str, str]) -> str:
    """Return the address of this node, as the other nodes of the job reach it.

    Args:
        env: The environment: MIS_INTERFACE names a network interface; by default it is the one towards the node that
            has started the steps (SLURM_LAUNCH_NODE_IPADDR).

    Raises:
        MisError: There is no such interface, or it has no IPv4 address.
    """
    name = env.get("MIS_INTERFACE")
    if not name:
        return local_address(env.get("SLURM_LAUNCH_NODE_IPADDR"))
    interfaces = psutil.net_if_addrs()
    found = [entry.address for entry in interfaces.get(name, []) if entry.family == socket.AF_INET]
    if not found:
        there = ", ".join(sorted(interfaces))
        raise MisError(
            "MIS_INTERFACE must name a network interface of this node with an IPv4 address", got=name, do=there
        )
    return str(found[0])


def make_local_folder(env: Mapping[str, str]) -> Path:
    """Make the folder for Ray's temporary files, on this node's own disk, for this process and this user alone.

    Its name is known to nobody before: one that another user has made beforehand is never taken.

    Args:
        env: The environment: TMPDIR, else the system's. Where it cannot be made, as in a container that does not see
            it, or its name is too long for Ray's sockets, /tmp, and a line says so.
    """
    job = f"mis-{env.get('SLURM_JOB_ID', os.getpid())}-{env.get('SLURM_RESTART_COUNT') or 0}-"
    base = Path(env.get("TMPDIR") or tempfile.gettempdir())
    if len(str(base / job) + RANDOM) > LONGEST_FOLDER:
        why = "is too long a name for Ray's sockets"
    else:
        try:
            base.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=job, dir=base))
        except OSError as error:
            why = f"cannot be used ({error.strerror})"
    print(f"{base} {why}: Ray's temporary files are in {SHORT}", flush=True)  # noqa: T201
    return Path(tempfile.mkdtemp(prefix=job, dir=SHORT))


def cores_to_give(env: Mapping[str, str]) -> int:
    """Return how many CPU cores Ray has to give on this node: those of the job, and one for each GPU at least.

    Where SLURM binds its processes to the job's cores (TaskPlugin=task/affinity or task/cgroup) they are those of this
    process; where it does not, SLURM alone knows. What it counts are hardware threads where its nodes have such.

    >>> cores_to_give({"SLURM_CPUS_ON_NODE": "1"})
    1
    >>> cores_to_give({"SLURM_CPUS_ON_NODE": "1", "SLURM_STEP_GPUS": "0,1,2,3"})
    4
    """
    given = env.get("SLURM_CPUS_ON_NODE", "")
    listed = next((env[name] for name in GPUS_OF_THE_STEP if env.get(name)), "")
    gpus = len(listed.split(",")) if listed else 0
    return max(min(cores(), int(given)) if given.isdigit() else cores(), gpus)


def ray_command(address: str, folder: Path, label: str, cpus: int, *, head: str | None) -> list[str]:
    """Return the command that starts Ray on this node and stays as long as it runs.

    Args:
        address: This node's.
        folder: For temporary files.
        label: The node's name for SLURM.
        cpus: How many CPU cores Ray has to give.
        head: The address of the head; None where this is the head.
    """
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--node-ip-address={address}"]
    ray += [f"--temp-dir={folder}", f"--num-cpus={cpus}", "--disable-usage-stats", f"--labels=mis/node={label}"]
    # 0: each of Ray's servers takes a free port; the agent listens where `ray[default]` is installed.
    ray += ["--min-worker-port=0", "--max-worker-port=0", "--node-manager-port=0", "--object-manager-port=0"]
    ray += ["--dashboard-agent-listen-port=0"]
    if head is not None:
        return [*ray, f"--address={head}"]
    ray += ["--head", f"--port={free_port(address)}", "--include-dashboard=false"]
    return [*ray, f"--ray-client-server-port={free_port(address)}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("python -m mis.slurm.node", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--label", required=True, help="the node's name for SLURM")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--head-file", type=Path, help="be the head, and write its address to this file")
    where.add_argument("--address", help="join the head at this address")
    options = parser.parse_args(argv)
    return cli.exit_code(lambda: _run(options.label, options.head_file, options.address))


def _run(label: str, head_file: Path | None, head: str | None) -> int:
    address = own_address(os.environ)
    folder = make_local_folder(os.environ)
    command = ray_command(address, folder, label, cores_to_give(os.environ), head=head)
    # The setting with which mis lets a Ray of one machine listen on the loopback address alone.
    env = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    print(f"{label}: Ray listens at {address}; its temporary files: {folder}", flush=True)  # noqa: T201
    ray = subprocess.Popen(command, env=env)
    is_told = threading.Event()

    def end(*_: object) -> None:
        is_told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threading.Thread(target=_call_after_input, args=(end,), daemon=True).start()
    try:
        if head_file is not None:
            port = next(word for word in command if word.startswith("--port=")).partition("=")[2]
            if _is_soon_listening(ray, is_told, address, int(port)):
                with new_file(head_file) as unfinished:
                    unfinished.write_text(f"{address}:{port}", encoding="utf-8")
        while (code := ray.poll()) is None and not is_told.wait(POLL_S):
            pass
        return 0 if is_told.is_set() else code or 1
    finally:
        _end(ray)
        shutil.rmtree(folder, ignore_errors=True)


def _call_after_input(end: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    end()


def _is_soon_listening(ray: "subprocess.Popen[bytes]", is_told: threading.Event, address: str, port: int) -> bool:
    """Wait until Ray listens; return False where Ray has ended before, or was told to end."""
    while ray.poll() is None and not is_told.is_set():
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return True
        time.sleep(POLL_S)
    return False


def _end(ray: "subprocess.Popen[bytes]") -> None:
    """End Ray and all that it has started on this node: by itself it would wait for the tasks that run."""
    started = _descendants(ray.pid)
    ray.terminate()
    _, alive = psutil.wait_procs(started, timeout=END_S)
    for process in alive:
        process.kill()
    ray.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


if __name__ == "__main__":
    raise SystemExit(main())
