"""The data set, and how it is brought to the network."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from mis.params.base import Fraction, Positive, PositiveFloat, Section, Seed, Shape

Layout = Literal["msd", "brats2021", "brats2023", "nnunet"]
"""How a data set lies on disk: as MSD Task01_BrainTumour, as BraTS of 2018 to 2021, as BraTS from 2023 on, as nnU-Net
v2's raw data."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class PhantomParams(Section):
    """The synthetic data set (phantom) that is made where no real one is at hand."""

    layout: Layout
    """How it is written; the patients are the same in each."""
    cases: Annotated[int, Field(ge=1)]
    """Labelled cases."""
    unlabelled: Annotated[int, Field(ge=0)]
    """Cases without a label."""
    shape: Shape
    """Voxels in (x, y, z) at 1 mm; the real data set has (240, 240, 155)."""
    seed: Seed


class SplitParams(Section):
    """Shares of the patients; they add up to 1."""

    train: Fraction
    val: Fraction
    test: Fraction
    seed: Seed

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self


class DataParams(Section):
    """What is learnt from, and how it is brought to the network."""

    root: Annotated[str, Field(min_length=1), AfterValidator(lambda root: str(PurePosixPath(root)))]
    """The data set's folder: the one that holds dataset.json, or the cases' folders."""
    layout: Literal["auto"] | Layout
    """How its files are named and its labels meant; `auto` recognises it. `brats2021` is that of 2018 to 2021,
    `brats2023` that of 2023 and later."""
    skip_bad_cases: bool
    """Whether preprocessing goes on without the cases that have errors, and lists them; else it refuses."""
    spacing_mm: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], Field(strict=False)]
    """Edges of a voxel in (x, y, z); every public BraTS case has 1 mm."""
    other_spacing: Literal["resample", "refuse"]
    """What becomes of a case with other voxels: images linearly, labels by the nearest voxel; or an error."""
    crop: Literal["brain", "none"]
    """`brain`: only the brain's box is kept; `none`: the whole grid, as in the paper."""
    compression: Literal["none", "zlib"]
    """Of the records; docs/data.md has what it saves and what it costs."""
    target: Literal["regions", "whole_tumor"]
    """`regions`: channels WT, TC, ET; `whole_tumor`: one channel."""
    fit: Literal["crop", "pad"]
    """How each axis of the common grid comes to a multiple of `multiple`; the paper crops 155 slices to 152."""
    multiple: Positive
    split: SplitParams
