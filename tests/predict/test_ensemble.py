"""An ensemble in one file: a plain model of Keras, and the same as its members one after the other."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from mis.model.card import ModelCard, add_card, read_card
from mis.model.unet import connect_unet
from mis.predict.ensemble import members_of, write_ensemble
from mis.predict.model import load_segmenter
from tests.networks import model_params


@pytest.fixture
def members(tmp_path, records, params):
    """The files of three networks with other weights, of other architectures."""
    paths = []
    for number, norm in enumerate(("group", "batch", "instance")):
        keras.utils.set_random_seed(number)
        network = connect_unet(model_params(norm=norm), 4, 3)
        paths.append(tmp_path / f"{number}.keras")
        keras.Model(network.image, network.probabilities, name="unet").save(paths[-1])
        add_card(paths[-1], ModelCard.of(records, params.model, params.train))
    return paths


def test_an_ensemble_predicts_the_mean_of_its_members(members, params, tmp_path):
    card = replace(read_card(members[0]), validated_on="fold 1 of 3")
    path = tmp_path / "ensemble.keras"
    write_ensemble(members, card, path)
    image = np.random.default_rng(0).normal(size=(16, 16, 16, 4)).astype(np.float32)
    alone = [load_segmenter([member]).probabilities(image, params.predict) for member in members]
    together = load_segmenter([path])
    assert len(together.models) == 3
    assert together.card == card
    np.testing.assert_allclose(together.probabilities(image, params.predict), np.mean(alone, axis=0), atol=1e-6)
    # Keras alone, which knows nothing of members, says the same; the order of the members is kept.
    plain = keras.saving.load_model(path, compile=False)
    np.testing.assert_allclose(plain.predict_on_batch(image[None])[0], np.mean(alone, axis=0), atol=1e-5)
    for member, path_of_member in zip(members_of(plain), members, strict=True):
        own = keras.saving.load_model(path_of_member, compile=False)
        np.testing.assert_allclose(member.predict_on_batch(image[None]), own.predict_on_batch(image[None]), atol=1e-6)


def test_a_model_that_is_no_ensemble_is_its_own_member(members):
    model = keras.saving.load_model(members[0], compile=False)
    assert members_of(model) == (model,)
