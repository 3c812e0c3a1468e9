"""The comparison of data parallelism with experiment parallelism."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Scalar, Section


class ScalingParams(Section):
    """The comparison of data parallelism with experiment parallelism."""

    workers: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    """How many workers; each is one device. 1 is the reference and must be among them."""
    epochs: Positive
    rounds: Positive
    """How often every cell is measured, interleaved; the spread is over these."""
    trials: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False, min_length=1)]
    """The same list for every cell: each trial is a set of dotted names with their values."""

    @model_validator(mode="after")
    def _has_reference(self) -> Self:
        if 1 not in self.workers or list(self.workers) != sorted(set(self.workers)):
            raise ValueError(f"workers must rise from 1, got {list(self.workers)}")
        return self
