"""Where a run comes from: the machine, the versions, the commit, the data's hash."""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import psutil

from mis.params.data import DataParams
from mis.settings import Settings, cores
from mis.track.base import Run
from mis.track.names import (
    DATA_ROOT_TAG,
    DVC_HASH_TAG,
    GIT_COMMIT_TAG,
    LEFT_OUT_TAG,
    MACHINE_PREFIX,
    SOURCE_COMMIT_TAG,
    VERSION_PREFIX,
)

PACKAGES = ("mis", "keras", "tensorflow", "ray", "mlflow", "optuna", "dvc", "numpy")
UNKNOWN = "unknown"


def machine() -> dict[str, str]:
    """Return the facts of this machine: host, cpu, cores, memory_gib, os, onednn, and gpus where there are any.

    `cores` are those that this process may use. `onednn` says whether TensorFlow computes with oneDNN on the CPU, which
    on some CPUs is 5 times as fast. GPUs are asked of nvidia-smi: TensorFlow would take seconds, and reserve them.
    """
    facts = {
        "host": platform.node(),
        "cpu": _cpu(),
        "cores": str(cores()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "os": platform.platform(),
        "onednn": _onednn(),
    }
    return facts | ({"gpus": gpus} if (gpus := _gpus()) else {})


def versions() -> dict[str, str]:
    """Return the version of Python and of each package in `PACKAGES`; `unknown` for one that is not installed."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def git_commit(root: Path) -> str:
    """Return the commit's hash, with `-dirty` if tracked files differ from it; `unknown` outside git.

    dvc.lock does not count: DVC rewrites it while the pipeline runs.
    """
    commit = _output("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    if not commit:
        return UNKNOWN
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock")
    return f"{commit}-dirty" if changes else commit


def run_tags(root: Path) -> dict[str, str]:
    """Return machine, versions and commit as tags: `mis.git_commit`, `mis.version.<package>`, `mis.host`, ...

    `mlflow.source.git.commit` is what MLflow's own pages show; it takes a bare hash.
    """
    commit = git_commit(root)
    tags = {f"{MACHINE_PREFIX}{name}": value for name, value in machine().items()}
    tags |= {f"{VERSION_PREFIX}{package}": number for package, number in versions().items()}
    tags |= {GIT_COMMIT_TAG: commit}
    return tags if commit == UNKNOWN else tags | {SOURCE_COMMIT_TAG: commit.removesuffix("-dirty")}


@dataclass(frozen=True)
class Origin:
    """Where the runs of a session come from; found out once, and recorded with each run.

    Attributes:
        tags: Machine, versions, commit, and the data set's hash.
        data: The data set's folder.
        digest: Its DVC hash; None where it is not versioned.
    """

    tags: Mapping[str, str]
    data: str
    digest: str | None

    def describe(self, run: Run) -> None:
        """Record the origin with a run."""
        run.set_tags(self.tags)
        run.log_dataset(Path(self.data).name, self.digest or "not-versioned", self.data)


def find_origin(
    settings: Settings,
    data: DataParams,
    data_hash: str | None,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> Origin:
    """Find out where the runs of this session come from.

    Args:
        settings: The machine.
        data: The data set.
        data_hash: Its DVC hash, of the files that the records were made from; None where it is not versioned.
        left_out: The cases of it that were not used, with the reason.
    """
    data_tags = {DVC_HASH_TAG: data_hash or UNKNOWN, DATA_ROOT_TAG: data.root}
    if left_out:
        reasons = "; ".join(f"{case or 'data set'}: {reason}" for case, reason in left_out.items())
        names = [case for case in left_out if case]
        data_tags[LEFT_OUT_TAG] = f"{', '.join(names)} ({len(names)}). {reasons}"
    return Origin(run_tags(settings.workspace) | data_tags, data.root, data_hash)


def measured_on(settings: Settings) -> dict[str, object]:
    """Return what a figure's caption needs: the machine, the versions, the commit and the time (UTC)."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    commit = git_commit(settings.workspace)
    return {"machine": machine(), "versions": versions(), "git_commit": commit, "measured_at": now}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _onednn() -> str:
    """Return `on` or `off` as TensorFlow reads its variable, which `mis` sets where it is not; else `unknown`."""
    variable = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    return {"1": "on", "true": "on", "0": "off", "false": "off"}.get(variable, UNKNOWN)


def _gpus() -> str:
    return "; ".join(_output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def _output(*command: str) -> str:
    """Return what a command prints, "" where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
