"""Processes that start warm: forked from a process that has imported TensorFlow and MLflow, which takes 6 s.

A child is a process like any other: it has its arguments, environment, working directory and output, runs as
`__main__`, and can be killed. Only the imports are those of its parent, in which TensorFlow has computed nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
DEADLINE_S = 300

SEARCHES = ("mis.tune.session", "mis.tune.ray.driver", "mis.report.study.curves", "mis.report.study.page")
"""What searches import besides."""

NO_SPARE = {"RAY_prestart_worker_first_driver": "0"}
"""Without it Ray starts a process for each core before there is work; trials use none of them."""

SERVER = """
import importlib, json, os, runpy, sys, traceback

import mis
from mis.quiet import import_tensorflow
import_tensorflow()
import mis.train.session
import mlflow.store.tracking.sqlalchemy_store
for name in sys.argv[1:]:
    importlib.import_module(name)


def run(order):
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(order["env"])
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    importlib.reload(mis)  # its defaults in the environment
    os.chdir(order["cwd"])
    sys.argv = ["-m" if order["module"] else "-c", *order["arguments"]]
    code = 1
    try:
        if order["module"]:
            runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        else:
            exec(compile(order["source"], "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    order = json.loads(line)
    if "pid" in order:
        pid, status = os.waitpid(order["pid"], os.WNOHANG)
        answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
    else:
        answer = os.fork()
        if answer == 0:
            run(order)
    print(json.dumps(answer), file=answers, flush=True)
"""


@dataclass
class WarmProcess:
    """A process that was started warm; its methods are those of `subprocess.Popen`."""

    server: "WarmServer"
    pid: int
    folder: Path
    returncode: int | None = None

    def poll(self):
        """Return the exit status, None while the process runs."""
        if self.returncode is None:
            self.returncode = self.server.ask({"pid": self.pid})
        return self.returncode

    def send_signal(self, number):
        """Send a signal to the process if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=DEADLINE_S):
        """Wait for the end and return what was printed."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.02)
        return tuple((self.folder / name).read_text() for name in ("out", "err"))


class WarmServer:
    """Forks processes from one that has imported everything."""

    def __init__(self, folder, modules):
        self.folder = folder
        self.started = []
        command = [sys.executable, "-W", "error::UserWarning", "-c", SERVER, *modules]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)

    def ask(self, order):
        """Send an order and return the answer."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *arguments, module=None, source=None, cwd=ROOT, env=None):
        """Start `python -m module ...`, or `python -c source ...`."""
        folder = self.folder / str(len(self.started))
        folder.mkdir()
        order = {"module": module, "source": source, "arguments": list(map(str, arguments)), "cwd": str(cwd)}
        order |= {"env": NO_SPARE | dict(os.environ if env is None else env)}
        order |= {name: str(folder / name) for name in ("out", "err")}
        self.started.append(WarmProcess(self, self.ask(order), folder))
        return self.started[-1]

    def end(self):
        """End the server and what still runs."""
        for process in self.started:
            process.kill()
        self.process.communicate()


@contextmanager
def warm_server(*modules):
    """Yield a server that has imported these modules too; what still runs at the end is killed."""
    with TemporaryDirectory() as folder:
        server = WarmServer(Path(folder), modules)
        try:
            yield server
        finally:
            server.end()
