"""What the nodes of a real cluster answer."""

import os
import time

import pytest

from mis.errors import MisError
from mis.train import nodes
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
