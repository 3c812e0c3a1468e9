"""The soft Dice loss."""

import keras
from keras import ops


def soft_dice(truth: keras.KerasTensor, probability: keras.KerasTensor, smooth: float) -> keras.KerasTensor:
    r"""Return the soft Dice coefficient of every case and region.

    .. math:: D = \frac{2 \sum_v p_v g_v + s}{\sum_v p_v + \sum_v g_v + s}

    where v runs over the voxels of a case, p is the predicted probability, g the truth and s
    `smooth`, which keeps an empty region that is predicted empty at D = 1. After Milletari et
    al., V-Net, 3DV 2016, without the squares.

    Args:
        truth: (batch, x, y, z, region), 0 or 1.
        probability: (batch, x, y, z, region), in [0, 1].
        smooth: s, above 0.

    Returns:
        (batch, region), in (0, 1].

    >>> import numpy as np
    >>> ones = np.ones((1, 2, 2, 2, 1), "float32")
    >>> float(soft_dice(ones, ones / 2, smooth=0.0)[0, 0])  # 2 * 4 / (4 + 8)
    0.6666666865348816
    """
    truth = ops.cast(truth, probability.dtype)
    voxels = (1, 2, 3)
    overlap = ops.sum(truth * probability, axis=voxels)
    size = ops.sum(truth, axis=voxels) + ops.sum(probability, axis=voxels)
    return (2 * overlap + smooth) / (size + smooth)


def soft_dice_loss(truth: keras.KerasTensor, probability: keras.KerasTensor, smooth: float) -> keras.KerasTensor:
    """Return 1 - soft Dice of every case, averaged over its regions: (batch,), in [0, 1); see `soft_dice`."""
    return 1 - ops.mean(soft_dice(truth, probability, smooth), axis=-1)


@keras.saving.register_keras_serializable("mis")
class SoftDiceLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """1 - soft Dice of each case, averaged over its regions.

    The loss of a batch is the mean over its cases, which does not depend on how the global batch is divided among
    devices. (The paper's code pools the voxels of all cases of the batch.)
    """

    def __init__(self, smooth: float, name: str = "soft_dice_loss", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.smooth = smooth

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of each case, (batch,)."""
        return soft_dice_loss(y_true, y_pred, self.smooth)

    def get_config(self) -> dict[str, object]:
        """Return the arguments with which Keras makes the loss again."""
        return {**super().get_config(), "smooth": self.smooth}
