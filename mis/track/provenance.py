"""The origin of a run: machine, versions of packages, git commit, and DVC hash of the data set."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
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
"""The packages whose versions are recorded."""

PACKAGE = Path(__file__).parents[1]
"""The folder of `mis`."""

UNKNOWN = "unknown"
"""The text for a version, commit or hash that cannot be found out."""


def machine() -> dict[str, str]:
    """Return the facts of this machine: host, cpu, cores, memory_gib, os, onednn, and gpus where there are any.

    `cores` are those that this process may use. `onednn` says whether TensorFlow computes with oneDNN on the CPU, which
    on some CPUs is 5 times as fast. The GPUs come from nvidia-smi, because TensorFlow would take seconds and reserve
    the GPUs.
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
    """Return the version of Python and of each package in `PACKAGES`; `unknown` for a package that is not installed."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def git_commit(root: Path) -> str:
    """Return the commit's hash, with `-dirty` if tracked files differ from it; `unknown` outside git.

    Changes of dvc.lock do not count, because DVC rewrites it while the pipeline runs.
    """
    commit = _output_of("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    if not commit:
        return UNKNOWN
    changes = _output_of("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock")
    return f"{commit}-dirty" if changes else commit


def digest_of_sources(files: Iterable[Path]) -> str:
    """Return a digest of files of `mis`: the commit does not tell what is changed and not committed."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run_tags(root: Path) -> dict[str, str]:
    """Return machine, versions and commit as tags: `mis.git_commit`, `mis.version.<package>`, `mis.host`, ...

    MLflow's pages show the tag `mlflow.source.git.commit`, which takes a hash without `-dirty`.
    """
    commit = git_commit(root)
    tags = {f"{MACHINE_PREFIX}{name}": value for name, value in machine().items()}
    tags |= {f"{VERSION_PREFIX}{package}": number for package, number in versions().items()}
    tags |= {GIT_COMMIT_TAG: commit}
    return tags if commit == UNKNOWN else tags | {SOURCE_COMMIT_TAG: commit.removesuffix("-dirty")}


@dataclass(frozen=True)
class Origin:
    """The origin of the runs of a session, recorded with each run.

    Attributes:
        tags: The tags with the machine, the versions, the commit, and the data set's hash.
        data_root: The folder of the data set.
        data_hash: The DVC hash of the data set; None where it is not versioned.
    """

    tags: Mapping[str, str]
    data_root: str
    data_hash: str | None

    def record(self, run: Run) -> None:
        """Record the origin with a run."""
        run.set_tags(self.tags)
        run.log_dataset(Path(self.data_root).name, self.data_hash or "not-versioned", self.data_root)


def find_origin(
    settings: Settings,
    data: DataParams,
    data_hash: str | None,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> Origin:
    """Return the origin of the runs of this session.

    Args:
        settings: The settings of the machine.
        data: The parameters of the data set.
        data_hash: The DVC hash of the files that the records were made from; None where they are not versioned.
        left_out: The cases of the data set that are not used, each with the reason.
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
    """Return the model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _onednn() -> str:
    """Return `on`, `off` or `unknown`, as TensorFlow reads TF_ENABLE_ONEDNN_OPTS; `mis` sets it where it is unset."""
    variable = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    return {"1": "on", "true": "on", "0": "off", "false": "off"}.get(variable, UNKNOWN)


def _gpus() -> str:
    """Return the name and the memory of each GPU, "" where there is none."""
    return "; ".join(_output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def _output_of(*command: str) -> str:
    """Return what a command prints, or "" where the command is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
