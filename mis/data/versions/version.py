"""Whether what a run had (data set, commit, parameters) is what stands here now."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mis.data.versions.hashing import content_hash
from mis.errors import MisError
from mis.params.load import Params
from mis.settings import Settings
from mis.track.base import Ended, param_text
from mis.track.mlflow import MlflowTracker, database_path, tracking_uri
from mis.track.provenance import UNKNOWN, git_commit

NOTHING = "nothing"
"""What is shown for a parameter that params.yaml no longer has."""
CODE = ("mis", "pipelines", "dvc.yaml")
"""What a run computes with; results and dvc.lock, which are committed after it, are not."""


@dataclass(frozen=True)
class Compared:
    """One thing that a run depends on, then and now.

    Attributes:
        name: What it is.
        then: As the run has recorded it.
        now: As it stands here.
        same: Whether it is certain that both are the same.
        note: What else is known of a difference.
    """

    name: str
    then: str
    now: str
    same: bool
    note: str = ""

    def line(self, width: int = 0) -> str:
        """Return a line for a person."""
        name = f"{self.name + ':':<{width}}"
        if self.same:
            return f"{name} {self.then}  (the same now)"
        if self.then == self.now:
            return f"{name} {self.then}  (then and now: cannot be compared)"
        return f"{name} {self.then} -> {self.now}{self.note and f'  ({self.note})'}"


def find_run(run_id: str, settings: Settings) -> Ended:
    """Return what MLflow knows of a run.

    Raises:
        MisError: There is none with this id.
    """
    uri = tracking_uri(settings)
    local = uri.startswith("sqlite:")
    run = None if local and not database_path(uri).is_file() else MlflowTracker(settings).read_run(run_id)
    if run is None:
        where = str(database_path(uri)) if local else "the MLflow server"
        raise MisError(f"a run must be in {where}", got=run_id, do="copy its id from the run's page: `make ui`")
    return run


def compare_origin(run: Ended, params: Params, settings: Settings) -> list[Compared]:
    """Return the data set, its DVC hash and the commit, then and now.

    The hash now is counted from the files that `data.root` names: dvc.lock may be older than they are.

    Raises:
        MisError: The run has not recorded where it comes from, or files cannot be read.
    """
    root, then = run.tags.get("mis.data.root"), run.tags.get("mis.data.dvc_hash", UNKNOWN)
    if root is None:
        raise MisError("a run must have recorded its data set", got="no tag mis.data.root", do="name a training's run")
    now = content_hash(settings.workspace, params.data.root) or f"no {params.data.root}"
    return [
        Compared("data set", root, params.data.root, root == params.data.root),
        Compared("DVC hash", then, now, then == now),
        _compare_commit(run.tags.get("mis.git_commit", UNKNOWN), settings.workspace),
    ]


def _compare_commit(then: str, workspace: Path) -> Compared:
    now = git_commit(workspace)
    # What was changed and not committed is not recorded: two dirty trees need not be the same.
    certain = UNKNOWN not in (then, now) and not any(commit.endswith("-dirty") for commit in (then, now))
    note = "the same code" if certain and then != now and _is_same_code(then, now, workspace) else ""
    return Compared("git commit", then, now, certain and then == now, note)


def _is_same_code(then: str, now: str, workspace: Path) -> bool:
    command = ["git", "-C", str(workspace), "diff", "--quiet", then, now, "--", *CODE]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def compare_params(run: Ended, params: Params) -> list[Compared]:
    """Return the parameters that the run has recorded and of which params.yaml has another value, or none.

    A trial does not record the budget of its search. What a run records beside params.yaml is left alone.
    """
    now = {name: param_text(value) for name, value in params.flatten().items()}
    then = {name: text for name, text in sorted(run.params.items()) if name.split(".")[0] in Params.model_fields}
    pairs = [(name, old, now.get(name, NOTHING)) for name, old in then.items()]
    return [Compared(name, old, new, same=False) for name, old, new in pairs if old != new]


def report(origin: Sequence[Compared], params: Sequence[Compared]) -> str:
    """Return lines for a person: then, and now where that differs."""
    width = max(len(one.name) for one in origin) + 1
    lines = [one.line(width) for one in origin]
    if not params:
        return "\n".join([*lines, f"{'params:':<{width}} the same now"])
    lines.append(f"{'params:':<{width}} {len(params)} differ (then -> now)")
    return "\n".join([*lines, *(f"  {one.line()}" for one in params)])
