"""Ray on machines of this machine, started by what starts it in a job of SLURM."""

import secrets
import subprocess
import sys
import time

from mis.slurm.allocation import with_local_disk


class RayMachines:
    """Ray on machines, started as a job of SLURM starts it.

    Attributes:
        machines: The machines; the first one has Ray's head.
        env: The variables with which a command finds this Ray.
        commands: What was started with it.
        cores: How many cores of each machine it has.
    """

    def __init__(self, machines, project, base, cores=2):
        self.machines = machines
        self.project = project
        self.base = base
        self.turn = 0
        self.env = {}
        self.steps = {}
        self.commands = []
        self.cores = cores

    def start(self):
        """Start Ray on every machine, and wait until all have joined."""
        self.turn += 1
        head, *others = self.machines.names
        self.env = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "SLURM_JOB_ID": f"{secrets.token_hex(3)}{self.turn}",  # it names the folder of temporary files
            "SLURM_CPUS_ON_NODE": str(self.cores),
        }
        path = self.base / f"head-{self.turn}"
        self._start_on(head, "--head-file", path)
        wait(path.exists, "Ray's head")
        self.env["RAY_ADDRESS"] = path.read_text()
        for name in others:
            self._start_on(name, "--address", self.env["RAY_ADDRESS"])
        done = self.run("-m", "mis.slurm.joined", "--within-s", "180", *self.machines.names)
        assert done.returncode == 0, done.stderr

    def _start_on(self, name, *options):
        command = [sys.executable, "-m", "mis.slurm.node", "--label", name, *map(str, options)]
        env = with_local_disk(self.project.env) | self.env | {"SLURM_LAUNCH_NODE_IPADDR": self.machines.address("n1")}
        with (self.base / f"ray-{name}-{self.turn}.log").open("wb") as log:
            self.steps[name] = subprocess.Popen(
                self.machines.on(name, *command), env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def command(self, *words, env=None):
        """Start Python on the first machine, in the project; it ends with Ray at the latest."""
        first = self.machines.first_processes["n1"].pid
        into = ["nsenter", "--target", str(first), "--net", "--uts", "--mount", f"--wd={self.project.folder}"]
        process = subprocess.Popen(
            [*into, sys.executable, *map(str, words)],
            env=with_local_disk(self.project.env) | self.env | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.commands.append(process)
        return process

    def run(self, *words, env=None):
        """Run Python on the first machine to its end."""
        process = self.command(*words, env=env)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def lose(self, name):
        """Let a machine other than the first one lose its power."""
        self.machines.kill_all(name)
        self._end_step(name)

    def start_again(self, name):
        """Start Ray on a machine that was lost; it joins the others."""
        self._start_on(name, "--address", self.env["RAY_ADDRESS"])

    def lose_head(self):
        """Let the first machine lose its power."""
        self.machines.kill_all("n1")

    def stop(self):
        """End Ray on all machines, and the commands that a test has not waited for."""
        for name in list(self.steps):
            self.machines.kill_all(name)
            self._end_step(name)
        for process in self.commands:
            with process:
                process.kill()
        self.commands.clear()

    def _end_step(self, name):
        step = self.steps.pop(name)
        step.stdin.close()
        step.wait()


def wait(holds, what, within_s=240):
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.1)
