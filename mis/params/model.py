"""The network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Section


class ModelParams(Section):
    """The 3D U-Net."""

    depth: Annotated[int, Field(ge=1, le=6)]
    """How often the grid is halved; every axis must be a multiple of 2**depth."""
    base_filters: Positive
    """Filters at full resolution; each level below has twice as many."""
    kernel_size: Annotated[int, Field(ge=1)]
    norm: Literal["batch", "group", "none"]
    groups: Positive
    """Groups of the group normalisation; it divides base_filters."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.norm == "group" and self.base_filters % self.groups:
            raise ValueError(
                f"groups must divide base_filters, got groups {self.groups} and base_filters {self.base_filters}"
            )
        return self
