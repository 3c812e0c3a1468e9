"""The example of docs/data_parallel.md, as it stands there."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.test_architecture import closure

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


def test_its_imports_are_the_part_that_starts_workers():
    """Those in functions as well."""
    assert closure("mis.train.gang") | closure("mis.train.worker") == {
        "mis.errors",
        "mis.machine.diagnosis",
        "mis.machine.disks",
        "mis.machine.facts",
        "mis.machine.judge",
        "mis.machine.limits",
        "mis.params.base",
        "mis.params.data",
        "mis.ports",
        "mis.quiet",
        "mis.settings",
        "mis.termination",
        "mis.track.base",
        "mis.track.names",
        "mis.track.provenance",
        "mis.train.allocate",
        "mis.train.clocks",
        "mis.train.cluster",
        "mis.train.connect",
        "mis.train.devices",
        "mis.train.gang",
        "mis.train.heartbeat",
        "mis.train.installation",
        "mis.train.meeting",
        "mis.train.messages",
        "mis.train.multiworker",
        "mis.train.nodes",
        "mis.train.progress",
        "mis.train.promised_gpus",
        "mis.train.rendezvous",
        "mis.train.signals",
        "mis.train.worker",
        "mis.train.worker_process",
    }


@pytest.mark.slow
@pytest.mark.usefixtures("nodes")
def test_the_example_trains_a_plain_keras_model_as_one_device_would(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # As a script's: workers get the function with its code, and import nothing of this test.
    exec(compile(example(), "example.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - code of our page
    reports = capsys.readouterr().out.splitlines()
    assert [int(report[1:].partition(",")[0]) for report in reports] == list(range(20))
    saved = keras.saving.load_model(tmp_path / "model.keras")

    keras.utils.set_random_seed(0)
    x = keras.random.normal((64, 8)).numpy()
    expected = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    expected.compile("sgd", "mse")
    expected.fit(x, x.sum(axis=1), batch_size=16, epochs=20, shuffle=False, verbose=0)
    for weight, expected_weight in zip(saved.get_weights(), expected.get_weights(), strict=True):
        assert np.linalg.norm(weight - expected_weight) < 1e-4 * np.linalg.norm(expected_weight)
