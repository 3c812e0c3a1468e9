"""How one training is spread over devices."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Section


class DistributeParams(Section):
    """How one training is spread over devices, and what that means for its batch and learning rate."""

    kind: Literal["auto", "none", "mirrored", "multiworker"]
    """`none`: one device; `mirrored`: the devices of one process; `multiworker`: several processes."""
    workers: Positive
    """Processes of one training, on as many nodes where there are so many."""
    devices_per_worker: Positive
    """Devices of each worker: GPUs, or logical CPU devices with a share of the cores."""
    batch_rule: Literal["fixed_global_batch", "per_replica_batch"]
    """`fixed_global_batch`: the same optimisation on any number of devices; `per_replica_batch`: a step takes
    `train.batch_size` cases on each."""
    lr_scaling: Literal["none", "linear", "sqrt"]
    """With `per_replica_batch` on n devices: the learning rate times 1, n (Goyal et al. 2017) or the root of n."""
    max_restarts: Annotated[int, Field(ge=0)]
    """How often the workers are started again, from the last checkpoint, after one was lost."""
    min_workers: Positive
    """Go on with fewer workers, down to this many, where devices are lost for good."""
    heartbeat_s: Annotated[float, Field(ge=5)]
    """A worker that gives no sign of life for so long is taken for lost."""
    stall_s: Annotated[float, Field(ge=60)]
    """So are workers none of which has ended a step, of training or validation, for so long; the first one takes
    the longest, because it traces the network."""

    @property
    def devices(self) -> int:
        """Devices of one training, over all workers."""
        return self.workers * self.devices_per_worker

    @property
    def chosen(self) -> Literal["none", "mirrored", "multiworker"]:
        """The kind, `auto` resolved: the simplest that has as many devices."""
        if self.kind != "auto":
            return self.kind
        if self.workers > 1:
            return "multiworker"
        return "mirrored" if self.devices_per_worker > 1 else "none"

    @model_validator(mode="after")
    def _kind_has_devices(self) -> Self:
        if self.kind == "none" and self.devices > 1:
            raise ValueError(f"kind none is for one device, got {self.devices}; auto takes the kind that fits")
        if self.kind == "mirrored" and self.workers > 1:
            raise ValueError(f"kind mirrored is for one worker, got {self.workers}; auto takes the kind that fits")
        if self.min_workers > self.workers:
            raise ValueError(f"min_workers must be at most workers = {self.workers}, got {self.min_workers}")
        if self.batch_rule == "fixed_global_batch" and self.lr_scaling != "none":
            raise ValueError(
                f"lr_scaling must be none with batch_rule fixed_global_batch, got {self.lr_scaling}: "
                "the batch does not grow with the devices"
            )
        return self
