"""What a recommendation is made from: this user's own runs, or a short search that measures what is missing."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mis.data.records.index import Records
from mis.data.records.prepare import find_records
from mis.data.records.reader import read_records, size_bytes
from mis.errors import MisError
from mis.params.load import Params
from mis.scaling.fit import Fit, fit
from mis.scaling.observations import observe, observed_restart_s
from mis.scaling.workload import Workload
from mis.settings import Settings
from mis.track.base import RunStore
from mis.tune.allocation import sizes_for

EPOCHS = 3
"""Of a calibration's trials: the first one traces, the last one is measured."""

TRIALS = 2
"""Of a calibration on each number of devices."""


def own_records(params: Params, settings: Settings) -> Records:
    """Return the records that trainings with these parameters read.

    Raises:
        MisError: There are none.
    """
    folder = find_records(params.data, settings, make=False)
    if folder is None:
        raise MisError("there are no records for these parameters", do="make them with `dvc repro preprocess`")
    return read_records(folder)


def workload_of(params: Params, records: Records) -> Workload:
    """Return what a trial with these parameters does in an epoch."""
    split = records.split_for(params.train)
    return Workload(
        params.train.cases_of_epoch(len(split.train)),
        len(split.val),
        params.train.batch_size,
        params.distribute.batch_rule,
        fixed_steps=params.train.steps_per_epoch,
    )


def fit_to_runs(params: Params, records: Records, tracker: RunStore, devices_per_node: int) -> Fit:
    """Fit the costs to this user's runs in MLflow.

    Raises:
        MisError: There are none with these records and parameters.
    """
    observations = observe(params, tracker, records.digest)
    if not observations:
        raise MisError(
            "recommend is made from finished trials in MLflow with the same records, data, model and train parameters",
            got="none",
            do=f"add --calibrate, which runs {TRIALS} trials of {EPOCHS} epochs on one device and on several; or give "
            "the costs of another cluster with --costs FILE",
        )
    cases = len(records.split.train) + len(records.split.val)
    return fit(
        observations,
        workload_of(params, records),
        sample_bytes=size_bytes(records) / cases,
        restart_s=observed_restart_s(tracker),
        devices_per_node=devices_per_node,
    )


def calibration_sizes(batch_size: int, available: int) -> list[int]:
    """Return the numbers of devices that a calibration measures: one, and the doublings that divide the batch.

    >>> calibration_sizes(12, available=8)
    [1, 2, 4]
    """
    return [size for size in sizes_for(batch_size, available) if size & (size - 1) == 0]


def calibration(params: Params, devices: int, name: str) -> list[str]:
    """Return the arguments of the search that measures trials on so many devices."""
    values = {
        "tune.allocation": "fixed",
        "tune.devices_per_trial": devices,
        "tune.num_samples": TRIALS,
        "tune.epochs": EPOCHS,
        "tune.hours": "null",
        "tune.target_dice": "null",
        "tune.start.study": "null",
        "tune.keep": 1,
        "tune.second_objective": "null",
        "tune.sampler.name": "random",
        "tune.scheduler.name": "none",
        "train.batch_size": params.train.batch_size,
    }
    return [
        "-m",
        "mis.tune",
        "--name",
        name,
        *(part for key, value in values.items() for part in ("--set", f"{key}={value}")),
    ]


def calibrate(
    params: Params, settings: Settings, *, params_file: Path | None = None, overrides: Sequence[str] = ()
) -> None:
    """Run short searches on the devices at hand, on one device for each trial and on several; MLflow has them after.

    Each is a process of its own, because TensorFlow's devices are chosen once in a process.

    Raises:
        MisError: One of them failed, or no training can be measured here.
    """
    from mis.train.allocate import device_counts
    from mis.train.cluster import cluster

    with cluster(settings.ray_address) as nodes:
        available = sum(device_counts(nodes))
    available = min(available, settings.devices or available)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for devices in calibration_sizes(params.train.batch_size, available):
        given = ["--params", str(params_file)] if params_file is not None else []
        own = [part for value in overrides for part in ("--set", value)]
        # What the user has set comes first: the calibration's own values are for its trials.
        search = calibration(params, devices, f"calibration-{stamp}-{devices}")
        command = [sys.executable, *search[:4], *given, *own, *search[4:]]
        if subprocess.run(command, cwd=settings.workspace, check=False).returncode:
            raise MisError(
                "the calibration failed", got=" ".join(["python", *command[1:5]]), do="see its message above"
            )
