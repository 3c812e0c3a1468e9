"""Every layout at 240 x 240 x 155, from the files to the records and back into the files' grid."""

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from mis.data.check.data_set import check_data_set
from mis.data.layouts.recognise import read_data
from mis.data.phantom import write
from mis.data.phantom.scan import make_case
from mis.data.phantom.write import case_seed, make_phantom
from mis.data.pipeline.dataset import case_batches
from mis.data.records.preprocess import region_bits
from mis.data.records.writer import write_records
from mis.params.data import LAYOUTS, PhantomParams
from tests.data.grids import to_file

pytestmark = pytest.mark.slow

SHAPE = (240, 240, 155)


@pytest.fixture(scope="module")
def patients():
    """Three patients, drawn once for all layouts: drawing takes longer than all that is tested."""
    return [make_case(SHAPE, case_seed(3, number)) for number in range(3)]


@pytest.fixture(scope="module")
def known():
    """The hashes of the records of the layouts before, by the number of the patient."""
    return {}


@pytest.fixture
def root(request, patients, tmp_path, monkeypatch):
    """The three patients in a layout."""
    drawn = {case_seed(3, number): case for number, case in enumerate(patients)}
    monkeypatch.setattr(write, "make_case", lambda _shape, seed: drawn[seed])
    params = PhantomParams(layout=request.param, cases=3, unlabelled=0, shape=SHAPE, seed=3)
    make_phantom(tmp_path / request.param, params, jobs=1, progress=False)
    return tmp_path / request.param


@pytest.mark.parametrize("root", LAYOUTS, indirect=True)
def test_a_data_set_is_checked_stored_read_and_brought_back(root, params, tmp_path, known):
    data = read_data(root)
    assert check_data_set(data, params.data, jobs=2, progress=False).findings == ()
    records = write_records(data, params.data, tmp_path / "records", jobs=2, progress=False)
    first = data.cases[0]
    _, target, _ = next(iter(case_batches(records, [first.id], 1)))
    truth = region_bits(np.asarray(nib.load(first.label).dataobj).astype(np.uint8), data.regions)
    geometry = records.cases[first.id].geometry
    for number in range(len(data.regions)):
        back = to_file(geometry, target.numpy()[0, ..., number].astype(np.uint8))
        np.testing.assert_array_equal(back, truth >> number & 1)
    stored = {case.id: hashlib.sha256(records.path(case.id).read_bytes()).hexdigest() for case in data.cases}
    assert known.setdefault("records", list(stored.values())) == list(stored.values()), "the same in every layout"

    last = data.cases[2]
    last.images[0].write_bytes(last.images[0].read_bytes()[:-9])
    findings = check_data_set(replace(data, cases=(last,)), params.data, jobs=1, progress=False).findings
    assert [(finding.rule, finding.case) for finding in findings] == [("unreadable", last.id)]
