"""One process at a time goes on with what is kept on a server, from what the last one has left."""

import os
import subprocess
import threading
import time

import pytest

from mis.errors import MisError
from mis.storage import claim
from mis.storage.claim import RUNNER, SESSION, Claim, check_kept_here, claimed, sessions_here, sessions_there


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Let a second be long."""
    monkeypatch.setattr(claim, "SIGN_S", 0.2)
    monkeypatch.setattr(claim, "SILENT_S", 5.0)  # the times of objects are whole seconds
    monkeypatch.setattr(claim, "SETTLE_S", 0.1)


@pytest.fixture
def said():
    return []


@pytest.fixture
def begin(remote, tmp_path, said):
    """Return a claim of a machine that is not taken yet."""

    def made(machine, on_lost=lambda: None):
        return Claim(remote, tmp_path / machine, "study a", said.append, on_lost)

    return made


def test_who_goes_on_after_the_other_has_ended_needs_to_know_its_sessions(begin, remote, tmp_path, said):
    first = begin("one")
    first.take()
    first.release()
    with pytest.raises(MisError, match=r"study a must go on in one place, got .*two and s3://"):
        begin("two").take()
    second = begin("two")
    second.take(sessions_there(remote, said.append))
    second.release()
    assert second.identity == first.identity
    assert sessions_here(tmp_path / "two")[:1] == first.sessions
    with pytest.raises(MisError, match="which have gone on apart"):
        begin("one").take()
    assert said == [], "nobody was waited for"


def test_a_process_that_lives_is_not_taken_over_and_one_that_is_killed_is(begin, remote, said):
    first = begin("one")
    first.take()
    with pytest.raises(MisError, match=r"study a must run once at a time, got process \d+ on "):
        begin("two").take(first.sessions)
    assert "it is looked for 5 s whether that lives" in said[0]
    first._ended.set()  # as kill -9: no sign any more, and nothing is taken back
    time.sleep(0.5)
    second = begin("two")
    second.take(first.sessions)
    second.release()
    assert remote.entry(RUNNER) is None


def test_a_process_of_this_machine_that_is_no_more_is_not_waited_for(begin, remote, said):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    remote.write(f"process {process.pid} on {os.uname().nodename}".encode(), RUNNER)
    first = begin("one")
    first.take()
    first.release()
    assert said == []


def test_who_was_taken_for_dead_learns_it_and_writes_nothing_any_more(begin, remote, said):
    lost = threading.Event()
    first = begin("one", lost.set)
    first.take()
    remote.write(b'{"sessions": ["another"]}', SESSION)
    assert lost.wait(30)
    assert first.lost
    assert "another process goes on with study a" in said[-1]
    first.release()
    assert remote.entry(RUNNER) is not None, "that is the other one's"


def test_two_that_begin_at_once_do_not_both_go_on(begin, monkeypatch):
    monkeypatch.setattr(claim, "check_nobody_runs", lambda *_: None)
    monkeypatch.setattr(claim, "SETTLE_S", 1.0)
    outcomes = []

    def run(machine):
        try:
            begin(machine).take()
        except MisError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(machine)

    threads = [threading.Thread(target=run, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({"one", "two"} & set(outcomes)) <= 1, outcomes
    refusals = ("a process that has begun at the same time", "gone on apart")
    assert any(refusal in outcome for outcome in outcomes for refusal in refusals)


@pytest.mark.parametrize("before", [0, 1])
def test_who_was_refused_may_go_on_when_the_other_has_ended(begin, monkeypatch, before):
    for _ in range(before):
        earlier = begin("one")
        earlier.take()
        earlier.release()
    refused, other = begin("one"), begin("two")
    known = claim.sessions_here(refused.folder)

    write = Claim._write

    def write_and_let_the_other_begin(self):
        write(self)
        if self is refused:
            with monkeypatch.context() as at_once:
                at_once.setattr(claim, "is_part", lambda *_: True)  # it has looked before this one wrote
                other.take(known)

    monkeypatch.setattr(Claim, "_write", write_and_let_the_other_begin)
    monkeypatch.setattr(claim, "check_nobody_runs", lambda *_: None)
    with pytest.raises(MisError, match="a process that has begun at the same time"):
        refused.take()
    other.release()
    assert claim.sessions_here(refused.folder) == known
    assert claim.is_part(known, claim.sessions_there(other.remote, print)), "what the other has done can be fetched"


def test_an_outage_is_no_death(begin, storage_server):
    lost = threading.Event()
    first = begin("one", lost.set)
    first.take()
    storage_server.down()
    time.sleep(1)
    storage_server.up()
    with pytest.raises(MisError, match="must run once at a time"):
        begin("two").take(first.sessions)
    assert not lost.is_set()
    first.release()


def test_what_is_kept_on_a_server_does_not_go_on_elsewhere(remote, tmp_path, said):
    with claimed(remote, tmp_path / "one", "study a", said.append):
        check_kept_here(tmp_path / "one", remote, "study a")
        for other, got in ((None, "null"), (remote.below("b"), f"{remote.url}/b")):
            with pytest.raises(MisError, match=f"in {remote.url}, got .*{got}"):
                check_kept_here(tmp_path / "one", other, "study a")
    check_kept_here(tmp_path / "two", None, "study a")
