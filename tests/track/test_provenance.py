import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from mis.settings import Settings
from mis.track import provenance
from mis.track.base import TRAIN
from mis.track.memory import MemoryTracker
from mis.track.provenance import find_origin


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "dvc.lock").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_tree_is_its_commit(repository):
    (repository / "untracked").write_text("x")
    commit = provenance.git_commit(repository)
    assert len(commit) == 40
    assert int(commit, 16)


def test_a_changed_file_makes_it_dirty_but_not_the_lock_that_dvc_rewrites(repository):
    commit = provenance.git_commit(repository)
    (repository / "dvc.lock").write_text("changed")
    assert provenance.git_commit(repository) == commit
    (repository / "code.py").write_text("2")
    assert provenance.git_commit(repository) == f"{commit}-dirty"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit(tmp_path) == "unknown"
    assert "mlflow.source.git.commit" not in provenance.run_tags(tmp_path)


def test_the_machine_is_described():
    facts = provenance.machine()
    assert {"host", "cpu", "cores", "memory_gib", "os", "onednn"} <= facts.keys()
    assert int(facts["cores"]) >= 1
    assert float(facts["memory_gib"]) > 0
    assert all(facts.values())


# TensorFlow says itself whether it computes with oneDNN.
ONEDNN = """
import json
from mis.track.provenance import machine
from mis.quiet import import_tensorflow
import_tensorflow()
from tensorflow.python.util import _pywrap_util_port
print(json.dumps([machine()["onednn"], _pywrap_util_port.IsMklEnabled()]))
"""


@pytest.mark.slow
def test_a_run_says_whether_tensorflow_computes_with_onednn(run_script):
    """It does on every CPU, where the user has not decided."""
    unset = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environments = [unset, *(unset | {"TF_ENABLE_ONEDNN_OPTS": value} for value in ("0", "1"))]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda env: run_script(ONEDNN, env=env), environments))
    assert found == [["on", True], ["off", False], ["on", True]]


def test_gpus_are_those_that_nvidia_smi_names(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'NVIDIA X, 80 GiB\\nNVIDIA X, 80 GiB\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.machine()["gpus"] == "NVIDIA X, 80 GiB; NVIDIA X, 80 GiB"
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert "gpus" not in provenance.machine()


def test_versions_are_of_what_is_installed(monkeypatch):
    assert provenance.versions()["keras"].startswith("3.")
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.versions()["no-such-package"] == "unknown"


def test_cases_that_were_left_out_are_recorded(repository, params):
    settings = Settings(root=repository, workspace=repository, tracking_uri="")
    assert "mis.data.left_out" not in find_origin(settings, params.data, None).tags
    run = MemoryTracker().start_run(TRAIN, "training")
    find_origin(settings, params.data, None, {"BRATS_003": "no label", "BRATS_007": "cut short"}).record(run)
    expected = "BRATS_003, BRATS_007 (2). BRATS_003: no label; BRATS_007: cut short"
    assert run.tags["mis.data.left_out"] == expected


def test_tags_name_the_commit_for_us_and_for_mlflow(repository):
    (repository / "code.py").write_text("2")
    tags = provenance.run_tags(repository)
    assert tags["mis.git_commit"] == f"{tags['mlflow.source.git.commit']}-dirty"
    assert {"mis.host", "mis.cores", "mis.version.python", "mis.version.tensorflow"} <= tags.keys()
    assert all(isinstance(value, str) for value in tags.values())
