import numpy as np
import pytest

from mis.data.phantom.sample import sample_case
from mis.data.phantom.scan import make_case, render_case


def test_the_brain_has_the_size_of_one_in_brats():
    extents = []
    for seed in range(2):
        brain = make_case((120, 120, 78), seed)[0][..., 0] > 0  # half as many voxels in each axis: 2 mm
        extents.append([2 * (1 + np.ptp(axis)) for axis in np.nonzero(brain)])
    assert np.mean(extents, axis=0) == pytest.approx([140, 175, 140], rel=0.06)


def test_an_anatomy_has_one_shape_at_every_resolution():
    sample = sample_case(np.random.default_rng(3))
    fine, coarse = (render_case(sample, shape).tissue > 0 for shape in ((96, 96, 80), (48, 48, 40)))
    pooled = fine.reshape(48, 2, 48, 2, 40, 2).mean(axis=(1, 3, 5)) > 0.5
    assert 2 * (pooled & coarse).sum() / (pooled.sum() + coarse.sum()) > 0.97
