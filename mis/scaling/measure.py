"""Run the cells of the comparison on a Ray cluster.

Both modes run the same code: processes that take trials from a common list. They differ in how many processes there are
and how many devices each process has.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray

from mis.data.records.reader import read_records
from mis.params.load import Params
from mis.scaling.plan import Cell, plan_round
from mis.track.names import EPOCH_S, VAL_DICE
from mis.train.allocate import Share
from mis.train.checkpoint import Checkpoints


@dataclass(frozen=True)
class TimedTrial:
    """A trial of a measurement, with its times.

    Attributes:
        trial: The index of the trial in the list of trials, from 0.
        begin_s: When it started, in seconds after the start of the measurement.
        end_s: When it ended, in seconds after the start of the measurement.
        dice: The best validation Dice, 0 to 1: the modes differ in time, not in what they compute.
        epoch_s: Seconds of the last epoch, which includes no set-up, as the first epoch does.
    """

    trial: int
    begin_s: float
    end_s: float
    dice: float
    epoch_s: float


@dataclass(frozen=True)
class Measurement:
    """The times of a cell.

    Attributes:
        cell: The cell that was measured.
        elapsed_s: Seconds from the first trial's start to the last trial's end, by the driver's clock.
        startup_s: Seconds before that, in which the processes start and import TensorFlow. The first trial of a
            process takes no longer than the others (13.3 s and 13.2 s were measured): there is no trial to warm up.
        trials: All trials, in the order of the list.
    """

    cell: Cell
    elapsed_s: float
    startup_s: float
    trials: tuple[TimedTrial, ...]


def measure_round(
    workers: Sequence[int], round_number: int, trials: Sequence[Params], records: Path, shares: Mapping[int, Share]
) -> Iterator[Measurement]:
    """Measure the cells of a round and yield each measurement as it ends.

    Args:
        workers: The numbers of workers that are compared.
        round_number: The number of the round, from 0.
        trials: The parameters of each trial; every cell runs all of them.
        records: The folder of records.
        shares: For each number of devices that a process may have, its share of the cluster.
    """
    cells = plan_round(workers, round_number)
    single_device = [cell for cell in cells if cell.devices == 1]
    with _processes(max(cell.processes for cell in single_device), shares[1]) as (pool, startup_s):
        for cell in single_device:
            yield _measure(cell, pool[: cell.processes], startup_s, trials, records)
    for cell in cells:
        if cell.devices > 1:
            with _processes(1, shares[cell.devices]) as (pool, startup_s):
                yield _measure(cell, pool, startup_s, trials, records)


@contextmanager
def _processes(count: int, share: Share) -> Iterator[tuple[list[Any], float]]:
    """Start processes that have the same share of the cluster, and yield them and the seconds that this has taken."""
    begun = time.perf_counter()
    cpus, gpus = share.bundle["CPU"], share.bundle.get("GPU", 0)
    pool = [_TrialProcess.options(num_cpus=cpus, num_gpus=gpus).remote(share) for _ in range(count)]  # type: ignore[attr-defined]  # added by ray.remote
    try:
        ray.get([process.ready.remote() for process in pool])
        yield pool, time.perf_counter() - begun
    finally:
        for process in pool:
            ray.kill(process)


def _measure(cell: Cell, pool: Sequence[Any], startup_s: float, trials: Sequence[Params], records: Path) -> Measurement:
    """Run all trials: each process takes the next trial of the list as soon as it is idle."""
    waiting = list(enumerate(trials))
    running: dict[Any, tuple[int, Any, float]] = {}
    ended: list[TimedTrial] = []
    begun = time.perf_counter()
    idle = list(pool)
    while waiting or running:
        while waiting and idle:
            index, params = waiting.pop(0)
            process = idle.pop(0)
            running[process.train.remote(params, records)] = (index, process, time.perf_counter() - begun)
        ready, _ = ray.wait(list(running))
        for result in ready:
            index, process, begin_s = running.pop(result)
            ended.append(TimedTrial(index, begin_s, time.perf_counter() - begun, *ray.get(result)))
            idle.append(process)
    elapsed_s = time.perf_counter() - begun
    return Measurement(cell, elapsed_s, startup_s, tuple(sorted(ended, key=lambda timed: timed.trial)))


@ray.remote
class _TrialProcess:
    """A process that runs trials on its devices, each after the other."""

    def __init__(self, share: Share) -> None:
        from mis.quiet import import_tensorflow

        import_tensorflow()
        self.share = share

    def ready(self) -> None:
        """Return when the process can run a trial."""

    def train(self, params: Params, records: Path) -> tuple[float, float]:
        """Run a trial and return its best validation Dice and the seconds of its last epoch."""
        from mis.train.graph_cache import GraphCache
        from mis.train.trial import run_trial

        with TemporaryDirectory(prefix="mis-trial-") as folder:
            checkpoints = Checkpoints(Path(folder))
            cases = read_records(records)
            fitted = run_trial(
                params,
                self.share,
                cases,
                checkpoints,
                report=lambda history: None,  # noqa: ARG005
                graph_cache=GraphCache(),  # a new cache for each trial: a process with more trials would gain more
            )
        return fitted.best[VAL_DICE], fitted.history[-1][EPOCH_S]
