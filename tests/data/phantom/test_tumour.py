import numpy as np
from scipy import ndimage

from mis.data.phantom.tumour import CORE, ENHANCING


def test_tumours_have_a_size_that_can_be_learnt(renderings):
    shares = [np.count_nonzero(r.label) / np.count_nonzero(r.tissue) for r in renderings]
    assert min(shares) > 0.03
    assert max(shares) < 0.21
    assert min(np.count_nonzero(r.label >= CORE) for r in renderings) > 200


def test_some_cases_enhance_and_some_do_not(renderings):
    enhancing = sum((r.label == ENHANCING).any() for r in renderings)
    assert len(renderings) / 2 < enhancing < len(renderings)


def test_the_core_lies_within_the_tumour_and_what_enhances_lies_at_the_core(renderings):
    surrounded = []
    for r in renderings:
        whole, core, enhancing = r.label > 0, r.label >= CORE, r.label == ENHANCING
        assert ndimage.label(core)[1] == 1
        assert ndimage.label(whole)[1] == 1
        shell = ndimage.binary_dilation(core) & ~core & (r.tissue > 0)
        surrounded.append(whole[shell].mean())
        if enhancing.any():
            assert (ndimage.binary_dilation(enhancing) & (r.label == CORE)).any()
    # The core lies bare at sulci and ventricles alone; elsewhere edema surrounds it.
    assert min(surrounded) > 0.4
    assert np.mean(surrounded) > 0.75
