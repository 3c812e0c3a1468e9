"""`python -m mis.tune` killed again and again, against the same study undisturbed."""

import json
import os
import random
import re
import shutil
import signal

import pytest

from mis.params.load import load_params
from mis.settings import Settings
from mis.track.base import TUNE
from mis.tune import session
from mis.tune.study.store import StudyStore
from tests.conftest import ROOT
from tests.searches import LEARNING_RATE, OURS, kill, recorded, start, tracker_of, wait_until

pytestmark = pytest.mark.slow

TRIALS, EPOCHS, KILLS = 10, 8, 4
FEWER = 8
"""Trials of the study as it is begun; it goes on with more."""
SMALL = (
    "model.depth=1",
    "model.base_filters=4",
    "model.norm=none",
    "train.patience=99",
    f"tune.num_samples={FEWER}",
    f"tune.epochs={EPOCHS}",
    "tune.sampler.name=random",
    "tune.scheduler.name=none",
    LEARNING_RATE,
)


MORE = f"tune.num_samples={TRIALS}"


def epochs_done(project):
    """Return how many epochs the trials of the study have had, those that have ended too."""
    done = 0
    for trial in project.glob("checkpoints/tune/*-*/trials/*"):
        if (trial / "outcome.json").exists():
            done += len(json.loads((trial / "outcome.json").read_text())["history"])
        else:
            done += max((int(path.name[-4:]) for path in trial.glob("epoch-*")), default=0)
    return done


def outcomes(project):
    return {path: path.stat().st_mtime_ns for path in project.glob("checkpoints/tune/*/trials/*/outcome.json")}


def steps(project, run):
    return [point.step for point in tracker_of(project).client.get_metric_history(run.info.run_id, "val/dice")]


def test_a_search_that_is_killed_again_and_again_loses_nothing(warm_searches, project):
    drawn = random.Random(1)  # noqa: S311 - moments, not secrets
    two = {"MIS_DEVICES": "2"}
    process, name, ended = start(warm_searches, project, sets=SMALL, **two), None, {}
    for number in range(KILLS):
        if number % 2:  # before the first trial begins, and Ray has begun
            left = set(project.glob("checkpoints/tune/*-*/ray-*"))
            wait_until(process, lambda left=left: set(project.glob("checkpoints/tune/*-*/ray-*")) - left)
        else:
            wanted = epochs_done(project) + drawn.randint(7, 14)
            wait_until(process, lambda wanted=wanted: epochs_done(project) >= wanted)
        kill(process)
        now = outcomes(project)
        assert ended.items() <= now.items(), "no outcome is written twice"
        ended = now
        (folder,) = project.glob("checkpoints/tune/*-*") or [None]
        name = folder.name if folder else None
        process = (
            start(warm_searches, project, "--resume", name, sets=[MORE], **two)
            if name
            else start(warm_searches, project, sets=SMALL, **two)
        )
    assert 0 < len(ended) < TRIALS, "kills came before, between and after the ends of trials"
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"study {name}; if it is interrupted: python -m mis.tune --resume {name}" in err

    table = re.findall(r"^ *(\d{3}) +(\w+) +(\d+)", out, flags=re.MULTILINE)
    assert [(int(number), state, int(epochs)) for number, state, epochs in table] == [
        (number, "completed", EPOCHS) for number in range(TRIALS)
    ]
    children, parent = recorded(project)
    assert [run.data.tags["mis.trial"] for run in children] == [f"{number:03d}" for number in range(TRIALS)]
    for run in children:
        assert steps(project, run) == list(range(1, EPOCHS + 1))
    assert parent.data.metrics["trials"] == TRIALS

    # What a study without results suggests does not depend on them: so it can be asked without training.
    undisturbed = StudyStore.create(project / "undisturbed", load_params(project / "params.yaml", SMALL))
    for number in range(TRIALS):
        (run,) = [run for run in children if run.data.tags["mis.trial"] == f"{number:03d}"]
        expected = undisturbed.next_trial().values
        assert {name: run.data.params[name] for name in expected} == {key: str(one) for key, one in expected.items()}


@pytest.mark.parametrize(("scheduler", "sampler"), [("asha", "tpe"), ("pbt", "random")])
def test_whoever_stops_or_changes_trials_nothing_is_lost(warm_searches, project, scheduler, sampler):
    """The scheduler is a new one after the kill."""
    trials, epochs = 5, 12
    rate = "{train.learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}}"
    values = ["model.depth=1", "model.base_filters=4", "model.norm=none", "train.patience=99"]
    values += [
        f"tune.num_samples={trials}",
        f"tune.epochs={epochs}",
        f"tune.space={rate}",
        "tune.scheduler.interval_epochs=4",
    ]
    values += [f"tune.scheduler.name={scheduler}", f"tune.sampler.name={sampler}"]
    process = start(warm_searches, project, sets=values, MIS_DEVICES="2")
    wait_until(process, lambda: epochs_done(project) >= 16)
    kill(process)
    (folder,) = project.glob("checkpoints/tune/*-*")
    process = start(warm_searches, project, "--resume", folder.name, MIS_DEVICES="2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    children, parent = recorded(project)
    assert [run.data.tags["mis.trial"] for run in children] == [f"{number:03d}" for number in range(trials)]
    for run in children:
        had = steps(project, run)
        assert had == list(range(1, len(had) + 1))
        assert len(had) == epochs if run.data.tags["mis.state"] == "completed" else 0 < len(had) < epochs
    assert parent.data.metrics["trials"] == trials
    assert 0 < parent.data.metrics["device_utilisation"] <= 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_search_that_is_told_to_end_says_so_in_mlflow(warm_searches, project, number, code):
    many = ["tune.num_samples=50", "tune.epochs=100"]
    process = start(warm_searches, project, "--name", "mine", sets=[*SMALL, *many])
    wait_until(process, lambda: list(project.glob("checkpoints/tune/mine/trials/*/epoch-000[2-9]")))
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "what has ended is kept; go on with python -m mis.tune --resume mine" in err
    runs = tracker_of(project).client.search_runs([tracker_of(project).experiment_id(TUNE)])
    (parent,) = [run for run in runs if "mis.trial" not in run.data.tags]
    assert parent.info.status == "KILLED"
    assert "KILLED" in {run.info.status for run in runs if run is not parent}
    assert "RUNNING" not in {run.info.status for run in runs}


def test_a_study_goes_on_with_its_own_parameters(warm_searches, project):
    process = start(warm_searches, project, "--resume", "any", "--dry-run")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (
        err == "error: a study goes on with its own parameters: --resume takes neither --params, --name nor --dry-run\n"
    )
    StudyStore.create(project / "checkpoints" / "tune" / "mine", load_params(project / "params.yaml"))
    process = start(warm_searches, project, "--resume", "mine", sets=["train.seed=1"])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(
        r"error: a study that goes on may change tune.num_samples, .*, got train.seed; begin a .*\n", err
    )
    process = start(warm_searches, project, "--resume", "any")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"error: a study that goes on must be in .*, got any; there is mine; a new study .*\n", err)


def test_a_search_on_damaged_records_ends_and_goes_on_when_they_are_whole(warm_searches, project, records):
    """Three starts in a row fail on the only node; what has failed there is tried again without being asked for."""
    folder = project / "data" / "records"
    folder.unlink()
    shutil.copytree(records.folder, folder)
    for path in folder.glob("*.tfrecord"):
        path.write_bytes(bytes(path.stat().st_size))
    small = ["model.depth=1", "model.base_filters=4", "model.norm=none", "tune.num_samples=6", "tune.epochs=1"]
    small += [LEARNING_RATE, "tune.scheduler.name=none", "tune.data_memory_share=0"]
    _, err = start(warm_searches, project, "--name", "mine", sets=small).communicate(timeout=300)
    assert re.search(r"^node \S+ is left out: 3 trials in a row failed there before an epoch: \S", err, re.MULTILINE)
    assert re.fullmatch(
        r"error: a trial must come to its first epoch, got 3 in a row that did not on each node that can run one, the "
        r"last on \S+: .*; mend that, and `python -m mis.tune --resume mine` tries them again",
        err.splitlines()[-1],
    )
    for path in records.folder.glob("*.tfrecord"):
        shutil.copy(path, folder)
    out, err = start(warm_searches, project, "--resume", "mine").communicate(timeout=300)
    assert len(re.findall(r"^ *(\d{3}) +completed", out, flags=re.MULTILINE)) == 6, err
    children, _ = recorded(project)
    assert len(children) == 6


def test_a_study_that_other_code_began_is_not_gone_on_with_by_itself(project, records, monkeypatch, capsys):
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    params = load_params(project / "params.yaml", SMALL)
    monkeypatch.setattr(session, "run", lambda store, *_: store)
    own = session.code_version(project)
    folder = session.studies_folder(settings)
    before = StudyStore.create(
        folder / "before", params, records.digest, stage=True
    )  # by a version that did not keep it
    assert session.tune(params, settings, draw=None, go_on=True) == before
    shutil.rmtree(before.path)
    same = StudyStore.create(folder / "same", params, records.digest, stage=True, code=own)
    assert session.tune(params, settings, draw=None, go_on=True) == same
    shutil.rmtree(same.path)
    other = {**own, "commit": "abc", "digest": "0"}
    StudyStore.create(folder / "other", params, records.digest, stage=True, code=other)
    began = session.tune(params, settings, draw=None, go_on=True)
    assert began.name != "other"
    assert began.code == own
    line = capsys.readouterr().err.strip()
    assert line.startswith("study other was begun by other code (commit abc, now ")
    assert line.endswith("a new one begins; `python -m mis.tune --resume other` goes on with it all the same")
    for path in folder.iterdir():
        shutil.rmtree(path)
    StudyStore.create(folder / "other", params, records.digest, stage=True, code={**own, "digest": "0123456789abcdef"})
    began = session.tune(params, settings, draw=None, go_on=True)
    assert began.name != "other"
    files = f"files differ in commit {own['commit']}: sources 01234567, now sources {own['digest'][:8]}"
    assert f"study other was begun by other code ({files}): a new one begins" in capsys.readouterr().err


def test_a_stage_passes_over_what_cannot_be_read_and_what_it_did_not_begin(project, records, monkeypatch, capsys):
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    params = load_params(project / "params.yaml", SMALL)
    monkeypatch.setattr(session, "run", lambda store, *_: store)
    own, folder = session.code_version(project), session.studies_folder(settings)
    names = ("torn", "empty", "by-hand")
    torn, empty, _ = (
        StudyStore.create(folder / name, params, records.digest, stage=name != "by-hand", code=own) for name in names
    )
    torn.next_trial()
    (torn.path / "journal.log").write_bytes(b"\0\0\n")
    (empty.path / "study.json").write_text("")
    first = session.tune(params, settings, draw=None, go_on=True)
    assert first.name not in names
    assert first.began_in_stage
    err = capsys.readouterr().err
    assert f"study torn is passed over: {torn.path}/journal.log must have an entry of Optuna's in each line" in err
    assert f"study empty is passed over: {empty.path}/study.json must be readable" in err
    assert session.tune(params, settings, draw=None, go_on=True) == first, "it goes on with the one that can be read"
    assert not session.tune(params, settings, draw=None).began_in_stage


STAGE = """
import sys
from mis import cli
from pipelines import tune
sys.exit(cli.run(tune.stage, "The stage."))
"""


def test_the_pipeline_takes_a_search_that_it_began_and_a_person_has_finished(warm_searches, project):
    """The hint of a stage is the stage's own command; who resumes it all the same loses nothing."""
    sets = [part for value in (*SMALL, "tune.num_samples=4") for part in ("--set", value)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env |= {"MIS_LEASES": f"{project}/leases", "PYTHONPATH": str(ROOT)}

    def run_stage():
        return warm_searches.start(*sets, source=STAGE, cwd=project, env=env)

    process = run_stage()
    wait_until(process, lambda: outcomes(project))
    kill(process)
    (folder,) = project.glob("checkpoints/tune/*-*")
    out, err = start(warm_searches, project, "--resume", folder.name).communicate(timeout=300)
    assert f"study {folder.name}; if it is interrupted: dvc repro" in err
    assert f"the pipeline began study {folder.name}: `dvc repro` takes its results where" in out
    ended = outcomes(project)
    assert len(ended) == 4
    process = run_stage()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "it goes on: 4 of 4 trials have ended, 4 were begun" in err
    assert outcomes(project) == ended, "no trial ran again"
    assert list(project.glob("checkpoints/tune/*-*")) == [folder]
    assert (project / "models" / "tune.keras").is_file()
    assert not list(project.glob("checkpoints/tune/*/trials/*/epoch-*")), "they were kept for the stage alone"
    assert not StudyStore.open(folder).awaits_stage
    children, parent = recorded(project)
    assert len(children) == parent.data.metrics["trials"] == 4


def test_who_resumes_a_study_of_other_code_is_warned_and_both_commits_are_recorded(warm_searches, project, records):
    small = [*SMALL, "tune.num_samples=1", "tune.epochs=1"]
    params = load_params(project / "params.yaml", small)
    code = {"commit": "abc", "digest": "0"}
    StudyStore.create(project / "checkpoints" / "tune" / "mine", params, records.digest, code=code)
    _, err = start(warm_searches, project, "--resume", "mine", "--retry-failed").communicate(timeout=300)
    assert "warning: other code began this study (commit abc, now " in err
    _, parent = recorded(project)
    assert parent.data.tags["mis.begun_by_commit"] == "abc"
    assert parent.data.tags["mis.git_commit"] != "abc"
    study = project / "checkpoints" / "tune" / "mine" / "study.json"
    commit = parent.data.tags["mis.git_commit"]
    own = {"commit": commit, "digest": "0123456789abcdef"}
    study.write_text(json.dumps({**json.loads(study.read_text()), "code": own}))
    _, err = start(warm_searches, project, "--resume", "mine", sets=["tune.num_samples=2"]).communicate(timeout=300)
    assert f"warning: other code began this study (files differ in commit {commit}: sources 01234567, now" in err
    _, parent = recorded(project)
    assert parent.data.tags["mis.begun_by_commit"] == "sources 01234567"
    _, err = start(warm_searches, project, "--retry-failed").communicate(timeout=60)
    assert err == "error: --retry-failed is for a study that goes on: give it with --resume NAME\n"
