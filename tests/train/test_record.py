"""Which run a training goes on in."""

import pytest

from mis.track.names import CHECKPOINT_TAG, RUN_KEY_TAG
from mis.train.checkpoint import Checkpoints
from mis.train.record import RUN_KEY, key_of_run


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "abc")


def test_a_training_from_its_beginning_has_a_run_of_its_own(checkpoints):
    first, second = (key_of_run(checkpoints) for _ in range(2))
    assert first[CHECKPOINT_TAG] == second[CHECKPOINT_TAG] == "abc"
    assert first[RUN_KEY_TAG] != second[RUN_KEY_TAG]


def test_a_training_that_has_a_checkpoint_goes_on_in_its_run(checkpoints):
    begun = key_of_run(checkpoints)
    checkpoints.write([], lambda path: path.touch(), [{"val/dice": 0.5}], improved=True)
    assert key_of_run(checkpoints) == begun
    checkpoints.remove()
    assert key_of_run(checkpoints) != begun


def test_a_training_that_an_earlier_version_began_is_found_by_its_folder_alone(checkpoints):
    checkpoints.write([], lambda path: path.touch(), [{"val/dice": 0.5}], improved=True)
    assert key_of_run(checkpoints) == {CHECKPOINT_TAG: "abc"}
    assert not (checkpoints.folder / RUN_KEY).exists()
