"""How a turn of a job ends, by what became of it and by what SLURM says; tests/cluster runs such jobs."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

import mis.slurm.job
from mis.errors import MisError
from mis.slurm import allocation
from mis.slurm.allocation import Job, State, id_of
from mis.slurm.job import Outcome, _command, _end_group, _exit_code, _look_for_the_head, _with_variables, end, way_on
from mis.slurm.signals import Signals

RUNS = State("RUNNING", "None", 3000, ("n1", "n2"))
NEARLY_OVER = State("RUNNING", "None", 60, ("n1", "n2"))
LIMIT = State("COMPLETING", "TimeLimit", None, ("n1", "n2"))  # squeue says that INVALID is left
CANCELLED = State("COMPLETING", "None", 3000, ("n1", "n2"))
CANCELLED_LATE = State("COMPLETING", "None", 60, ("n1", "n2"))

LOST, ENDED = Outcome(1, head_is_lost=True), Outcome()
NOT_JOINED = Outcome(not_joined="Ray has not started on node n2")


class FakeJob(Job):
    """A job of which SLURM says what the test has given."""

    said = RUNS
    queued_again = 0

    def state(self):
        return FakeJob.said

    def requeue(self):
        FakeJob.queued_again += 1


def signals(*names, ago_s=0.0):
    made = Signals.__new__(Signals)
    made.limit_is_near = "USR1" in names
    made.terminated_at = time.monotonic() - ago_s if "TERM" in names else None
    return made


@pytest.mark.parametrize(
    ("outcome", "came", "said", "restarts", "code", "queued_again"),
    [
        # It has ended by itself.
        (Outcome(0), (), RUNS, 0, 0, False),
        (Outcome(1), (), RUNS, 0, 1, False),
        (Outcome(2), (), RUNS, 0, 2, False),
        (Outcome(0), ("USR1",), NEARLY_OVER, 0, 0, False),
        # A node did not answer at the start.
        (Outcome(os.EX_TEMPFAIL), (), RUNS, 0, 0, True),
        (Outcome(os.EX_TEMPFAIL), (), RUNS, 3, 1, False),
        (Outcome(os.EX_TEMPFAIL), (), CANCELLED, 0, 143, False),
        # The limit: whatever the command's exit code was meanwhile.
        (ENDED, ("USR1",), NEARLY_OVER, 0, 0, True),
        (ENDED, ("USR1",), RUNS, 0, 0, True),
        (Outcome(1), ("USR1",), NEARLY_OVER, 0, 0, True),
        (Outcome(2), ("USR1",), NEARLY_OVER, 0, 0, True),
        (ENDED, ("USR1", "TERM"), LIMIT, 0, 0, True),
        (ENDED, ("TERM",), LIMIT, 0, 0, True),
        (Outcome(2), ("TERM",), LIMIT, 0, 0, True),
        (ENDED, ("TERM",), NEARLY_OVER, 0, 0, True),
        (ENDED, ("USR1",), NEARLY_OVER, 3, 1, False),
        (ENDED, ("TERM",), LIMIT, 3, 1, False),
        # Somebody's wish.
        (ENDED, ("TERM",), CANCELLED, 0, 143, False),
        (ENDED, ("TERM",), CANCELLED_LATE, 0, 143, False),
        (ENDED, ("USR1", "TERM"), CANCELLED_LATE, 0, 143, False),
        (Outcome(2), ("USR1", "TERM"), CANCELLED, 0, 143, False),
        # It is to make room for another job, and has some time to end.
        (ENDED, ("TERM",), RUNS, 0, 0, True),
        (ENDED, ("TERM",), RUNS, 3, 1, False),
        (Outcome(1), ("TERM",), RUNS, 0, 0, True),
        (LOST, ("TERM",), CANCELLED, 0, 143, False),
        (LOST, (), CANCELLED, 0, 143, False),  # Ray has ended before the signal was seen here
        # Ray's head is lost: whatever the command took for its own fault.
        (LOST, (), RUNS, 0, 0, True),
        (Outcome(2, head_is_lost=True), (), RUNS, 0, 0, True),
        (LOST, (), RUNS, 3, 1, False),
        # A node does not join: a fault of the installation, unless it has worked before.
        (NOT_JOINED, (), RUNS, 0, 1, False),
        (NOT_JOINED, (), RUNS, 1, 0, True),
        (NOT_JOINED, (), RUNS, 3, 1, False),
        (NOT_JOINED, (), CANCELLED, 1, 143, False),
        # SLURM has told Ray to end before all nodes had joined: the job is to make room.
        (Outcome(head_is_lost=True, not_joined="Ray has not started"), (), RUNS, 0, 0, True),
    ],
)
def test_a_job_is_queued_again_where_it_has_more_to_do_and_nobody_has_ended_it(
    monkeypatch, outcome, came, said, restarts, code, queued_again
):
    monkeypatch.setattr(FakeJob, "said", said)
    monkeypatch.setattr(FakeJob, "queued_again", 0)
    job = FakeJob("17", "17", None, restarts, ("n1", "n2"), "n1")
    assert end(job, outcome, signals(*came), requeues=3) == code
    assert FakeJob.queued_again == queued_again


def test_both_signals_are_seen():
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    try:
        came = Signals()
        assert not came.is_ending
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (came.limit_is_near, came.terminated, came.is_ending) == (True, False, True)
        os.kill(os.getpid(), signal.SIGTERM)
        first = came.terminated_at
        assert came.terminated
        os.kill(os.getpid(), signal.SIGTERM)
        assert came.terminated_at == first
    finally:
        for number, handler in zip((signal.SIGUSR1, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_after_sigterm_there_is_less_time():
    assert signals("USR1").deadline(1e9, 10.0) == 1e9
    assert signals("TERM", ago_s=4.0).deadline(1e9, 10.0) == pytest.approx(time.monotonic() + 6.0, abs=0.5)
    assert signals("TERM").deadline(5.0, 10.0) == 5.0


def test_a_command_that_does_not_end_is_killed_before_slurm_kills_the_job():
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    command = subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE, start_new_session=True)
    with command.stdout as said:
        said.readline()
        _end_group(command, signals("USR1", "TERM", ago_s=9.5))
    assert command.returncode == -signal.SIGKILL


@pytest.fixture
def slurm_says(monkeypatch):
    """Have commands of SLURM answer what a test gives, one after the other; a wait takes no time."""
    answers, asked, now = [], [], [0.0]

    def run(command, **_):
        asked.append(command)
        now[0] += 0.5
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, str):
            return SimpleNamespace(returncode=0, stdout=answer, stderr="")
        said = "Unable to contact slurm controller" if answer is None else str(answer)
        return SimpleNamespace(returncode=1, stdout="", stderr=said)

    monkeypatch.setattr(allocation.subprocess, "run", run)
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(allocation, "time", clock)
    return answers, asked


def test_what_slurm_says_of_a_job_is_read(slurm_says):
    answers, asked = slurm_says
    answers[:] = ["COMPLETING|TimeLimit|INVALID|n[1-2]\n", "n1\nn2\n"]
    assert Job("21", "20-3", "3", 0, ("n1",), "n1").state() == LIMIT
    assert "--job=20_3" in asked[0]
    answers[:] = ["RUNNING|None|1:00|\n"]
    assert Job("17", "17", None, 0, ("n1",), "n1").state() == State("RUNNING", "None", 60, ())
    assert "--job=17" in asked[-1]


def test_an_element_of_an_array_is_named_apart_from_its_array(slurm_says):
    answers, asked = slurm_says
    answers[:] = [""]
    Job("20", "20-3", "3", 0, ("n1",), "n1").requeue()  # the last element has the array's own number
    assert asked == [("scontrol", "requeue", "20_3")]
    assert id_of({"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "3"}) == "20_3"
    assert id_of({"SLURM_JOB_ID": "17"}) == "17"


def test_a_controller_that_does_not_answer_is_asked_again_for_some_seconds(slurm_says):
    answers, asked = slurm_says
    answers[:] = [None, None, ""]
    Job("17", "17", None, 0, ("n1",), "n1").requeue()
    assert len(asked) == 3
    answers[:] = [None]
    with pytest.raises(MisError, match="scontrol requeue 17 must succeed within 20 s, got Unable to contact"):
        allocation.requeue("17")
    asked.clear()
    with pytest.raises(MisError, match="scontrol requeue 17 must succeed within 300 s, got Unable to contact"):
        Job("17", "17", None, 0, ("n1",), "n1").requeue()
    assert len(asked) > 100, "another controller may take over"
    asked.clear()
    answers[:] = [ValueError("Invalid job id specified")]
    with pytest.raises(MisError, match="scontrol requeue 17 must succeed within 20 s, got Invalid job id specified"):
        Job("17", "17", None, 0, ("n1",), "n1").requeue()


def test_where_the_controller_does_not_come_back_it_is_said_how_to_go_on(slurm_says, capfd):
    answers, _ = slurm_says
    answers[:] = [None]
    job = Job("17", "17", None, 0, ("n1",), "n1")
    assert end(job, ENDED, signals("USR1"), requeues=3, way_on=way_on("tune", [], job)) == os.EX_TEMPFAIL
    assert capfd.readouterr().err.endswith(
        "; nothing is lost, but the job is not queued again: to go on, submit the same script again: sbatch SCRIPT "
        "--name slurm-17\n"
    )
    answers[:] = [*[None] * 50, "RUNNING|None|1:00|", "n1", ""]
    assert end(job, ENDED, signals("USR1"), requeues=3) == 0


@pytest.mark.parametrize(
    ("command", "given", "name"),
    [
        ("tune", [], ": sbatch --array=3 SCRIPT --name slurm-20-%a for this element"),
        ("tune", ["--name", "mine-3"], ""),
        ("tune", ["--resume", "mine"], ""),
        ("train", [], ""),
    ],
)
def test_a_search_that_goes_on_in_another_job_is_named(command, given, name):
    assert way_on(command, given, Job("21", "20-3", "3", 0, ("n1",), "n1")) == f"submit the same script again{name}"


def test_without_slurm_on_path_nothing_is_known_of_a_job(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MisError, match="scontrol must be found on PATH; load SLURM's own module in the script"):
        allocation.requeue("17")


def test_a_command_that_is_killed_has_an_exit_code_as_in_a_shell(capfd):
    assert [_exit_code(code) for code in (0, 1, -signal.SIGKILL)] == [0, 1, 137]
    assert capfd.readouterr().err == (
        "slurm: the command was ended by signal 9: where nobody has killed it, its node had too little memory\n"
    )


@pytest.mark.parametrize(("code", "said"), [(1, "slurm: SIGTERM: the command has ended\n"), (0, "")])
def test_a_command_that_ends_before_it_is_told_to_says_why_where_it_has_failed(capfd, code, said):
    """SIGTERM ends Ray too, and a command may have ended with it before it is told to."""
    came = signals()
    others = psutil.Process().children()

    def look():
        while any(
            child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process().children() if child not in others
        ):
            time.sleep(0.01)
        came.terminated_at = time.monotonic()

    nodes = SimpleNamespace(env=None, head_is_lost=False, look=look)
    assert _command([sys.executable, "-c", f"raise SystemExit({code})"], nodes, came) == code
    assert capfd.readouterr().err == said


def test_variables_of_a_container_are_the_job_s_and_must_be_set():
    env = {"SLURM_TMPDIR": "/local/17", "TMPDIR": "/local/17"}
    assert [_with_variables(word, env) for word in ("$TMPDIR", "${SLURM_TMPDIR}:/tmp", "--nv")] == [
        "/local/17",
        "/local/17:/tmp",
        "--nv",
    ]
    with pytest.raises(MisError, match=r"a variable in --container must be set in the job, got \$SLURM_TMPDIR; leave"):
        _with_variables("$SLURM_TMPDIR", {})


@pytest.mark.parametrize(("code", "within_s"), [(1, 20.0), (2, 20.0), (0, 0.0), (75, 0.0), (None, 0.0)])
def test_ray_s_end_may_be_seen_after_the_command_s(monkeypatch, code, within_s):
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(mis.slurm.job, "time", clock)
    nodes = SimpleNamespace(head_is_lost=False, look=lambda: None)
    _look_for_the_head(nodes, code)
    assert now[0] == within_s
    nodes.look = lambda: setattr(nodes, "head_is_lost", now[0] > 21.0)
    _look_for_the_head(nodes, 1)
    assert nodes.head_is_lost == (within_s > 0.0)
