"""The nodes of the Ray cluster that RAY_ADDRESS names: what each has, and whether all see the same files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mis.doctor.gpus import Gpus, ask_tensorflow, judge_gpus
from mis.doctor.locks import can_lock, held_lock, judge_locks
from mis.errors import MisError
from mis.machine.diagnosis import Diagnosis
from mis.machine.disks import nearest_folder
from mis.machine.facts import CHECKPOINTS, RECORDS, Machine, find_machine
from mis.machine.judge import judge_machine, size
from mis.storage.messages import advice
from mis.storage.remote import RemoteFolder, probe
from mis.train.allocate import Node
from mis.train.cluster import cluster
from mis.train.installation import Installation
from mis.train.nodes import Answer, NoAnswer, ask_installations, ask_nodes, node_names
from mis.tune.ray.visible import find_blind_nodes
from mis.words import counted

PART_OF_GPU = 0.01
"""What is reserved of a GPU to look at it: without a reservation Ray shows a process none."""


STORAGE = "storage"


def diagnose_cluster(
    address: str | None, own: Installation, folders: Mapping[str, Path], remote: RemoteFolder | None
) -> Iterator[Diagnosis]:
    """Yield what there is to say of the cluster.

    Args:
        address: Its address; None where there is none, and each command starts one on this machine.
        own: What this process has.
        folders: The folders that nodes use, by what is there.
        remote: The storage, where that is on a server.
    """
    if address is None:
        yield Diagnosis("ok", "Ray", "RAY_ADDRESS is not set: each command starts Ray on this machine")
        return
    try:
        with cluster(address) as nodes:
            yield from list(_diagnose_nodes(nodes, own, folders, remote))
    except MisError as error:
        yield Diagnosis("error", "Ray", error.broken, error.do)


def _diagnose_nodes(
    nodes: Sequence[Node], own: Installation, folders: Mapping[str, Path], remote: RemoteFolder | None
) -> Iterator[Diagnosis]:
    names = node_names()
    kinds = {node.name: node for node in nodes}
    yield Diagnosis("ok", "Ray", f"a cluster of {counted(len(names), 'node')} answers")
    compared = ask_installations(names)
    found = compared.judge(own)
    yield from found
    if not found:
        yield Diagnosis("ok", "versions", "all nodes have what this process has, and the same time")
    # Others might not understand the questions.
    same = {name: names[name] for name, there in compared.installations.items() if there.sources == own.sources}
    machines = ask_nodes(same, find_machine, dict(folders))
    gpus = _ask_gpus(same, kinds)
    for name, machine in machines.items():
        yield from judge_node(name, kinds.get(names[name], Node(0, 0)), machine, gpus[name])
    yield from _shared_files(same, nodes, folders)
    if remote is not None:
        yield from judge_storage(remote, ask_nodes(same, probe, remote))


def judge_storage(remote: RemoteFolder, answers: Mapping[str, Answer[str] | NoAnswer]) -> list[Diagnosis]:
    """Return which nodes cannot use the storage, or a line that all can.

    Args:
        remote: The storage.
        answers: What `mis.storage.remote.probe` has returned on each node, by what it is called.
    """
    found = []
    for name, answer in answers.items():
        reason = answer.reason if isinstance(answer, NoAnswer) else answer.value
        if reason:
            refuses = f"{remote.url} cannot be used on {name}: {reason}"
            found.append(Diagnosis("error", STORAGE, refuses, advice(reason, on_node=True)))
    return found or [Diagnosis("ok", STORAGE, f"{remote.url} takes an object from each node and returns it")]


def _ask_gpus(names: Mapping[str, str], kinds: Mapping[str, Node]) -> dict[str, Answer[Gpus] | NoAnswer]:
    """Ask TensorFlow on all nodes, on those that have GPUs with a part of one."""
    having = {name: node for name, node in names.items() if node in kinds and kinds[node].gpus}
    others = {name: node for name, node in names.items() if name not in having}
    found = ask_nodes(others, ask_tensorflow)
    if having:
        found |= ask_nodes(having, ask_tensorflow, 1, num_gpus=dict.fromkeys(having, PART_OF_GPU))
    return found


def judge_node(
    name: str, node: Node, machine: Answer[Machine] | NoAnswer, gpus: Answer[Gpus] | NoAnswer
) -> list[Diagnosis]:
    """Return what is wrong with a node, or a line that all is well.

    Args:
        name: What it is called.
        node: What Ray says of it.
        machine: The facts of its machine.
        gpus: What TensorFlow has found there.
    """
    if isinstance(machine, NoAnswer):
        return [Diagnosis("error", "nodes", f"{name} {machine.reason}", "end it, or leave it out of the cluster")]
    found = judge_machine(machine.value, store_bytes=node.shared_bytes, is_node=True)
    if isinstance(gpus, Answer):
        found.append(judge_gpus(name, gpus.value))
    else:
        what = "its GPUs are in use, or TensorFlow" if node.gpus else "TensorFlow"
        found.append(
            Diagnosis("warning", "TensorFlow", f"{name}: {what} {gpus.reason}", "ask again when nothing runs there")
        )
    troubles = [diagnosis for diagnosis in found if diagnosis.mark != "ok"]
    has = [counted(node.cpus, "core"), counted(node.gpus, "GPU"), f"{size(node.memory_bytes)} of memory"]
    return troubles or [Diagnosis("ok", "nodes", f"{name}: {', '.join(has)} for Ray; nothing is wrong with it")]


def _shared_files(names: Mapping[str, str], nodes: Sequence[Node], folders: Mapping[str, Path]) -> Iterator[Diagnosis]:
    """Yield whether the nodes and this process see each other's files, and each other's locks."""
    folder = nearest_folder(folders[CHECKPOINTS])
    records = folders[RECORDS] if folders[RECORDS].is_dir() else folder
    called = {node: name for name, node in names.items()}
    try:
        blind = find_blind_nodes(folder, records, [node for node in nodes if node.name in called])
        with held_lock(folder) as path:
            seeing = {name: node for name, node in names.items() if node not in blind}
            answers = ask_nodes(seeing, can_lock, path)
    except (OSError, MisError) as error:  # what is wrong with the folder is said of this machine
        yield Diagnosis("warning", CHECKPOINTS, f"what nodes see was not looked at: {error}", "mend the folder first")
        return
    yield from (Diagnosis("error", CHECKPOINTS, blindness.broken, blindness.do) for blindness in blind.values())
    if not blind and len(called) > 1:
        yield Diagnosis("ok", CHECKPOINTS, f"all nodes see {folder}, and what each writes there is seen here")
    yield from judge_locks(folder, answers)
