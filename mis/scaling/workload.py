"""What one trial does in an epoch: how many cases, in batches of which size, on however many devices."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from mis.tune.allocation import sizes_for

BatchRule = Literal["fixed_global_batch", "per_replica_batch"]


@dataclass(frozen=True)
class Workload:
    """An epoch of a trial.

    Attributes:
        cases: Training cases of an epoch.
        validation_cases: Cases that are validated after each epoch.
        batch_size: `train.batch_size`: cases of a step over all devices together, or with `per_replica_batch` on each.
        batch_rule: `distribute.batch_rule`.
        drops_remainder: Whether the cases that do not fill the last batch are left out, as the paper's code does.
            Here they never are.
        fixed_steps: `train.steps_per_epoch`: steps of an epoch, whatever its cases; None where these say it.
    """

    cases: int
    validation_cases: int
    batch_size: int
    batch_rule: BatchRule = "fixed_global_batch"
    drops_remainder: bool = False
    fixed_steps: int | None = None

    def per_device(self, devices: int) -> int:
        """Return how many cases of a step a device has, at most.

        >>> Workload(10, 2, batch_size=4).per_device(2)
        2
        """
        return self.batch_size if self.batch_rule == "per_replica_batch" else ceil(self.batch_size / devices)

    def steps(self, devices: int) -> int:
        """Return the steps of an epoch; with few cases and a dropped remainder still one.

        >>> [Workload(338, 73, 2, "per_replica_batch").steps(devices) for devices in (1, 32)]
        [169, 6]
        >>> Workload(338, 73, 2, fixed_steps=250).steps(32)
        250
        """
        if self.fixed_steps is not None:
            return self.fixed_steps
        batch = self.batch_size * (devices if self.batch_rule == "per_replica_batch" else 1)
        return max(1, self.cases // batch) if self.drops_remainder else ceil(self.cases / batch)

    def validated(self, devices: int) -> int:
        """Return how many cases the device that has the most of them validates after an epoch."""
        if not self.drops_remainder:
            return ceil(self.validation_cases / devices)
        batch = self.batch_size * devices
        return self.batch_size * max(1, self.validation_cases // batch) if self.validation_cases else 0

    def largest_size(self, devices: int) -> int:
        """Return the most devices, up to so many, that a step can be spread over.

        >>> Workload(10, 2, batch_size=6).largest_size(4)
        3
        """
        if self.batch_rule == "per_replica_batch":
            return devices
        return sizes_for(self.batch_size, devices)[-1]
