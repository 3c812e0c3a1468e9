"""The real SLURM on machines of this machine: munge, a controller, and a daemon on each machine."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager

from mis.ports import free_port
from mis.slurm.allocation import seconds_of
from tests.cluster.machines import give_up

CONFIGURATION = """\
ClusterName=mis
SlurmctldHost={controller}({gateway})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd-%n.log
SlurmctldPort={controller_port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout={node_timeout}
KillWait=30
MinJobAge=3600
OverTimeLimit=0
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=polite Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=2
"""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")


def needs_slurm():
    """Skip a test where there is no SLURM, or fail it where there must be one (`.ci/cluster`)."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        give_up(f"there is no {missing[0]}: apt-get install slurm-wlm munge")


class Slurm:
    """A cluster under SLURM.

    Attributes:
        machines: Its nodes.
        base: The folder of its state and logs.
        env: The variables with which its commands find it.
    """

    def __init__(self, machines, base, cpus=2):
        self.machines = machines
        self.base = base
        self.cpus = cpus
        self.env = {"SLURM_CONF": str(base / "slurm.conf")}
        self.daemons = {}

    def __enter__(self):
        (self.base / "state").mkdir(parents=True)
        self.base.chmod(0o755)
        nodes = [
            f"NodeName={name} NodeAddr={self.machines.address(name)} CPUs={self.cpus} RealMemory=4000 State=UNKNOWN"
            for name in self.machines.names
        ]
        port = free_port(self.machines.gateway)
        text = CONFIGURATION.format(
            base=self.base,
            controller=os.uname().nodename,
            gateway=self.machines.gateway,
            controller_port=port,
            node_port=free_port(self.machines.gateway, first=port + 1),
            node_timeout=20,
            nodes="\n".join(nodes),
        )
        (self.base / "slurm.conf").write_text(text)
        key = self.base / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        with ExitStack() as stack:
            stack.callback(self._stop)
            own = [
                f"--{name}={self.base}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "seed-file")
            ]
            self._start("munged", ["munged", "--foreground", "--force", f"--key-file={key}", *own])
            self.wait((self.base / "munge.socket").exists, "munged's socket")
            self._start("slurmctld", ["slurmctld", "-D", "-i"])
            for name in self.machines.names:
                self.start_node(name)
            self.wait(lambda: set(self.states().values()) == {"idle"}, "idle nodes")
            stack.pop_all()
        return self

    def start_node(self, name):
        """Start the daemon of a node."""
        self._start(name, self.machines.on(name, "slurmd", "-D", "-N", name))

    def states(self):
        """Return the state of each node, as `sinfo` names it."""
        out = self.ask("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
        return dict(line.split() for line in out.splitlines() if len(line.split()) == 2)

    def ask(self, *command, check=True):
        """Return what a command of SLURM prints."""
        done = subprocess.run(
            command, env=os.environ | self.env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0 or not check, f"{' '.join(map(str, command))}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words, env=None, cwd=None):
        """Submit a job and return its number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *map(str, words)],
            env=(os.environ if env is None else env) | self.env,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number):
        """Return what SLURM knows of a job, by name."""
        out = self.ask("scontrol", "--oneliner", "show", "job", number, check=False)
        return dict(re.findall(r"(\S+?)=(\S*)", out.splitlines()[0])) if out else {}

    def limit_soon(self, number, within_s):
        """Let the time limit of a job come in so many seconds, or up to a minute later: SLURM counts in minutes."""
        used_s = seconds_of(self.ask("squeue", "--noheader", "--format=%M", "--job", number))
        self.ask("scontrol", "update", f"JobId={number}", f"TimeLimit={(used_s + within_s) // 60 + 1}")

    def lose(self, name):
        """Let a node lose its power: all its processes end, and nothing more is heard of it."""
        self.machines.cut_off(name)
        self.machines.kill_all(name)
        self.daemons.pop(name).wait()

    def begin_soon(self, number):
        """Let a job begin that is queued again.

        SLURM itself would have it wait for two minutes; at once would be too soon for its nodes.
        """
        self.ask("scontrol", "update", f"JobId={number}", "StartTime=now+5seconds", "TimeLimit=30")

    def finish(self, number, within_s=600):
        """Wait until a job has ended, letting it begin soon where it is queued again, and return what is known."""
        ended, deadline, hurried = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"), time.monotonic(), set()
        deadline += within_s
        while (job := self.job(number))["JobState"] not in ended:
            assert time.monotonic() < deadline, f"waited {within_s} s for job {number}, which is {job['JobState']}"
            if job["JobState"] == "PENDING" and int(job["Restarts"]) and job["Restarts"] not in hurried:
                hurried.add(job["Restarts"])
                self.begin_soon(number)
            time.sleep(0.5)
        return job

    def _start(self, name, command):
        with (self.base / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=os.environ | self.env, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self, holds, what, within_s=240):
        """Wait until something holds; SLURM's daemons must run meanwhile."""
        deadline = time.monotonic() + within_s
        while not holds():
            for name, process in self.daemons.items():
                assert process.poll() is None, f"{name} has ended: {(self.base / f'{name}.out').read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
            time.sleep(0.1)

    def _stop(self):
        for process in reversed(self.daemons.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __exit__(self, *error):
        self._stop()


@contextmanager
def made_slurm(machines, base, cpus=2):
    """Yield SLURM on some machines; skip, or fail, the test where there is none."""
    needs_slurm()
    with Slurm(machines, base, cpus) as slurm:
        yield slurm
