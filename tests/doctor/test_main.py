"""`python -m mis.doctor` as a user types it, with troubles that are there for real."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mis.doctor.__main__ import main
from tests.ray_nodes import TwoNodes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OURS = ("MIS_", "MLFLOW_", "RAY_", "DVC_", "CUDA_", "SLURM_")


def doctor(folder, *options, **env):
    """Run the command in a folder, and return its exit code and what it has found."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [sys.executable, "-m", "mis.doctor", "--json", *options],
        cwd=folder,
        env=own | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    marks = [found["mark"] for found in told["diagnoses"]]
    assert (told["errors"], told["warnings"]) == (marks.count("error"), marks.count("warning"))
    assert all(found["do"] for found in told["diagnoses"] if found["mark"] != "ok"), "each trouble says what to do"
    return done.returncode, told["diagnoses"]


def about(diagnoses, mark):
    return [(found["about"], found["found"]) for found in diagnoses if found["mark"] == mark]


def test_on_a_machine_on_which_all_is_well_there_is_no_error_and_nothing_is_left(tmp_path):
    code, found = doctor(tmp_path)
    assert (code, about(found, "error")) == (0, [])
    assert {"versions", "commit", "cores", "memory", "open files", "checkpoints", "MLflow", "outbox", "Ray"} <= {
        name for name, _ in about(found, "ok")
    }
    assert list(tmp_path.iterdir()) == []


def test_a_person_gets_a_line_for_each_with_what_to_do_below_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("error")]
    assert "MLflow server http://127.0.0.1:9 does not answer" in lines[number]
    assert lines[number + 1].strip().startswith("-> start it")
    assert lines[-1].startswith("1 error, ")


def test_bad_input_is_exit_code_2(monkeypatch, capsys):
    monkeypatch.setenv("MIS_DEVICES", "many")
    assert main([]) == 2
    assert "MIS_DEVICES" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--jsonn"])


def test_a_full_disk_for_checkpoints_and_a_cluster_that_does_not_answer_are_errors(tmp_path, full_disk):
    code, found = doctor(tmp_path, MIS_ROOT=str(full_disk), RAY_ADDRESS="127.0.0.1:9")
    errors = dict(about(found, "error"))
    assert code == 1
    assert f"at {full_disk} (tmpfs), too little to begin" in errors["checkpoints"]
    assert errors["Ray"] == "RAY_ADDRESS must name a Ray cluster that answers (Connection refused), got 127.0.0.1:9"
    assert list(full_disk.iterdir()) == []


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_a_gpu_that_is_promised_and_cannot_be_loaded_is_an_error_that_says_what_is_missing(tmp_path):
    code, found = doctor(tmp_path, CUDA_VISIBLE_DEVICES="0")
    ((name, line),) = about(found, "error")
    assert (code, name) == (1, "GPUs")
    assert "CUDA_VISIBLE_DEVICES=0 promises some: the driver's library cannot be loaded" in line


def test_a_tensorflow_that_cannot_be_imported_is_an_error_that_says_why(tmp_path):
    broken = tmp_path / "broken" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libstdc++.so.6: version not found')\n")
    (tmp_path / "project").mkdir()
    code, found = doctor(tmp_path / "project", PYTHONPATH=f"{broken.parent}:{ROOT}")
    ((name, line),) = about(found, "error")
    assert (code, name) == (1, "TensorFlow")
    assert line.endswith("it cannot be imported: ImportError: libstdc++.so.6: version not found")


# ---- Two nodes ----


def test_of_two_nodes_the_one_with_a_low_limit_of_open_files_is_named(tmp_path):
    with TwoNodes(cores=1, open_files=2000) as cluster:
        code, found = doctor(tmp_path, **cluster.env)
    assert code == 0, about(found, "error")
    ((line,),) = [[line for name, line in about(found, "warning") if name == "open files"]]
    assert line.endswith("a process may open 2000 files, less than the 4096 below which connections of Ray fail")
    well = about(found, "ok")
    assert ("versions", "all nodes have what this process has, and the same time") in well
    assert ("checkpoints", f"all nodes see {tmp_path}, and what each writes there is seen here") in well
    assert [line for name, line in well if name == "checkpoints" and line.startswith(f"locks in {tmp_path} reach ")]
    assert list(tmp_path.iterdir()) == []


def another_installation(folder):
    """Return a folder with a copy of `mis` of which a line is changed, and with what says that Keras is another one."""
    shutil.copytree(ROOT / "mis", folder / "mis", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "mis" / "model" / "losses.py").open("a", encoding="utf-8") as file:
        file.write("# another loss\n")
    keras = folder / "keras-9.9.9.dist-info"
    keras.mkdir()
    (keras / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 9.9.9\n")
    return folder


COMMANDS = {
    "mis.tune": ("--name", "refused"),
    "mis.train": ("--set", "distribute.workers=2", "--set", "train.batch_size=2"),
    "mis.scaling": ("measure", "--set", "scaling.devices=[1,2]", "--set", "scaling.trials=[{},{}]"),
}


def test_a_node_with_another_mis_and_keras_is_named_and_nothing_is_begun_on_it(warm, project, tmp_path_factory):
    other = another_installation(tmp_path_factory.mktemp("other"))
    with TwoNodes(cores=1, second_env={"PYTHONPATH": str(other)}) as cluster:
        code, found = doctor(project, **cluster.env)
        refused = {module: refusal(warm, project, cluster.env, module, words) for module, words in COMMANDS.items()}
    assert code == 1
    (keras, sources) = [line for name, line in about(found, "error") if name == "versions"]
    assert "has Keras 9.9.9 (here " in keras
    assert "has other sources of mis (" in sources
    assert f" in {other}/mis, here " in sources
    for module, line in refused.items():
        assert line.startswith("error: every node of the Ray cluster must have what this process has, got "), module
        assert f"{keras}, {sources}; " in line, module
    assert not list(project.glob("checkpoints/tune/*/trials/*"))
    assert not list(project.glob("checkpoints/train*/*/epoch-*"))


def refusal(warm, project, env, module, words):
    """Run a command that is to be refused, and return its last line."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = warm.start(*words, module=module, cwd=project, env=own | {"PYTHONPATH": str(ROOT)} | env)
    _, err = process.communicate()
    assert process.returncode == 2, err
    return err.splitlines()[-1]


def keep_in(path, folder):
    """Let the project in a folder have its storage there."""
    (folder / "dvc.yaml").write_text("stages: {}\n")
    plain = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(plain.replace("  path: null", f"  path: {path}"), encoding="utf-8")


def test_of_two_nodes_the_one_that_does_not_reach_the_storage_is_named(tmp_path, storage_server):
    keep_in("s3://mis/nodes", tmp_path)
    nowhere = {**storage_server.env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with TwoNodes(cores=1, second_env=nowhere) as cluster:
        code, found = doctor(tmp_path, **cluster.env)
    (line,) = [line for name, line in about(found, "error") if name == "storage"]
    assert code == 1
    assert line.startswith("s3://mis/nodes cannot be used on ")
    assert line.endswith(": network connection: could not connect to server")
    assert not storage_server.folder("nodes").list(), "nothing is left there"


def test_a_shared_folder_is_written_to(tmp_path, full_disk):
    keep_in(full_disk, tmp_path)
    _, found = doctor(tmp_path)
    assert ("storage", f"checkpoints, studies and records are in {full_disk}, which can be written to") in about(
        found, "ok"
    )
    with suppress(OSError), (full_disk / "filled").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    code, found = doctor(tmp_path)
    assert code == 1
    assert ("storage", f"{full_disk} cannot be written to: No space left on device") in about(found, "error")


def test_a_storage_is_written_to_and_what_refuses_is_said(tmp_path, storage_server):
    for path, mark, says in (
        ("s3://mis/project", "ok", "s3://mis/project takes an object and returns it"),
        ("s3://no-such-bucket/a", "error", "s3://no-such-bucket/a cannot be used: no such bucket"),
    ):
        keep_in(path, tmp_path)
        code, found = doctor(tmp_path, **storage_server.env)
        assert code == (mark == "error")
        (line,) = [text for name, text in about(found, mark) if name == "storage"]
        assert says in line
    assert not storage_server.folder("project").list(), "nothing is left there"
