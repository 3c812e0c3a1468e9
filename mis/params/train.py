"""One training."""

from typing import Annotated, Literal

from pydantic import Field

from mis.params.base import Chance, Positive, Section, Seed, Shape, Strength


class AugmentParams(Section):
    """How a case is changed each time it is trained on; 0 everywhere leaves it as it is.

    Each change that has a strength is made with `chance`, its parameter sampled between no change and the strength
    in either direction.
    """

    flip: Chance
    """Chance of a reflection of each axis."""
    rotate90: Chance
    """Chance of a turn by 90, 180 or 270 degrees in the axial plane; by 180 alone where x and y have unlike lengths."""
    chance: Chance
    rotate_deg: Annotated[float, Field(ge=0, le=180)]
    """The largest angle of a rotation about each axis, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)]
    """Relative change of size, the same in all axes."""
    intensity_shift: Strength
    """In standard deviations of the brain."""
    intensity_scale: Annotated[float, Field(ge=0, lt=1)]
    """Relative change of contrast."""
    gamma: Strength
    """Of the exponent's natural logarithm."""
    noise: Strength
    """Standard deviation of Gaussian noise, in those of the brain."""
    blur_vox: Strength
    """Standard deviation of a Gaussian filter, in voxels."""


_NOT_IN_THE_GRAPH = {"seed", "epochs", "patience", "learning_rate", "warmup_epochs"}


class TrainParams(Section):
    """One training: its length, batch, optimizer, patches, loss and precision."""

    seed: Seed
    epochs: Positive
    batch_size: Positive
    """Cases of a step: of all devices together, or of each one (`distribute.batch_rule`)."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Of one device; `distribute.lr_scaling` says what becomes of it on several."""
    warmup_epochs: Annotated[int, Field(ge=0)]
    """Epochs over which the learning rate rises linearly, from step to step, to its full value."""
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    amsgrad: bool
    patch_size: Shape | None
    """Voxels of a random part of each case that is trained on; None: the whole of it. Validation sees whole cases."""
    foreground_share: Chance
    """Share of the patches whose centre lies in the tumour, in a region chosen at random; nnU-Net has a third."""
    augment: AugmentParams
    dice_smooth: Annotated[float, Field(gt=0)]
    """Added to both sides of the soft Dice fraction; the paper has 0.01."""
    patience: Positive
    """Epochs without a better validation Dice after which training stops."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """What layers compute in; weights, loss and metrics are float32 (docs/data_parallel.md has what goes together)."""
    jit_compile: bool
    """Whether XLA compiles the step."""

    def in_the_graph(self) -> dict[str, object]:
        """Return those values that the graph of a training depends on.

        A warm-up of the learning rate is part of the graph, so that a training that has one shares no network.
        """
        return self.model_dump(exclude=_NOT_IN_THE_GRAPH)
