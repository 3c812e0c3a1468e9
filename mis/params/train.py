"""One training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mis.params.base import Chance, Fraction, Positive, PositiveFloat, Section, Seed, Shape, Strength


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


_NOT_IN_THE_GRAPH = {
    "seed", "folds", "fold", "epochs", "patience", "learning_rate", "learning_rate_decay", "warmup_epochs",
    "steps_per_epoch", "patches_per_case",
}  # fmt: skip

LossName = Literal["dice", "dice_cross_entropy", "tversky", "focal"]
"""The losses of `mis.model.losses`."""


class TrainParams(Section):
    """One training: its length, batch, optimizer, patches, loss and precision."""

    seed: Seed
    folds: Annotated[int, Field(ge=2)] | None
    """Into how many folds of patients the training and validation cases are cut anew: a model is trained for each, all
    together are the ensemble. None: one model, which is validated on the validation cases of `data.split`."""
    fold: Annotated[int, Field(ge=0)]
    """Which of the folds a single training, such as a search's trial, is validated on, from 0."""
    epochs: Positive
    batch_size: Positive
    """Cases of a step: of all devices together, or of each one (`distribute.batch_rule`)."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Of one device; `distribute.lr_scaling` says what becomes of it on several."""
    learning_rate_decay: Literal["none", "poly", "cosine"]
    """How it falls, from step to step, over the epochs behind the warm-up: as (1 - t)**0.9 (nnU-Net), or as half a
    cosine (Loshchilov and Hutter, ICLR 2017), t from 0 to 1."""
    warmup_epochs: Annotated[int, Field(ge=0)]
    """Epochs over which the learning rate rises linearly, from step to step, to its full value."""
    optimizer: Literal["adam", "adamw", "sgd"]
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    """Of adam and adamw, as `beta_2` and `amsgrad`."""
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    amsgrad: bool
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Of sgd, Nesterov's; nnU-Net has 0.99."""
    weight_decay: Strength
    """Of adamw and sgd, apart from the gradient: each step takes this share, times the learning rate, off each weight
    of a convolution."""
    clip_norm: PositiveFloat | None
    """The largest norm of all gradients together, that of the global batch; None: no limit. nnU-Net has 12."""
    ema: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of a moving average of the weights, by which a training is validated and saved; 0: none."""
    accumulate_steps: Positive
    """Steps whose gradients are added up before the weights change."""
    steps_per_epoch: Positive | None
    """Steps of an epoch; None: as many as see every case `patches_per_case` times. Whatever their number, every case
    comes so many times before any comes once more."""
    patch_size: Shape | None
    """Voxels of a random part of each case that is trained on; None: the whole of it. Validation sees whole cases."""
    foreground_share: Chance
    """Share of the patches whose centre lies in the tumour, in a region chosen at random; nnU-Net has a third."""
    patches_per_case: Positive
    """Patches that are taken of a case each time it is read, in so many steps after one another, each with a patch of
    other cases beside: reading and decoding a case cost a fraction then."""
    augment: AugmentParams
    val_batch_size: Positive | None
    """Cases of a step of validation, on all devices together. None: `batch_size`, or where there is a patch size one on
    each device, predicted in windows of that size."""
    loss: LossName
    dice_smooth: Annotated[float, Field(gt=0)]
    """Added to both sides of the fraction of the losses dice and tversky; the paper has 0.01."""
    tversky_alpha: Fraction
    """The weight of a false positive in the loss tversky; a false negative's is the rest to 1."""
    focal_gamma: Annotated[float, Field(ge=1)]
    """The exponent of the loss focal; below 1 its gradient is infinite where a voxel is right."""
    patience: Positive
    """Epochs without a better validation Dice after which training stops."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """What layers compute in; weights, loss and metrics are float32 (docs/data_parallel.md has what goes together)."""
    jit_compile: bool
    """Whether XLA compiles the step."""
    deterministic: bool
    """Whether the same training gives the same bits on a GPU too, at the cost of speed: TensorFlow's deterministic
    kernels, and no TensorFloat-32."""

    @model_validator(mode="after")
    def _averages_after_each_step(self) -> Self:
        if self.ema and self.accumulate_steps > 1:
            raise ValueError(
                f"ema must be 0 where accumulate_steps is above 1, got {self.ema:g}: Keras averages after each step, "
                "also after those that change no weight"
            )
        return self

    @model_validator(mode="after")
    def _several_patches_are_patches(self) -> Self:
        if self.patches_per_case > 1 and self.patch_size is None:
            raise ValueError(f"patches_per_case must be 1 where patch_size is null, got {self.patches_per_case}")
        return self

    @model_validator(mode="after")
    def _fold_is_there(self) -> Self:
        if self.fold and self.folds is None:
            raise ValueError(f"fold must be 0 where folds is null, got {self.fold}")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds = {self.folds}, got {self.fold}")
        return self

    def cases_of_epoch(self, cases: int) -> int:
        """Return how many cases or patches an epoch sees, where there are so many cases to train on."""
        if self.steps_per_epoch is None:
            return cases * self.patches_per_case
        return self.steps_per_epoch * self.batch_size

    def in_the_graph(self) -> dict[str, object]:
        """Return those values that the graph of a training depends on."""
        return self.model_dump(exclude=_NOT_IN_THE_GRAPH)
