"""What is shown of the test split."""

from typing import Annotated

from pydantic import Field

from mis.params.base import Fraction, Section


class EvaluateParams(Section):
    """What is shown of the test split."""

    threshold: Fraction
    """A voxel belongs to a region from this probability on."""
    pictures: Annotated[int, Field(ge=0)]
    """Cases drawn with truth and prediction: the worst, the best, and evenly between them."""
