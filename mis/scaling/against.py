"""The simulator against what was measured or emulated: its error is published with its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mis.errors import MisError
from mis.files import read_json
from mis.params.scaling import Mode
from mis.scaling.pace import MeasuredPace, SimulatedTrial
from mis.scaling.simulate import simulate, sizes_of
from mis.scaling.workload import Workload

Seconds = Annotated[float, Field(gt=0)]


class MeasuredRun(BaseModel):
    """A list of trials that was run, as the benchmarks write it with `--json`; other keys are left alone.

    Attributes:
        mode: The mode.
        devices: How many devices there were.
        hybrid: How many devices a trial has had, in a mode that does not change it.
        nodes: How many devices each node has.
        trials: Seconds of the epochs of each trial on one device.
        epochs: Epochs of each trial.
        batch_size: Cases of a step over all devices.
        speeds: How many times faster a trial is on so many devices.
        restart_s: Seconds of a restart.
        elapsed_s: Seconds of the whole list.
    """

    model_config = ConfigDict(frozen=True)

    mode: Mode
    devices: Annotated[int, Field(gt=0)]
    hybrid: Annotated[int, Field(gt=0)]
    nodes: Annotated[tuple[int, ...], Field(min_length=1)]
    trials: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    epochs: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)]
    speeds: dict[int, float]
    restart_s: Annotated[float, Field(ge=0)]
    elapsed_s: Seconds


class _MeasuredRuns(BaseModel):
    runs: Annotated[tuple[MeasuredRun, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Comparison:
    """A run beside its simulation.

    Attributes:
        mode: The mode.
        devices: How many devices.
        elapsed_s: Seconds that it took.
        simulated_s: Seconds that the simulator says.
    """

    mode: Mode
    devices: int
    elapsed_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """By which part of the time that it took the simulator is too high."""
        return self.simulated_s / self.elapsed_s - 1


def read_runs(path: Path) -> Sequence[MeasuredRun]:
    """Read what a benchmark has written.

    Raises:
        MisError: The file is not there, or is no such file.
    """
    try:
        return _MeasuredRuns.model_validate(read_json(path)).runs
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise MisError(
            "--against takes a file that `python -m mis.scaling measure`, benchmarks/modes.py or "
            f"benchmarks/orchestration.py has written with --json: {reason}",
            got=path,
        ) from None


def compare_with(run: MeasuredRun) -> Comparison:
    """Simulate a run: the same trials on the same devices."""
    trials = [SimulatedTrial(run.epochs, seconds / run.epochs) for seconds in run.trials]
    pace = MeasuredPace(run.speeds, restart_seconds=run.restart_s)
    sizes = sizes_of(run.mode, run.devices, Workload(1, 0, run.batch_size), run.hybrid)
    return Comparison(run.mode, run.devices, run.elapsed_s, simulate(trials, run.nodes, pace, sizes).elapsed_s)
