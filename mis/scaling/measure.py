"""Run the cells of the comparison on a Ray cluster.

Both modes go through the same code: processes that take trials from one list. They differ in how
many processes there are and how many devices each has.
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
    """A trial of a cell, with its times.

    Attributes:
        trial: Its index in the list of trials, from 0.
        begin_s: When it started, in seconds after the start of the cell.
        end_s: When it ended, in seconds after the start of the cell.
        dice: Its best validation Dice: the modes differ in time, not in what they compute.
        epoch_s: Seconds of its last epoch, which has no set-up in it as the first epoch has.
    """

    trial: int
    begin_s: float
    end_s: float
    dice: float
    epoch_s: float


@dataclass(frozen=True)
class MeasuredCell:
    """A cell with its measurement.

    Attributes:
        cell: The cell.
        elapsed_s: From the first trial's start to the last one's end, by the driver's clock.
        startup_s: Seconds before that, in which the processes start and import TensorFlow. The first trial of a
            process takes no longer than the others (13.3 s and 13.2 s were measured): none is spent to warm up.
        trials: Every trial, by its index.
    """

    cell: Cell
    elapsed_s: float
    startup_s: float
    trials: tuple[TimedTrial, ...]


def measure_round(
    workers: Sequence[int], number: int, trials: Sequence[Params], records: Path, shares: Mapping[int, Share]
) -> Iterator[MeasuredCell]:
    """Measure the cells of one round and yield each as it ends.

    Args:
        workers: Numbers of workers.
        number: The number of the round, from 0.
        trials: The parameters of each trial, the same for every cell.
        records: The folder of records.
        shares: The devices of a process, by their number.
    """
    cells = plan_round(workers, number)
    single = [cell for cell in cells if cell.devices == 1]
    with _processes(max(cell.processes for cell in single), shares[1]) as (pool, startup_s):
        for cell in single:
            yield _measure(cell, pool[: cell.processes], startup_s, trials, records)
    for cell in cells:
        if cell.devices > 1:
            with _processes(1, shares[cell.devices]) as (pool, startup_s):
                yield _measure(cell, pool, startup_s, trials, records)


@contextmanager
def _processes(count: int, share: Share) -> Iterator[tuple[list[Any], float]]:
    begun = time.perf_counter()
    cpus, gpus = share.bundle["CPU"], share.bundle.get("GPU", 0)
    pool = [_TrialProcess.options(num_cpus=cpus, num_gpus=gpus).remote(share) for _ in range(count)]  # type: ignore[attr-defined]  # added by ray.remote
    try:
        ray.get([process.ready.remote() for process in pool])
        yield pool, time.perf_counter() - begun
    finally:
        for process in pool:
            ray.kill(process)


def _measure(
    cell: Cell, pool: Sequence[Any], startup_s: float, trials: Sequence[Params], records: Path
) -> MeasuredCell:
    """Let each process take the next trial as soon as it is free."""
    waiting = list(enumerate(trials))
    running: dict[Any, tuple[int, Any, float]] = {}
    done: list[TimedTrial] = []
    begun = time.perf_counter()
    free = list(pool)
    while waiting or running:
        while waiting and free:
            index, params = waiting.pop(0)
            process = free.pop(0)
            running[process.train.remote(params, records)] = (index, process, time.perf_counter() - begun)
        ready, _ = ray.wait(list(running))
        for result in ready:
            index, process, begin_s = running.pop(result)
            done.append(TimedTrial(index, begin_s, time.perf_counter() - begun, *ray.get(result)))
            free.append(process)
    elapsed_s = time.perf_counter() - begun
    return MeasuredCell(cell, elapsed_s, startup_s, tuple(sorted(done, key=lambda timed: timed.trial)))


@ray.remote
class _TrialProcess:
    """A process that trains one trial after another on its devices."""

    def __init__(self, share: Share) -> None:
        from mis.quiet import import_tensorflow

        import_tensorflow()
        self.share = share

    def ready(self) -> None:
        """Return once the process can train."""

    def train(self, params: Params, records: Path) -> tuple[float, float]:
        """Run a trial and return its best validation Dice and the seconds of its last epoch."""
        from mis.train.graph_cache import Networks
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
                networks=Networks(),  # a new cache for each trial: a process that has had more trials would be ahead
            )
        return fitted.best[VAL_DICE], fitted.history[-1][EPOCH_S]
