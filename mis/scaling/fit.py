"""The cost model fitted to what trainings have measured: least squares of relative errors, no cost below 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, log2
from statistics import fmean, median, pstdev

import numpy as np
from scipy.optimize import nnls

from mis.errors import MisError
from mis.scaling.cost_sets import CostSet, Origin
from mis.scaling.costs import NAMES, Costs, Load, compact_place, epoch_s
from mis.scaling.observations import Observation
from mis.scaling.workload import Workload
from mis.tune.elastic import RESTART_COST_S
from mis.words import counted

GRADIENT_BYTES = 4
"""Bytes of a weight's gradient, in float32 as the weights are."""

INPUT_LIMIT = 0.05
"""A training that waits for its input for a larger part of a step is taken to be limited by reading."""

Costed = tuple[float, Origin]


@dataclass(frozen=True)
class Residual:
    """An observation beside what the fitted model says of it.

    Attributes:
        name: The training.
        devices: How many devices it had.
        batch_size: Its global batch.
        epoch_s: Measured seconds of an epoch.
        fitted_s: What the model says.
    """

    name: str
    devices: int
    batch_size: int
    epoch_s: float
    fitted_s: float

    @property
    def error(self) -> float:
        """By which part of the measured time the model is too high."""
        return self.fitted_s / self.epoch_s - 1


@dataclass(frozen=True)
class Fit:
    """Costs, and how well they fit.

    Attributes:
        costs: The costs, each with how it was found; what the runs cannot tell is `assumed`, with the reason.
        residuals: One for each observation.
        spread: Standard deviation of the logarithm of what was measured over what was fitted: how unlike trials are.
    """

    costs: CostSet
    residuals: tuple[Residual, ...]
    spread: float

    @property
    def median_error(self) -> float:
        """The median of the residuals, without their sign."""
        return median(abs(residual.error) for residual in self.residuals)

    @property
    def largest_error(self) -> float:
        """The largest of the residuals, without its sign."""
        return max(abs(residual.error) for residual in self.residuals)

    @property
    def untold(self) -> dict[str, str]:
        """What the runs could not tell, with the reason."""
        return {name: origin.note for name, origin in self.costs.origins.items() if origin.source == "assumed"}


def fit(
    observations: Sequence[Observation],
    workload: Workload,
    *,
    sample_bytes: float,
    restart_s: float | None = None,
    devices_per_node: int = 1,
) -> Fit:
    """Fit the cost model.

    Args:
        observations: What trainings have measured.
        workload: The cases of an epoch; its batch is not used.
        sample_bytes: Mean bytes of a record.
        restart_s: Measured seconds of a restart; None where none was.
        devices_per_node: How many devices a node has.

    Raises:
        MisError: There are no observations.
    """
    if not observations:
        raise MisError("costs can be fitted to at least one finished training", got="none")
    found: dict[str, Costed] = {
        **_computing(observations),
        **_all_reduce(observations),
        **_input(observations, sample_bytes, devices_per_node),
        **_beside_steps(observations, workload),
        **_start(observations),
    }
    if restart_s is None:
        found["restart_s"] = RESTART_COST_S, Origin("assumed", "no elastic study has had a restart")
    else:
        found["restart_s"] = restart_s, Origin("measured", "median of elastic studies")
    ordered = {name: found[name] for name in NAMES}
    costs = Costs(**{name: value for name, (value, _) in ordered.items()})
    origins = {name: origin for name, (_, origin) in ordered.items()}
    costed = CostSet(f"fitted to {counted(len(observations), 'run')} in MLflow", costs, origins, devices_per_node)
    residuals = tuple(_residual(observation, costs, workload, devices_per_node) for observation in observations)
    spread = pstdev([log(residual.epoch_s / residual.fitted_s) for residual in residuals])
    return Fit(costed, residuals, spread)


def _readers(observation: Observation, devices_per_node: int) -> int:
    """Return how many devices of a node read at the same time: those of the trainings that ran at once."""
    beside = max(1, devices_per_node // observation.devices)
    return observation.devices * min(observation.at_once, beside)


def _residual(observation: Observation, costs: Costs, workload: Workload, devices_per_node: int) -> Residual:
    fixed = workload.fixed_steps
    own = Workload(workload.cases, workload.validation_cases, observation.batch_size, fixed_steps=fixed)
    devices, readers = observation.devices, _readers(observation, devices_per_node)
    seconds = epoch_s(costs, own, compact_place(devices, (devices,)), Load(readers, readers))
    return Residual(observation.name, devices, observation.batch_size, observation.epoch_s, seconds)


def _fitted(columns: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Return the coefficients, none below 0, by which the columns come nearest to what was measured, relatively."""
    weighted = np.array(columns, float).T / np.array(measured, float)[:, None]
    return [float(value) for value in nnls(weighted, np.ones(len(measured)))[0]]


def _computing(observations: Sequence[Observation]) -> dict[str, Costed]:
    """Return the seconds of a step and of a case, and how replicas wait."""
    singles = [one for one in observations if one.devices == 1] or list(observations)
    batches = [one.batch_size / one.devices for one in singles]
    seconds = [_computing_s(one) for one in singles]
    if len(set(batches)) > 1:
        step_s, sample_s = _fitted([[1.0] * len(singles), batches], seconds)
        step = step_s, Origin("fitted", f"{counted(len(singles), 'run')} with several batches")
    else:
        sample_s = fmean(one / batch for one, batch in zip(seconds, batches, strict=True))
        step = 0.0, Origin("assumed", "no runs with two sizes of the batch: all of a step is counted to its cases")
        step_s = 0.0
    spread = [one for one in observations if one.devices > 1]
    longer = [
        (_computing_s(one) / (step_s + sample_s * one.batch_size / one.devices) - 1) / log2(one.devices)
        for one in spread
        if len(singles) < len(observations)
    ]
    waiting = (
        (max(0.0, median(longer)), Origin("fitted", counted(len(longer), "run")))
        if longer
        else (0.0, Origin("assumed", "no runs on one device and on several"))
    )
    fitted = Origin("fitted", f"{counted(len(singles), 'run')}, on {counted(singles[0].devices, 'device')}")
    return {"step_s": step, "sample_s": (sample_s, fitted), "waiting_share": waiting}


def _computing_s(one: Observation) -> float:
    return one.step_s * (1 - one.input_share - one.communication_share)


def _all_reduce(observations: Sequence[Observation]) -> dict[str, Costed]:
    """Return latency and bandwidth within a node; between nodes the same, because no run says which it had."""
    weights = max(one.weights for one in observations)
    known = Origin("measured", "4 bytes a weight") if weights else Origin("assumed", "no run has its weights")
    gradient_bytes = GRADIENT_BYTES * weights
    spread = [one for one in observations if one.devices > 1 and one.communication_share > 0]
    latency, rate = _ring(spread, gradient_bytes)
    between = Origin("assumed", "as within a node: runs do not say over how many nodes they went")
    return {
        "gradient_bytes": (gradient_bytes, known),
        "all_reduces": (1.0, Origin("assumed", "as if all of them were one")),
        "within_latency_s": latency,
        "within_bytes_per_s": rate,
        "between_latency_s": (latency[0], between),
        "between_bytes_per_s": (rate[0], between),
    }


def _ring(spread: Sequence[Observation], gradient_bytes: float) -> tuple[Costed, Costed]:
    """Return latency and bandwidth of a ring, from runs on several devices."""
    unlimited = inf, Origin("assumed", "no limit was seen")
    if not spread:
        note = "no runs on several devices"
        return (0.0, Origin("assumed", note)), (inf, Origin("assumed", note))
    seconds = [one.step_s * one.communication_share for one in spread]
    messages = [2.0 * (one.devices - 1) for one in spread]
    if len({one.devices for one in spread}) == 1 or not gradient_bytes:
        latency_s = fmean(one / count for one, count in zip(seconds, messages, strict=True))
        return (latency_s, Origin("fitted", "all of the communication: one number of devices")), unlimited
    moved = [count * gradient_bytes / one.devices for one, count in zip(spread, messages, strict=True)]
    latency_s, per_byte_s = _fitted([messages, moved], seconds)
    origin = Origin("fitted", counted(len(spread), "run"))
    return (latency_s, origin), (1 / per_byte_s, origin) if per_byte_s else unlimited


def _input(observations: Sequence[Observation], sample_bytes: float, devices_per_node: int) -> dict[str, Costed]:
    """Return the bytes of a case, and the bandwidth of a node where trainings have waited for their input."""
    limited = [one for one in observations if one.input_share > INPUT_LIMIT]
    most = max(one.input_share for one in observations)
    if limited:
        rates = [
            sample_bytes * one.batch_size / one.step_s * _readers(one, devices_per_node) / one.devices
            for one in limited
        ]
        node = median(rates), Origin("fitted", f"{counted(len(limited), 'run')} that waited for input")
    else:
        node = inf, Origin("assumed", f"no limit was seen: at most {most:.1%} of a step was spent waiting for input")
    shared = inf, Origin("assumed", "one training alone does not tell it")
    origin = Origin("measured", "mean of the records")
    return {"sample_bytes": (sample_bytes, origin), "shared_bytes_per_s": shared, "node_bytes_per_s": node}


def _beside_steps(observations: Sequence[Observation], workload: Workload) -> dict[str, Costed]:
    """Return what an epoch takes beside its steps: the validation, and what does not scale."""
    beside = []
    for one in observations:
        steps = Workload(workload.cases, 0, one.batch_size, fixed_steps=workload.fixed_steps).steps(one.devices)
        beside.append(max(1e-9, one.epoch_s - steps * one.step_s))
    validated = [float(workload.validated(one.devices)) for one in observations]
    written = 0.0, Origin("assumed", "it is part of what an epoch takes beside its steps")
    if len(set(validated)) > 1:
        fixed_s, sample_s = _fitted([[1.0] * len(beside), validated], beside)
        fixed = fixed_s, Origin("fitted", counted(len(beside), "run"))
    else:
        sample_s = fmean(beside) / validated[0] if validated[0] else 0.0
        fixed = 0.0 if validated[0] else fmean(beside), Origin("assumed", "no runs on two numbers of devices")
    validation = sample_s, Origin("fitted", counted(len(beside), "run"))
    return {"epoch_s": fixed, "validation_sample_s": validation, "checkpoint_s": written}


def _start(observations: Sequence[Observation]) -> dict[str, Costed]:
    """Return the seconds of a start, and by how much each device makes it longer."""
    known = [(one.devices, one.start_s) for one in observations if one.start_s is not None]
    singles = [seconds for devices, seconds in known if devices == 1]
    if not known:
        nothing = Origin("assumed", "no run says how long its start took")
        return {"start_s": (0.0, nothing), "start_per_device_s": (0.0, nothing)}
    start_s = median(singles or [seconds for _, seconds in known])
    longer = [(seconds - start_s) / (devices - 1) for devices, seconds in known if devices > 1] if singles else []
    per_device = (
        (max(0.0, median(longer)), Origin("fitted", counted(len(longer), "run")))
        if longer
        else (0.0, Origin("assumed", "no runs on one device and on several"))
    )
    return {"start_s": (start_s, Origin("fitted", counted(len(known), "run"))), "start_per_device_s": per_device}
