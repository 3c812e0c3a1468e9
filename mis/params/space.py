"""The ranges of a search space: what a parameter may be, and how that is sampled, listed, parsed and described."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from mis.params.base import Positive, Scalar, Section

MOST_CHECKED = 100
"""Values of a long range of whole numbers that are tried out before a search starts."""


class Suggests(Protocol):
    """What a range asks for a value: Optuna's `Trial`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401 - as Optuna has it
        """Return one of the choices."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a real number."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number."""


class Range(Section):
    """A parameter of a search space: this class has what all kinds of range have in common.

    Conditions are on parameters that stand before this one in the space.
    """

    when: dict[str, Scalar | Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]] = Field({})
    """Searched only in trials in which each of these parameters of the space has this value, or one of these."""

    @property
    def conditions(self) -> dict[str, tuple[Scalar, ...]]:
        """The values with which each condition is met."""
        return {name: wanted if isinstance(wanted, tuple) else (wanted,) for name, wanted in self.when.items()}

    @property
    def is_searched(self) -> bool:
        """Whether the value is suggested, not given."""
        return True

    @property
    def is_number(self) -> bool:
        """Whether the value is a number between two bounds."""
        return False

    @property
    def is_finite(self) -> bool:
        """Whether there are finitely many values, so that there is a grid."""
        return True

    @property
    def is_listed(self) -> bool:
        """Whether the values are listed one by one."""
        return False

    def is_active(self, values: Mapping[str, Scalar]) -> bool:
        """Return whether the conditions are met in a trial that has these values of the parameters before.

        >>> groups = Choice(type="choice", values=(2, 4), when={"model.norm": "group"})
        >>> groups.is_active({"model.norm": "group"}), groups.is_active({"model.norm": "batch"}), groups.is_active({})
        (True, False, False)
        """
        return all(name in values and values[name] in wanted for name, wanted in self.conditions.items())

    def contains(self, value: Scalar) -> bool:
        """Return whether the range has this value."""
        raise NotImplementedError

    def grid(self) -> tuple[Scalar, ...]:
        """Return every value.

        Raises:
            ValueError: The range is continuous.
        """
        raise NotImplementedError

    def probes(self) -> tuple[Scalar, ...]:
        """Return the values that are tried out before a search starts: all, the bounds, or a sample of very many."""
        return self.grid()

    def parse(self, text: str) -> Scalar | None:
        """Return the value that MLflow has recorded as a text; None if it is none of this kind."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the values in words."""
        raise NotImplementedError

    def suggest(self, name: str, trial: Suggests) -> Scalar:
        """Return the value of the parameter of this name in a trial."""
        raise NotImplementedError

    def clip(self, value: Scalar) -> Scalar:
        """Return the value of the range that is nearest to a number; what is no number stays."""
        return value

    def at(self, share: float) -> Scalar:
        """Return the value at a share, from 0 to below 1, of the range."""
        values = self.grid()
        return values[int(share * len(values))]


class FloatRange(Range):
    """A real number between two bounds, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.low, self.high, self.log, self.step)
        return self

    @property
    def is_number(self) -> bool:
        """True: a range between two bounds has numbers."""
        return True

    @property
    def is_finite(self) -> bool:
        """Whether it has a step."""
        return self.step is not None

    def contains(self, value: Scalar) -> bool:
        """Return whether a number lies between the bounds, on a step where there are steps."""
        if isinstance(value, str | bool) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-6

    def grid(self) -> tuple[Scalar, ...]:
        """Return every step.

        >>> FloatRange(type="float", low=0.0, high=0.5, step=0.25).grid()
        (0.0, 0.25, 0.5)
        """
        if self.step is None:
            raise ValueError("a continuous range has no grid")
        return tuple(
            self.low + number * self.step for number in range(int((self.high - self.low) / self.step + 1e-9) + 1)
        )

    def probes(self) -> tuple[Scalar, ...]:
        """Return both bounds."""
        return self.low, self.high

    def parse(self, text: str) -> Scalar | None:
        """Return a number; None for a word."""
        try:
            return float(text)
        except ValueError:
            return None

    def describe(self) -> str:
        """Return the bounds, the step and the scale.

        >>> FloatRange(type="float", low=1e-4, high=0.1, log=True).describe()
        'from 0.0001 to 0.1, logarithmic'
        """
        return _bounds(self.low, self.high, self.log, self.step)

    def suggest(self, name: str, trial: Suggests) -> Scalar:
        """Return a real number."""
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def clip(self, value: Scalar) -> Scalar:
        """Return the nearest number within the bounds, on a step where there are steps.

        >>> FloatRange(type="float", low=0.0, high=0.5, step=0.25).clip(0.3)
        0.25
        """
        number = float(value)
        if self.step is not None:
            number = self.low + self.step * round((number - self.low) / self.step)
        return min(max(number, self.low), self.high)

    def at(self, share: float) -> Scalar:
        """Return the value at a share of the range, or of its logarithm.

        >>> FloatRange(type="float", low=1.0, high=100.0, log=True).at(0.5)
        10.0
        """
        if self.log:
            return self.clip(self.low * (self.high / self.low) ** share)
        return self.clip(self.low + share * (self.high - self.low))


class IntRange(Range):
    """A whole number between two bounds, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.low, self.high, self.log, self.step)
        return self

    @property
    def is_number(self) -> bool:
        """True: a range between two bounds has numbers."""
        return True

    @property
    def _all(self) -> range:
        return range(self.low, self.high + 1, self.step or 1)

    def contains(self, value: Scalar) -> bool:
        """Return whether a whole number lies between the bounds, on a step."""
        return isinstance(value, int) and not isinstance(value, bool) and value in self._all

    def grid(self) -> tuple[Scalar, ...]:
        """Return every step; 1 where there is none."""
        return tuple(self._all)

    def probes(self) -> tuple[Scalar, ...]:
        """Return every value, or a sample of `MOST_CHECKED` of them; both bounds are among them."""
        return (*self._all[:: 1 + len(self._all) // MOST_CHECKED], self._all[-1])

    def parse(self, text: str) -> Scalar | None:
        """Return a whole number; None for anything else."""
        try:
            return int(text)
        except ValueError:
            return None

    def describe(self) -> str:
        """Return the bounds, the step and the scale."""
        return _bounds(self.low, self.high, self.log, self.step)

    def suggest(self, name: str, trial: Suggests) -> Scalar:
        """Return a whole number."""
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step or 1)


class Choice(Range):
    """One of the values listed."""

    type: Literal["choice"]
    values: Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]

    @property
    def is_listed(self) -> bool:
        """True: a choice lists its values."""
        return True

    def contains(self, value: Scalar) -> bool:
        """Return whether a value is listed; True is not 1."""
        return any(listed == value and isinstance(listed, bool) == isinstance(value, bool) for listed in self.values)

    def grid(self) -> tuple[Scalar, ...]:
        """Return the values that are listed."""
        return self.values

    def parse(self, text: str) -> Scalar | None:
        """Return the value that has this text; None if there is none."""
        return next((value for value in self.values if str(value) == text), None)

    def describe(self) -> str:
        """Return the list in words.

        >>> Choice(type="choice", values=("batch", "group")).describe()
        'batch or group'
        """
        return " or ".join(map(str, self.values))

    def suggest(self, name: str, trial: Suggests) -> Scalar:
        """Return one of the values."""
        value: Scalar = trial.suggest_categorical(name, self.values)
        return value


class Fixed(Range):
    """A value that every trial has in place of the one in params.yaml."""

    type: Literal["fixed"]
    value: Scalar

    @property
    def is_searched(self) -> bool:
        """False: the value is given."""
        return False

    @property
    def is_listed(self) -> bool:
        """True: its list has one value."""
        return True

    def contains(self, value: Scalar) -> bool:
        """Return whether a value is the one that there is."""
        return value == self.value

    def grid(self) -> tuple[Scalar, ...]:
        """Return the value, as a list of one."""
        return (self.value,)

    def parse(self, text: str) -> Scalar | None:
        """Return the value if it has this text."""
        return self.value if str(self.value) == text else None

    def describe(self) -> str:
        """Return the value in words."""
        return f"{self.value}, fixed"

    def suggest(self, name: str, trial: Suggests) -> Scalar:  # noqa: ARG002 - nothing is asked
        """Return the value."""
        return self.value


Distribution = Annotated[FloatRange | IntRange | Choice | Fixed, Field(discriminator="type")]
Space = Mapping[str, Distribution]
"""The ranges by the dotted names of the parameters, in the order in which they are suggested."""


def suggest(trial: Suggests, space: Space) -> dict[str, Scalar]:
    """Return a value of each parameter of the space, in its order, without those whose conditions are not met."""
    values: dict[str, Scalar] = {}
    for name, parameter in space.items():
        if parameter.is_active(values):
            values[name] = parameter.suggest(name, trial)
    return values


def grid(space: Space) -> dict[str, Sequence[Scalar]]:
    """Return every value of each searched parameter."""
    return {name: parameter.grid() for name, parameter in space.items() if parameter.is_searched}


def grid_size(space: Space) -> int:
    """Return the number of points of the grid.

    >>> grid_size({"a": Choice(type="choice", values=(1, 2)), "b": IntRange(type="int", low=1, high=5, step=2)})
    6
    """
    return prod(len(values) for values in grid(space).values())


def fixed_values(space: Space) -> dict[str, Scalar]:
    """Return the values that every trial has."""
    return {name: parameter.value for name, parameter in space.items() if isinstance(parameter, Fixed)}


def _bounds(low: float, high: float, log: bool, step: float | None) -> str:
    steps = f", in steps of {step:g}" if step else ""
    return f"from {low:g} to {high:g}{steps}" + (", logarithmic" if log else "")


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got low {low:g} and high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 where log is true, got {low:g}")
    if log and step is not None:
        raise ValueError(f"step and log exclude each other, got step {step:g} with log true")
