"""Metrics over cases: the Dice of the thresholded prediction, and the mean loss."""

from collections.abc import Sequence

import keras
from keras import ops

from mis.model.losses import SegmentationLoss


def hard_dice(truth: keras.KerasTensor, probability: keras.KerasTensor, threshold: float) -> keras.KerasTensor:
    """Return the Dice coefficient 2 |P ∩ G| / (|P| + |G|) of every case and region.

    A region that is empty in truth and prediction has Dice 1; a region that is empty in only one of the two has Dice 0.
    BraTS scores it like this.

    Args:
        truth: (batch, x, y, z, region), 0 or 1.
        probability: (batch, x, y, z, region), in [0, 1].
        threshold: The least probability of a voxel that is predicted to belong to the region, 0 to 1.

    Returns:
        (batch, region), in [0, 1].
    """
    predicted = ops.cast(probability >= threshold, "float32")
    truth = ops.cast(truth, "float32")
    voxels = (1, 2, 3)
    overlap = ops.sum(truth * predicted, axis=voxels)
    size = ops.sum(truth, axis=voxels) + ops.sum(predicted, axis=voxels)
    return ops.where(size == 0, ops.ones_like(size), 2 * overlap / ops.maximum(size, 1))


@keras.saving.register_keras_serializable("mis")
class _CaseMean(keras.metrics.Mean):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """The mean over cases of a value of each case.

    A case whose sample weight is 0 only fills up a batch (`mis.data.pipeline.dataset`) and is left out;
    every other case counts once, whatever its weight.
    """

    def values(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the value of each case, (batch,)."""
        raise NotImplementedError

    def update_state(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor, sample_weight: keras.KerasTensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            y_true: (batch, x, y, z, region).
            y_pred: (batch, x, y, z, region).
            sample_weight: (batch,); None counts every case.
        """
        counts = None if sample_weight is None else ops.cast(ops.reshape(sample_weight, (-1,)) > 0, "float32")
        super().update_state(self.values(y_true, y_pred), sample_weight=counts)


@keras.saving.register_keras_serializable("mis")
class Dice(_CaseMean):
    """The mean over cases of the Dice of a region, or of the mean Dice over all regions."""

    def __init__(self, region: int | None = None, threshold: float = 0.5, name: str = "dice", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.region = region
        self.threshold = threshold

    def values(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the Dice of each case, (batch,)."""
        dice = hard_dice(y_true, y_pred, self.threshold)
        return ops.mean(dice, axis=-1) if self.region is None else dice[:, self.region]

    def get_config(self) -> dict[str, object]:
        """Return the arguments with which Keras makes the metric again."""
        return {**super().get_config(), "region": self.region, "threshold": self.threshold}


@keras.saving.register_keras_serializable("mis")
class CaseLoss(_CaseMean):
    """The mean over cases of a loss, which Keras' `loss` equals only where every batch is full."""

    def __init__(self, loss: SegmentationLoss, name: str = "case_loss", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.loss = loss

    def values(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each case, (batch,); `y_pred` are logits, as `SegmentationLoss` takes them."""
        return self.loss.call(y_true, y_pred)

    def get_config(self) -> dict[str, object]:
        """Return the arguments with which Keras makes the metric again."""
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, object]) -> "CaseLoss":
        """Return the metric with the arguments of `get_config`."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def dice_metrics(regions: Sequence[str]) -> list[keras.metrics.Metric]:
    """Return the metrics of a training's probabilities: `dice` and `dice_<region>` for each region."""
    return [Dice(), *(Dice(index, name=f"dice_{region.lower()}") for index, region in enumerate(regions))]
