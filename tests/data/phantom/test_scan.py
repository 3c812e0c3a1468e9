import numpy as np
import pytest
from scipy import ndimage

from mis.data.phantom.anatomy import CSF, GREY, WHITE
from mis.data.phantom.sample import MODALITIES
from mis.data.phantom.scan import make_case
from mis.evaluate.baseline import choose_threshold, score_threshold

FLAIR, T1, T1GD, T2 = range(4)


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 40, 24), (33, 37, 31), (48, 48, 40)])
@pytest.mark.parametrize("seed", range(6))
def test_a_case_is_well_formed_at_any_shape(shape, seed):
    image, label = make_case(shape, seed)
    brain = image[..., 0] > 0
    assert image.shape == (*shape, len(MODALITIES))
    assert image.dtype == np.float32
    assert label.shape == shape
    assert label.dtype == np.uint8
    assert np.isfinite(image).all()
    assert np.array_equal(image > 0, np.broadcast_to(brain[..., None], image.shape))
    assert not image[~brain].any()
    assert set(np.unique(label)) <= {0, 1, 2, 3}
    assert {0, 1, 2} <= set(np.unique(label))
    assert not label[~brain].any()


def test_the_same_seed_gives_the_same_case_and_another_seed_another():
    first, again, other = (make_case((20, 22, 18), seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def mean(rendering, modality, mask):
    return rendering.image[..., modality][mask].mean()


def test_tissues_have_the_contrasts_of_mri(renderings):
    grey_to_white = []
    for r in renderings:
        healthy = ~ndimage.binary_dilation(r.label > 0, iterations=2)
        csf, grey, white = (healthy & (r.tissue == tissue) for tissue in (CSF, GREY, WHITE))
        assert mean(r, T1, white) > mean(r, T1, grey) > mean(r, T1, csf)
        assert mean(r, T1GD, white) > mean(r, T1GD, grey) > mean(r, T1GD, csf)
        assert mean(r, T2, csf) > mean(r, T2, grey) > mean(r, T2, white)
        assert mean(r, FLAIR, csf) < 0.8 * min(mean(r, FLAIR, grey), mean(r, FLAIR, white))
        grey_to_white.append(mean(r, FLAIR, grey) / mean(r, FLAIR, white))
    # Slightly: the bias field turns it in some cases.
    assert 1 < np.median(grey_to_white) < 1.2


def test_tumours_have_the_contrasts_of_mri(renderings):
    for r in renderings:
        white = (r.tissue == WHITE) & ~ndimage.binary_dilation(r.label > 0, iterations=2)
        edema, core, rim = (r.label == value for value in (1, 2, 3))
        assert mean(r, FLAIR, edema) > 1.05 * mean(r, FLAIR, white)
        assert mean(r, T2, edema) > 1.1 * mean(r, T2, white)
        assert max(mean(r, T1, core), mean(r, T1, edema)) < mean(r, T1, white)
        assert mean(r, T2, core) > mean(r, T2, white)
        if rim.any():
            assert mean(r, T1GD, rim) > 1.2 * mean(r, T1GD, white)
            assert mean(r, T1, rim) < mean(r, T1, white)


def test_the_scale_of_intensities_is_the_cases_own(renderings):
    medians = np.array([np.median(r.image[r.tissue > 0], axis=0) for r in renderings])
    assert (medians.max(axis=0) / medians.min(axis=0) > 3).all()


def test_no_flair_threshold_solves_it(renderings):
    cases = [(r.image[..., FLAIR], r.label) for r in renderings]
    chosen = choose_threshold(cases[:18])
    assert 0.3 < chosen.dice < 0.6
    assert 0.3 < np.mean(score_threshold(chosen.value, cases[18:])) < 0.6
