"""What Ray says of a trial that failed, in one line."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mis.errors import MisError, NodeAwayError
from mis.files import DiskFullError
from mis.storage.messages import advice, is_away
from mis.storage.remote import NO_ANSWER
from mis.train.nodes import GIVE_AGAIN

DIED = "worker process has died"
"""In what Ray says when a process is gone."""

LOW_ON_MEMORY = "low on memory"
"""In what Ray says when it has ended a process because the node's memory was full."""

OWN_FAULT = re.compile(
    r"[\w.]*(ValuesError|ValueError|TypeError|KeyError|AssertionError|NotImplementedError|OverflowError|"
    r"ZeroDivisionError|InvalidArgumentError|ResourceExhaustedError)\b"
)
"""Begins what a trial's error says where its values are at fault."""

EXCEPTION = re.compile(r"\s*(?:\w+\.)*(?P<kind>\w*(?:Error|Exception|Interrupt|Exit)\b[^:\s]*)(?::\s?(?P<text>.*))?$")
"""A line of a traceback with an exception's type and what it says."""

PLACE = re.compile(r"\x1b\[[\d;]*m|\{\{function_node.*?\}\}|\[\[.*?\]\]|\[Op:.*$")
"""Colours, and the places in the graph that TensorFlow names."""

SAYS_NOTHING = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|\d+ root error|in user code:|"
    r"Exception encountered when calling"
)
"""Begins lines of an error that do not say what happened."""

READS_DATA = "IteratorGetNext"
"""In what TensorFlow says where the pipeline of the data has raised."""

LONGEST = 500
"""Characters of the line."""


class ValuesError(MisError):
    """Values of a trial that do not go together, or not with its devices."""


def reason_of(trial: Any) -> str:
    """Return the line of a Ray trial's newest error that says what happened.

    It is read from the driver's own file: what `Trial.get_error` reads is written later.
    """
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8", errors="replace").strip() if path else ""
    newest = text.rpartition("Failure # ")[2]
    lines = newest.splitlines()[1:] or ["its process died"]
    # What Ray says of a full memory begins with what happened.
    reason = next((line for line in lines if LOW_ON_MEMORY in line), None) or _cause(lines)
    if DIED in newest and LOW_ON_MEMORY not in reason:
        return "its process died"  # Ray lists a dozen reasons that there may be
    return reason.strip()[:LONGEST]


def _cause(lines: Sequence[str]) -> str:
    """Return the last exception of a traceback, in one line: TensorFlow and Keras say in others where it was.

    >>> _cause(["InvalidArgumentError: Graph execution error:", "", "shapes must match", "[[node]] [Op:__inference_7]"])
    'InvalidArgumentError: shapes must match'
    """
    exceptions = [(number, match) for number, line in enumerate(lines) if (match := EXCEPTION.match(line))]
    if not exceptions:
        return lines[-1]
    number, exception = exceptions[-1]
    told = [exception["text"] or "", *lines[number + 1 :]]
    plain = [PLACE.sub("", line).strip() for line in told]
    said = next((line for line in plain if line and not SAYS_NOTHING.match(line)), "")
    # What the pipeline of the data raises is no other type for a value of the trial than for a file.
    of_data = exception["kind"] == "InvalidArgumentError" and any(READS_DATA in line for line in told)
    kind = "reading the data" if of_data else exception["kind"]
    return f"{kind}: {said}" if said else kind


def node_does_not_answer(node: str) -> NodeAwayError:
    """Return the error for a node on which no process could be started, or that was lost."""
    return NodeAwayError(
        "every node must be able to run a process",
        got=f"no answer of {node}",
        do=f"{GIVE_AGAIN}; where it comes again, end that node, or leave it out of the cluster",
    )


def node_cannot_run(node: str, reason: str) -> MisError:
    """Return the error for a node on which `mis` cannot be imported."""
    return MisError(f"every node must have the same `mis`: {reason}", got=f"an error on {node}", do="install it there")


def node_does_not_reach(host: str, url: str, reason: str) -> MisError:
    """Return the error for a node that cannot write to the storage: later it may, where the server does not answer."""
    kind = NodeAwayError if reason.startswith(NO_ANSWER) else MisError
    return kind(
        f"every node must write to {url}",
        got=f"one that cannot: {host} ({reason})",
        do=f"{advice(reason, on_node=True)}, or leave that node out",
    )


def node_does_not_see(host: str, path: Path) -> MisError:
    """Return the error for a node that does not see a folder that all must see."""
    return MisError(
        f"every node must see {path}",
        got=f"one that does not: {host}",
        do="keep the project in a folder that all nodes share (MIS_ROOT), set storage.path, or leave that node out",
    )


def node_not_seen(host: str, path: Path) -> MisError:
    """Return the error for a node that sees a folder, but another one than this process does."""
    return MisError(
        f"what a node writes into {path} must be seen here within a minute",
        got=f"nothing of {host}",
        do="keep the project in a folder that all nodes share (MIS_ROOT), or leave that node out",
    )


def is_own_fault(reason: str) -> bool:
    """Return whether a trial's own values are at fault, which no other node takes either.

    What libraries raise of values that they cannot take is told from what they raise of a device, a disk or a network
    by its type alone.

    >>> is_own_fault("ValueError: a negative dimension"), is_own_fault("OSError: no device")
    (True, False)
    """
    return OWN_FAULT.match(reason) is not None or LOW_ON_MEMORY in reason


def is_no_nodes_fault(reason: str) -> bool:
    """Return whether a start of a trial has failed for what is as it is on every node."""
    return is_own_fault(reason) or is_away(reason)


def disk_full_in(reason: str, study: Path) -> MisError | None:
    """Return the error for a study whose disk is full, from what a trial's error says; None where it says nothing so.

    Args:
        reason: What the trial's error says.
        study: The study's folder. The disk of another folder is its node's.
    """
    if DiskFullError.__name__ in reason and str(study) in reason:
        return DiskFullError(study)
    return None


def is_out_of_memory(reason: str) -> bool:
    """Return whether Ray has ended the trial's process because the memory was full."""
    return LOW_ON_MEMORY in reason
