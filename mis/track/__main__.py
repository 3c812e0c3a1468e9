"""`python -m mis.track`: the MLflow UI of this project's store, and the links that show the comparison."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from mis.cli import exit_code
from mis.errors import MisError
from mis.settings import Settings, load_settings
from mis.track.links import comparison_links
from mis.track.mlflow import MlflowTracker, artifacts_folder, database_path, tracking_uri

HOST = "127.0.0.1"
PORTS_TRIED = 20
START_S = 120.0
STOP_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the UI and wait until it is stopped, or print the links alone.

    Returns:
        0; 2 after bad input, 1 if the server ended by itself.
    """
    parser = argparse.ArgumentParser("python -m mis.track", description="Show the runs in the MLflow UI.")
    parser.add_argument("--port", type=int, default=5000, help="the next free one is taken if it is in use")
    parser.add_argument("--links", action="store_true", help="print the links without starting the UI")
    options = parser.parse_args(arguments)
    return exit_code(lambda: show(load_settings(), options.port, links_only=options.links))


def show(settings: Settings, port: int, *, links_only: bool) -> int:
    """Print the links, at the server that MLFLOW_TRACKING_URI names or at one that is started here."""
    uri = tracking_uri(settings)
    if not uri.startswith("sqlite:"):
        print_links(uri, MlflowTracker(settings))
        return 0
    if not database_path(uri).is_file():
        raise MisError("there must be runs to show", got=f"no {database_path(uri)}", do="run `make repro` first")
    if links_only:
        print_links(f"http://{HOST}:{port}", MlflowTracker(settings))
        return 0
    return serve(settings, uri, port)


def print_links(base_url: str, tracker: MlflowTracker) -> None:
    """Print the pages, one a line, and the UI's own address last."""
    for link in comparison_links(base_url, tracker):
        print(f"{link.title + ':':<34} {link.url}")
    print(f"{'MLflow:':<34} {base_url}", flush=True)


def serve(settings: Settings, uri: str, wanted_port: int) -> int:
    """Run the server until a signal ends it."""
    port = free_port(wanted_port)
    if port != wanted_port:
        print(f"port {wanted_port} is in use; taking {port}")
    base_url, log = f"http://{HOST}:{port}", database_path(uri).with_name("ui.log")
    try:
        with stopping_on_signals():
            print(f"starting the MLflow UI at {base_url} (about 10 s); Ctrl-C stops it", flush=True)
            tracker = MlflowTracker(settings)  # first: under its lock the database is made whole
            with server(uri, port, log) as process:
                wait_until_ready(process, base_url, log)
                print_links(base_url, tracker)
                process.wait()
    except KeyboardInterrupt:
        return 0
    print(f"error: the MLflow UI ended by itself; {log} says why", file=sys.stderr)
    return 1


def free_port(wanted: int) -> int:
    """Return the first free port from `wanted` on.

    Raises:
        MisError: It is no port, or none of the next ones is free.
    """
    if not 1 <= wanted <= 65535:
        raise MisError("--port must be from 1 to 65535", got=wanted)
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            # As the server does: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise MisError(f"one of {PORTS_TRIED} ports must be free", got=f"all in use from {wanted} on", do="give --port")


@contextmanager
def server(uri: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `mlflow server` in a process group of its own, which a signal to this process ends as a whole."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    # With its defaults, 4 workers and a job executor, it takes 22 to 28 s and 2 GB to start; so, 11 s and 0.5 GB.
    command += ["--workers", "1", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(artifacts_folder(uri))]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = None
    with stopping_on_signals() as signals, log.open("wb") as out:
        try:
            with signals.put_off():  # one that came while the process is made would leave it to itself
                process = subprocess.Popen(
                    command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
                )
            yield process
        finally:
            if process is not None:
                stop_group(process)


class Signals:
    """Turns signals into KeyboardInterrupt, at once or a moment later."""

    def __init__(self) -> None:
        """Interrupt at once."""
        self.waits = False
        self.came = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if not self.waits:
            raise KeyboardInterrupt(number, frame)
        self.came = True

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Interrupt only at the end of the block."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False
        if self.came:
            raise KeyboardInterrupt


@contextmanager
def stopping_on_signals() -> Iterator[Signals]:
    """Turn the signals that end a program into KeyboardInterrupt."""
    signals, numbers = Signals(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signals.interrupt) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End the server and all that it has started; a second signal meanwhile changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):  # uvicorn waits for the connections that open pages hold
        process.wait(STOP_S)
    end_group(process.pid, signal.SIGKILL)
    process.wait()


def end_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def wait_until_ready(process: subprocess.Popen[bytes], base_url: str, log: Path) -> None:
    """Wait for the server's first answer.

    Raises:
        MisError: It ended before, or did not answer in time.
    """
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{base_url}/health", timeout=5):  # noqa: S310 - the address is made here
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise MisError("the MLflow UI must start", got="".join(last) or "no answer", do=f"see {log}")


if __name__ == "__main__":
    sys.exit(main())
