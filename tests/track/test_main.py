import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from mis.errors import MisError
from mis.ports import free_port
from mis.track.__main__ import main, next_port
from mis.track.base import TRAIN, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.recording import open_tracker
from mis.track.server import stopping_on_signals


@pytest.fixture
def project(settings, monkeypatch):
    """A project's folder, which the command takes from the environment."""
    monkeypatch.setenv("MIS_ROOT", str(settings.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return settings


def test_without_a_store_it_says_what_to_do(project, capsys):
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: there must be runs")
    assert "make repro" in output.err
    assert len(output.err.splitlines()) == 1
    assert not project.mlruns.exists()


def test_links_are_printed_without_a_server(project, capsys):
    MlflowTracker(project).start_run("mis/train", "training")
    assert main(["--links", "--port", "5123"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1].split("?")[0] for line in lines] == [
        "http://127.0.0.1:5123/#/experiments/1/runs",
        "http://127.0.0.1:5123/#/experiments/1/runs",
        "http://127.0.0.1:5123",
    ]


@pytest.mark.slow
def test_links_are_those_of_the_server_that_is_set(project, server_uri, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server_uri}/")
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"MLflow:                            {server_uri}"
    assert not project.mlruns.exists()


def test_a_server_that_does_not_answer_is_one_line(project, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "error: MLFLOW_TRACKING_URI must name a server that answers, "
        "got http://127.0.0.1:9 ([Errno 111] Connection refused); start it, or unset the variable\n"
    )
    assert not project.mlruns.exists()


def test_sync_names_what_was_refused_and_tries_it_again_when_told_so(project, capsys):
    said = []
    with open_tracker(project, said.append) as tracker, tracked(tracker.open_run(TRAIN, "run")) as run:
        run.log_metrics({"a name with a \n line break": 1.0})
        run.log_metrics({"dice": 1.0})
    assert len(said) == 1
    for arguments in (["sync"], ["sync", "--refused"], ["sync"]):
        assert main(arguments) == 1
        output = capsys.readouterr().out
        assert "1 operation was refused, kept in " in output
        assert "metrics (" in output
        assert "all is delivered" not in output
    (recorded,) = MlflowTracker(project)._search(TRAIN, [])
    assert (recorded.info.status, recorded.data.metrics) == ("FINISHED", {"dice": 1.0})


def test_the_next_port_is_taken_if_one_is_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < next_port(port) < port + 20


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(MisError, match="--port"):
        next_port(port)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_no_process_behind(project, number):
    MlflowTracker(project)
    command = [sys.executable, "-m", "mis.track", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("starting the MLflow UI")
        children = wait_for_children(process.pid)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    _, alive = psutil.wait_procs(children, timeout=5)  # those that are killed end a moment after their parent
    assert alive == []


def test_a_signal_that_is_put_off_comes_at_the_end():
    seen = []

    def work(signals):
        with signals.put_off():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("made")
        seen.append("never")

    with stopping_on_signals() as signals:
        with pytest.raises(KeyboardInterrupt):
            work(signals)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert seen == ["made"]


def wait_for_children(pid):
    """Return the processes below one, as soon as the server is among them: others come and go before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            if any({"mlflow", "server"} <= set(child.cmdline()) for child in children):
                return children
        time.sleep(0.05)
    raise AssertionError("the server was not started")
