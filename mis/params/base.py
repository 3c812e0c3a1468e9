"""What the sections of params.yaml are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Scalar = bool | int | float | str
# YAML has lists where Python wants tuples; only the container is lenient, its items stay strict.
Shape = Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As NumPy, Keras and Optuna take it."""


class Section(BaseModel):
    """A part of params.yaml: frozen, no unknown key, no conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
