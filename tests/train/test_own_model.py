"""The example of docs/data_parallel.md, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "data_parallel.md"


def example():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return code


def test_the_example_is_short_and_needs_nothing_else_of_mis():
    lines = [line for line in example().splitlines() if line]
    assert re.findall(r"(?:from|import) (mis\S*)", example()) == ["mis.train.gang"]
    body = lines[lines.index("def train(worker):") + 1 : -1]
    assert len(body) <= 10


IMPORTED = """
import json, sys
import mis.train.gang, mis.train.worker
print(json.dumps(sorted(name for name in sys.modules if name.startswith("mis."))))
"""


@pytest.mark.slow
def test_its_imports_are_the_part_that_starts_workers(run_script):
    assert set(run_script(IMPORTED)) <= {
        "mis.errors",
        "mis.ports",
        "mis.settings",
        "mis.train",
        "mis.train.allocate",
        "mis.train.cluster",
        "mis.train.devices",
        "mis.train.gang",
        "mis.train.heartbeat",
        "mis.train.messages",
        "mis.train.multiworker",
        "mis.train.rendezvous",
        "mis.train.worker",
        "mis.train.worker_process",
    }


@pytest.mark.slow
def test_the_example_trains_a_plain_keras_model_as_one_device_would(tmp_path):
    (tmp_path / "own.py").write_text(example(), encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    saved = keras.saving.load_model(tmp_path / "model.keras")

    keras.utils.set_random_seed(0)
    x = keras.random.normal((64, 8)).numpy()
    own = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    own.compile("sgd", "mse")
    own.fit(x, x.sum(axis=1), batch_size=16, epochs=20, shuffle=False, verbose=0)
    for several, one in zip(saved.get_weights(), own.get_weights(), strict=True):
        assert np.linalg.norm(several - one) < 1e-4 * np.linalg.norm(one)
