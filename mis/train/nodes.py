"""Whether the nodes of a Ray cluster have what this process has: before a training or a search begins on them.

A node with other sources computes something else and says nothing. Each node is asked with one task that reserves
nothing, all at once; Ray is told to run it nowhere else.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mis.errors import MisError, NodeAwayError
from mis.machine.diagnosis import Diagnosis, refusal
from mis.machine.facts import TEMPORARY, find_machine
from mis.machine.judge import judge_machine
from mis.train.clocks import Offset, Reading, judge_clocks, offset
from mis.train.cluster import OBJECT_STORE_BYTES
from mis.train.installation import Installation, compare, find_installation

ANSWER_S = 60.0
"""Seconds in which a node must have started a process that answers: it imports from a shared file system, perhaps."""

LOOKED_AT = ("shared memory", "open files", TEMPORARY)
"""What is looked at of each machine before a training or a search begins; the doctor looks at more."""

PINGS = 2
"""How often the time is asked for once the processes are there: an answer takes some milliseconds then."""

NAME_LETTERS = 8
"""Letters of Ray's name of a node that are shown."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What a node has answered.

    Attributes:
        value: What the function returned there.
        reading: The node's time.
    """

    value: Value
    reading: Reading


NOT_ANSWERED = "has not answered"

GIVE_AGAIN = "give the command again in a minute, when Ray has given up a node that is lost"
"""What to do where a node has not answered."""

LOST = (
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)
"""What Ray raises where the node, or the process that was to answer there, is gone."""


@dataclass(frozen=True)
class NoAnswer:
    """Why a node has not answered, as the end of a sentence."""

    reason: str


@dataclass(frozen=True)
class Compared:
    """What the nodes have said.

    Attributes:
        nodes: Ray's name of each node that has answered, by what it is called.
        installations: What each has that has answered.
        offsets: The offset of the clock of each.
        silent: Why others have not answered.
    """

    nodes: Mapping[str, str]
    installations: Mapping[str, Installation]
    offsets: Mapping[str, Offset]
    silent: Mapping[str, str]

    def judge(self, own: Installation) -> list[Diagnosis]:
        """Return what is wrong with the nodes; nothing where all have what this process has.

        Args:
            own: What this process has.
        """
        silent = [
            Diagnosis(
                "error",
                "nodes",
                f"{name} {reason}",
                GIVE_AGAIN
                if reason.startswith(NOT_ANSWERED)
                else "let it have the same `mis` as this process, or leave it out of the cluster",
            )
            for name, reason in self.silent.items()
        ]
        return [*silent, *compare(own, self.installations), *judge_clocks(self.offsets)]


def node_names() -> dict[str, str]:
    """Return Ray's name of each node that is part of the cluster, by its host's name.

    Where a host has several nodes, as in tests, they are called `HOST (NODE)`.
    """
    alive = [(str(node["NodeManagerHostname"]), str(node["NodeID"])) for node in ray.nodes() if node["Alive"]]
    hosts = Counter(host for host, _ in alive)
    return {host if hosts[host] == 1 else f"{host} ({node[:NAME_LETTERS]})": node for host, node in alive}


def ask_nodes(
    nodes: Mapping[str, str],
    question: Callable[..., Value],
    *arguments: object,
    within_s: float = ANSWER_S,
    num_gpus: Mapping[str, float] | None = None,
) -> dict[str, Answer[Value] | NoAnswer]:
    """Call a function on each node, all at once, and return what each has answered.

    Args:
        nodes: Ray's name of each node, by what it is called.
        question: The function: of a module that the nodes have too. It returns what can be pickled.
        arguments: Its arguments.
        within_s: Seconds in which a node must have answered.
        num_gpus: What part of a GPU is reserved on nodes, by what they are called; by default none.
    """
    asked: dict[Any, tuple[str, float]] = {}
    task = ray.remote(num_cpus=0, max_retries=0)(_answer)
    for name, node in nodes.items():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        on_node = task.options(num_gpus=(num_gpus or {}).get(name, 0), scheduling_strategy=there)
        asked_s = time.time()
        asked[on_node.remote(question, *arguments)] = (name, asked_s)
    answers: dict[str, Answer[Value] | NoAnswer] = {}
    waiting, deadline = list(asked), time.monotonic() + within_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
        answered_s = time.time()
        for reference in ready:
            name, asked_s = asked[reference]
            answers[name] = _read(reference, asked_s, answered_s)
    for reference in waiting:
        ray.cancel(reference, force=True)
        answers[asked[reference][0]] = NoAnswer(f"{NOT_ANSWERED} within {within_s:.0f} s")
    return {name: answers[name] for name in nodes}


def _answer(question: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    """Return the node's time and what the function returns there."""
    value = question(*arguments)
    return time.time(), value


def _read(reference: Any, asked_s: float, answered_s: float) -> Answer[Any] | NoAnswer:  # noqa: ANN401 - Ray's
    try:
        node_s, value = ray.get(reference)
    except LOST:
        return NoAnswer(f"{NOT_ANSWERED}: it is gone, or its process has died")
    except ray.exceptions.RayError as error:
        return NoAnswer(f"could not run this `mis`: {str(error).strip().splitlines()[-1]}")
    return Answer(value, Reading(asked_s, node_s, answered_s))


def _installation() -> dict[str, Any]:
    """Return what the node has, as plain values: another `mis` may have another class."""
    return asdict(find_installation())


def _nothing() -> None:
    """Return at once: for the node's time."""


def ask_installations(nodes: Mapping[str, str] | None = None) -> Compared:
    """Ask all nodes of the cluster that this process is connected to what they have.

    Args:
        nodes: Ray's name of each node, by what it is called; by default all.
    """
    nodes = node_names() if nodes is None else nodes
    first = ask_nodes(nodes, _installation)
    readings = {name: [answer.reading] for name, answer in first.items() if isinstance(answer, Answer)}
    answering = {name: nodes[name] for name in readings}
    for _ in range(PINGS):
        for name, ping in ask_nodes(answering, _nothing).items():
            if isinstance(ping, Answer):
                readings[name].append(ping.reading)
    installations, silent = dict[str, Installation](), dict[str, str]()
    for name, answer in first.items():
        if isinstance(answer, NoAnswer):
            silent[name] = answer.reason
            continue
        try:
            installations[name] = Installation(**answer.value)
        except TypeError:
            silent[name] = "has another `mis`"
    return Compared(answering, installations, {name: offset(taken) for name, taken in readings.items()}, silent)


def check_nodes_agree(address: str | None, say: Callable[[str], None]) -> None:
    """Refuse a cluster with a node that has other libraries, or another `mis`, than this process.

    It is also looked at whether a machine lets a process open enough files, has shared memory, and has room for
    temporary files. The nodes of a local cluster are this machine. A node that joins later is not asked.

    Args:
        address: The address of the cluster that this process is connected to; None where it is a local one.
        say: Takes a line for the user: what may be and is no reason to refuse.

    Raises:
        MisError: A node has something else, or lacks something; the message has its host's name.
        NodeAwayError: Nodes do not answer, and nothing else is wrong.
    """
    if address is None:
        _check_this_machine(say)
        return
    own, names = find_installation(), node_names()
    asked = ask_installations(names)
    found = asked.judge(own)
    # Others might not understand the question.
    same = {name: names[name] for name, there in asked.installations.items() if there.sources == own.sources}
    for answer in ask_nodes(same, find_machine, {}).values():
        if isinstance(answer, Answer):  # one that is lost meanwhile is noticed soon
            found += _troubles(judge_machine(answer.value, store_bytes=0, is_node=True))
    _refuse_or_say(found, "every node of the Ray cluster must have what this process has", say)


def _check_this_machine(say: Callable[[str], None]) -> None:
    found = _troubles(judge_machine(find_machine({}), store_bytes=OBJECT_STORE_BYTES))
    _refuse_or_say(found, "this machine must have what Ray needs", say)


def _refuse_or_say(found: Sequence[Diagnosis], rule: str, say: Callable[[str], None]) -> None:
    """Raise an error where something must not be, and say what may be."""
    if errors := [diagnosis for diagnosis in found if diagnosis.mark == "error"]:
        kind = NodeAwayError if all(error.do == GIVE_AGAIN for error in errors) else MisError
        raise refusal(rule, errors, kind)
    if warnings := _joined([diagnosis for diagnosis in found if diagnosis.mark == "warning"]):
        say(warnings)


def _troubles(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Return what ends a search later on, where the machine has too little of it: the rest is the doctor's."""
    return [found for found in diagnoses if found.about in LOOKED_AT and found.mark != "ok"]


def _joined(warnings: Sequence[Diagnosis]) -> str:
    return "; ".join(f"{warning.found}: {warning.do}" for warning in warnings)
