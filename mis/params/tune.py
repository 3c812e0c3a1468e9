"""A search."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Fraction, Positive, Scalar, Section, Seed
from mis.params.space import Distribution

STUDY_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
"""A study's name, which is that of its folder."""


class SamplerParams(Section):
    """Who suggests the next configuration (Optuna)."""

    name: Literal["tpe", "random", "grid", "gp", "cmaes", "nsga2"]
    seed: Seed


class SchedulerParams(Section):
    """Who stops a trial early (Optuna's pruners), or changes it (population based training)."""

    name: Literal["none", "asha", "median", "hyperband", "pbt"]
    grace_epochs: Positive
    """No trial is stopped before it has trained this long (asha, median, hyperband)."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """One in this many trials goes on at each rung (asha, hyperband)."""
    interval_epochs: Positive
    """Epochs after which the worst quarter of the trials goes on from the best quarter's weights (pbt)."""


class StartParams(Section):
    """Where a study begins: these trials come first."""

    points: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False)]
    """Values by dotted name; what a point leaves out is suggested."""
    study: Annotated[str, Field(min_length=1)] | None
    """An earlier study's name in MLflow; null for none."""
    best: Positive
    """How many of its best trials."""


class TuneParams(Section):
    """A search over any of the parameters under `model` and `train`."""

    num_samples: Positive
    """Trials of the study; of a grid there are no more than it has points."""
    epochs: Positive
    """Epochs of a trial."""
    hours: Annotated[float, Field(gt=0)] | None
    """The study ends after so long; none for no limit."""
    target_dice: Fraction | None
    """The study ends when a trial has reached this validation Dice; none for no target."""
    devices_per_trial: Annotated[float, Field(ge=0.01)]
    """Devices of each trial; as many trials run at once as there are such shares. A half, a third ... of one: so
    many trials share it, each with its part of a GPU's memory. More than one node has: the trial is spread over
    several."""
    allocation: Literal["fixed", "elastic"]
    """`fixed`: each trial has `devices_per_trial` from its start to its end; `elastic`: it begins with so many, and
    devices that are idle, because no further trial begins, join running trials at the end of an epoch."""
    max_failures: Annotated[int, Field(ge=0)]
    """How often a trial is started again, from its last checkpoint, after its process died or raised an error."""
    stall_s: Annotated[float, Field(gt=0)]
    """Seconds without a step, of training or validation, after which a trial's process is ended. The trial goes on from
    its last checkpoint, and that is one of `max_failures`. Tracing and compiling are part of the first step."""
    keep: Annotated[int, Field(ge=1)]
    """Trials whose models are kept, the best first; of the others the figures remain."""
    retry_oom: bool
    """Whether a trial that has run out of memory is tried again with half the batch. Where its process was ended for
    it, that is one of `max_failures`."""
    data_memory_share: Annotated[float, Field(ge=0, lt=1)]
    """The records are read once into the memory of each node where they fit this share of it, and from the file
    system by each trial otherwise."""
    second_objective: Literal["seconds", "parameters"] | None
    """What is made small while the Dice is made large: seconds of training, or trainable weights; null for nothing."""
    start: StartParams
    sampler: SamplerParams
    scheduler: SchedulerParams
    space: Annotated[dict[str, Distribution], Field(min_length=1)]

    @property
    def devices(self) -> int:
        """Devices that one trial spreads its training over: one, where it has a part of it."""
        return max(1, int(self.devices_per_trial))

    @model_validator(mode="after")
    def _devices_can_be_shared(self) -> Self:
        devices = self.devices_per_trial
        if devices > 1 and devices != int(devices):
            raise ValueError(f"devices_per_trial must be a whole number from 1 on, got {devices:g}")
        if devices < 1 and abs(1 / devices - round(1 / devices)) > 0.01:
            raise ValueError(f"devices_per_trial below 1 must be one part of several, as 0.5 or 0.25, got {devices:g}")
        return self
