"""Batch scripts, as text; tests/cluster runs them."""

import ast
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import mis.slurm.job
from mis.errors import MisError
from mis.slurm.__main__ import main, read, script_of
from mis.slurm.allocation import Job, State, seconds_of, with_local_disk
from mis.slurm.job import words_of
from mis.slurm.node import LONGEST_FOLDER, make_local_folder, own_address, ray_command
from mis.slurm.script import Script
from tests.conftest import PARAMS, ROOT

SCRIPTS = sorted((ROOT / "pipelines" / "slurm").glob("*.sbatch"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with its virtual environment, in which this process is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    return tmp_path


@pytest.fixture
def sbatch(project, monkeypatch):
    """Let `sbatch` be this shell script."""

    def be(text):
        (project / "sbatch").write_text(f"#!/bin/sh\n{text}\n")
        (project / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", f"{project}:{os.environ['PATH']}")

    return be


def asked(text):
    """Return what a script asks SLURM for."""
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_scripts_of_the_project_are_those_that_the_command_writes(path):
    text = path.read_text()
    written_by = next(line for line in text.splitlines() if line.startswith("# Written by: "))
    words = shlex.split(written_by.removeprefix("# Written by: python -m mis.slurm "))
    script = script_of(read(words), words, takes_all_devices=path.stem == "train")
    assert script.text() == text


def test_there_is_a_script_for_each_command():
    assert {path.stem for path in SCRIPTS} == set(mis.slurm.job.COMMANDS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_shell(path):
    subprocess.run(["bash", "-n", path], check=True)


def test_a_script_asks_for_what_it_is_told_and_for_a_signal_before_its_limit():
    text = Script("tune", nodes=8, gpus_per_node=4, time="24:00:00", options=["--partition=gpu"]).text()
    assert {"--nodes=8", "--gpus-per-node=4", "--time=24:00:00", "--partition=gpu"} <= set(asked(text))
    assert {"--signal=B:USR1@90", "--requeue", "--no-kill"} <= set(asked(text))
    # SLURM sends the signal to the shell of the script alone: it must have become the job itself.
    assert text.splitlines()[-2].startswith("exec python -m mis.slurm.job tune")


def test_words_reach_the_command_as_they_were_given():
    words = ["--set", "tune.space={\"a b\": 1, 'c': $HOME}", "--name", "it's"]
    last = Script("tune", words).text().partition("exec ")[2].replace("exec", "")
    done = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s\\0" "$@"; }}; {last}'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\0")[3:-1] == words


def test_a_container_has_the_libraries_and_the_job_stays_outside_of_it():
    text = Script(
        "tune", container="apptainer exec --nv mis.sif", modules=["cuda/12"], setup=["ulimit -n 65536"]
    ).text()
    assert "activate" not in text
    assert "module load cuda/12 || exit 2\nulimit -n 65536\n" in text
    assert "exec python3 -m mis.slurm.job '--container=apptainer exec --nv mis.sif' tune" in text


PROBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import mis.slurm.job, mis.slurm.first_node
ours = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "mis"}
print(json.dumps([ours, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def outside():
    """Return the files of `mis`, by module, that run outside of a container, and the names of all that they import."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(ROOT)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_what_runs_outside_of_a_container_needs_no_library(outside):
    ours, loaded = outside
    assert {"mis.errors", "mis.settings", "mis.slurm.job", "mis.slurm.first_node"} <= set(ours)
    assert set(loaded) - sys.stdlib_module_names - {"__main__", "mis"} <= {name for name in loaded if name[0] == "_"}


def test_what_runs_outside_of_a_container_is_python_3_9(outside):
    for name, path in outside[0].items():
        tree = ast.parse(Path(path).read_text(encoding="utf-8"), feature_version=(3, 9))
        has_annotations = any(
            isinstance(node, ast.AnnAssign)
            or (isinstance(node, ast.arg) and node.annotation is not None)
            or (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None)
            for node in ast.walk(tree)
        )
        not_evaluated = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and "annotations" in {alias.name for alias in node.names}
            for node in tree.body
        )
        # Python 3.9 has no `X | None` for types: it must not come to evaluate one.
        assert not_evaluated or not has_annotations, f"{name} needs `from __future__ import annotations`"
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            newer = {"strict", "slots", "kw_only"} & {keyword.arg for keyword in call.keywords}
            assert not newer, f"{name} calls something with {newer}"
            if isinstance(call.func, ast.Name) and call.func.id == "isinstance":
                assert not isinstance(call.args[1], ast.BinOp), f"{name} asks for one of several types by |"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--time=tomorrow"], "--time must be a time as SLURM reads it, got 'tomorrow'"),
        (["--nodes=0"], "--nodes and --cpus-per-node must be at least 1"),
        (["--account=mine\nrm -rf x"], "an option must be a single line, got \"--account='mine"),
        (["--setup=module purge\n"], "an option must be a single line, got 'module purge"),
        (["--venv=.venv\rrm"], "an option must be a single line"),
        (["--output=a\nrm -rf x.sbatch"], "an option must be a single line"),
    ],
)
def test_what_no_job_can_be_is_refused_and_nothing_written(project, capsys, options, says):
    assert main([*options, "tune"]) == 2
    assert says in capsys.readouterr().err
    assert not list(project.glob("*.sbatch"))


def test_what_comes_with_a_space_is_one_word_for_sbatch():
    words = ["--account=a b", "--constraint=[rack1|rack2]", "--partition=gpu", "tune"]
    text = script_of(read(words), words, takes_all_devices=False).text()
    assert {"--account='a b'", "--constraint='[rack1|rack2]'", "--partition=gpu"} <= set(asked(text))


@pytest.mark.parametrize("setup", [["--module=cuda/12"], []])
def test_a_script_ends_where_its_environment_cannot_be_had(tmp_path, setup):
    words = [*setup, "--venv=absent", "tune"]
    text = script_of(read(words), words, takes_all_devices=False).text()
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert ("module: command not found" if setup else "absent/bin/activate: No such file") in done.stderr


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("array", ["--array=2-5%2", "--sbatch=--array=2,4", "--sbatch=-a2-5"])
def test_the_number_of_an_element_may_be_in_any_option(monkeypatch, capsys, array):
    monkeypatch.setenv("PATH", "")  # there is no sbatch
    words = ["tune", "--set", "tune.sampler.seed=%a", "--name", "s-%a"]
    assert main([array, *words]) == 0, capsys.readouterr().err
    assert "tune --set tune.sampler.seed=%a --name s-%a" in Path("mis-tune.sbatch").read_text().replace("'", "")
    assert main(words) == 2  # without an array there is no number
    assert "tune.sampler.seed" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("array", ["--array=2-5%2", "--sbatch=-a2-5"])
def test_one_name_for_all_elements_of_an_array_is_refused(monkeypatch, capsys, array):
    monkeypatch.setenv("PATH", "")  # there is no sbatch
    assert main([array, "tune", "--name", "mine"]) == 2
    assert "must have a study of its own, got --name mine for all; --name mine-%a" in capsys.readouterr().err
    assert main([array, "tune", "--name", "mine-%a"]) == 0


@pytest.mark.usefixtures("project")
def test_a_time_in_which_nothing_can_be_done_is_said(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    short = ["4:00", "2", "0-0:2", "0-00:04:59", "0:4:59"]
    others = ["5", "1-0", "24:00:00", "0-00:10", "0-02:00", "2-12:00", "10:00", "0"]
    for time, is_short in [*((time, True) for time in short), *((time, False) for time in others)]:
        assert main(["--time", time, "tune"]) == 0
        assert ("may end before it has done anything" in capsys.readouterr().out) == is_short, time


@pytest.fixture
def with_records(project, records):
    """Let the project have records."""
    (project / "params.yaml").write_bytes(PARAMS.read_bytes())
    (project / "data").mkdir()
    (project / "data" / "records").symlink_to(records.folder)


@pytest.mark.usefixtures("with_records")
def test_what_is_said_of_an_array_names_its_studies(sbatch, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    sbatch("test $1 = --test-only || echo 17")
    words = ["tune", "--set", "tune.sampler.seed=%a", "--name", "s-%a"]
    assert main(["--array=0-3", "--submit", *words]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "checkpoints/tune/s-%a; to go on after scancel: sbatch mis-tune.sbatch\n" in said
    assert "slurm-mis-tune-17_%a.out" in said
    assert main(["--array=0-3", "--submit", "tune"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "to go on after scancel: sbatch mis-tune.sbatch --name slurm-17-%a\n" in said
    assert (
        "note: all elements of the array have the sampler's seed 0 and search alike: --set tune.sampler.seed=%a" in said
    )
    assert main(["--submit", "tune", "--set", "storage.path=s3://mis/project"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "the study    s3://mis/project/checkpoints/tune/slurm-17; to go on after scancel: sbatch " in said
    assert "AWS_WEB_IDENTITY_TOKEN_FILE is set here, so the job may not be let in at s3://mis/project" in said


@pytest.mark.usefixtures("with_records")
def test_a_script_that_a_person_has_changed_is_kept_and_one_that_slurm_refuses_is_not_written(project, sbatch, capsys):
    sbatch("exit 0")
    path = project / "mis-tune.sbatch"
    for nodes in ("1", "1", "2"):
        assert main(["--nodes", nodes, "tune"]) == 0
        assert "kept:" not in capsys.readouterr().out
    for number in (1, 2):
        changed = path.read_text() + "# mine\n"
        path.write_text(changed)
        sbatch("grep -q nodes=2 || exit 0; echo sbatch: error: no >&2; exit 1")
        assert main(["--nodes=2", "tune"]) == 2
        assert "SLURM must accept mis-tune.sbatch, got error: no" in capsys.readouterr().err
        assert path.read_text() == changed
        assert main(["--nodes=3", "tune"]) == 0
        assert f"what you have changed, is mis-tune.sbatch.~{number}~ now" in capsys.readouterr().out
        assert path.with_name(f"mis-tune.sbatch.~{number}~").read_text() == changed
        assert "--nodes=3" in path.read_text()
    path.write_text(changed)
    assert main(["--nodes=3", "--submit", "tune", "--params", "params.yaml"]) == 2
    assert "mis-tune.sbatch was changed by hand, and would not be what is submitted" in capsys.readouterr().err
    assert path.read_text() == changed
    for number, words in ((3, "--nods 3 tune"), (4, "tune # don't")):
        path.write_text(f"# Written by: python -m mis.slurm {words}\n")
        assert main(["--nodes=3", "tune"]) == 0
        assert path.with_name(f"mis-tune.sbatch.~{number}~").is_file()


@pytest.mark.usefixtures("with_records")
def test_what_is_submitted_is_what_was_checked(project, sbatch):
    other = f'{sys.executable} -c \'import pathlib; pathlib.Path("mis-tune.sbatch").write_text("another job")\''
    sbatch(f"cat > seen$1; {other}; echo 17")
    assert main(["--submit", "tune", "--set", "tune.sampler.seed=4"]) == 0
    seen = [(project / f"seen{option}").read_text() for option in ("--test-only", "--parsable")]
    assert seen[0] == seen[1]
    assert "tune.sampler.seed=4" in seen[0]


@pytest.mark.usefixtures("with_records")
@pytest.mark.parametrize(
    "reason",
    [
        "Unable to contact slurm controller (connect failure)",
        "Socket timed out on send/recv operation",
        "Zero Bytes were transmitted or received",
        "Slurm backup controller in standby mode",
        "fatal: Could not establish a configuration source",
    ],
)
def test_a_controller_that_does_not_answer_is_no_fault_of_the_script(sbatch, capsys, reason):
    sbatch(f"test $1 = --test-only || {{ echo 'sbatch: error: failed: {reason}' >&2; exit 1; }}")
    assert main(["--submit", "tune"]) == 2
    says = f"SLURM's controller must answer, got error: failed: {reason}; "
    assert f"{says}see `squeue --me` whether it has taken the job, and try" in capsys.readouterr().err
    sbatch(f"echo 'sbatch: error: failed: {reason}' >&2; exit 1")
    assert main(["--submit", "tune"]) == 2
    assert f"{says}try again in a minute" in capsys.readouterr().err
    assert main(["--nodes=2", "tune"]) == 0, "a script can be written without SLURM"
    assert f"not checked: {says}try again in a minute" in capsys.readouterr().out
    assert "--nodes=2" in Path("mis-tune.sbatch").read_text()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--nodes=2", "2", "tune"],
            "the command of the job must be one of tune, train, scaling, repro, got 2; before",
        ),
        (["tune", "--submit"], "--submit must stand before the command, got tune --submit"),
        (["--gpus-per-node=four", "tune"], "--gpus-per-node must be a number, or TYPE:NUMBER, got four"),
        (['--setup=export A="b', "tune"], "the script must be one that bash reads: see --setup, got "),
        (['--container=a "b', "tune"], '--container must be words of a shell, got a "b (No closing quotation)'),
        (["--join-s=0", "tune"], "--join-s must be at least 1, --requeues at least 0, got 0, None"),
        (["--output=.", "tune"], "--output must name a file, got ., which is a folder"),
        (["--array=0-3", "repro"], "a pipeline must run once at a time, got an array of them"),
        (["--array=0-3", "train"], "each element of an array must train something else, got the same for all"),
        (
            ["--gpus-per-node=4", "tune", "--set", "tune.devices_per_trial=8", "--set", "train.batch_size=8"],
            "tune.devices_per_trial must be at most the 4 GPUs of the job, got 8",
        ),
        (
            ["--gpus-per-node=4", "train", "--set", "distribute.workers=8", "--set", "train.batch_size=8"],
            "distribute.workers x distribute.devices_per_worker must be at most the 4 GPUs of the job, got 8",
        ),
    ],
)
def test_what_a_person_may_mistype_is_said_in_one_line(monkeypatch, capsys, words, says):
    monkeypatch.setenv("PATH", "")
    assert main(words) == 2
    assert says in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 1
    assert not list(Path().glob("*.sbatch"))


@pytest.mark.usefixtures("project")
def test_what_the_job_asks_for_is_said_with_the_study_that_it_would_go_on_with(project, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    options = ["--nodes=2", "--gpus-per-node=a100:4", "--requeues=7", "--module=cuda/12.1 gcc"]
    (project / "checkpoints" / "tune" / "mine").mkdir(parents=True)
    (project / "checkpoints" / "tune" / "mine" / "study.json").write_text("{}")
    assert main([*options, "tune", "--name", "mine"]) == 0
    said = capsys.readouterr().out
    assert "it asks for 2 nodes with 4 GPUs each" in said
    assert "note: where there is a study mine, as it seems, the job goes on with it and its own parameters" in said
    assert "the records must exist" not in said, "those of the study are looked for, when it goes on"
    text = Path("mis-tune.sbatch").read_text()
    assert "#SBATCH --gpus-per-node=a100:4" in text
    assert "module load cuda/12.1 gcc || exit 2" in text
    assert "mis.slurm.job --requeues=7 tune" in text


def test_an_environment_that_the_job_would_not_find_is_refused(project, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")  # there is no sbatch
    assert main(["--venv=venv", "tune"]) == 2
    assert f"--venv must name a virtual environment, which has bin/activate, got venv in {project};" in (
        capsys.readouterr().err
    )
    assert not list(project.glob("*.sbatch"))
    for options in (["--venv=/of/the/nodes"], ["--venv=venv", "--setup=python -m venv venv"]):
        assert main([*options, "tune"]) == 0
        assert "/bin/activate here; the job ends where its nodes do not have it" in capsys.readouterr().out
    assert main(["--venv=venv", "--container=apptainer exec mis.sif", "tune"]) == 0


def test_a_study_that_is_to_go_on_must_be_there_and_takes_another_budget_alone(project, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    (project / "checkpoints" / "tune" / "mine").mkdir(parents=True)
    (project / "checkpoints" / "tune" / "mine" / "study.json").write_text("{}")
    for words, says in (
        (["--resume", "yours"], f"must be in {project}/checkpoints/tune, got yours; there is mine;"),
        (["--resume", "mine", "--set", "train.epochs=3"], "a study that goes on may change tune.num_samples"),
        (["--resume", "mine", "--name", "yours"], "--resume takes neither --params, --name nor --dry-run"),
    ):
        assert main(["tune", *words]) == 2
        assert says in capsys.readouterr().err
    assert main(["--array=0-3", "tune", "--resume", "mine"]) == 2
    assert "must have a study of its own, got --resume mine for all; --resume mine-%a" in capsys.readouterr().err
    assert main(["tune", "--resume", "mine", "--set", "tune.num_samples=3"]) == 0


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("command", ["tune", "train", "scaling"])
def test_an_option_that_the_command_does_not_have_is_refused_in_its_name(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--nmae", "x"])
    assert end.value.code == 2
    assert f"python -m mis.{command}" in (said := capsys.readouterr().err)
    assert "--nmae" in said


@pytest.mark.usefixtures("project")
def test_a_search_whose_batch_cannot_be_divided_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert main(["tune", "--set", "train.batch_size=2", "--set", "tune.devices_per_trial=3"]) == 2
    assert "train.batch_size must be a multiple of tune.devices_per_trial = 3" in capsys.readouterr().err


def test_a_job_whose_records_are_to_be_made_yet_is_submitted_after_the_one_that_makes_them(project, sbatch, capsys):
    sbatch("test $1 = --test-only || echo 17")
    assert main(["--submit", "tune"]) == 2
    assert "the records must exist, got none in" in (said := capsys.readouterr().err)
    assert "to submit it all the same, after the job that makes them: --sbatch=--dependency=afterok:JOB" in said
    assert not list(project.glob("*.sbatch"))
    assert main(["--sbatch=--dependency=afterok:16", "--submit", "tune"]) == 0
    assert "submitted: job 17" in capsys.readouterr().out


def test_records_that_are_not_there_yet_are_said(project, monkeypatch, capsys, records):
    monkeypatch.setenv("PATH", "")
    note = "note: as it is now, the job would end with: the records must exist"
    for command in ("tune", "train", "scaling"):
        assert main([command]) == 0
        assert note in capsys.readouterr().out
    (project / "data").mkdir()
    (project / "data" / "records").symlink_to(records.folder)
    assert main(["tune", "--params", str(PARAMS)]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_a_training_takes_all_devices_and_is_refused_where_its_batch_cannot_be_divided(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")  # there is no sbatch
    assert main(["--nodes=2", "--gpus-per-node=4", "train"]) == 2
    assert "train.batch_size must be a multiple of the job's devices" in capsys.readouterr().err
    assert main(["--nodes=2", "--gpus-per-node=4", "train", "--set", "train.batch_size=8"]) == 0
    assert "not checked: there is no sbatch on this machine" in capsys.readouterr().out
    assert 'distribute.workers="$SLURM_JOB_NUM_NODES"' in Path("mis-train.sbatch").read_text()


# ---- In the job ----

JOB = Job("17", "17", None, 0, ("n1", "n2"), "n1")


def words(given, job=JOB, command="tune"):
    return words_of(command, given, job, ["python"])[3:]


def test_a_search_has_the_name_of_its_job_and_goes_on_where_there_is_a_study_of_it():
    assert words(["--set", "a=1"]) == ["--or-resume", "--name", "slurm-17", "--set", "a=1"]
    assert words(["--set", "a=1", "--name=mine"]) == ["--or-resume", "--set", "a=1", "--name=mine"]
    assert words(["--resume", "other"]) == ["--resume", "other"]
    assert words(["--dry-run"]) == ["--dry-run"]


def test_an_element_of_an_array_has_a_name_of_its_own_and_its_number_in_its_words():
    element = Job("20", "17-3", "3", 0, ("n1",), "n1")
    assert words(["--set", "tune.sampler.seed=%a"], element) == [
        "--or-resume",
        "--name",
        "slurm-17-3",
        "--set",
        "tune.sampler.seed=3",
    ]


def test_a_comparison_is_measured_unless_something_else_is_asked_for():
    assert words_of("scaling", ["--set", "a=1"], JOB, ["python"])[2:] == ["mis.scaling", "measure", "--set", "a=1"]
    assert words_of("scaling", [], JOB, ["python"])[2:] == ["mis.scaling", "measure"]
    assert words_of("scaling", ["recommend"], JOB, ["python"])[2:] == ["mis.scaling", "recommend"]


def test_a_training_and_a_pipeline_are_given_again_as_they_are():
    assert words(["--set", "a=1"], command="train") == ["--set", "a=1"]
    assert words_of("repro", ["tune"], JOB, ["python"]) == ["python", "-m", "dvc", "repro", "tune"]


class ScriptedJob(Job):
    """A job that notes when it is queued again."""

    queued = ()

    def state(self):
        return State("RUNNING", "None", 3000, self.nodes)

    def requeue(self):
        type(self).queued = (*self.queued, self.restarts)


class ScriptedNodes:
    """Nodes on which Ray is there at once."""

    head_is_lost = False

    def __init__(self, _, folder, env, **__):
        folder.mkdir(parents=True)
        self.env = dict(env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def look(self):
        """Do nothing."""


@pytest.fixture
def end_turn(tmp_path, monkeypatch):
    """A function that runs a turn of a job whose command ends with a code, and returns that of the batch script."""
    monkeypatch.setattr(mis.slurm.job, "RayNodes", ScriptedNodes)
    monkeypatch.setattr(mis.slurm.job, "HEAD_S", 0.0)
    monkeypatch.setattr(ScriptedJob, "queued", ())
    command = "import sys; sys.exit(int(sys.argv[-1]))"
    monkeypatch.setattr(mis.slurm.job, "words_of", lambda _, given, *__: [sys.executable, "-c", command, *given])
    monkeypatch.setenv("MIS_ROOT", str(tmp_path))

    def end(restarts, code, *options):
        job = ScriptedJob("17", "17", None, restarts, ("n1",), "n1")
        monkeypatch.setattr(Job, "of", lambda _: job)
        return mis.slurm.job.main([*options, "train", str(code)])

    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield end
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_job_in_which_a_node_did_not_answer_is_queued_again_but_not_for_ever(end_turn, capfd):
    assert [end_turn(turn, os.EX_TEMPFAIL) for turn in range(4)] == [0] * 4
    assert ScriptedJob.queued == (0, 1, 2, 3)
    assert "slurm: what the command needs did not answer, see above: once more" in capfd.readouterr().err
    assert end_turn(4, os.EX_TEMPFAIL) == os.EX_TEMPFAIL
    assert ScriptedJob.queued == (0, 1, 2, 3)
    assert "slurm: error: in 5 turns in a row something did not answer, see above; " in capfd.readouterr().err


def test_turns_in_which_the_nodes_answered_do_not_count(end_turn):
    for turn in range(3):
        end_turn(turn, os.EX_TEMPFAIL)
    end_turn(3, 0)  # its time limit came, perhaps
    assert [end_turn(turn, os.EX_TEMPFAIL) for turn in range(4, 8)] == [0] * 4
    end_turn(8, 0)
    assert end_turn(9, os.EX_TEMPFAIL, "--requeues=9") == 1, "queued as often as it may be"


def test_bad_input_and_a_defect_end_a_job_for_good(end_turn):
    assert [end_turn(turn, code) for turn, code in enumerate((2, 1))] == [2, 1]
    assert ScriptedJob.queued == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1:30", 90), ("1:00:00", 3600), ("2-00:00:01", 172801), ("UNLIMITED", None), ("INVALID", None)],
)
def test_times_are_read_as_slurm_writes_them(text, seconds):
    assert seconds_of(text) == seconds


def test_outside_of_a_job_nothing_is_begun():
    with pytest.raises(MisError, match=r"must run in a batch script of SLURM.*submit it: python -m mis.slurm"):
        Job.of({"SLURM_JOB_ID": "3"})


def test_temporary_files_are_of_the_job_and_the_user_alone_and_short_enough_for_sockets(tmp_path, capfd):
    scratch = Path(tempfile.mkdtemp(prefix="m"))  # short, as tmp_path is not
    env = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "2", "TMPDIR": str(scratch / "a")}
    folders = [make_local_folder(env), make_local_folder(env)]
    folders.append(make_local_folder(with_local_disk(env | {"SLURM_TMPDIR": str(scratch / "b")})))
    assert capfd.readouterr().out == ""
    folders.append(make_local_folder(env | {"TMPDIR": str(tmp_path / ("x" * 60))}))
    assert "xx is too long a name for Ray's sockets: Ray's temporary files are in /tmp" in capfd.readouterr().out
    folders.append(make_local_folder(env | {"TMPDIR": "/proc/not-there"}))
    assert "/proc/not-there cannot be used (No such file or directory): Ray's" in capfd.readouterr().out
    try:
        assert len(set(folders)) == 5
        elsewhere = [Path("/tmp")] * 2  # noqa: S108
        assert [folder.parent for folder in folders] == [*[scratch / "a"] * 2, scratch / "b", *elsewhere]
        for folder in folders:
            assert folder.name.startswith("mis-17-2-")
            assert len(str(folder)) <= LONGEST_FOLDER
            assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (os.getuid(), 0o700)
    finally:
        for folder in (scratch, *folders[3:]):
            shutil.rmtree(folder)


def test_two_rays_on_a_node_have_no_port_in_common():
    def ports(head):
        options = dict(word.partition("=")[::2] for word in ray_command("127.0.0.1", Path("t"), "n1", 2, head=head))
        return [value for name, value in options.items() if name.endswith("port")]

    assert ports("10.0.0.1:6000") == ["0"] * 5  # each server takes a free one
    assert not (set(ports(None)) & set(ports(None))) - {"0"}


def test_the_address_is_that_of_the_interface_that_is_named():
    assert own_address({"MIS_INTERFACE": "lo"}) == "127.0.0.1"
    with pytest.raises(MisError, match=r"MIS_INTERFACE must name a network interface .* got ib7; .*lo"):
        own_address({"MIS_INTERFACE": "ib7"})
