"""The process of `mlflow server`, from its start to its end."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from mis.errors import MisError
from mis.ports import LOOPBACK
from mis.track.store import artifacts_folder

HOST = LOOPBACK

START_S = 120.0
"""Seconds in which the server must answer for the first time."""

STOP_S = 5.0
"""Seconds in which the server may end by itself before it is killed."""


@contextmanager
def server(uri: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `mlflow server` in a process group, all of which ends with the block or with a signal to this process.

    Args:
        uri: The SQLite store, see `mis.track.store.tracking_uri`.
        port: The port on which it listens.
        log: The file that takes its output.
    """
    process = None
    with stopping_on_signals() as signals, log.open("wb") as out:
        try:
            with signals.put_off():  # a signal that came while the process is made would leave it running
                process = start_server(uri, port, out)
            yield process
        finally:
            if process is not None:
                stop_group(process)


def start_server(uri: str, port: int, out: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `mlflow server` as the leader of a process group; see `server`, which also ends it."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    # With its defaults, 4 workers and a job executor, the server takes 22 to 28 s and 2 GB to start; with these
    # options 11 s and 0.5 GB.
    command += ["--workers", "1", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(artifacts_folder(uri))]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


class Signals:
    """Turns signals into KeyboardInterrupt, at once or at the end of a block.

    Attributes:
        delayed: Whether a signal waits until the end of the block of `put_off`.
        received: Whether one does.
    """

    def __init__(self) -> None:
        self.delayed = False
        self.received = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.delayed:
            raise KeyboardInterrupt(number, frame)
        self.received = True

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let a signal interrupt only at the end of the block."""
        self.delayed = True
        try:
            yield
        finally:
            self.delayed = False
        if self.received:
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
