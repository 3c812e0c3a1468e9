"""A recommendation from its arguments to what is shown: `python -m mis.scaling recommend`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mis.errors import MisError
from mis.params.load import Params
from mis.scaling.calibrate import fit_to_runs, own_records, workload_of
from mis.scaling.cost_sets import CostSet, read_cost_set
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.fit import Fit
from mis.scaling.recommend import Advice, reason, recommend
from mis.scaling.workload import Workload
from mis.settings import Settings
from mis.words import counted, duration

UNKNOWN_SPREAD = 0.3
"""The spread of the trials' durations where no runs tell it, as in the emulation of docs/scaling.md."""


@dataclass(frozen=True)
class Recommendation:
    """What is recommended, and from what.

    Attributes:
        advice: The modes, the best one first.
        trials: How many trials there are.
        costs: The costs.
        fit: How they were fitted; None where they are a file's.
        spread: The spread of the trials' durations.
        stopping: Whether trials are stopped early, in words.
        work: What each trial does, in words.
    """

    advice: Sequence[Advice]
    trials: int
    costs: CostSet
    fit: Fit | None
    spread: float
    stopping: str
    work: str

    def tables(self) -> dict[str, Sequence[Mapping[str, object]]]:
        """Return the tables, by title."""
        count = counted(self.trials, "trial")
        return {
            f"the costs: {self.costs.name}": [{**row, "value": _value(row["value"])} for row in self.costs.rows()],
            f"{count}, the best mode first": [one.row() for one in self.advice],
        }

    def lines(self) -> list[str]:
        """Return what there is to say about them."""
        best = self.advice[0]
        said = [] if self.fit is None else fit_lines(self.fit)
        return [
            *said,
            self.work,
            f"durations of the trials: lognormal with a sigma of {self.spread:.2g}; {self.stopping}",
            f"predicted: {duration(best.elapsed_s)} ({duration(best.low_s)} to {duration(best.high_s)}), "
            f"{best.device_hours:.3g} device-hours",
            reason(self.advice, self.trials),
            f"set: {best.setting.params} tune.num_samples={self.trials}",
        ]

    def to_json(self) -> dict[str, object]:
        """Return the same figures as data."""
        residuals = [] if self.fit is None else self.fit.residuals
        return {
            "trials": self.trials,
            "spread": self.spread,
            "modes": [one.row() for one in self.advice],
            "reason": reason(self.advice, self.trials),
            "costs": {"name": self.costs.name, "parameters": self.costs.rows()},
            "residuals": [{**vars(residual), "error": residual.error} for residual in residuals],
        }


def _value(value: object) -> str:
    return "no limit" if value is None else f"{value:.3g}"


def fit_lines(fit: Fit) -> list[str]:
    """Return how well costs fit the runs, and what these cannot tell."""
    untold = "; ".join(f"{name} ({why})" for name, why in fit.untold.items())
    return [
        f"residuals of the fit: {fit.median_error:.1%} in the median, {fit.largest_error:.1%} at most",
        f"not told by these runs, and assumed: {untold or 'nothing'}",
    ]


def advise(
    params: Params,
    settings: Settings,
    *,
    devices: int,
    devices_per_node: int | None = None,
    trials: int | None = None,
    hours: float | None = None,
    costs: Path | None = None,
    cases: tuple[int, int] | None = None,
    spread: float | None = None,
    early_stopping: bool = False,
) -> Recommendation:
    """Simulate the modes with the costs of this user's own runs, or of a file.

    Args:
        params: The parameters of the search.
        settings: The machine's settings.
        devices: How many devices there are.
        devices_per_node: How many of them a node has; by default all, or what the file says.
        trials: How many trials; by default `tune.num_samples`.
        hours: The time that there is.
        costs: The file of a cost set; by default the costs are fitted to this user's runs.
        cases: Training and validation cases; by default those of the records.
        spread: The spread of the trials' durations; by default that of the runs.
        early_stopping: Whether trials are stopped as ASHA does, with the rungs of `tune.scheduler`.

    Raises:
        MisError: A number is too small, a file is wrong, or there are no runs or records.
    """
    _check(devices, devices_per_node, spread, cases)
    fitted = None
    if costs is not None:
        costed = read_cost_set(costs)
        workload = _workload(params, settings, cases)
    elif cases is not None:
        raise MisError("--cases goes with --costs: the costs of your own runs go with your own records")
    else:
        from mis.track.mlflow import MlflowTracker

        records = own_records(params, settings)
        workload = workload_of(params, records)
        fitted = fit_to_runs(params, records, MlflowTracker(settings), devices)
        costed = fitted.costs
    if devices_per_node is not None:
        costed = replace(costed, devices_per_node=devices_per_node)
    if spread is None:
        spread = UNKNOWN_SPREAD if fitted is None else fitted.spread
    scheduler, number = params.tune.scheduler, params.tune.num_samples if trials is None else trials
    stopping = EarlyStopping(scheduler.grace_epochs, scheduler.reduction_factor) if early_stopping else None
    error = 0.0 if fitted is None else fitted.median_error

    def advised(count: int) -> list[Advice]:
        found = recommend(
            costed,
            workload,
            devices,
            count,
            epochs=params.tune.epochs,
            spread=spread,
            error=error,
            hours=hours,
            stopping=stopping,
        )
        return [one for one in found if one.setting.mode != "elastic" or scheduler.name != "pbt"]

    advice = advised(number)
    if hours is not None and trials is None:  # as many as end in time, in the mode in which most do
        number = max(1, *(one.fits or 0 for one in advice))
        advice = advised(number)
    most = max(size for one in advice for size in one.setting.sizes)
    work = (
        f"each trial: {params.tune.epochs} epochs (tune.epochs), batches of {workload.batch_size} (train.batch_size), "
        f"which can be spread over {counted(most, 'device')} of these at most"
    )
    said = (
        f"trials are stopped as ASHA does, with the rungs of tune.scheduler (grace_epochs {scheduler.grace_epochs}, "
        f"reduction_factor {scheduler.reduction_factor})"
        if early_stopping
        else "no trial is stopped early (--early-stopping: as tune.scheduler has it for asha)"
    )
    return Recommendation(advice, number, costed, fitted, spread, said, work)


def _check(devices: int, devices_per_node: int | None, spread: float | None, cases: tuple[int, int] | None) -> None:
    if devices < 1:
        raise MisError("--devices must be at least 1", got=devices)
    if devices_per_node is not None and devices_per_node < 1:
        raise MisError("--devices-per-node must be at least 1", got=devices_per_node)
    if spread is not None and spread < 0:
        raise MisError("--spread must be at least 0", got=f"{spread:g}")
    if cases is not None and (cases[0] < 1 or cases[1] < 0):
        raise MisError("--cases must be at least 1, and --val-cases at least 0", got=f"{cases[0]} and {cases[1]}")


def _workload(params: Params, settings: Settings, cases: tuple[int, int] | None) -> Workload:
    if cases is None:
        return workload_of(params, own_records(params, settings))
    train = params.train
    return Workload(*cases, train.batch_size, params.distribute.batch_rule, fixed_steps=train.steps_per_epoch)
