"""Every layout at 240 x 240 x 155, from the files to the records and back into the files' grid."""

import hashlib

import nibabel as nib
import numpy as np
import pytest

from mis.data.check.dataset import check
from mis.data.layouts.recognise import read_data
from mis.data.phantom.write import make_phantom
from mis.data.pipeline.dataset import case_batches
from mis.data.records.preprocess import region_bits
from mis.data.records.writer import write_records
from mis.params.data import LAYOUTS, PhantomParams

pytestmark = pytest.mark.slow

SHAPE = (240, 240, 155)


@pytest.fixture(scope="module")
def known():
    """What was found in the layouts before: records by the number of the patient."""
    return {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_data_set_is_checked_stored_read_and_brought_back(params, tmp_path, known, layout):
    own = PhantomParams(layout=layout, cases=3, unlabelled=0, shape=SHAPE, seed=3)
    make_phantom(tmp_path / layout, own, jobs=2, progress=False)
    data = read_data(tmp_path / layout)
    assert check(data, params.data, jobs=2, progress=False).findings == ()
    records = write_records(data, params.data, tmp_path / "records", jobs=2, progress=False)
    first = data.cases[0]
    _, target, _ = next(iter(case_batches(records, [first.id], 1)))
    truth = region_bits(np.asarray(nib.load(first.label).dataobj).astype(np.uint8), data.regions)
    geometry = records.cases[first.id].geometry
    for number in range(len(data.regions)):
        back = geometry.prediction_to_file(target.numpy()[0, ..., number].astype(np.uint8))
        np.testing.assert_array_equal(back, truth >> number & 1)
    stored = {case.id: hashlib.sha256(records.path(case.id).read_bytes()).hexdigest() for case in data.cases}
    assert known.setdefault("records", list(stored.values())) == list(stored.values()), "the same in every layout"

    last = data.cases[2]
    last.images[0].write_bytes(last.images[0].read_bytes()[:-9])
    assert [(one.rule, one.case) for one in check(data, params.data, jobs=2, progress=False).findings] == [
        ("unreadable", last.id)
    ]
