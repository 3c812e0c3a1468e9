import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mis import cli
from mis.errors import MisError, NodeAwayError
from mis.params.load import load_params

ROOT = Path(__file__).parents[1]


def run_module(module, *arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def check_is_refused(done, *parts):
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epoch=3", ("train.epoch", "did you mean train.epochs?")),
        ("train.epochs=three", ("train.epochs", "'three'", "integer")),
        ("train.epochs=0", ("train.epochs", "got 0", "greater than or equal to 1")),
        ("model.norm=layer", ("model.norm", "'layer'", "'batch', 'group', 'instance' or 'none'")),
        ("data.multiple=4", ("data.multiple", "must be a multiple of", "= 8", "got 4")),
        ("distribute.workers=3", ("train.batch_size", "distribute.devices_per_worker = 3", "got 2")),
        ("train.epochs", ("name=value", "'train.epochs'")),
        ("train.epochs=[1", ("train.epochs", "YAML", "'[1'")),
    ],
)
def test_a_bad_value_is_one_line_and_exit_code_2(override, parts):
    check_is_refused(run_module("mis.train", "--set", override), *parts)


def test_every_command_refuses_alike():
    check_is_refused(
        run_module("mis.tune", "--set", "tune.sampler.name=sobol"), "tune.sampler.name", "'sobol'", "'tpe'"
    )


def test_a_params_file_that_is_missing_or_broken_is_one_line(tmp_path):
    check_is_refused(run_module("mis.train", "--params", str(tmp_path / "none.yaml")), str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: {epochs: 3\nmodel: 5\n")
    check_is_refused(run_module("mis.train", "--params", str(broken)), str(broken), "YAML")


def test_a_machine_setting_is_checked(monkeypatch):
    monkeypatch.setenv("MIS_DEVICES", "many")
    check_is_refused(run_module("mis.train"), "MIS_DEVICES", "'many'")


@pytest.mark.slow
def test_records_that_are_missing_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MIS_ROOT", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    done = run_module("mis.train", "--params", str(ROOT / "params.yaml"), cwd=tmp_path)
    check_is_refused(done, str(tmp_path / "data" / "records"), "dvc repro preprocess")
    assert list(tmp_path.iterdir()) == []


# ---- Inside the process ----


def test_params_and_settings_reach_the_command(monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = []
    code = cli.run(lambda *both: seen.append(both), "Try.", ["--set", "train.epochs=5", "--set", "train.seed=9"])
    assert code == 0
    ((got, settings),) = seen
    assert got == load_params(ROOT / "params.yaml").override({"train.epochs": 5, "train.seed": 9})
    assert settings.workspace == ROOT


def test_the_last_of_two_values_for_a_name_counts(monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = []
    cli.run(
        lambda params, _: seen.append(params.train.epochs),
        "Try.",
        ["--set", "train.epochs=5", "--set", "train.epochs=6"],
    )
    assert seen == [6]


def test_a_node_that_does_not_answer_has_an_exit_code_of_its_own(capsys):
    def command():
        raise NodeAwayError("every node must answer", got="nothing of n2", do="give the command again in a minute")

    assert cli.exit_code(command) == 75
    assert (
        capsys.readouterr().err
        == "error: every node must answer, got nothing of n2; give the command again in a minute\n"
    )


def test_bad_input_is_one_line_and_2(capsys):
    def command():
        raise MisError("a rule", got="a\nb")

    assert cli.exit_code(command) == 2
    assert capsys.readouterr() == ("", "error: a rule, got a b\n")


def test_ctrl_c_is_130(capsys):
    def command():
        raise KeyboardInterrupt

    assert cli.exit_code(command) == 130
    assert capsys.readouterr().err == "interrupted\n"


BROKEN = """
import sys
from mis.cli import exit_code

def command():
    if sys.argv[1:]:
        raise BrokenPipeError("a connection")
    while True:
        print("a line")

sys.exit(exit_code(command))
"""


def test_a_reader_who_has_had_enough_is_1_without_a_word_and_another_broken_pipe_is_told():
    command = [sys.executable, "-c", BROKEN]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 1)
    done = subprocess.run([*command, "raise"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "BrokenPipeError: a connection" in done.stderr


def test_sigterm_is_an_exit_in_order_with_143_and_the_handler_is_as_before():
    ended = []

    def command():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        cli.exit_code(command)
    assert (end.value.code, ended) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_is_143_whatever_a_library_makes_of_it():
    def command():
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:  # as Ray does while it waits
            raise SystemExit(1) from None

    with pytest.raises(SystemExit, match="143"):
        cli.exit_code(command)
    with pytest.raises(SystemExit, match=r"^3$"):
        cli.exit_code(lambda: sys.exit(3))


@pytest.mark.slow
def test_sigterm_is_143_while_ray_waits():
    source = """
import signal, sys, threading
import ray
from mis.cli import exit_code
from mis.train.cluster import cluster

def command():
    with cluster(None):
        never = ray.remote(lambda: threading.Event().wait()).remote()
        threading.Timer(0.5, signal.raise_signal, (signal.SIGTERM,)).start()
        while True:
            ray.wait([never], timeout=60)

sys.exit(exit_code(command))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 143, done.stderr


def test_a_handler_that_is_there_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        assert cli.exit_code(lambda: signal.raise_signal(signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


def test_a_command_in_another_thread_sets_no_handler():
    codes, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(
        target=lambda: codes.append(cli.exit_code(lambda: codes.append(signal.getsignal(signal.SIGTERM))))
    )
    thread.start()
    thread.join()
    assert codes == [before, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_workers_meet_a_signal_still_ends_a_command_at_once(number):
    """What it does then is not the interpreter's to end: see `mis.train.signals`."""
    source = f"""
import signal
from mis.cli import exit_code
from mis.train.signals import ended_by

def command():
    with ended_by(signal.{number.name}, clean_up=lambda: print("cleaned up", flush=True)):
        signal.raise_signal(signal.{number.name})

exit_code(command)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (-number, "cleaned up\n")


def test_a_defect_keeps_its_traceback():
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.exit_code(command)


def test_a_parameter_is_not_abbreviated(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda *_: None, "Try.", ["--param", "x"])
    assert "--param" in capsys.readouterr().err


@pytest.mark.parametrize("deaf", [True, False])
def test_ctrl_c_ends_a_process_whose_threads_do_not(deaf):
    source = f"""
import signal, threading
from mis.cli import ends_when_interrupted, exit_code

def command():
    threading.Thread(target=threading.Event().wait).start()
    with ends_when_interrupted(within_s=1):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if not {deaf}:
                raise
        threading.Event().wait()

raise SystemExit(exit_code(command))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130
    assert done.stderr == ("" if deaf else "interrupted\n")
