"""The paper's two speed-ups, explained by the cost model; and what is gained on the same cluster, term by term.

Berral et al. (IPDPSW 2022) ran 32 trials on up to 32 V100 and got x12 with data and x14 with experiment parallelism.
The file `clusters/v100.yaml` says of each parameter whether it comes from the paper, is published elsewhere, or is
assumed. Several assumed ones were chosen so that both figures come out: two figures cannot tell them all, so that this
shows that the explanation is possible, and not that it is the only one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mis.params.scaling import Mode
from mis.scaling.cost_sets import CostSet, Origin, read_cost_set
from mis.scaling.curves import SimulatedPoint, point_of
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.pace import CostPace, SimulatedTrial
from mis.scaling.reported import GPUS
from mis.scaling.simulate import simulate, sizes_of
from mis.scaling.workload import Workload

CLUSTER = Path(__file__).parent / "clusters" / "v100.yaml"

EPOCHS = 30
"""Of a trial; assumed, the paper's code has a parameter for it."""

GROUP_NORM_FACTOR = 1.18
"""How much longer a step takes with group norm than with batch norm, which every second trial has; assumed."""

WORKLOAD = Workload(338, 73, batch_size=2, batch_rule="per_replica_batch", drops_remainder=True)
"""The split of the paper's code, its batch of two on each GPU, and the remainder that it drops."""

COMPACT_BYTES = 0.38 * 240 * 240 * 155 * (4 * 2 + 1)
"""Bytes of a record of ours, at most: for the voxels of the brain's box, 38 % of the volume, four modalities in float16
and a byte of regions. Of the box it keeps the brain alone, so that it is smaller (docs/data.md)."""


@dataclass(frozen=True)
class Sensitivity:
    """What becomes of the two speed-ups when a parameter is another one.

    Attributes:
        parameter: Its name.
        times: What it is multiplied with.
        data: The speed-up of data parallelism on 32 GPUs.
        experiment: That of experiment parallelism.
    """

    parameter: str
    times: float
    data: float
    experiment: float


def cluster() -> CostSet:
    """Return the paper's cluster, with where each parameter comes from."""
    return read_cost_set(CLUSTER)


def trials(count: int = GPUS) -> list[SimulatedTrial]:
    """Return the paper's grid: every second trial has group norm."""
    quality = [(7 * number % count) / count for number in range(count)]  # in an order that has nothing to do with norm
    return [
        SimulatedTrial(EPOCHS, GROUP_NORM_FACTOR if number % 2 else 1.0, quality[number]) for number in range(count)
    ]


def explained(costs: CostSet, gpus: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> list[SimulatedPoint]:
    """Return the speed-ups of the paper's two modes on its cluster."""
    return [_point(mode, costs, count) for count in gpus for mode in ("data", "experiment")]


def sensitivities(costs: CostSet) -> list[Sensitivity]:
    """Return the two speed-ups where each assumed parameter that is not 0 is half or twice as large."""
    assumed = [
        name
        for name, origin in costs.origins.items()
        if origin.source == "assumed" and 0 < getattr(costs.costs, name) < float("inf")
    ]
    found = []
    for name in assumed:
        for times in (0.5, 2.0):
            other = replace(costs, costs=replace(costs.costs, **{name: times * getattr(costs.costs, name)}))
            data, experiment = (_point(mode, other, GPUS).speedup for mode in ("data", "experiment"))
            found.append(Sensitivity(name, times, data, experiment))
    return found


def with_records_in_memory(costs: CostSet) -> CostSet:
    """Return the cluster where the records are read once into the memory of each node, as a search does it.

    The 411 cases that are trained on and validated take at most 13 GB (`COMPACT_BYTES`); reading them once is not
    counted, it takes seconds.
    """
    note = "read once into the memory of each node"
    origins = {**costs.origins, "sample_bytes": Origin("assumed", note)}
    return replace(costs, costs=replace(costs.costs, sample_bytes=0.0), origins=origins)


def improvements(costs: CostSet) -> list[tuple[str, SimulatedPoint]]:
    """Return what 32 GPUs reach step by step, each step on top of the one before.

    The speed-up is that against one GPU with the paper's own records and without early stopping.
    """
    single_s = simulate(trials(), (1,), CostPace(costs.costs, WORKLOAD), (1,)).elapsed_s
    compact = replace(costs, costs=replace(costs.costs, sample_bytes=COMPACT_BYTES))
    in_memory = with_records_in_memory(costs)
    # Elastic trials keep their batch, among whose cases the devices are divided.
    ours = replace(WORKLOAD, batch_size=8, batch_rule="fixed_global_batch", drops_remainder=False)
    stopping = EarlyStopping(grace_epochs=3, reduction_factor=3)
    steps: list[tuple[str, Mode, CostSet, Workload, EarlyStopping | None]] = [
        ("the paper: experiment parallelism", "experiment", costs, WORKLOAD, None),
        ("with compact records", "experiment", compact, WORKLOAD, None),
        ("with these in the memory of each node", "experiment", in_memory, WORKLOAD, None),
        ("with elastic allocation", "elastic", in_memory, ours, None),
        ("with early stopping (ASHA)", "elastic", in_memory, ours, stopping),
    ]
    found = []
    for name, mode, on, workload, stops in steps:
        pace = CostPace(on.costs, workload)
        timeline = simulate(trials(), on.nodes(GPUS), pace, sizes_of(mode, GPUS, workload), stops)
        found.append((name, point_of(mode, timeline, GPUS, single_s)))
    return found


def _point(mode: Mode, costs: CostSet, gpus: int) -> SimulatedPoint:
    pace = CostPace(costs.costs, WORKLOAD)
    single_s = simulate(trials(), (1,), pace, (1,)).elapsed_s
    timeline = simulate(trials(), costs.nodes(gpus), pace, sizes_of(mode, gpus, WORKLOAD))
    return point_of(mode, timeline, GPUS, single_s)
