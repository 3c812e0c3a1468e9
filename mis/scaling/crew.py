"""The processes that train the trials of the comparison: started before the clock, and kept from cell to cell."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mis.data.records.source import RecordsSource
from mis.errors import WorkerError
from mis.params.load import Params
from mis.track.names import SAMPLES_PER_S
from mis.train.allocate import Node, Share, bundle_of, threads_per_device
from mis.train.checkpoint import Checkpoints, History
from mis.train.gang import Gang
from mis.train.heartbeat import WorkerLostError
from mis.train.trial_worker import train_as_worker
from mis.tune.allocation import Place


@dataclass
class Crew:
    """The processes of a place, which train one trial after another.

    Attributes:
        place: Their devices.
        nodes: The nodes of the cluster.
        records: Where the records are.
        say: Takes a line for the user.
        lanes: The numbers of their devices on each node; which these are matters on CPU alone, where they are cores.
        busy: Whether a trial has them.
        dismissed: Whether they are to start nothing any more.
        cold_s: Seconds in which they were started and had their first epochs; 0 where that was on the clock.
        start_s: Seconds of their start.
        trace_s: Seconds of the first epoch of each network beyond its steps.
    """

    place: Place
    nodes: Sequence[Node]
    records: RecordsSource
    say: Callable[[str], None]
    lanes: Mapping[int, Sequence[int]]
    busy: bool = False
    dismissed: bool = False
    cold_s: float = 0.0
    start_s: float = 0.0
    trace_s: list[float] = field(default_factory=list)
    _gang: Gang | None = field(default=None, repr=False)
    _traced: set[str] = field(default_factory=set, repr=False)

    @property
    def restart_s(self) -> float:
        """Seconds of a start and of tracing a network."""
        return self.start_s + (median(self.trace_s) if self.trace_s else 0.0)

    def warm_up(self, trials: Sequence[Params], folder: Path, cases: int) -> None:
        """Start the processes, and let them have an epoch of each network that they have not traced yet.

        Args:
            trials: The parameters of the trials that they may get.
            folder: A folder that all nodes share, for what a training writes.
            cases: Training cases of an epoch.

        Raises:
            WorkerError: The processes were lost again and again.
        """
        begun = time.perf_counter()
        networks = {network: params for params in trials if (network := network_of(params)) not in self._traced}
        if not networks:
            return
        allowed = trials[0].distribute.max_restarts
        for restarts in range(allowed + 1):
            try:
                self._trace(networks, folder, cases)
                break
            except WorkerLostError as lost:
                if self.dismissed:
                    raise
                self._end()
                if restarts == allowed:
                    raise WorkerError(
                        f"{lost}; that was tried {allowed + 1} times, as distribute.max_restarts allows"
                    ) from None
                self.say(f"{lost}; starting it again")
        self.cold_s += time.perf_counter() - begun

    def _trace(self, networks: Mapping[str, Params], folder: Path, cases: int) -> None:
        begun = time.perf_counter()
        if self._gang is None:
            self._started().prepare()
            self.start_s, self.trace_s = time.perf_counter() - begun, []
        keep = len(networks) + len(self._traced)
        for network, params in networks.items():
            begun, last = time.perf_counter(), dict[str, float]()

            def note(history: History, last: dict[str, float] = last) -> bool:
                last.update(history[-1])
                return True

            with TemporaryDirectory(prefix="warm-up-", dir=folder, ignore_cleanup_errors=True) as own:
                checkpoints = Checkpoints(Path(own))
                self.train(params.for_trial({}, 1), checkpoints, note, keep)
            self.trace_s.append(time.perf_counter() - begun - cases / last[SAMPLES_PER_S])
            self._traced.add(network)

    def train(
        self,
        params: Params,
        checkpoints: Checkpoints,
        on_epoch: Callable[[History], bool],
        keep_networks: int = 1,
    ) -> None:
        """Train a trial, or go on with it from its checkpoint.

        Args:
            params: All parameters, with the trial's values.
            checkpoints: The trial's checkpoints.
            on_epoch: Takes the metrics of all epochs so far, after each epoch; returns whether the trial goes on.
            keep_networks: How many traced networks the processes must keep for later trials.

        Raises:
            WorkerLostError: A process was lost. The crew is of no more use; the trial can go on with another.
            MisError: The parameters are of no use.
            WorkerError: The training failed, or a node of the place is gone.
        """
        gang = self._started()
        work = partial(
            train_as_worker,
            params=params,
            records=self.records,
            checkpoints=checkpoints,
            keep_networks=keep_networks,
            bound_to=self._bound_to(),
        )
        limits = params.distribute
        gang.run(work, limits.heartbeat_s, limits.stall_s, lambda history: gang.answer(on_epoch(history)))

    def _started(self) -> Gang:
        """Return the processes; a first call starts them."""
        if self.dismissed:
            raise WorkerError("these processes were dismissed")
        if self._gang is None:
            place, names = self.place, [self.nodes[node].name for node in self.place.process_nodes]
            each = place.devices_per_process
            share = Share(each, threads_per_device(self.nodes), 1, bundle_of(self.nodes, each), processes=len(names))
            # Known before it is entered, so that another thread can end it while it waits for devices.
            self._gang = Gang(len(names), share, self.say, together=len(names) > 1, node_names=names)
            self._gang.__enter__()
        return self._gang

    def _bound_to(self) -> list[Sequence[int]]:
        """Return the numbers of the devices of each process, by rank; none on GPUs, which need no binding."""
        if any(node.gpus for node in self.nodes):
            return []
        each, left = self.place.devices_per_process, {node: list(lanes) for node, lanes in self.lanes.items()}
        return [[left[node].pop(0) for _ in range(each)] for node in self.place.process_nodes]

    def process_ids(self) -> list[int]:
        """Return the id of each process on its node; none before they were started."""
        return [] if self._gang is None else self._gang.process_ids()

    def dismiss(self) -> None:
        """End the processes for good."""
        self.dismissed = True
        self._end()

    def _end(self) -> None:
        if self._gang is not None:
            self._gang.__exit__()
            self._gang = None
            self._traced.clear()


def network_of(params: Params) -> str:
    """Return what trials that share a traced network have in common."""
    return repr((params.model, params.train.in_the_graph()))


class Pool:
    """The crews on the devices of a cluster; at the end of the `with` block all are dismissed.

    Attributes:
        nodes: The nodes of the cluster.
        devices: How many devices each node has.
        records: Where the records are.
        say: Takes a line for the user.
        crews: The crews that there are.
    """

    def __init__(
        self, nodes: Sequence[Node], devices: Sequence[int], records: RecordsSource, say: Callable[[str], None]
    ) -> None:
        self.nodes = nodes
        self.devices = devices
        self.records = records
        self.say = say
        self.crews: list[Crew] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.dismiss_all()

    def dismiss_all(self) -> None:
        """End all crews."""
        for crew in list(self.crews):
            self.dismiss(crew)

    def dismiss_cold(self) -> None:
        """Dismiss the crews that were started on a clock: how long they take to become warm is not known."""
        for crew in [crew for crew in self.crews if not crew.cold_s]:
            self.dismiss(crew)

    def keep(self, places: Sequence[Place]) -> None:
        """Dismiss all crews but one for each of some places."""
        wanted = list(places)
        for crew in list(self.crews):
            if crew.place in wanted:
                wanted.remove(crew.place)
            else:
                self.dismiss(crew)

    def hire(self, place: Place) -> Crew | None:
        """Return an idle crew at a place, if need be a new one in place of idle ones; None while others are busy there.

        The crew is busy from then on, until `release`.
        """
        found = next((crew for crew in self.crews if crew.place == place and not crew.busy), None)
        if found is None:
            if any(self._on(node, busy=True) + count > self.devices[node] for node, count in place.counts):
                return None
            for node, count in place.counts:
                self._make_room(node, count)
            lanes = {node: self._free_lanes(node)[:count] for node, count in place.counts}
            found = Crew(place, self.nodes, self.records, self.say, lanes)
            self.crews.append(found)
        found.busy = True
        return found

    def release(self, crew: Crew) -> None:
        """Note that a crew is idle."""
        crew.busy = False

    def dismiss(self, crew: Crew) -> None:
        """End a crew."""
        self.crews.remove(crew)
        crew.dismiss()

    def _on(self, node: int, *, busy: bool = False) -> int:
        """Return how many devices of a node crews have, or busy ones alone."""
        crews = [crew for crew in self.crews if crew.busy or not busy]
        return sum(dict(crew.place.counts).get(node, 0) for crew in crews)

    def _free_lanes(self, node: int) -> list[int]:
        """Return the numbers of those devices of a node that no crew has."""
        taken = {lane for crew in self.crews for lane in crew.lanes.get(node, ())}
        return [lane for lane in range(self.devices[node]) if lane not in taken]

    def _make_room(self, node: int, count: int) -> None:
        """Dismiss idle crews of a node until so many of its devices are free."""
        while self._on(node) + count > self.devices[node]:
            crew = next(crew for crew in self.crews if not crew.busy and node in dict(crew.place.counts))
            self.dismiss(crew)
