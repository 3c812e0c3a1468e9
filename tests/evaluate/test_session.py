"""The evaluation of the pipeline on records that are not as they were written."""

import shutil
from dataclasses import replace

import keras
import pytest

from mis.errors import MisError
from mis.evaluate.session import evaluate
from mis.model.card import ModelCard, add_card
from mis.settings import load_settings


@pytest.fixture
def model(tmp_path, records, params):
    """The file of a model with the three regions' channels."""
    image = keras.Input((None, None, None, 4))
    keras.Model(image, keras.layers.Conv3D(3, 1, activation="sigmoid")(image)).save(tmp_path / "model.keras")
    add_card(tmp_path / "model.keras", ModelCard.of(records, params.model, params.train))
    return tmp_path / "model.keras"


def test_a_test_case_whose_record_is_damaged_is_told_in_one_line(records, params, model, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    path = folder / f"{records.split.test[0]}.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    settings = replace(load_settings({}, tmp_path), records_folder=folder)
    pictures = tmp_path / "slices"
    with pytest.raises(MisError, match="must be as they were written") as error:
        evaluate({"train": (model, 0.5)}, params, settings, pictures)
    assert "\n" not in str(error.value)
    assert not pictures.exists()
