"""Whether the lock of a file that this process holds keeps the nodes of a cluster out: two drivers rely on it."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mis.files import remove_file
from mis.machine.diagnosis import Diagnosis
from mis.machine.judge import GET_LOCKS, WITHOUT_LOCKS
from mis.train.nodes import Answer, NoAnswer


@contextmanager
def held_lock(folder: Path) -> Iterator[Path]:
    """Hold the lock of a new file in a folder during the block, and remove the file at its end.

    Args:
        folder: The folder.
    """
    path = folder / f".doctor-{secrets.token_hex(8)}.lock"
    try:
        with FileLock(path, timeout=0):
            yield path
    finally:
        remove_file(path)


def can_lock(path: Path) -> bool | None:
    """Return whether a file can be locked from here; None where there is no such file, or no lock.

    Args:
        path: The file, whose lock another process holds.
    """
    if not path.exists():
        return None
    lock = FileLock(path, timeout=0)
    with suppress(OSError):
        try:
            lock.acquire()
        except Timeout:
            return False
        lock.release()
        return True
    return None


def judge_locks(folder: Path, answers: Mapping[str, Answer[bool | None] | NoAnswer]) -> list[Diagnosis]:
    """Return which nodes could lock what this process has locked; a line that all is well where none could.

    Args:
        folder: Where the file was.
        answers: What the nodes have answered, by what they are called.
    """
    values = {name: answer.value for name, answer in answers.items() if isinstance(answer, Answer)}
    broken = [name for name, value in values.items() if value]
    if broken:
        return [
            Diagnosis(
                "warning",
                "checkpoints",
                f"{', '.join(broken)} can lock what is locked here in {folder}: {WITHOUT_LOCKS}",
                GET_LOCKS,
            )
        ]
    kept = [name for name, value in values.items() if value is False]
    return [Diagnosis("ok", "checkpoints", f"locks in {folder} reach {', '.join(kept)}")] if kept else []
