"""Machines on this machine: each with an address, a name and a local disk of its own, joined by a bridge.

Everything else is shared, as on a cluster whose nodes have a file system in common.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

PREFIX = "mis"


@cache
def why_not():
    """Return why this process cannot make machines, or None."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if missing := [name for name in ("ip", "nsenter", "unshare", "mount") if shutil.which(name) is None]:
        return f"there is no {missing[0]}"
    probe = f"{PREFIX}-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return made.stderr.strip() or None if made.returncode else None


def needs_machines():
    """Skip a test where no machines can be made, or fail it where they must be (`.ci/cluster`)."""
    if (reason := why_not()) is not None:
        give_up(reason)


def give_up(reason):
    """Skip a test, or fail it where MIS_REQUIRE_CLUSTER is set."""
    if os.environ.get("MIS_REQUIRE_CLUSTER"):
        pytest.fail(f"MIS_REQUIRE_CLUSTER is set, and {reason}")
    pytest.skip(reason)


@cache
def subnet():
    """Return the number of this process' network, which no other process has until this one ends."""
    for number in range(77, 250):
        lock = FileLock(Path(tempfile.gettempdir()) / f"mis-network-{number}.lock", timeout=0, is_singleton=True)
        with suppress(Timeout):
            lock.acquire()
            _held.append(lock)
            return number
    raise RuntimeError("all networks are taken")


_held = []


def local_disk():
    """Return the folder that is another disk on each machine; its name is short, for Ray's sockets are below it."""
    return Path(tempfile.gettempdir()) / f"m{subnet()}"


class Machines:
    """Some machines, by name: `n1`, `n2` and so on.

    Attributes:
        names: Their names.
        local: A folder that is another, empty disk on each machine.
        gateway: The address under which this machine reaches them, and they reach it.
    """

    def __init__(self, count, base):
        self.names = [f"n{number + 1}" for number in range(count)]
        self.local = local_disk()
        self.hosts = base / "hosts"
        self.subnet = subnet()
        self.gateway = f"10.77.{self.subnet}.254"
        self.first_processes = {}
        self.cut = set()

    def address(self, name):
        """Return the address of a machine."""
        return f"10.77.{self.subnet}.{self.names.index(name) + 1}"

    def _namespace(self, name):
        return f"{PREFIX}-{self.subnet}-{name}"

    def _cable(self, name):
        return f"{PREFIX}{self.subnet}{name}"

    @property
    def _bridge(self):
        return f"{PREFIX}{self.subnet}br"

    def __enter__(self):
        self.hosts.parent.mkdir(parents=True, exist_ok=True)
        self.local.mkdir(exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{self.address(name)} {name}" for name in self.names)]
        self.hosts.write_text("\n".join(lines) + "\n")
        with ExitStack() as stack:
            stack.callback(self._remove)
            self._remove()  # what a run that was killed has left
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for name in self.names:
                self._make(name)
            stack.pop_all()
        return self

    def _make(self, name):
        space = self._namespace(name)
        _ip("netns", "add", space)
        _ip("link", "add", self._cable(name), "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", self._cable(name), "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", space, "link", "set", link, "up")
        # The mounts and the name live as long as this process; `ip netns exec` would hide the control groups.
        setup = f"hostname {name} && mount --bind {self.hosts} /etc/hosts && mount -t tmpfs tmpfs {self.local}"
        command = ["nsenter", f"--net=/run/netns/{space}", "unshare", "--uts", "--mount", "sh", "-c"]
        process = subprocess.Popen([*command, f"{setup} && echo ready && exec sleep infinity"], stdout=subprocess.PIPE)
        self.first_processes[name] = process
        with process.stdout as said:
            assert said.readline() == b"ready\n", f"{name} could not be set up"

    def on(self, name, *command):
        """Return the command line that runs a command on a machine."""
        first = self.first_processes[name].pid
        return ["nsenter", "--target", str(first), "--net", "--uts", "--mount", f"--wd={Path.cwd()}", *command]

    def processes(self, name):
        """Return the numbers of all processes of a machine but its first one."""
        space = self._namespace(name)
        done = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split() if int(pid) != self.first_processes[name].pid]

    def kill_all(self, name):
        """End all processes of a machine at once, as the loss of its power does."""
        for pid in self.processes(name):
            _kill(pid)

    def cut_off(self, name):
        """Let no packet to or from a machine arrive any more; its own side of the cable stays up."""
        _ip("link", "set", self._cable(name), "nomaster")
        self.cut.add(name)

    def join(self, name):
        """Connect a machine again that was cut off."""
        _ip("link", "set", self._cable(name), "master", self._bridge)
        self.cut.discard(name)

    def listening(self, name):
        """Return the addresses, as `host:port`, at which processes of a machine listen, with the processes' names."""
        done = subprocess.run(self.on(name, "ss", "-Hltnp"), capture_output=True, text=True, check=True)
        rows = [line.split() for line in done.stdout.splitlines()]
        return {row[3]: row[5].split('"')[1] if len(row) > 5 else "" for row in rows}

    def _remove(self):
        for name in self.names:
            if name in self.first_processes:
                self.kill_all(name)
                self.first_processes[name].kill()
                self.first_processes[name].wait()
            subprocess.run(["ip", "link", "del", self._cable(name)], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", self._namespace(name)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)

    def __exit__(self, *error):
        self._remove()


@contextmanager
def made_machines(count, base):
    """Yield machines; skip, or fail, the test where that cannot be."""
    needs_machines()
    with Machines(count, base) as machines:
        yield machines


def _ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
