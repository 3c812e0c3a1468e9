"""The experiment's values: params.yaml as one frozen, typed tree.

One dotted name serves params.yaml, `dvc exp run -S`, `--set`, the search space and MLflow.
A function takes the smallest section that it needs, never the whole tree.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mis.errors import MisError

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

Layout = Literal["msd", "brats2021", "brats2023", "nnunet"]
"""How a data set lies on disk: as MSD Task01_BrainTumour, as BraTS of 2018 to 2021, as BraTS from 2023 on, as nnU-Net
v2's raw data."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

SEARCHABLE = ("model", "train")
CHANGEABLE = ("train.learning_rate", "train.beta_1", "train.beta_2")
"""What can change in the middle of a training: its weights and its optimizer's state stay."""
MOST_CHECKED = 100
"""Values of a whole-number range that are tried out before a search starts."""


class Section(BaseModel):
    """A part of params.yaml: frozen, no unknown key, no conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PhantomParams(Section):
    """A synthetic data set."""

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


class ModelParams(Section):
    """The 3D U-Net."""

    depth: Annotated[int, Field(ge=1, le=6)]
    """How often the grid is halved; every axis must be a multiple of 2**depth."""
    base_filters: Positive
    """Filters at full resolution; each level below has twice as many."""
    kernel_size: Annotated[int, Field(ge=1)]
    norm: Literal["batch", "group", "none"]
    groups: Positive
    """Groups of the group normalisation; it divides base_filters."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.norm == "group" and self.base_filters % self.groups:
            raise ValueError(
                f"groups must divide base_filters, got groups {self.groups} and base_filters {self.base_filters}"
            )
        return self


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
    """Angle about each axis."""
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


class TrainParams(Section):
    """One training."""

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


class DistributeParams(Section):
    """How one training is spread over devices, and what that means for its batch and learning rate."""

    kind: Literal["auto", "none", "mirrored", "multiworker"]
    """`none`: one device; `mirrored`: the devices of one process; `multiworker`: several processes."""
    workers: Positive
    """Processes of one training, on as many nodes where there are so many."""
    devices_per_worker: Positive
    """Devices of each worker: GPUs, or logical CPU devices with a share of the cores."""
    batch_rule: Literal["fixed_global_batch", "per_replica_batch"]
    """`fixed_global_batch`: the same optimisation on any number of devices; `per_replica_batch`: a step takes
    `train.batch_size` cases on each."""
    lr_scaling: Literal["none", "linear", "sqrt"]
    """With `per_replica_batch` on n devices: the learning rate times 1, n (Goyal et al. 2017) or the root of n."""
    max_restarts: Annotated[int, Field(ge=0)]
    """How often the workers are started again, from the last checkpoint, after one was lost."""
    min_workers: Positive
    """Go on with fewer workers, down to this many, where devices are lost for good."""
    heartbeat_s: Annotated[float, Field(ge=5)]
    """A worker that gives no sign of life for so long is taken for lost."""
    stall_s: Annotated[float, Field(ge=60)]
    """So are workers none of which has ended a step, of training or validation, for so long; the first one takes
    the longest, because it traces the network."""

    @property
    def devices(self) -> int:
        """Devices of one training, over all workers."""
        return self.workers * self.devices_per_worker

    @property
    def chosen(self) -> Literal["none", "mirrored", "multiworker"]:
        """The kind, `auto` resolved: the simplest that has as many devices."""
        if self.kind != "auto":
            return self.kind
        if self.workers > 1:
            return "multiworker"
        return "mirrored" if self.devices_per_worker > 1 else "none"

    @model_validator(mode="after")
    def _kind_has_devices(self) -> Self:
        if self.kind == "none" and self.devices > 1:
            raise ValueError(f"kind none is for one device, got {self.devices}; auto takes the kind that fits")
        if self.kind == "mirrored" and self.workers > 1:
            raise ValueError(f"kind mirrored is for one worker, got {self.workers}; auto takes the kind that fits")
        if self.min_workers > self.workers:
            raise ValueError(f"min_workers must be at most workers = {self.workers}, got {self.min_workers}")
        if self.batch_rule == "fixed_global_batch" and self.lr_scaling != "none":
            raise ValueError(
                f"lr_scaling must be none with batch_rule fixed_global_batch, got {self.lr_scaling}: "
                "the batch does not grow with the devices"
            )
        return self


class Searched(Section):
    """What every part of a search space may have.

    Conditions are on parameters that stand before this one in the space.
    """

    when: dict[str, Scalar | Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]] = {}
    """Searched only in trials in which each of these parameters of the space has this value, or one of these."""

    @property
    def conditions(self) -> dict[str, tuple[Scalar, ...]]:
        """The values with which each condition is met."""
        return {name: wanted if isinstance(wanted, tuple) else (wanted,) for name, wanted in self.when.items()}


class FloatRange(Searched):
    """A real number between two bounds, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def takes(self, value: Scalar) -> bool:
        """Return whether a value is one of the range."""
        if isinstance(value, str | bool) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-6


class IntRange(Searched):
    """A whole number between two bounds, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    @property
    def values(self) -> range:
        """Every value, where it is not logarithmic."""
        return range(self.low, self.high + 1, self.step or 1)

    def takes(self, value: Scalar) -> bool:
        """Return whether a value is one of the range."""
        return isinstance(value, int) and not isinstance(value, bool) and value in self.values


class Choice(Searched):
    """One of the values listed."""

    type: Literal["choice"]
    values: Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]

    def takes(self, value: Scalar) -> bool:
        """Return whether a value is listed; True is not 1."""
        return any(one == value and isinstance(one, bool) == isinstance(value, bool) for one in self.values)


class Fixed(Searched):
    """A value that every trial has in place of the one in params.yaml."""

    type: Literal["fixed"]
    value: Scalar

    def takes(self, value: Scalar) -> bool:
        """Return whether a value is the one that there is."""
        return value == self.value


Distribution = Annotated[FloatRange | IntRange | Choice | Fixed, Field(discriminator="type")]


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got low {low:g} and high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 where log is true, got {low:g}")
    if log and step is not None:
        raise ValueError(f"step and log exclude each other, got step {step:g} with log true")


class SamplerParams(Section):
    """Who suggests the next configuration (Optuna)."""

    name: Literal["tpe", "random", "grid", "gp", "cmaes", "nsga2"]
    seed: Seed


class SchedulerParams(Section):
    """Who stops a trial early (Ray Tune)."""

    name: Literal["none", "asha", "median", "hyperband", "pbt"]
    grace_epochs: Positive
    """No trial is stopped before it has trained this long (asha, median)."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """One in this many trials goes on at each rung (asha, hyperband)."""
    interval_epochs: Positive
    """Epochs after which the worst quarter of the trials goes on from the best quarter's weights (pbt)."""


class StartParams(Section):
    """Where a study begins: these trials come first."""

    points: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False)]
    """Values by dotted name; what a point leaves out is suggested."""
    study: Annotated[str, Field(min_length=1)] | None
    """An earlier study's name in MLflow; null for none."""
    best: Positive
    """How many of its best trials."""


class TuneParams(Section):
    """A search over any of the parameters under `model` and `train`."""

    num_samples: Positive
    """Trials of the study; of a grid there are no more than it has points."""
    epochs: Positive
    """Epochs of a trial."""
    hours: Annotated[float, Field(gt=0)] | None
    """The study ends after so long; none for no limit."""
    target_dice: Fraction | None
    """The study ends when a trial has reached this validation Dice; none for no target."""
    devices_per_trial: Annotated[float, Field(ge=0.01)]
    """Devices of each trial; as many trials run at once as there are such shares. A half, a third ... of one: so
    many trials share it, each with its part of a GPU's memory."""
    max_failures: Annotated[int, Field(ge=0)]
    """How often a trial is started again, from its last checkpoint, after its process died or raised an error."""
    keep: Annotated[int, Field(ge=1)]
    """Trials whose models are kept, the best first; of the others the figures remain."""
    retry_oom: bool
    """Whether a trial that has run out of memory is tried again with half the batch. Where its process was ended for
    it, that is one of `max_failures`."""
    data_memory_share: Annotated[float, Field(ge=0, lt=1)]
    """The records are read once into the memory of each node where they fit this share of it, and from the file
    system by each trial otherwise."""
    second_objective: Literal["seconds", "parameters"] | None
    """What is made small while the Dice is made large: seconds of training, or trainable weights; null for nothing."""
    start: StartParams
    sampler: SamplerParams
    scheduler: SchedulerParams
    space: Annotated[dict[str, Distribution], Field(min_length=1)]

    @property
    def devices(self) -> int:
        """Devices that one trial spreads its training over: one, where it has a part of it."""
        return max(1, int(self.devices_per_trial))

    @model_validator(mode="after")
    def _devices_can_be_shared(self) -> Self:
        own = self.devices_per_trial
        if own > 1 and own != int(own):
            raise ValueError(f"devices_per_trial must be a whole number from 1 on, got {own:g}")
        if own < 1 and abs(1 / own - round(1 / own)) > 0.01:
            raise ValueError(f"devices_per_trial below 1 must be one part of several, as 0.5 or 0.25, got {own:g}")
        return self

    @model_validator(mode="after")
    def _conditions_can_be_met(self) -> Self:
        before: dict[str, Distribution] = {}
        for name, one in self.space.items():
            for other, wanted in one.conditions.items():
                if other not in before:
                    raise ValueError(f"{name} is searched when {other} has a value: {other} must stand before it")
                for value in wanted:
                    if isinstance(before[other], Choice | Fixed) and value not in _possible(before[other]):
                        raise ValueError(f"{name} is searched when {other} is {value!r}, which {other} never is")
            before[name] = one
        return self

    @model_validator(mode="after")
    def _sampler_fits_space(self) -> Self:
        name = self.sampler.name
        searched = {key: one for key, one in self.space.items() if not isinstance(one, Fixed)}
        for key, one in searched.items():
            if one.when and name in ("grid", "gp", "cmaes", "nsga2"):
                raise ValueError(f"sampler {name} takes all parameters together: {key} has a condition; use tpe")
            if isinstance(one, FloatRange) and one.step is None and name == "grid":
                raise ValueError(f"sampler grid takes every value: {key} has no step and no list of values")
            if isinstance(one, Choice) and name == "cmaes":
                raise ValueError(f"sampler cmaes searches numbers: {key} is a choice; use tpe")
        if name == "cmaes" and len(searched) < 2:
            raise ValueError(f"sampler cmaes needs at least two numbers, got {len(searched)}; use tpe or gp")
        if not searched:
            raise ValueError("the space must have a parameter that is searched, got fixed ones alone")
        return self

    @model_validator(mode="after")
    def _scheduler_fits_sampler(self) -> Self:
        fits = {"hyperband": ("random", "grid"), "pbt": ("random",)}.get(self.scheduler.name)
        if fits and self.sampler.name not in fits:
            raise ValueError(
                f"scheduler {self.scheduler.name} begins many trials before it knows of one: use sampler "
                f"{' or '.join(fits)}, or scheduler asha, got {self.sampler.name}"
            )
        return self

    @model_validator(mode="after")
    def _population_can_change(self) -> Self:
        if self.scheduler.name != "pbt":
            return self
        fixed = [key for key, one in self.space.items() if key not in CHANGEABLE and not isinstance(one, Fixed)]
        if fixed:
            raise ValueError(
                f"scheduler pbt changes parameters in the middle of a training, which only {', '.join(CHANGEABLE)} "
                f"can: got {', '.join(fixed)}; use asha"
            )
        if self.num_samples < 4:
            raise ValueError(f"scheduler pbt needs a population, num_samples of at least 4, got {self.num_samples}")
        if self.scheduler.interval_epochs >= self.epochs:
            raise ValueError(
                "scheduler pbt looks at the population every interval_epochs, which must be below epochs = "
                f"{self.epochs}, got {self.scheduler.interval_epochs}"
            )
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        name, scheduler = self.sampler.name, self.scheduler.name
        if self.second_objective is None and name == "nsga2":
            raise ValueError("sampler nsga2 is for two objectives: set tune.second_objective, or use tpe")
        if self.second_objective is not None and name in ("gp", "cmaes"):
            raise ValueError(f"sampler {name} has one objective: use nsga2 or tpe, or tune.second_objective null")
        if self.second_objective is not None and scheduler != "none":
            raise ValueError(
                f"scheduler {scheduler} compares trials by their Dice alone, and would stop those that are good at the "
                "second objective: use none, or set tune.second_objective to null"
            )
        return self

    @model_validator(mode="after")
    def _starts_in_space(self) -> Self:
        if self.sampler.name == "grid" and (self.start.points or self.start.study):
            raise ValueError("sampler grid takes every point once, in its own order: leave tune.start empty")
        for point in self.start.points:
            for key, value in point.items():
                if key not in self.space:
                    raise ValueError(f"a starting point may set what the space has, got {key}")
                if not self.space[key].takes(value):
                    raise ValueError(f"a starting point must lie in the space, got {key} = {value!r}")
        return self


class EvaluateParams(Section):
    """What is shown of the test split."""

    threshold: Fraction
    """A voxel belongs to a region from this probability on."""
    pictures: Annotated[int, Field(ge=0)]
    """Cases drawn with truth and prediction: the worst, the best, and evenly between them."""


class ScalingParams(Section):
    """The comparison of data parallelism with experiment parallelism."""

    workers: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    """How many workers; each is one device. 1 is the reference and must be among them."""
    epochs: Positive
    rounds: Positive
    """How often every cell is measured, interleaved; the spread is over these."""
    trials: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False, min_length=1)]
    """The same list for every cell: each trial is a set of dotted names with their values."""

    @model_validator(mode="after")
    def _has_reference(self) -> Self:
        if 1 not in self.workers or list(self.workers) != sorted(set(self.workers)):
            raise ValueError(f"workers must rise from 1, got {list(self.workers)}")
        return self


class Params(Section):
    """params.yaml."""

    phantom: PhantomParams
    data: DataParams
    model: ModelParams
    train: TrainParams
    distribute: DistributeParams
    tune: TuneParams
    evaluate: EvaluateParams
    scaling: ScalingParams

    @model_validator(mode="after")
    def _depth_fits_records(self) -> Self:
        if self.data.multiple % 2**self.model.depth:
            raise ValueError(
                f"data.multiple must be a multiple of 2**model.depth = {2**self.model.depth}, got {self.data.multiple}"
            )
        return self

    @model_validator(mode="after")
    def _depth_fits_patch(self) -> Self:
        patch, step = self.train.patch_size, 2**self.model.depth
        if patch and any(edge % step for edge in patch):
            fits = tuple(step * -(-edge // step) for edge in patch)
            raise ValueError(
                f"train.patch_size must be a multiple of 2**model.depth = {step} in every axis, got {patch}; "
                f"the next that fits is {fits}"
            )
        return self

    @model_validator(mode="after")
    def _one_training_can_be_spread(self) -> Self:
        name, own = "distribute.workers * distribute.devices_per_worker", self.distribute
        problem = self._spread_problem(name, own.devices, mirrored=own.chosen != "none")
        if problem:
            raise ValueError(problem)
        return self

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
        own = self.train
        # Otherwise replicas have unlike shares of a batch, or none, and the gradient is not that of one device.
        if self.distribute.batch_rule == "fixed_global_batch" and own.batch_size % devices:
            fits = devices * -(-own.batch_size // devices)
            return (
                f"train.batch_size must be a multiple of {name} = {devices}, got {own.batch_size}; "
                f"the next that fits is {fits}"
            )
        # Tried out under each strategy: docs/data_parallel.md has the table.
        if mirrored and own.jit_compile:
            return (
                f"train.jit_compile must be false where a strategy spreads a training over devices ({name} = {devices}"
                "): XLA compiles no such step"
            )
        if mirrored and own.precision == "mixed_float16":
            return (
                "train.precision must be float32 or mixed_bfloat16 where a strategy spreads a training over devices "
                f"({name} = {devices}), got mixed_float16: Keras scales the loss on each replica apart, and after an "
                "overflow on one the weights are lost"
            )
        return None

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
        for value in _possible(distribution):
            fixed = {other: one.value for other, one in params.tune.space.items() if isinstance(one, Fixed)}
            met = {other: wanted[0] for other, wanted in distribution.conditions.items()}
            values, devices = {**fixed, **met, name: value}, params.tune.devices
            _try_override(params, values, f"{source}: tune.space", "tune.devices_per_trial", devices)
    for index, trial in enumerate(params.scaling.trials):
        _try_override(
            params, trial, f"{source}: scaling.trials[{index}]", "scaling.workers", max(params.scaling.workers)
        )


def _possible(distribution: Distribution) -> Sequence[Scalar]:
    """Return every value of a distribution; bounds of one that is continuous, a sample of one that is very long."""
    if isinstance(distribution, Choice):
        return distribution.values
    if isinstance(distribution, Fixed):
        return (distribution.value,)
    if isinstance(distribution, IntRange):
        values = distribution.values
        return (*values[:: 1 + len(values) // MOST_CHECKED], values[-1])
    return distribution.low, distribution.high


def _try_override(params: Params, values: Mapping[str, Scalar], source: str, spread: str, devices: int) -> None:
    """Check values that a trial sets, and where they say so that it can be spread over its devices."""
    for name in values:
        if name.split(".")[0] not in SEARCHABLE:
            raise MisError(f"{source}: a trial may set what stands under {' or '.join(SEARCHABLE)}", got=name)
        if name == "train.epochs":
            raise MisError(f"{source}: a trial's epochs are tune.epochs and scaling.epochs", got=name)
    tree = params.model_dump(mode="json")
    try:
        for name, value in values.items():
            _assign(tree, name, value)
    except MisError as error:
        raise MisError(f"{source}: {error}") from None
    own = _validate(tree, source)
    if {"train.batch_size", "train.precision", "train.jit_compile"} & values.keys():
        own.check_spread(spread, devices, source)


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
