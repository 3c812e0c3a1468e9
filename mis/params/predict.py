"""How a trained model is applied to a case."""

from typing import Annotated

from pydantic import Field

from mis.params.base import Fraction, Positive, Section, Shape


class PredictParams(Section):
    """How a trained model is applied to a case."""

    window: Shape | None
    """Voxels of a window that the network sees at once; None: the patch that it was trained on, or the whole case."""
    overlap: Annotated[float, Field(ge=0, lt=1)]
    """The least share of a window, along an axis, that the next one covers as well; nnU-Net has a half."""
    mirror: bool
    """Whether each window is predicted in all 8 reflections, whose mean counts: 8 times as long."""
    batch_size: Positive
    """Windows that are predicted at once."""
    threshold: Fraction
    """A voxel belongs to a region from this probability on."""
    min_voxels: Annotated[int, Field(ge=0)]
    """The fewest voxels of a lesion: a connected part of a region with fewer is taken away."""


PLAIN = PredictParams(window=None, overlap=0.5, mirror=False, batch_size=1, threshold=0.5, min_voxels=0)
"""How a model is applied where there is no params.yaml: a script in a clinic has a model and no project."""
