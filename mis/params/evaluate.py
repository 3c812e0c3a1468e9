"""What is shown of the test split."""

from typing import Annotated, Literal

from pydantic import Field

from mis.params.base import Section


class EvaluateParams(Section):
    """What is shown of the test split."""

    convention: Literal["brats2023", "panoptica"]
    """Whose rules the scores follow: the metrics code of BraTS 2023, or the package brats-evaluation."""
    pictures: Annotated[int, Field(ge=0)]
    """Cases that the report shows: the worst ones, each with its sheet and in a viewer."""
