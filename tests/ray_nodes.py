"""Ray clusters of several nodes on this machine, each with as many cores as it is given, whatever there are."""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import psutil

from mis.ports import free_port


class TwoNodes:
    """Two nodes of Ray.

    Attributes:
        cores: Cores of each.
        hidden: A folder in which the second node sees nothing.
        second_env: Environment variables of the second node alone.
        open_files: How many files a process of the second node may open; None leaves it as it is.
    """

    def __init__(self, cores=2, hidden=None, second_env=None, open_files=None):
        self.cores = cores
        self.hidden = hidden
        self.second_env = second_env or {}
        self.open_files = open_files
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))
        }
        self.env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        # As on a cluster: a head that finds a token in the home folder and a node that does not, do not meet.
        self.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.port = free_port()
        self.env["RAY_ADDRESS"] = f"127.0.0.1:{self.port}"
        self.raylets = []

    def __enter__(self):
        self.start(
            "--head", f"--port={self.port}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}"
        )
        self.start(
            f"--address=127.0.0.1:{self.port}", hidden=self.hidden, env=self.second_env, open_files=self.open_files
        )
        return self

    def start(self, *options, hidden=None, env=None, open_files=None):
        ports = 21000 + 1000 * len(self.raylets)
        command = [
            Path(sys.executable).with_name("ray"),
            "start",
            *options,
            f"--num-cpus={self.cores}",
            "--disable-usage-stats",
        ]
        command += ["--object-store-memory=80000000", f"--min-worker-port={ports}", f"--max-worker-port={ports + 900}"]
        if hidden is not None:  # with mounts of its own, as a node that does not share the folder
            script = f'mount -t tmpfs tmpfs "{hidden}" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
        if open_files is not None:
            command = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *command]
        done = subprocess.run(
            command,
            env={name: value for name, value in (self.env | (env or {})).items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.raylets = [process for process in self.processes() if process.name() == "raylet"]

    def lose_second_node(self):
        raylet = self.raylets[1]
        for process in [raylet, *raylet.children(recursive=True)]:
            process.kill()

    def workers(self):
        """Return the processes of the workers of trainings, on all nodes."""
        found = [process for raylet in self.raylets for process in raylet.children()]
        return [process for process in found if "ray::WorkerProcess" in " ".join(cmdline_of(process))]

    def processes(self):
        """Return the processes of this cluster, the oldest first: all that Ray starts is told the port of its head."""
        address = re.compile(rf"[=:]{self.port}\b")
        found = psutil.process_iter(["create_time"])
        found = [process for process in found if address.search(" ".join(cmdline_of(process)))]
        return sorted(found, key=lambda process: process.info["create_time"])

    def __exit__(self, *error):
        for process in self.processes():
            process.kill()


def cmdline_of(process):
    """Return the words of a process's command line, none for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
