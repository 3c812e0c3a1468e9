"""Measure a cell of the comparison: warm, and how long it took to become so."""

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread

from mis.params.load import Params
from mis.scaling.cells import MeasuredCell
from mis.scaling.crew import Crew, Pool
from mis.scaling.plan import Cell, nodes_of
from mis.scaling.schedule import JOIN_S, ListedTrial, Schedule
from mis.tune.allocation import Cluster, Demand, Place, Speeds, assign


def sizes_of_trial(params: Params, cell: Cell) -> tuple[int, ...]:
    """Return the numbers of devices that a trial may have in a cell, rising."""
    if cell.mode != "elastic":
        return (cell.each,)
    return tuple(size for size in range(1, cell.devices + 1) if params.can_be_spread(size))


def first_places(cell: Cell, cluster: Cluster) -> list[Place]:
    """Return where the first trials of a cell begin.

    >>> [place.counts for place in first_places(Cell("hybrid", 4, 2, 0), Cluster((3, 1)))]
    [((0, 2),), ((0, 1), (1, 1))]
    """
    demands = [Demand(number, 1.0, (cell.each,)) for number in range(cell.devices // cell.each)]
    return list(assign(demands, cluster, Speeds(), 0.0).values())


def measure(
    cell: Cell,
    pool: Pool,
    trials: Sequence[Params],
    folder: Path,
    *,
    cases: int,
    target: float | None = None,
    on_epoch: Callable[[], object] = lambda: None,
) -> MeasuredCell:
    """Run the list of trials as a cell has it.

    Args:
        cell: The cell.
        pool: The processes; idle ones that fit are used again.
        trials: The parameters of each trial.
        folder: A folder that all nodes share, for checkpoints, which are removed.
        cases: Training cases of an epoch.
        target: The validation Dice whose time is asked for, if any.
        on_epoch: Called after each epoch.

    Raises:
        MisError: The parameters of a trial are of no use.
        WorkerError: A training failed, or lost its processes too often.
    """
    cluster = Cluster(nodes_of(pool.devices, cell.devices))
    listed = [ListedTrial(params, sizes_of_trial(params, cell)) for params in trials]
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="cell-", dir=folder, ignore_cleanup_errors=True) as own:
        crews = _first_crews(cell, cluster, pool)
        _warm_up(crews, pool, trials, Path(own), cases)
        for crew in crews:
            pool.release(crew)
        cold_s, restart_s = max(crew.cold_s for crew in crews), median(crew.restart_s for crew in crews)
        schedule = Schedule(
            listed, cluster, pool, Path(own), cases=cases, restart_s=restart_s, target=target, on_epoch=on_epoch
        )
        try:
            ran = schedule.run()
        except BaseException:
            pool.dismiss_all()  # before their folder goes
            schedule.join()  # a thread that went on would look for a Ray cluster again
            raise
    return MeasuredCell(cell, cluster.nodes, cold_s, restart_s, ran.trials, ran.stretches, ran.restarts, ran.lost)


def _first_crews(cell: Cell, cluster: Cluster, pool: Pool) -> list[Crew]:
    """Return the processes of the first trials, busy.

    Elastic trials find no others: what they get later is started on the clock, as in a search.
    """
    places = first_places(cell, cluster)
    pool.dismiss_cold()
    if cell.mode == "elastic":
        pool.keep(places)
    return [crew for place in places if (crew := pool.hire(place)) is not None]


def _warm_up(crews: Sequence[Crew], pool: Pool, trials: Sequence[Params], folder: Path, cases: int) -> None:
    """Start processes, and let them trace every network, all at the same time."""
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def warm_up(crew: Crew) -> None:
        error: BaseException | None = None
        try:
            crew.warm_up(trials, folder, cases)
        except BaseException as raised:
            error = raised
        ended.put(error)

    threads = [Thread(target=warm_up, args=(crew,), daemon=True) for crew in crews]
    for thread in threads:
        thread.start()
    try:
        _raise_first(ended, len(crews))
    except BaseException:
        pool.dismiss_all()  # before their folder goes
        raise
    finally:
        for thread in threads:
            thread.join(JOIN_S)


def _raise_first(ended: "SimpleQueue[BaseException | None]", count: int) -> None:
    """Wait until so many threads have ended, and raise the first error of one."""
    for _ in range(count):
        if (error := ended.get()) is not None:
            raise error
