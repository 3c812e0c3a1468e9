"""The settings of the machine: where MLflow and Ray are, and how many devices may be used.

No setting changes a result; what does is a parameter, in params.yaml.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mis.errors import MisError

ROOT_MARKER = "dvc.yaml"


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in this block: some libraries read them, and processes that are started have them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@dataclass(frozen=True)
class Settings:
    """The machine's settings.

    Attributes:
        root: The project's folder, absolute, which has MLflow's store and the checkpoints.
        workspace: The folder in which this experiment's files are read and written, absolute. It is `root`, except in
            `dvc exp run --temp`, which works on a copy of the repository.
        tracking_uri: MLflow's tracking URI, absolute even for the default SQLite file.
        ray_address: The Ray cluster to join; None starts a local one.
        devices: The most devices that may be used; None means all that there are.
        records_folder: The folder of the preprocessed data set; None for that which the pipeline makes.
        leases: The folder, on this machine's own disk, in which searches note which devices they have.
        offline: Whether a command runs without MLflow's server: what it logs waits in the outbox.
        storage: Where checkpoints, studies and records are kept: a folder, absolute, or `s3://BUCKET/FOLDER`; None for
            the project's folder.
        stage_to: The folder on each node's own disk to which records are copied, as params.yaml has it.
        storage_wait_s: Seconds for which the storage is waited for.
    """

    root: Path
    workspace: Path
    tracking_uri: str
    ray_address: str | None = None
    devices: int | None = None
    records_folder: Path | None = None
    leases: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / f"mis-devices-{os.getuid()}")
    offline: bool = False
    storage: str | None = None
    stage_to: str | None = None
    storage_wait_s: float = 600.0

    @property
    def mlruns(self) -> Path:
        """The folder of MLflow's local store: `mlflow.db` and `artifacts/`."""
        return self.root / "mlruns"

    @property
    def outboxes(self) -> Path:
        """The folder of the outboxes: what is logged and not yet in MLflow's store, see `mis.track.outbox`."""
        return self.mlruns / "outbox"

    @property
    def records(self) -> Path:
        """The folder of the preprocessed data set, by default the output of the stage `preprocess`."""
        return self.records_folder or self.workspace / "data" / "records"

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished trainings, and of studies, which keep their small files; never a DVC output."""
        return (self.shared_folder or self.root) / "checkpoints"

    @property
    def shared_folder(self) -> Path | None:
        """The folder that is the storage, where that is one."""
        return None if self.storage is None or self.is_remote else Path(self.storage)

    @property
    def is_remote(self) -> bool:
        """Whether the storage is on a server, so that nodes need have no folder in common."""
        return self.storage is not None and "://" in self.storage


def find_workspace(start: Path) -> Path:
    """Return the nearest folder with a dvc.yaml among `start` and its parents, or `start` where there is none."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / ROOT_MARKER).is_file()), start)


def load_settings(env: Mapping[str, str] | None = None, start: Path | None = None) -> Settings:
    """Read the settings from environment variables.

    Args:
        env: The variables; `os.environ` by default. Read are MIS_ROOT, DVC_ROOT,
            MLFLOW_TRACKING_URI, RAY_ADDRESS, MIS_DEVICES, MIS_LEASES and MIS_OFFLINE.
        start: Where the search for dvc.yaml begins, upwards; the working directory by default.

    Raises:
        MisError: MIS_DEVICES is not a whole number of at least 1, or MIS_OFFLINE is neither 0 nor 1.
    """
    env = os.environ if env is None else env
    workspace = find_workspace(Path.cwd() if start is None else start)
    # The copy of a temporary experiment is removed: what must be kept goes to the repository that DVC_ROOT names.
    root_name = env.get("MIS_ROOT") or env.get("DVC_ROOT")
    root = Path(root_name).resolve() if root_name else workspace
    devices = env.get("MIS_DEVICES")
    if devices and not (devices.isdecimal() and int(devices) > 0):
        raise MisError(
            "MIS_DEVICES must be a whole number of at least 1",
            got=repr(devices),
            do="unset it to use every device",
        )
    offline = env.get("MIS_OFFLINE") or "0"
    if offline not in ("0", "1"):
        raise MisError("MIS_OFFLINE must be 0 or 1", got=repr(offline), do="unset it to record in MLflow at once")
    settings = Settings(
        root=root,
        workspace=workspace,
        tracking_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlruns' / 'mlflow.db'}",
        ray_address=env.get("RAY_ADDRESS") or None,
        devices=int(devices) if devices else None,
        offline=offline == "1",
    )
    return replace(settings, leases=Path(folder)) if (folder := env.get("MIS_LEASES")) else settings
