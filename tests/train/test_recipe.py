"""The recipe of pipelines/recipe.yaml learns what there is to learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from mis.data.split import Split
from mis.params.load import load_params
from mis.train.checkpoint import Checkpoints
from mis.train.fit import fit

RECIPE = Path(__file__).parents[2] / "pipelines" / "recipe.yaml"


@pytest.mark.slow
def test_it_overfits_two_cases(records, tmp_path):
    # Those whose enhancing tumour has most voxels: of 16 x 16 x 16 it has few.
    two = tuple(sorted(records.split.train, key=lambda case: -records.cases[case].statistics["ET"])[:2])
    both = replace(records, split=Split(train=two, val=two, test=two))
    params = load_params(RECIPE).override({"train.epochs": 120, "train.patience": 120, "train.augment.flip": 0.0})
    fitted = fit(
        params.model, params.train, both, strategy=tf.distribute.get_strategy(), checkpoints=Checkpoints(tmp_path / "c")
    )
    assert fitted.best["val/dice"] > 0.98
