"""What is shown of the test split."""

from typing import Annotated

from pydantic import Field

from mis.params.base import Section


class EvaluateParams(Section):
    """What is shown of the test split."""

    pictures: Annotated[int, Field(ge=0)]
    """Cases drawn with truth and prediction: the worst, the best, and evenly between them."""
