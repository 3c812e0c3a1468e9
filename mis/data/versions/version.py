"""`python -m mis.data which`: compare a run's data set, commit and parameters with those that are here now."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mis.data.versions.hashing import content_hash
from mis.errors import MisError
from mis.params.load import Params
from mis.settings import Settings
from mis.track.base import RecordedRun, param_text
from mis.track.mlflow import MlflowTracker
from mis.track.names import DATA_ROOT_TAG, DVC_HASH_TAG, GIT_COMMIT_TAG
from mis.track.provenance import UNKNOWN, git_commit
from mis.track.store import database_path, tracking_uri

NOTHING = "nothing"
"""The value that is shown for a parameter that params.yaml no longer has."""
CODE = ("mis", "pipelines", "dvc.yaml")
"""The paths that a run computes with; results and dvc.lock, which are committed after it, are not among them."""


@dataclass(frozen=True)
class Comparison:
    """A value that a run has recorded, and the value here now.

    Attributes:
        name: What the value is of, e.g. `git commit` or a parameter's name.
        then: The value that the run has recorded.
        now: The value here now.
        same: Whether it is certain that both are the same.
        note: What else is known of a difference; "" for nothing.
    """

    name: str
    then: str
    now: str
    same: bool
    note: str = ""

    def line(self, width: int = 0) -> str:
        """Return the comparison as a line to print, the name with its colon padded to a width."""
        name = f"{self.name + ':':<{width}}"
        if self.same:
            return f"{name} {self.then}  (the same now)"
        if self.then == self.now:
            return f"{name} {self.then}  (then and now: cannot be compared)"
        return f"{name} {self.then} -> {self.now}{self.note and f'  ({self.note})'}"


def find_run(run_id: str, settings: Settings) -> RecordedRun:
    """Return what MLflow has recorded of a run.

    Raises:
        MisError: There is no run of this id.
    """
    uri = tracking_uri(settings)
    is_local = uri.startswith("sqlite:")
    run = None if is_local and not database_path(uri).is_file() else MlflowTracker(settings).read_run(run_id)
    if run is None:
        where = str(database_path(uri)) if is_local else "the MLflow server"
        raise MisError(f"a run must be in {where}", got=run_id, do="copy its id from the run's page: `make ui`")
    return run


def compare_origin(run: RecordedRun, params: Params, settings: Settings) -> list[Comparison]:
    """Compare the data set, its DVC hash and the git commit.

    The hash now is computed from the files of `data.root`: dvc.lock may be older than they are.

    Raises:
        MisError: The run has not recorded where it comes from, or files cannot be read.
    """
    root, then = run.tags.get(DATA_ROOT_TAG), run.tags.get(DVC_HASH_TAG, UNKNOWN)
    if root is None:
        raise MisError(
            "a run must have recorded its data set", got=f"no tag {DATA_ROOT_TAG}", do="name a training's run"
        )
    now = content_hash(settings.workspace, params.data.root) or f"no {params.data.root}"
    return [
        Comparison("data set", root, params.data.root, root == params.data.root),
        Comparison("DVC hash", then, now, then == now),
        _compare_commit(run.tags.get(GIT_COMMIT_TAG, UNKNOWN), settings.workspace),
    ]


def _compare_commit(then: str, workspace: Path) -> Comparison:
    """Compare the git commit; after another commit the code may still be the same."""
    now = git_commit(workspace)
    # Changes that were not committed are not recorded: two dirty trees need not be the same.
    certain = UNKNOWN not in (then, now) and not any(commit.endswith("-dirty") for commit in (then, now))
    note = "the same code" if certain and then != now and _is_same_code(then, now, workspace) else ""
    return Comparison("git commit", then, now, certain and then == now, note)


def _is_same_code(then: str, now: str, workspace: Path) -> bool:
    command = ["git", "-C", str(workspace), "diff", "--quiet", then, now, "--", *CODE]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def compare_params(run: RecordedRun, params: Params) -> list[Comparison]:
    """Return the parameters whose recorded value is not that of params.yaml, or which params.yaml does not have.

    A parameter that the run has not recorded is not compared, as the budget of a search in the run of a trial. Neither
    is what a run records beside the parameters.
    """
    now = {name: param_text(value) for name, value in params.flatten().items()}
    then = {name: text for name, text in sorted(run.params.items()) if name.split(".")[0] in Params.model_fields}
    pairs = [(name, old, now.get(name, NOTHING)) for name, old in then.items()]
    return [Comparison(name, old, new, same=False) for name, old, new in pairs if old != new]


def report(origin: Sequence[Comparison], params: Sequence[Comparison]) -> str:
    """Return the lines to print: each value then, and the value now where it differs."""
    width = max(len(comparison.name) for comparison in origin) + 1
    lines = [comparison.line(width) for comparison in origin]
    if not params:
        return "\n".join([*lines, f"{'params:':<{width}} the same now"])
    lines.append(f"{'params:':<{width}} {len(params)} differ (then -> now)")
    return "\n".join([*lines, *(f"  {comparison.line()}" for comparison in params)])
