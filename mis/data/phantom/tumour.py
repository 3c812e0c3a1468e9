"""Drawing the label: a tumour's edema, core and enhancing rim."""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from mis.data.phantom.anatomy import Brain
from mis.data.phantom.grid import Array, Labels, Mask, smooth_field
from mis.data.phantom.sample import Tumour

EDEMA, CORE, ENHANCING = 1, 2, 3
"""Values of the label, 0 outside the tumour."""


def render_label(tumour: Tumour, brain: Brain, rng: Generator) -> Labels:
    """Draw the tumour's parts, each inside the next, with the volumes that were sampled.

    Each part is the share of voxels with the lowest level: the distance from the centre, displaced
    by noise. For the edema, grey matter and CSF count as farther away: it spreads in white matter.

    Args:
        tumour: The tumour to draw.
        brain: The brain that it grows in.
        rng: The source of the irregular borders.

    Returns:
        (x, y, z) of the grid's box, values 0 to 3.
    """
    radius = tumour.radius_mm
    offset = [(p - c) / (s * radius) for p, c, s in zip(brain.points, tumour.centre_mm, tumour.stretch, strict=True)]
    distance: Array = np.sqrt(sum(q**2 for q in offset))
    coarse, fine, inner = (smooth_field(brain.grid, radius * share, rng) for share in (0.8, 0.35, 0.4))
    level = distance + tumour.roughness * (0.7 * coarse + 0.4 * fine)
    whole_count = int(tumour.volume * brain.mask.sum())
    core_count = int(tumour.core * whole_count)
    core = _lowest(level + 0.2 * brain.csf, brain.mask, core_count)
    core = _touching(core, _lowest(level, core, 1))
    spread = level + tumour.roughness * inner + 0.2 * brain.grey + 0.6 * brain.csf
    whole = _touching(_lowest(np.where(core, -np.inf, spread), brain.mask, whole_count), core)
    label = np.where(core, CORE, np.where(whole, EDEMA, 0)).astype(np.uint8)
    if tumour.necrosis < 1:
        # The rim is thicker on one side, and broken where the noise lets the inside reach the border.
        necrosis = _lowest(
            level + 0.2 * offset[0] + 0.6 * tumour.roughness * inner, core, int(tumour.necrosis * core.sum())
        )
        label[core & ~necrosis] = ENHANCING
    return label


def _lowest(level: NDArray[np.floating[Any]], within: Mask, count: int) -> Mask:
    """Return the `count` voxels of `within` where `level` is lowest."""
    values = level[within]
    count = min(max(count, 1), values.size)
    result: Mask = within & (level <= np.partition(values, count - 1)[count - 1])
    return result


def _touching(mask: Mask, seed: Mask) -> Mask:
    """Return the connected parts of `mask` that hold a voxel of `seed`."""
    parts, _ = ndimage.label(mask)
    return np.isin(parts, np.unique(parts[seed & mask])) & mask
