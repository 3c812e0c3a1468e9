from pathlib import Path

import numpy as np
import pytest

from mis.data.phantom.sample import sample_case
from mis.data.phantom.scan import render_case
from mis.data.phantom.write import case_seed
from mis.params.load import load_params

DEFAULT = load_params(Path(__file__).parents[3] / "params.yaml").phantom


@pytest.fixture(scope="session")
def renderings():
    """The labelled cases of params.yaml."""
    seeds = [case_seed(DEFAULT.seed, index) for index in range(DEFAULT.cases)]
    return [render_case(sample_case(np.random.default_rng(seed)), DEFAULT.shape) for seed in seeds]
