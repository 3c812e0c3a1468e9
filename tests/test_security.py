"""What docs/security.md promises: who can reach a command that runs, and what a file from elsewhere can do."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from contextlib import suppress

import keras
import numpy as np
import psutil
import pytest

from mis.data.case import MODALITIES
from mis.data.records.index import target_regions
from mis.errors import MisError
from mis.model.card import ModelCard, add_card
from mis.predict.model import load_segmenter
from mis.settings import load_settings
from mis.train.checkpoint import Checkpoints
from mis.tune.session import check_name
from tests.conftest import ROOT
from tests.tune.ray.conftest import LEARNING_RATE

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


# ---- Ports ----


def listening(process):
    """Return where a process and those that it has started listen for connections, by address."""
    found = {}
    for each in (process, *process.children(recursive=True)):
        try:
            sockets = each.net_connections("inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {(each.pid, socket.laddr.ip): socket.laddr.port for socket in sockets if socket.status == "LISTEN"}
    return found


SEARCH = {
    "model.depth": 1,
    "model.base_filters": 4,
    "train.batch_size": 2,
    "tune.num_samples": 1000,
    "tune.epochs": 2,
    "tune.space": LEARNING_RATE,
    "tune.scheduler.name": "none",
}
"""A search that goes on until it is ended."""

OPTIONS = [word for name, value in SEARCH.items() for word in ("--set", f"{name}={json.dumps(value)}")]


@pytest.mark.slow
def test_a_running_search_listens_on_the_loopback_address_alone(project):
    command = [sys.executable, "-m", "mis.tune", "--name", "scanned", *OPTIONS]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "RAY_"))}
    env = kept | {"PYTHONPATH": str(ROOT), "MIS_LEASES": str(project / "leases")}
    with (project / "said").open("wb") as said:
        search = subprocess.Popen(command, cwd=project, env=env, stdout=said, stderr=said)
    started = []
    try:
        _check_search(search, project, started)
    finally:
        for process in started:
            with suppress(psutil.Error):
                process.kill()
        search.kill()
        search.wait()


def _check_search(search, project, started):
    trials = project / "checkpoints" / "tune" / "scanned" / "trials"
    seen = {}
    # From the first process to the first epoch that was recorded, over and over.
    while not list(trials.glob("*/outcome.json")):
        assert search.poll() is None, (project / "said").read_text()
        process = psutil.Process(search.pid)
        started[:] = process.children(recursive=True)
        seen |= listening(process)
        time.sleep(0.05)
    assert len(seen) > 3  # Ray's servers
    assert {address for _, address in seen} <= LOOPBACK


# ---- Files from elsewhere ----


@pytest.fixture
def card(params):
    return ModelCard(
        modalities=MODALITIES, regions=target_regions(params.data), data=params.data, grid=(8, 8, 8),
        patch_size=(8, 8, 8), multiple=8, records="r", data_hash=None,
    )  # fmt: skip


def test_a_model_that_brings_code_with_it_is_refused_and_the_code_not_run(card, tmp_path):
    image = keras.Input((8, 8, 8, 4))
    proof = tmp_path / "code-was-run"
    code = eval(f"lambda x: (open({str(proof)!r}, 'w'), x[..., :3])[1]")  # noqa: S307 - what an attacker would write
    model = keras.Model(image, keras.layers.Lambda(code, output_shape=(8, 8, 8, 3))(image))
    proof.unlink(missing_ok=True)  # the attacker's own process has run it
    path = tmp_path / "model.keras"
    model.save(path)
    add_card(path, card)
    with pytest.raises(MisError, match=r"model\.keras must be a model of Keras: .*[Ll]ambda"):
        load_segmenter([path])
    assert not proof.exists()


def test_a_model_in_a_format_that_can_run_code_is_none(tmp_path):
    path = tmp_path / "model.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(MisError, match=r"model\.h5 must be a model of Keras with its card"):
        load_segmenter([path])


class Code:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_a_checkpoint_with_a_pickle_is_not_read(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write([np.zeros(3)], lambda path: path.touch(), [{"val/dice": 0.5}], improved=True)
    (state,) = tmp_path.glob("epoch-0001/*.npz")
    with zipfile.ZipFile(state) as archive:
        names = archive.namelist()
    with state.open("wb") as file:
        np.savez(file, **{name.removesuffix(".npy"): np.array([Code()], dtype=object) for name in names})
    said = checkpoints.set_aside_unreadable()
    assert said or not checkpoints.history()
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", "", ".hidden", "a\nb", "x" * 101])
def test_a_name_of_a_study_cannot_leave_its_folder(name, tmp_path):
    with pytest.raises(MisError, match="name"):
        check_name(name, load_settings({"MIS_ROOT": str(tmp_path)}, tmp_path))


def test_every_model_is_loaded_in_safe_mode():
    calls = [
        call
        for path in (ROOT / "mis").rglob("*.py")
        for call in re.findall(r"load_model\(.*\)", path.read_text(encoding="utf-8"))
        if "def " not in call
    ]
    assert len(calls) >= 3
    assert all("safe_mode=True" in call for call in calls)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mis").rglob("*.py"))
    assert "allow_pickle=True" not in sources
    assert not re.search(r"^\s*(import|from) (pickle|dill|joblib|shelve|marshal)\b", sources, re.MULTILINE)
