"""params.yaml as a whole: read, checked, and with other values in place."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mis.errors import MisError
from mis.params.base import Scalar, Section
from mis.params.compatibility import SEARCH_RULES
from mis.params.data import DataParams, PhantomParams
from mis.params.distribute import DistributeParams
from mis.params.evaluate import EvaluateParams
from mis.params.model import ModelParams
from mis.params.predict import PLAIN, PredictParams
from mis.params.scaling import ScalingParams
from mis.params.space import fixed_values
from mis.params.storage import StorageParams
from mis.params.train import TrainParams
from mis.params.tune import TuneParams

MULTIPLE = "2**model.depth * model.stem_stride"
"""What `ModelParams.multiple` is, as messages have it."""

SEARCHABLE = ("model", "train")
"""The sections whose values a trial may set."""


class Params(Section):
    """All of params.yaml, checked as a whole."""

    phantom: PhantomParams
    data: DataParams
    model: ModelParams
    train: TrainParams
    distribute: DistributeParams
    tune: TuneParams
    predict: PredictParams
    evaluate: EvaluateParams
    scaling: ScalingParams
    storage: StorageParams = StorageParams()

    @model_validator(mode="after")
    def _depth_fits_records(self) -> Self:
        if self.data.multiple % self.model.multiple:
            raise ValueError(
                f"data.multiple must be a multiple of {MULTIPLE} = {self.model.multiple}, got {self.data.multiple}; "
                f"the next that fits is {self.model.multiple * -(-self.data.multiple // self.model.multiple)}"
            )
        return self

    @model_validator(mode="after")
    def _depth_fits_patch(self) -> Self:
        patch, step = self.train.patch_size, self.model.multiple
        if patch and any(edge % step for edge in patch):
            fits = tuple(step * -(-edge // step) for edge in patch)
            raise ValueError(
                f"train.patch_size must be a multiple of {MULTIPLE} = {step} in every axis, got {patch}; "
                f"the next that fits is {fits}"
            )
        return self

    @model_validator(mode="after")
    def _search_goes_together(self) -> Self:
        for check in SEARCH_RULES:
            try:
                check(self.tune)
            except ValueError as error:
                raise ValueError(f"tune: {error}") from None
        return self

    @model_validator(mode="after")
    def _elastic_trials_stay_the_same(self) -> Self:
        if self.tune.allocation == "elastic" and self.distribute.batch_rule != "fixed_global_batch":
            raise ValueError(
                "tune.allocation elastic needs distribute.batch_rule fixed_global_batch, got "
                f"{self.distribute.batch_rule}: with it a trial's batch would change with its devices"
            )
        return self

    @model_validator(mode="after")
    def _one_training_can_be_spread(self) -> Self:
        name, spread = "distribute.workers * distribute.devices_per_worker", self.distribute
        problem = self._spread_problem(name, spread.devices, mirrored=spread.chosen != "none")
        if problem:
            raise ValueError(problem)
        return self

    def can_be_spread(self, devices: int) -> bool:
        """Return whether a training with these parameters can be spread over so many devices."""
        return self._spread_problem("", devices, mirrored=devices > 1) is None

    def check_spread(self, name: str, devices: int, source: str = "") -> None:
        """Check that a training with these parameters can be spread over some devices.

        Args:
            name: The key that says how many, for the message.
            devices: How many.
            source: What the message begins with: where the values come from.

        Raises:
            MisError: The batch is not a multiple of them, or several devices cannot compute in this way.
        """
        problem = self._spread_problem(name, devices, mirrored=devices > 1)
        if problem:
            raise MisError(f"{source}: {problem}" if source else problem)

    def _spread_problem(self, name: str, devices: int, *, mirrored: bool) -> str | None:
        training = self.train
        # Otherwise replicas have unlike shares of a batch, or none, and the gradient is not that of one device.
        if self.distribute.batch_rule == "fixed_global_batch" and training.batch_size % devices:
            fits = devices * -(-training.batch_size // devices)
            return (
                f"train.batch_size must be a multiple of {name} = {devices}, got {training.batch_size}; "
                f"the next that fits is {fits}"
            )
        # Tried out under each strategy: docs/data_parallel.md has the table.
        if mirrored and training.jit_compile:
            return (
                f"train.jit_compile must be false where a strategy spreads a training over devices ({name} = {devices}"
                "): XLA compiles no such step"
            )
        if mirrored and training.accumulate_steps > 1:
            return (
                f"train.accumulate_steps must be 1 where a strategy spreads a training over devices ({name} = {devices}"
                f"), got {training.accumulate_steps}: Keras adds gradients up in a branch of the step, where "
                "TensorFlow cannot reduce them; take a larger train.batch_size"
            )
        if mirrored and training.precision == "mixed_float16":
            return (
                "train.precision must be float32 or mixed_bfloat16 where a strategy spreads a training over devices "
                f"({name} = {devices}), got mixed_float16: Keras scales the loss on each replica apart, and after an "
                "overflow on one the weights are lost"
            )
        return None

    def without_storage(self) -> "Params":
        """Return what decides about results: where things are kept makes no other training or study of it."""
        return self.model_copy(update={"storage": StorageParams()})

    def override(self, values: Mapping[str, Any]) -> "Params":
        """Return a copy with other values, checked as a whole.

        Args:
            values: New values by dotted name, e.g. `{"train.learning_rate": 1e-3}`.

        Raises:
            MisError: A name does not exist, or a value does not fit.
        """
        params = self._with(values)
        _check_overrides(params, "params")
        return params

    def for_trial(self, values: Mapping[str, Scalar], epochs: int) -> "Params":
        """Return the parameters of a trial of a study or of a scaling measurement.

        They are checked together; the search that they come from is not checked again: another of
        its values need not fit these.

        Raises:
            MisError: A name does not exist, or the values do not fit.
        """
        return self._with({**values, "train.epochs": epochs})

    def _with(self, values: Mapping[str, Any]) -> "Params":
        tree = self.model_dump(mode="json")
        for name, value in values.items():
            _assign(tree, name, value)
        return _validate(tree)

    def flatten(self) -> dict[str, Scalar | None]:
        """Return every value by its dotted name; lists as their text."""
        return dict(_leaves(self.model_dump(mode="json")))


def _names(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every dotted name that params.yaml may have."""
    for key, field in section.model_fields.items():
        yield f"{prefix}{key}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _names(field.annotation, f"{prefix}{key}.")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar | None]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, list) else value


def _assign(tree: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 - any YAML value
    node, rest = tree, name
    while rest not in node:
        # Keys of the search space have dots of their own: the whole key is looked for, not its parts.
        key = next((key for key in node if rest.startswith(f"{key}.") and isinstance(node[key], dict)), None)
        if key is None:
            raise _unknown_key(name, [known for known, _ in _leaves(tree)])
        node, rest = node[key], rest[len(key) + 1 :]
    node[rest] = value


def _unknown_key(name: str, known: Sequence[str]) -> MisError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "params.yaml lists every key that there is"
    return MisError("a parameter must exist", got=name, do=hint)


def _validate(tree: object, source: str = "params") -> Params:
    if not isinstance(tree, dict):
        raise MisError(f"{source} must hold sections with keys", got=repr(tree))
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, source) from None


def _explain(error: ValidationError, source: str) -> MisError:
    """Turn the first of pydantic's findings into one line in the project's own words."""
    # An unknown key first: a misspelt key is missing as well, and only the former says what was meant.
    first, *others = sorted(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    name = ".".join(
        str(part) for part in first["loc"] if part not in ("float", "int", "choice", "fixed", "bool", "str")
    )
    more = f"; {len(others)} more after this one" if others else ""
    if first["type"] == "extra_forbidden":
        return MisError(f"{source}: {_unknown_key(name, list(_names(Params)))}{more}")
    if first["type"] == "missing":
        return MisError(f"{source}: {name} is missing{more}")
    if first["type"] == "value_error":
        return MisError(f"{source}: {name + ': ' if name else ''}{first['ctx']['error']}{more}")
    if first["type"] == "model_type":
        return MisError(f"{source}: {name} must hold keys with values", got=repr(first["input"]))
    if first["type"] == "union_tag_not_found":
        return MisError(f"{source}: {name} must have a type: float, int, choice or fixed", got=repr(first["input"]))
    return MisError(f"{source}: {name}: {first['msg'].lower()}", got=repr(first["input"]), do=more[2:] or None)


def _check_overrides(params: Params, source: str) -> None:
    """Check that every value that a search or a scaling trial can set is one that Params takes."""
    for name, distribution in params.tune.space.items():
        for value in distribution.probes():
            met = {other: wanted[0] for other, wanted in distribution.conditions.items()}
            values, devices = {**fixed_values(params.tune.space), **met, name: value}, params.tune.devices
            _try_override(params, values, f"{source}: tune.space", "tune.devices_per_trial", devices)
    for index, trial in enumerate(params.scaling.trials):
        _try_override(
            params, trial, f"{source}: scaling.trials[{index}]", "the devices of a trial", params.scaling.largest_each
        )


def _try_override(params: Params, values: Mapping[str, Scalar], source: str, spread: str, devices: int) -> None:
    """Check values that a trial sets, and where they say so that it can be spread over its devices."""
    for name in values:
        if name.split(".")[0] not in SEARCHABLE:
            raise MisError(f"{source}: a trial may set what stands under {' or '.join(SEARCHABLE)}", got=name)
        if name == "train.epochs":
            raise MisError(f"{source}: a trial's epochs are tune.epochs and scaling.epochs", got=name)
        if name == "train.folds":
            raise MisError(f"{source}: trials must be validated on the same cases, which train.folds changes", got=name)
        if name == "train.deterministic":
            raise MisError(f"{source}: trials of one process are deterministic or not together", got=name)
    tree = params.model_dump(mode="json")
    try:
        for name, value in values.items():
            _assign(tree, name, value)
    except MisError as error:
        raise MisError(f"{source}: {error}") from None
    trial = _validate(tree, source)
    if {"train.batch_size", "train.precision", "train.jit_compile", "train.accumulate_steps"} & values.keys():
        trial.check_spread(spread, devices, source)


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `name=value`, the value as YAML 1.2, as `dvc exp run -S` does.

    >>> parse_override("train.learning_rate=1e-3")
    ('train.learning_rate', 0.001)

    Raises:
        MisError: There is no `=`, or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise MisError("--set takes name=value", got=repr(text), do="e.g. --set train.epochs=5")
    try:
        return name.strip(), YAML(typ="safe").load(value)
    except YAMLError as error:
        raise MisError(f"--set {name.strip()}: the value must be YAML", got=repr(value)) from error


def load_predict_params(path: Path, overrides: Sequence[str] = ()) -> PredictParams:
    """Return how a model is applied: as params.yaml says or, where there is none, as it is usual.

    Raises:
        MisError: As `load_params`; where there is no params.yaml an override may set what is under `predict` alone.
    """
    if path.exists():
        return load_params(path, overrides).predict
    tree: dict[str, Any] = {"predict": PLAIN.model_dump(mode="json")}
    for name, value in map(parse_override, overrides):
        _assign(tree, name, value)
    try:
        return _PredictAlone.model_validate(tree).predict
    except ValidationError as error:
        raise _explain(error, "params") from None


class _PredictAlone(Section):
    """What of params.yaml a prediction needs."""

    predict: PredictParams


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read params.yaml and apply `name=value` overrides.

    Raises:
        MisError: The file is missing or is not YAML, a key is unknown, missing or mistyped, a
            value is outside its range, or an override does not parse.
    """
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MisError(
            "the params file must exist",
            got=path,
            do="give the command in the project's folder, or name another file with --params where it is taken",
        ) from None
    except OSError as error:
        raise MisError(f"the params file must be readable: {error.strerror}", got=path) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise MisError(f"{path} must be YAML: {error}") from None
    params = _validate(tree, path.name)
    _check_overrides(params, path.name)
    return params.override(dict(parse_override(text) for text in overrides)) if overrides else params
