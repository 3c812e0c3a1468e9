"""The comparison from its parameters to its runs in MLflow."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from tqdm import tqdm

from mis.data.records.index import Records
from mis.data.records.reader import check_patch, read_records
from mis.data.records.source import RecordsSource, publish
from mis.errors import MisError
from mis.files import exclusive_lock
from mis.params.load import Params
from mis.scaling.cell_store import CellStore
from mis.scaling.cells import MeasuredCell
from mis.scaling.comparison import Comparison
from mis.scaling.crew import Pool
from mis.scaling.measure import measure
from mis.scaling.plan import Cell, plan
from mis.scaling.record import Recorder
from mis.settings import Settings
from mis.track.provenance import PACKAGE, digest_of_sources, find_origin, machine, versions
from mis.track.recording import open_tracker
from mis.track.store import location_of, tracking_uri
from mis.train.allocate import Node, device_counts
from mis.train.batch_rule import for_replicas
from mis.train.cluster import cluster
from mis.train.leases import own_devices
from mis.train.nodes import check_nodes_agree
from mis.train.progress import show_message
from mis.words import counted

Pictures = Callable[[Sequence[MeasuredCell]], Mapping[str, bytes]]
"""Returns pictures of some cells as PNG, by name."""


def compare(params: Params, settings: Settings, pictures: Pictures = lambda cells: {}) -> Comparison:  # noqa: ARG005
    """Measure every mode on every number of devices; one that was interrupted goes on with the cells that are missing.

    Args:
        params: The parameters.
        settings: The machine's settings.
        pictures: Draws the cells that MLflow is to have pictures of: each one by itself, and at the end all.

    Raises:
        MisError: There are no records, fewer devices than are compared, or parameters that do not go together, a node
            has other libraries than this process, or MLflow's server does not answer.
    """
    # Before the cluster starts, so that an error of the input is raised at once.
    records = read_records(settings.records, params.data)
    check_patch(records, params.train.patch_size)
    scaling = params.scaling
    trials = [params.for_trial(values, scaling.epochs) for values in scaling.trials]
    cells = plan(scaling)
    _check(trials, cells)
    with (
        open_tracker(settings) as tracker,
        own_devices(settings, max(scaling.devices), show_message, what="a comparison of modes") as own,
        cluster(settings.ray_address) as nodes,
    ):
        available = _available(nodes, max(scaling.devices), own)
        check_nodes_agree(settings.ray_address, show_message)
        name = _name(params, records, available)
        store = CellStore(settings.checkpoints / f"scaling-{name}")
        origin = find_origin(settings, params.data, records.data_hash, records.left_out)
        refusal = MisError("another comparison is being measured here, and both would disturb each other")
        with exclusive_lock(settings.checkpoints / "scaling.lock", refusal):
            recorder = Recorder(tracker, params, origin, store.name)
            with _recorded(recorder):
                source = publish(records, settings, show_message)
                session = _Session(params, trials, records, source, nodes, available, pictures)
                measured = session.measure(cells, store, recorder)
                comparison = Comparison(measured, scaling.epochs, params.train.batch_size)
                recorder.end(comparison, pictures(measured))
            store.remove()
    return comparison


def location(settings: Settings) -> str:
    """Return one line that tells a person where a comparison's runs are."""
    return location_of(tracking_uri(settings))


@contextmanager
def _recorded(recorder: Recorder) -> Iterator[None]:
    recorder.start()
    try:
        yield
    except BaseException as error:
        try:
            recorder.stop("FAILED" if isinstance(error, Exception) else "KILLED")
        except Exception as unrecorded:  # what ended the comparison is what the user is to see
            show_message(f"MLflow could not be told that the comparison has ended: {unrecorded}")
        show_message("the cells that have ended are kept: the same command goes on with the others")
        raise


def _check(trials: Sequence[Params], cells: Sequence[Cell]) -> None:
    """Check that the trials can be run in every cell.

    Raises:
        MisError: A batch cannot be spread over so many devices, or would change with the devices of an elastic trial.
    """
    for number, trial in enumerate(trials):
        for each in sorted({cell.each for cell in cells}):
            trial.check_spread("the devices of a trial", each, f"scaling.trials[{number}]")
        if trial.distribute.batch_rule != "fixed_global_batch" and any(cell.mode == "elastic" for cell in cells):
            raise MisError(
                "scaling.modes may have elastic with distribute.batch_rule fixed_global_batch alone: a trial's batch "
                "would change with its devices",
                got=trial.distribute.batch_rule,
                do="leave elastic out, or take the other rule",
            )


def _available(nodes: Sequence[Node], most: int, settings: Settings) -> tuple[int, ...]:
    """Return how many devices of each node may be used.

    Raises:
        MisError: There are fewer than are compared.
    """
    counts = device_counts(nodes)
    there = min(sum(counts), settings.devices or sum(counts))
    if most > there:
        raise MisError(f"scaling.devices must be at most {there}, the devices that there are", got=most)
    return tuple(counts)


def _name(params: Params, records: Records, available: Sequence[int]) -> str:
    """Return the name of a comparison: another one with other parameters, records, devices, code or machine."""
    facts = {"machine": machine(), "versions": versions(), "code": digest_of_sources(sorted(PACKAGE.rglob("*.py")))}
    sections = params.model_dump(mode="json", include={"data", "model", "train", "distribute", "scaling"})
    text = json.dumps([facts, sections, records.digest, list(available)], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Session:
    """What the cells of a comparison have in common.

    Attributes:
        params: All parameters.
        trials: Those of each trial.
        records: The records.
        source: Where every node finds them.
        nodes: The nodes of the cluster.
        available: How many devices of each may be used.
        pictures: Draws what MLflow gets.
    """

    params: Params
    trials: Sequence[Params]
    records: Records
    source: RecordsSource
    nodes: Sequence[Node]
    available: Sequence[int]
    pictures: Pictures

    def measure(self, cells: Sequence[Cell], store: CellStore, recorder: Recorder) -> list[MeasuredCell]:
        """Measure the cells that have not been yet, and return all."""
        done = {cell: found for cell in cells if (found := store.read(cell)) is not None}
        if done:
            show_message(f"{len(done)} of {counted(len(cells), 'cell')} were measured before; going on with the others")
        for measured in done.values():  # the process may have died before MLflow had it
            recorder.cell(measured, self.pictures([measured]))
        epochs = len(self.trials) * self.params.scaling.epochs
        split = self.records.split_for(self.params.train)
        with (
            tqdm(total=len(cells) * epochs, initial=len(done) * epochs, desc="scaling", unit="epoch") as bar,
            Pool(self.nodes, self.available, self.source, show_message) as pool,
        ):
            for cell in (cell for cell in cells if cell not in done):
                bar.set_postfix_str(cell.name)
                train = for_replicas(self.params.train, self.params.distribute, cell.each)
                done[cell] = measured = measure(
                    cell,
                    pool,
                    self.trials,
                    store.folder,
                    cases=train.cases_of_epoch(len(split.train)),
                    target=self.params.scaling.target_dice,
                    on_epoch=bar.update,
                )
                show_message(
                    f"{cell.name}, round {cell.round + 1}: {measured.elapsed_s:.1f} s after a cold start of "
                    f"{measured.cold_s:.1f} s"
                )
                store.write(measured)
                recorder.cell(measured, self.pictures([measured]))
        return [done[cell] for cell in cells]
