import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.case import Case, patient_of
from mis.data.split import Split, fold_of, read_split, split_cases, write_split
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


# ---- Folds ----


def named(patients):
    """Return the names of cases from the patient of each, as BraTS names a patient's examinations."""
    return tuple(f"BraTS-GLI-{patient:05d}-{index:03d}" for index, patient in enumerate(patients))


@given(
    patients=st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(lambda p: len(set(p)) >= 2),
    data=st.data(),
    seed=seeds,
)
def test_each_patient_is_validated_on_in_one_fold(patients, data, seed):
    cases = named(patients)
    cut = data.draw(st.integers(0, len(cases)))
    split = Split(cases[:cut], cases[cut:], ("BraTS-GLI-00099-000",))
    folds = data.draw(st.integers(2, len(set(patients))))
    every = [fold_of(split, folds, fold, seed) for fold in range(folds)]
    assert sorted(case for one in every for case in one.val) == sorted(cases)
    for one in every:
        assert sorted((*one.train, *one.val)) == sorted(cases)
        assert one.test == split.test
        assert not {patient_of(case) for case in one.train} & {patient_of(case) for case in one.val}
    sizes = [len({patient_of(case) for case in one.val}) for one in every]
    assert max(sizes) - min(sizes) <= 1


@given(seed=seeds, cut=st.integers(1, 11))
def test_folds_do_not_depend_on_the_split_that_they_are_cut_from(seed, cut):
    cases = named(range(12))
    one, other = Split(cases[:cut], cases[cut:], ()), Split(cases[::-1][:6], cases[::-1][6:], ())
    assert fold_of(one, 3, 1, seed) == fold_of(other, 3, 1, seed)


def test_folds_depend_on_the_seed():
    split = Split(named(range(20)), (), ())
    assert len({fold_of(split, 4, 0, seed).val for seed in range(5)}) > 1


def test_there_are_at_most_as_many_folds_as_patients():
    split = Split(named([1, 1, 2]), named([3]), ())
    assert fold_of(split, 3, 2, 0).val
    with pytest.raises(MisError, match=r"at most 3, the patients .* got 4"):
        fold_of(split, 4, 0, 0)
