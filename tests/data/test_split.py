import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.case import Case, patient_of
from mis.data.split import Split, read_split, split_cases, write_split
from mis.errors import MisError
from mis.params.data import SplitParams

PARAMS = SplitParams(train=0.7, val=0.15, test=0.15, seed=0)
seeds = st.integers(min_value=0, max_value=2**32)


def cases_of(patients):
    """Return cases from the patient of each."""
    return [Case(f"case{index:03d}", f"patient{patient}", (), None) for index, patient in enumerate(patients)]


def parts(split):
    return split.train, split.val, split.test


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00005-000", "BraTS-GLI-00005"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS2021_00005", "BraTS2021_00005"),
        ("Brats18_2013_2_1", "Brats18_2013_2_1"),
        ("BRATS_001", "BRATS_001"),
        ("site-001", "site-001"),
        ("site-a-002", "site-a-002"),
    ],
)
def test_the_examinations_of_a_patient_are_known(case, patient):
    assert patient_of(case) == patient


@given(patients=st.lists(st.integers(0, 30), min_size=3).filter(lambda p: len(set(p)) >= 3), seed=seeds)
def test_the_parts_cover_all_cases_and_share_no_patient(patients, seed):
    cases = cases_of(patients)
    split = split_cases(cases, PARAMS.model_copy(update={"seed": seed}))
    assert sorted(case for part in parts(split) for case in part) == [case.id for case in cases]
    patient = {case.id: case.patient for case in cases}
    sides = [{patient[case] for case in part} for part in parts(split)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set(patients))


@given(order=st.permutations(cases_of(range(12))), seed=seeds)
def test_the_order_of_the_cases_does_not_matter(order, seed):
    params = PARAMS.model_copy(update={"seed": seed})
    assert split_cases(order, params) == split_cases(cases_of(range(12)), params)


@pytest.mark.parametrize(
    ("patients", "sizes"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (8, (6, 1, 1)), (10, (6, 2, 2)), (20, (14, 3, 3)), (484, (338, 73, 73))],
)
def test_the_sizes_are_rounded_shares_and_at_least_one(patients, sizes):
    assert tuple(map(len, parts(split_cases(cases_of(range(patients)), PARAMS)))) == sizes


def test_the_seed_chooses():
    cases = cases_of(range(40))
    first, again, other = (split_cases(cases, PARAMS.model_copy(update={"seed": seed})) for seed in (1, 1, 2))
    assert first == again
    assert first.test != other.test


def test_a_seed_gives_the_same_split_for_ever():
    # A new NumPy must not move cases from test to train.
    assert split_cases(cases_of(range(8)), PARAMS) == Split(
        train=("case000", "case001", "case003", "case005", "case006", "case007"), val=("case002",), test=("case004",)
    )


@pytest.mark.parametrize("patients", [[], [0], [0, 0, 0, 1]])
def test_fewer_than_three_patients_are_refused(patients):
    with pytest.raises(MisError, match=f"at least three patients, got {len(set(patients))}"):
        split_cases(cases_of(patients), PARAMS)


def test_each_part_has_a_patient_where_the_shares_leave_none_to_train_on():
    params = SplitParams(train=0.02, val=0.49, test=0.49, seed=0)
    for patients in (3, 4, 5, 7, 11):
        assert all(parts(split_cases(cases_of(range(patients)), params))), patients


def test_the_file_names_every_case_and_comes_back(tmp_path):
    split = split_cases(cases_of(range(9)), PARAMS)
    write_split(split, tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == split
    content = json.loads((tmp_path / "split.json").read_text())
    assert list(content) == ["train", "val", "test"]
    assert sorted(case for part in content.values() for case in part) == [f"case{index:03d}" for index in range(9)]
