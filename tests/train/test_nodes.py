"""What the nodes of a real cluster answer."""

import os
import time
from dataclasses import replace

import pytest

from mis.errors import MisError
from mis.machine.disks import Disk
from mis.machine.facts import TEMPORARY, find_machine
from mis.train import nodes
from mis.train.clocks import Reading
from mis.train.installation import find_installation
from mis.train.nodes import Answer, NoAnswer, ask_installations, ask_nodes, check_nodes_agree, node_names

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nodes")]


def test_the_node_of_this_machine_has_what_this_process_has_and_the_same_clock():
    compared = ask_installations()
    assert list(compared.nodes) == [os.uname().nodename]
    assert compared.judge(find_installation()) == []
    (clock,) = compared.offsets.values()
    assert clock.low_s <= 0 <= clock.high_s
    assert clock.high_s - clock.low_s < nodes.ANSWER_S


def test_a_clock_that_is_set_wrong_here_is_measured(monkeypatch):
    real = time.time
    monkeypatch.setattr(nodes.time, "time", lambda: real() - 60)
    (offset,) = ask_installations().offsets.values()
    assert offset.low_s <= 60 <= offset.high_s
    said = []
    check_nodes_agree("an address", said.append)
    (line,) = said
    assert "the clock of" in line
    assert "s ahead" in line


def fail():
    raise ValueError("nonsense\nin two lines")


def wait():
    time.sleep(600)


def test_what_a_node_cannot_do_and_what_it_does_not_answer_is_said_with_its_name():
    (host,) = names = node_names()
    assert ask_nodes(names, fail)[host] == NoAnswer("could not run this `mis`: in two lines")
    assert ask_nodes(names, wait, within_s=1.0)[host] == NoAnswer("has not answered within 1 s")
    answer = ask_nodes(names, os.getpid)[host]
    assert isinstance(answer, Answer)
    assert answer.value != os.getpid()
    assert ask_nodes({}, fail) == {}


def test_a_node_with_a_mis_of_another_kind_or_none_is_refused(monkeypatch):
    monkeypatch.setattr(nodes, "_installation", dict)
    with pytest.raises(MisError, match=rf"got {os.uname().nodename} has another `mis`; let it have the same `mis`"):
        check_nodes_agree("an address", print)


def test_the_nodes_of_a_local_cluster_are_not_asked(monkeypatch):
    monkeypatch.setattr(nodes, "ask_installations", fail)
    check_nodes_agree(None, print)


FULL = Disk("/tmp", "tmpfs", frozenset(), free_bytes=1, total_bytes=10)  # noqa: S108


@pytest.mark.parametrize("address", [None, "an address"])
def test_a_machine_that_would_end_a_search_later_on_is_said_or_refused_before(monkeypatch, address):
    """On a node the question is asked in another process: there it is what the node answers that is replaced."""
    plain = find_machine({})

    def on(**facts):
        found = replace(plain, **facts)
        monkeypatch.setattr(nodes, "find_machine", lambda _: found)  # this machine
        real = nodes.ask_nodes

        def asking(names, question, *arguments, **options):
            if question is not nodes.find_machine:
                return real(names, question, *arguments, **options)
            return {name: Answer(found, Reading(0, 0, 0)) for name in names}

        monkeypatch.setattr(nodes, "ask_nodes", asking)
        said = []
        check_nodes_agree(address, said.append)
        return said

    assert on() == []
    (line,) = on(open_files=1024, most_open_files=1024)
    assert "a process may open 1024 files, less than the 4096" in line
    assert "ulimit -n 8192 before" in line
    assert on(free_bytes=0) == [], "that is the doctor's"
    with pytest.raises(MisError, match=r"must have what .* free of .* at /tmp"):
        on(disks={TEMPORARY: FULL})
