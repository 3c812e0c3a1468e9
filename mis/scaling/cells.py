"""What the cells of the comparison have taken, as values."""

from dataclasses import dataclass

from mis.scaling.plan import Cell
from mis.scaling.timeline import Stretch, Timeline


@dataclass(frozen=True)
class TimedTrial:
    """A trial that has ended.

    Attributes:
        trial: Its place in the list, from 0.
        begin_s: When it began, in seconds after the start of the clock.
        end_s: When it ended.
        epochs: How many epochs it had.
        dice: Its best validation Dice, from 0 to 1: the modes differ in time, not in what they compute.
        reached_s: When it had reached the target Dice, None where it has not or where there is no target.
        devices: How many devices the epoch was spread over that the following are of: its last one, but for epochs that
            came first after a start, if there are others.
        epoch_s: Seconds of that epoch, its validation included.
        training_s: Seconds of its steps; what is left is validation.
        input_share: The part of a step in which it waited for its batch, from 0 to 1.
        communication_share: The part of a step that all-reduces took, from 0 to 1.
        beside_s: Seconds of the trial outside of its epochs: set-up, checkpoints, reports, restarts.
    """

    trial: int
    begin_s: float
    end_s: float
    epochs: int
    dice: float
    reached_s: float | None
    devices: int
    epoch_s: float
    training_s: float
    input_share: float
    communication_share: float
    beside_s: float


@dataclass(frozen=True)
class MeasuredCell:
    """What a cell has taken.

    Attributes:
        cell: The cell.
        nodes: How many devices of each node it had.
        cold_s: Seconds before the clock, in which the processes of the first trials were started and had an epoch of
            each network, which traces it.
        restart_s: Seconds that such a process took to start and to trace a network: what a restart is taken to cost.
        trials: The trials, in the order of the list.
        stretches: Which of them had which devices when, in seconds after the start of the clock.
        restarts: How often a trial was given other devices.
        lost: How often a process was lost.
    """

    cell: Cell
    nodes: tuple[int, ...]
    cold_s: float
    restart_s: float
    trials: tuple[TimedTrial, ...]
    stretches: tuple[Stretch, ...]
    restarts: int = 0
    lost: int = 0

    @property
    def timeline(self) -> Timeline:
        """Who had which devices when."""
        return Timeline(self.nodes, self.stretches)

    @property
    def elapsed_s(self) -> float:
        """Seconds of the whole list, from the start of the clock."""
        return max(trial.end_s for trial in self.trials)

    @property
    def target_s(self) -> float | None:
        """When the first trial had reached the target Dice; None where none has, or where there is no target."""
        return min((trial.reached_s for trial in self.trials if trial.reached_s is not None), default=None)
