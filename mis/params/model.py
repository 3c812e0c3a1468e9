"""The network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Section


class ModelParams(Section):
    """The 3D U-Net."""

    depth: Annotated[int, Field(ge=1, le=6)]
    """How often the grid is halved on the way down; every axis must be a multiple of `ModelParams.multiple`."""
    base_filters: Positive
    """Filters at full resolution; each level below has twice as many."""
    max_filters: Positive
    """The most filters of a level; nnU-Net has 320."""
    kernel_size: Annotated[int, Field(ge=1)]
    block: Literal["plain", "residual"]
    """Two convolutions, or two convolutions whose input is added to their result (He et al., CVPR 2016)."""
    norm: Literal["batch", "group", "instance", "none"]
    groups: Positive
    """Groups of the group normalisation; it divides the filters of every level."""
    activation: Literal["relu", "leaky_relu"]
    """After each normalisation; the leaky one has a slope of .01 below 0, as in nnU-Net."""
    stem_stride: Literal[1, 2]
    """2: a first convolution halves the grid before the levels, and the result is refined at full resolution beside the
    image: a step costs about a third."""
    downsampling: Literal["pool", "stride"]
    """How the grid is halved: by max pooling, or by the stride of the next level's first convolution."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of the channels that is set to 0 behind each block of a training step."""
    deep_supervision: Annotated[int, Field(ge=0)]
    """How many levels below full resolution have a loss of their own, of half the weight of the level above."""

    @property
    def multiple(self) -> int:
        """What the number of voxels along every axis must be a multiple of."""
        return int(2**self.depth) * self.stem_stride

    @property
    def filters(self) -> tuple[int, ...]:
        """The filters of each level, that of full resolution first."""
        return tuple(min(self.base_filters * 2**level, self.max_filters) for level in range(self.depth + 1))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.max_filters < self.base_filters:
            raise ValueError(f"max_filters must be at least base_filters = {self.base_filters}, got {self.max_filters}")
        if self.norm == "group" and any(filters % self.groups for filters in self.filters):
            raise ValueError(
                f"groups must divide base_filters and max_filters, got groups {self.groups}, base_filters "
                f"{self.base_filters} and max_filters {self.max_filters}"
            )
        if self.deep_supervision >= self.depth:
            raise ValueError(
                f"deep_supervision must be below depth = {self.depth}, the levels on the way up, "
                f"got {self.deep_supervision}"
            )
        return self
