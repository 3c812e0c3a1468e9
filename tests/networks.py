"""Parameters of small networks for the tests, and their loss."""

from mis.model.losses import SegmentationLoss
from mis.params.model import ModelParams

SMALL = {
    "depth": 1,
    "base_filters": 4,
    "max_filters": 320,
    "kernel_size": 3,
    "block": "plain",
    "norm": "group",
    "groups": 2,
    "activation": "relu",
    "stem_stride": 1,
    "downsampling": "pool",
    "dropout": 0.0,
    "deep_supervision": 0,
}


def model_params(**changes):
    """Return the parameters of a small network, some of them changed."""
    return ModelParams(**SMALL | changes)


def dice_loss(smooth=0.01, **options):
    """Return the soft Dice loss."""
    return SegmentationLoss("dice", smooth, tversky_alpha=0.5, focal_gamma=2.0, **options)
