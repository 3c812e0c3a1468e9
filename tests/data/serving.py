"""A web server whose connection may break off, and a project small enough to import into."""

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mis.data.__main__ import main

ROOT = Path(__file__).parents[2]


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of a folder; `server.breaks` says how, and `server.asked` has what was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        path = Path(self.translate_path(self.path))
        if self.server.breaks is None or not path.is_file():
            self.server.whole += 1
            return super().do_GET()
        content = path.read_bytes()
        self.send_response(200)
        if self.server.breaks == "with its length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if self.server.breaks == "stalls":
            self.server.stalled.set()
            self.server.go_on.wait(60)
        return None

    def log_message(self, *arguments):
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder, self.breaks, self.asked, self.whole = Path(folder), None, [], 0
        self.stalled, self.go_on = threading.Event(), threading.Event()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        """DVC asks whether a file is there with a GET, and hangs up."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:  # else the thread would go on for ever, as fast as it can
            server.go_on.set()
            server.shutdown()
            thread.join()


class Project:
    """A copy of the repository in which commands run as a user's shell runs them."""

    def __init__(self, root):
        self.root = root
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        who = {f"GIT_{part}_{key}": "test@example.org" for part in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        self.env = inherited | who | {"PATH": path, "PYTHONPATH": str(root)}

    @classmethod
    def copied(cls, root: Path) -> "Project":
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            top = name.split("/")[0]
            if (ROOT / name).is_file() and top not in ("results", "tests", "docs", "benchmarks", "dvc.lock"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        project = cls(root)
        project.git("init", "--quiet")
        project.commit("copy")
        return project

    def clone(self, root: Path) -> "Project":
        self.git("clone", "--quiet", str(self.root), str(root))
        return Project(root)

    def run(self, *command, code=0):
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def git(self, *arguments):
        return self.run("git", *arguments).stdout.strip()

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def data(self, *arguments, code=0):
        """Run `python -m mis.data`."""
        return self.run(sys.executable, "-m", "mis.data", *map(str, arguments), code=code)

    def call(self, *arguments, code=0):
        """Run `python -m mis.data` in this process, where what takes a second to import is there already.

        Not for `import`: a download of DVC leaves threads behind, which only a process that ends takes with it.
        """
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            for name in os.environ.keys() - self.env.keys():
                patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            with redirect_stdout(out), redirect_stderr(err):
                returncode = main(list(map(str, arguments)))
        assert returncode == code, f"{arguments}: {returncode}\n{out.getvalue()}\n{err.getvalue()}"
        return subprocess.CompletedProcess(arguments, returncode, out.getvalue(), err.getvalue())

    def refused(self, *arguments) -> str:
        """Return the one line with which `python -m mis.data` ends."""
        done = (self.data if arguments[0] == "import" else self.call)(*arguments, code=2)
        progress = ("downloading", "unpack")
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith(progress)]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        return lines[0]


def shown(folder: Path) -> list[str]:
    """Return what a user sees in a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
