"""Several models as one file: a plain model of Keras whose result is the mean of theirs."""

from collections.abc import Sequence
from pathlib import Path

import keras

from mis.files import new_file
from mis.model.card import ModelCard, add_card


def write_ensemble(paths: Sequence[Path], card: ModelCard, path: Path) -> None:
    """Write an ensemble as one model, which Keras loads and which predicts the mean of the members' probabilities.

    Args:
        paths: The files of the members, at least two, which take the same images and give the same regions.
        card: What is kept with the file.
        path: The file.
    """
    models = [keras.saving.load_model(member, compile=False, safe_mode=True) for member in paths]
    image = keras.Input(models[0].input.shape[1:], name="image")
    results = []
    for number, model in enumerate(models):
        model.name = f"member{number}"
        results.append(model(image))
    ensemble = keras.Model(image, keras.layers.Average(dtype="float32", name="regions")(results))
    with new_file(path) as unfinished:
        ensemble.save(unfinished)
        add_card(unfinished, card)


def members_of(model: keras.Model) -> tuple[keras.Model, ...]:
    """Return the members of an ensemble, which can be applied one after the other; of any other model, itself."""
    return tuple(layer for layer in model.layers if isinstance(layer, keras.Model)) or (model,)
