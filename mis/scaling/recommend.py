"""Which mode ends a list of trials first on so many devices, by simulation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from mis.errors import MisError
from mis.params.scaling import Mode
from mis.scaling.cost_sets import CostSet
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.pace import CostPace, draw_trials
from mis.scaling.simulate import simulate
from mis.scaling.timeline import Timeline
from mis.scaling.workload import Workload
from mis.tune.allocation import sizes_for

DRAWS = 5
"""How often the durations of the trials are drawn."""

ALIKE = 0.01
"""Modes whose times differ by no more are in the order of their device-hours."""


MOST_TRIALS = 4096
"""Where as many fit, no one asks for more."""


@dataclass(frozen=True)
class Setting:
    """A way to run a list of trials.

    Attributes:
        mode: The mode.
        sizes: The numbers of devices that a trial may have.
    """

    mode: Mode
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """The mode as it is shown."""
        return f"hybrid, {self.sizes[0]} each" if self.mode == "hybrid" else self.mode

    @property
    def params(self) -> str:
        """The parameters to set."""
        if self.mode == "elastic":
            return "tune.allocation=elastic tune.devices_per_trial=1"
        return f"tune.allocation=fixed tune.devices_per_trial={self.sizes[0]}"


@dataclass(frozen=True)
class Advice:
    """What is to be expected of a setting.

    Attributes:
        setting: The setting.
        elapsed_s: Predicted seconds of all trials, the median over the draws.
        low_s: The lowest of the draws, less the error of the costs.
        high_s: The highest of the draws, and the error of the costs.
        device_hours: Hours in which a device has a trial, added up.
        utilisation: The part of the devices' time in which they have one, from 0 to 1.
        fits: How many trials end within the hours that were asked for; None where none were.
    """

    setting: Setting
    elapsed_s: float
    low_s: float
    high_s: float
    device_hours: float
    utilisation: float
    fits: int | None = None

    def row(self) -> dict[str, object]:
        """Return it as a row of a table."""
        rest = {name: value for name, value in asdict(self).items() if name not in ("setting", "fits")}
        fits = {} if self.fits is None else {"trials_in_time": self.fits}
        return {"mode": self.setting.name, **rest, **fits, "set": self.setting.params}


def settings_for(devices: int, workload: Workload) -> list[Setting]:
    """Return the settings that can be had with so many devices: those that a batch cannot be spread over are left out.

    >>> [setting.name for setting in settings_for(4, Workload(10, 2, batch_size=4))]
    ['experiment', 'hybrid, 2 each', 'data', 'elastic']
    """
    powers = [2**power for power in range(devices.bit_length()) if devices % 2**power == 0]
    each = sorted({*powers, devices})
    modes: dict[int, Mode] = {1: "experiment", devices: "data"} if devices > 1 else {1: "experiment"}
    found = [Setting(modes.get(size, "hybrid"), (size,)) for size in each if workload.largest_size(size) == size]
    sizes = sizes_for(workload.batch_size, devices)
    if workload.batch_rule == "fixed_global_batch" and len(sizes) > 1:  # otherwise the batch would change with them
        found.append(Setting("elastic", sizes))
    return found


def recommend(
    costs: CostSet,
    workload: Workload,
    devices: int,
    trials: int,
    *,
    epochs: int,
    spread: float,
    error: float = 0.0,
    hours: float | None = None,
    stopping: EarlyStopping | None = None,
) -> list[Advice]:
    """Return what is to be expected of each setting, the best one first.

    Args:
        costs: The cluster.
        workload: What a trial does in an epoch.
        devices: How many devices there are.
        trials: How many trials are to be run; unlike in a comparison it may be fewer than devices.
        epochs: Epochs of a trial.
        spread: Standard deviation of the logarithm of the trials' durations.
        error: By which part the costs may be wrong: the median residual of their fit.
        hours: The time that there is; None where it is not asked how many trials fit.
        stopping: Who is stopped early; None where nobody is.

    Raises:
        MisError: A number is too small.
    """
    for name, value in (("devices", devices), ("trials", trials), ("epochs", epochs)):
        if value < 1:
            raise MisError(f"--{name} must be at least 1", got=value)
    if hours is not None and hours <= 0:
        raise MisError("--hours must be more than 0", got=f"{hours:g}")
    nodes, pace = costs.nodes(devices), CostPace(costs.costs, workload)

    def run(setting: Setting, count: int, seed: int) -> Timeline:
        return simulate(draw_trials(count, epochs, spread, seed), nodes, pace, setting.sizes, stopping)

    def ends_in_time(setting: Setting, within_h: float, count: int) -> bool:
        return run(setting, count, 0).elapsed_s <= within_h * 3600

    advice = []
    for setting in settings_for(devices, workload):
        runs = [run(setting, trials, seed) for seed in range(DRAWS if spread else 1)]
        elapsed = [timeline.elapsed_s for timeline in runs]
        fits = None if hours is None else _most(partial(ends_in_time, setting, hours))
        advice.append(
            Advice(
                setting=setting,
                elapsed_s=median(elapsed),
                low_s=min(elapsed) * max(0.0, 1 - error),
                high_s=max(elapsed) * (1 + error),
                device_hours=median(timeline.device_s for timeline in runs) / 3600,
                utilisation=median(timeline.utilisation for timeline in runs),
                fits=fits,
            )
        )
    return _ranked(advice)


def _ranked(advice: Sequence[Advice]) -> list[Advice]:
    """Return the quickest first; among those that are as quick, the one with the fewest device-hours."""
    shortest_s = min(one.elapsed_s for one in advice)
    return sorted(
        advice,
        key=lambda one: (max(one.elapsed_s, shortest_s * (1 + ALIKE)), one.device_hours, one.elapsed_s),
    )


def reason(advice: Sequence[Advice], trials: int) -> str:
    """Return in a sentence why the first is the best one."""
    best = advice[0]
    why = {
        "elastic": "each trial has one device while there are enough trials, and idle devices join those that are left",
        "experiment": "no trial waits for all-reduces, and few devices are idle at the end",
        "data": "all devices work on one trial after another, so that none is idle at the end",
        "hybrid": "fewer devices are idle at the end than with one each, and less is lost to all-reduces than with all",
    }[best.setting.mode]
    if len(advice) == 1:
        return f"{best.setting.name}: there is one device, or the batch cannot be spread over more."
    second = min(advice[1:], key=lambda one: one.elapsed_s)
    gain = second.elapsed_s / best.elapsed_s - 1
    if gain <= ALIKE:
        return f"{best.setting.name}: as quick as {second.setting.name} for {trials} trials; {why}."
    doubt = ", which is less than the uncertainty" if second.low_s < best.high_s else ""
    return f"{best.setting.name}: {second.setting.name} would take {gain:.0%} longer{doubt}; {why}."


def _most(fits: Callable[[int], bool]) -> int:
    """Return the largest number of trials that fits, by bisection."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if high > MOST_TRIALS:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
