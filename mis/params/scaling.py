"""The comparison of the modes: four ways to run a list of trials on several devices."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Scalar, Section

Mode = Literal["data", "experiment", "hybrid", "elastic"]
"""`data`: one trial after another, each on all devices; `experiment`: as many at once as there are devices; `hybrid`:
several at once on several devices each; `elastic`: one device each, and more as others have none."""

MODES: tuple[Mode, ...] = ("data", "experiment", "hybrid", "elastic")


def each_of(mode: Mode, devices: int, hybrid: int | None = None) -> int:
    """Return how many devices a trial of a mode begins with.

    >>> [each_of(mode, 32) for mode in MODES]
    [32, 1, 4, 1]
    """
    each: dict[Mode, int] = {
        "data": devices,
        "experiment": 1,
        "hybrid": min(hybrid or hybrid_devices(devices), devices),
        "elastic": 1,
    }
    return each[mode]


def hybrid_devices(devices: int) -> int:
    """Return the devices of a trial in hybrid mode where none are given: the largest power of two up to the root.

    >>> [hybrid_devices(devices) for devices in (1, 2, 32, 128, 1024)]
    [1, 1, 4, 8, 32]
    """
    power = 1
    while (2 * power) ** 2 <= devices:
        power *= 2
    return power


class ScalingParams(Section):
    """The comparison of the modes."""

    devices: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    """The numbers of devices. 1 is the reference and must be among them."""
    modes: Annotated[tuple[Mode, ...], Field(strict=False, min_length=1)]
    hybrid_devices: Positive | None
    """Devices of each trial in hybrid mode; None: the largest power of two up to the root of the number of devices."""
    epochs: Positive
    rounds: Positive
    """How often every cell is measured; the spread is over these."""
    target_dice: Annotated[float, Field(gt=0, lt=1)] | None
    """Report also after how many seconds the first trial has reached this validation Dice."""
    trials: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False, min_length=1)]
    """The same list for every cell, at least as many as there are devices: each trial is a set of dotted names with
    their values."""

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if 1 not in self.devices or list(self.devices) != sorted(set(self.devices)):
            raise ValueError(f"devices must rise from 1, got {list(self.devices)}")
        if len(self.modes) != len(set(self.modes)):
            raise ValueError(f"modes must be different ones, got {list(self.modes)}")
        if len(self.trials) < max(self.devices):
            raise ValueError(
                f"trials must be at least as many as the {max(self.devices)} devices, got {len(self.trials)}: "
                "with fewer some devices would have nothing to do"
            )
        return self

    @property
    def largest_each(self) -> int:
        """The most devices that a trial must have in a mode."""
        return max(each_of(mode, devices, self.hybrid_devices) for mode in self.modes for devices in self.devices)
