"""The losses of a segmentation, each by case and region: soft Dice, cross entropy, Tversky, focal."""

from collections.abc import Sequence

import keras
from keras import ops

from mis.params.train import LossName

VOXELS = (1, 2, 3)
"""The axes of a volume in a batch."""


def soft_dice(truth: keras.KerasTensor, probability: keras.KerasTensor, smooth: float) -> keras.KerasTensor:
    r"""Return the soft Dice coefficient of every case and region.

    .. math:: D = \frac{2 \sum_v p_v g_v + s}{\sum_v p_v + \sum_v g_v + s}

    where v runs over the voxels of a case, p is the predicted probability, g the truth and s
    `smooth`, which keeps an empty region that is predicted empty at D = 1. After Milletari et
    al., V-Net, 3DV 2016, without the squares.

    Where the truth is empty, D = s / (P + s) with P the sum of the probabilities: the loss falls until P is small
    beside s, so that a small s asks for a region without a single voxel, and a large s forgives some.

    Args:
        truth: (batch, x, y, z, region), from 0 to 1.
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
    overlap = ops.sum(truth * probability, axis=VOXELS)
    size = ops.sum(truth, axis=VOXELS) + ops.sum(probability, axis=VOXELS)
    return (2 * overlap + smooth) / (size + smooth)


def tversky(truth: keras.KerasTensor, probability: keras.KerasTensor, alpha: float, smooth: float) -> keras.KerasTensor:
    r"""Return the Tversky index of every case and region (Salehi et al., MLMI 2017).

    .. math:: T = \frac{\sum_v p_v g_v + s/2}{\sum_v p_v g_v + \alpha \sum_v p_v (1 - g_v)
              + (1 - \alpha) \sum_v (1 - p_v) g_v + s/2}

    with the names of `soft_dice`, which it equals at alpha = 1/2. A smaller alpha forgives false positives and punishes
    false negatives. Where the truth is empty, T = s / (2 alpha P + s).

    Args:
        truth: (batch, x, y, z, region), from 0 to 1.
        probability: (batch, x, y, z, region), in [0, 1].
        alpha: The weight of a false positive, in (0, 1); a false negative's is 1 - alpha.
        smooth: s, above 0.

    Returns:
        (batch, region), in (0, 1].

    >>> import numpy as np
    >>> ones = np.ones((1, 2, 2, 2, 1), "float32")
    >>> round(float(tversky(ones, ones / 2, alpha=0.25, smooth=0.0)[0, 0]), 6)  # 4 / (4 + 3/4 * 4)
    0.571429
    """
    truth = ops.cast(truth, probability.dtype)
    overlap = ops.sum(truth * probability, axis=VOXELS)
    false_positive = ops.sum(probability, axis=VOXELS) - overlap
    false_negative = ops.sum(truth, axis=VOXELS) - overlap
    half = smooth / 2
    return (overlap + half) / (overlap + alpha * false_positive + (1 - alpha) * false_negative + half)


def cross_entropy(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    r"""Return the binary cross entropy of every case and region, a mean over the voxels.

    .. math:: -\frac1V \sum_v g_v \log p_v + (1 - g_v) \log(1 - p_v), \qquad p_v = \sigma(z_v)

    computed from the logits z, so that it is right where p rounds to 0 or 1. An empty region is a region like others.

    Args:
        truth: (batch, x, y, z, region), from 0 to 1.
        logits: (batch, x, y, z, region), any real numbers.

    Returns:
        (batch, region), at least 0.
    """
    return ops.mean(_voxel_cross_entropy(truth, logits), axis=VOXELS)


def focal(truth: keras.KerasTensor, logits: keras.KerasTensor, gamma: float) -> keras.KerasTensor:
    r"""Return the focal loss of every case and region, a mean over the voxels (Lin et al., ICCV 2017).

    .. math:: -\frac1V \sum_v g_v (1 - p_v)^\gamma \log p_v + (1 - g_v) p_v^\gamma \log(1 - p_v)

    with the names of `cross_entropy`, which it equals at gamma = 0: voxels that are right already weigh little. The
    factor takes no part in weighing the classes. An empty region is a region like others.

    Args:
        truth: (batch, x, y, z, region), 0 or 1; the values between interpolate.
        logits: (batch, x, y, z, region), any real numbers.
        gamma: At least 0; the paper has 2.

    Returns:
        (batch, region), at least 0.
    """
    truth = ops.cast(truth, logits.dtype)
    probability = ops.sigmoid(logits)
    wrong = truth * (1 - probability) + (1 - truth) * probability
    return ops.mean(wrong**gamma * _voxel_cross_entropy(truth, logits), axis=VOXELS)


def _voxel_cross_entropy(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return the cross entropy of every voxel: softplus(z) - g z."""
    return ops.softplus(logits) - ops.cast(truth, logits.dtype) * logits


@keras.saving.register_keras_serializable("mis")
class SegmentationLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """The loss of each case, averaged over its regions and, with deep supervision, over levels.

    - `dice`: 1 - `soft_dice`.
    - `dice_cross_entropy`: 1 - `soft_dice` + `cross_entropy`, each of weight 1, as in nnU-Net.
    - `tversky`: 1 - `tversky`.
    - `focal`: `focal`.

    The loss of a batch is the mean over its cases, which does not depend on how the global batch is divided among
    devices. (The paper's code pools the voxels of all cases of the batch.)

    A level's weight is half of that of the level above, and all add up to 1 (nnU-Net). The truth of a level is the mean
    of the truth over its voxels, between 0 and 1.
    """

    def __init__(
        self,
        loss: LossName,
        smooth: float,
        tversky_alpha: float,
        focal_gamma: float,
        name: str = "segmentation_loss",
        **kwargs: object,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.loss = loss
        self.smooth = smooth
        self.tversky_alpha = tversky_alpha
        self.focal_gamma = focal_gamma

    def call(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor | Sequence[keras.KerasTensor]
    ) -> keras.KerasTensor:
        """Return the loss of each case, (batch,).

        Args:
            y_true: (batch, x, y, z, region).
            y_pred: The logits, (batch, x, y, z, region); with deep supervision those of each level, each grid half of
                the one before.
        """
        levels: list[keras.KerasTensor] = list(y_pred) if isinstance(y_pred, (list, tuple)) else [y_pred]
        total = 2 - 2.0 ** (1 - len(levels))
        losses = []
        for level, logits in enumerate(levels):
            if level:
                y_true = ops.average_pool(ops.cast(y_true, logits.dtype), 2, strides=2)
            losses.append(ops.mean(self.by_region(y_true, logits), axis=-1) * (0.5**level / total))
        return sum(losses[1:], losses[0])

    def by_region(self, truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss of every case and region, (batch, region); both arguments (batch, x, y, z, region)."""
        if self.loss == "focal":
            return focal(truth, logits, self.focal_gamma)
        probability = ops.sigmoid(logits)
        if self.loss == "tversky":
            return 1 - tversky(truth, probability, self.tversky_alpha, self.smooth)
        dice_loss = 1 - soft_dice(truth, probability, self.smooth)
        return dice_loss + cross_entropy(truth, logits) if self.loss == "dice_cross_entropy" else dice_loss

    def get_config(self) -> dict[str, object]:
        """Return the arguments with which Keras makes the loss again."""
        arguments = {name: getattr(self, name) for name in ("loss", "smooth", "tversky_alpha", "focal_gamma")}
        return {**super().get_config(), **arguments}
