"""Windows over a volume: where they lie, and the weight of each of their voxels. Pure functions of numbers."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

SIGMA_SCALE = 1 / 8
"""The standard deviation of the Gaussian weights, as a share of the window's edge (nnU-Net, MONAI)."""

LEAST_WEIGHT = 1e-3
"""Of the middle's: so that no voxel is without a weight."""


def window_starts(shape: Sequence[int], size: Sequence[int], overlap: float) -> NDArray[np.int32]:
    """Return the index of the first voxel of each window that is needed to cover a volume.

    Along each axis the windows lie evenly, the first at its beginning and the last at its end, no two further apart
    than `overlap` allows.

    Args:
        shape: The volume's number of voxels along (x, y, z), nowhere less than the window's.
        size: The window's.
        overlap: The least share of a window that the next one covers as well, along an axis; in [0, 1).

    Returns:
        int32 (window, 3).

    >>> window_starts((10, 4, 4), (4, 4, 4), overlap=0.5).tolist()
    [[0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0]]
    """
    axes = []
    for length, edge in zip(shape, size, strict=True):
        stride = max(1, int(edge * (1 - overlap)))
        steps = -(-(length - edge) // stride)
        axes.append(np.round(np.linspace(0, length - edge, steps + 1)).astype(np.int32))
    return np.array(list(product(*axes)), np.int32)


def gaussian_weights(size: Sequence[int]) -> NDArray[np.float32]:
    """Return a weight for each voxel of a window, float32 of its size: 1 in its middle, and less to its border.

    A network knows least of a voxel at the border of what it sees (Isensee et al., nnU-Net, 2021).
    """
    weights = np.ones((1, 1, 1))
    for axis, edge in enumerate(size):
        distance = np.arange(edge) - (edge - 1) / 2
        along = np.exp(-0.5 * np.square(distance / (SIGMA_SCALE * edge)))
        weights = weights * np.expand_dims(along, [other for other in range(3) if other != axis])
    result: NDArray[np.float32] = np.maximum(weights / weights.max(), LEAST_WEIGHT).astype(np.float32)
    return result
