import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.layouts.brats import BRATS_2021, BRATS_2023
from mis.data.layouts.msd import MSD_REGIONS
from mis.data.records.preprocess import region_bits, region_channels
from mis.predict.labels import nested_labels, regions_from_probabilities, without_small_parts

LAYOUTS = {"msd": MSD_REGIONS, "brats2021": BRATS_2021.regions, "brats2023": BRATS_2023.regions}
REGIONS = ("WT", "TC", "ET")


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 99))
def test_labels_of_a_truth_s_regions_are_the_truth(layout, seed):
    values = LAYOUTS[layout]
    truth = np.random.default_rng(seed).choice([0, *values["WT"]], size=(3, 4, 5)).astype(np.uint8)
    regions = region_channels(region_bits(truth, values), range(3)).astype(bool)
    labels = nested_labels(regions, REGIONS, values)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, truth)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_innermost_region_wins_also_where_the_outer_ones_were_not_predicted(layout):
    values = LAYOUTS[layout]
    alone = np.zeros((1, 1, 1, 3), bool)
    alone[..., 2] = True
    assert nested_labels(alone, REGIONS, values).item() == values["ET"][0]


def test_the_whole_tumour_alone_has_the_label_of_what_is_no_core():
    mask = np.ones((1, 1, 1, 1), bool)
    assert nested_labels(mask, ("WT",), BRATS_2021.regions).item() == 2


def test_a_voxel_belongs_from_the_threshold_on():
    probability = np.array([0.49, 0.5, 0.51], np.float32).reshape(3, 1, 1, 1)
    assert regions_from_probabilities(probability, 0.5).ravel().tolist() == [False, True, True]


def test_small_parts_are_taken_away_and_corners_connect():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True  # three by their corners
    mask[5, 5, 4:6] = True
    assert without_small_parts(mask, 3).sum() == 3
    assert without_small_parts(mask, 2).sum() == 5
    assert without_small_parts(mask, 4).sum() == 0
    np.testing.assert_array_equal(without_small_parts(without_small_parts(mask, 3), 3), without_small_parts(mask, 3))


def test_small_parts_are_those_of_each_region():
    probability = np.zeros((4, 4, 4, 2), np.float32)
    probability[:2, :2, :2] = 1
    probability[0, 0, 0, 1] = 0  # 8 voxels and 7
    kept = regions_from_probabilities(probability, 0.5, min_voxels=8)
    assert kept.sum(axis=(0, 1, 2)).tolist() == [8, 0]
