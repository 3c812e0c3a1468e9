"""What a run had and what stands here: real DVC, real MLflow, in a copy of the repository."""

import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from mis.data.records.prepare import find_records
from mis.data.records.reader import read_records
from mis.data.versions.hashing import content_hash
from mis.data.versions.version import Comparison, compare_origin, compare_params, report
from mis.errors import MisError
from mis.params.load import load_params
from mis.settings import load_settings
from mis.track.base import TRAIN, RecordedRun
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.provenance import find_origin
from tests.data.serving import serving

NAME = "Task01_BrainTumour"


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_root):
    """A data set that a test may change."""
    return shutil.copytree(tiny_root, tmp_path_factory.mktemp("scratch") / NAME)


@pytest.fixture
def project(origin, tmp_path):
    return origin.clone(tmp_path / "project")


@pytest.fixture(scope="module")
def linked(origin, tmp_path_factory, data):
    """A project with a linked data set whose records have been made, and with a run of a training."""
    project = origin.clone(tmp_path_factory.mktemp("linked") / "project")
    project.call("link", data)
    project.run("dvc", "repro", "--quiet", "preprocess")
    project.commit("linked")
    project.run_id = train(project)
    return project


def made_from(project):
    """Return the hash of the data set that the pipeline's records were made from."""
    return read_records(project.root / "data" / "records").data_hash


def train(project):
    """Record what a training records of where it comes from, and return the run's id."""
    settings = load_settings({}, project.root)
    params = load_params(project.root / "params.yaml")
    run = MlflowTracker(settings).start_run(TRAIN, "one", params={**params.flatten(), "in_force.kind": "none"})
    find_origin(settings, params.data, made_from(project)).record(run)
    run.finish()
    return run.id


def locked(project, stage, kind, path):
    """Return the hash that a stage has noted in dvc.lock."""
    stages = YAML(typ="safe").load((project.root / "dvc.lock").read_text())["stages"]
    return next(entry["md5"] for entry in stages[stage][kind] if entry["path"] == path)


# ---- Which hash is recorded ----


@pytest.mark.slow
def test_a_linked_folder_is_recorded_with_the_hash_of_its_content(linked):
    root = f"data/raw/{NAME}"
    assert made_from(linked) == locked(linked, "preprocess", "deps", root) == content_hash(linked.root, root)
    assert made_from(linked).endswith(".dir")
    assert str(linked.root.parent.parent) not in (linked.root / "dvc.lock").read_text()


@pytest.mark.slow
def test_an_imported_archive_is_recorded_with_the_hash_of_what_came_out(linked, project, data, tmp_path):
    """It is the same data as the linked one, so it has the same hash."""
    subprocess.run(["tar", "-C", data.parent, "-cf", tmp_path / f"{NAME}.tar", NAME], check=True)
    with serving(tmp_path) as server:
        project.data("import", server.url(f"{NAME}.tar"))
    project.run("dvc", "repro", "--quiet", "preprocess")
    root = f"data/raw/{NAME}"
    assert made_from(project) == locked(project, "preprocess", "deps", root)
    assert made_from(project) == content_hash(project.root, root) == made_from(linked)
    run = MlflowTracker(load_settings({}, project.root)).read_run(train(project))
    assert run.tags["mis.data.dvc_hash"] == made_from(linked)


@pytest.mark.slow
def test_the_phantom_is_recorded_as_what_its_stage_made_and_older_records_as_made_from_the_older_one(project):
    project.run("sed", "-i", r"s/^  cases: [0-9]*/  cases: 4/; s/shape: \[.*\]/shape: [16, 16, 16]/", "params.yaml")
    project.run("dvc", "repro", "--quiet", "preprocess")
    made = locked(project, "phantom", "outs", "data/raw/phantom")
    assert made_from(project) == content_hash(project.root, "data/raw/phantom") == made
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("  seed: 7\n", "  seed: 8\n", 1))
    project.run("dvc", "repro", "--quiet", "phantom")
    assert locked(project, "phantom", "outs", "data/raw/phantom") != made
    run = MlflowTracker(load_settings({}, project.root)).read_run(train(project))
    assert run.tags["mis.data.dvc_hash"] == made


@pytest.mark.slow
def test_a_changed_file_of_a_linked_folder_makes_new_records(linked, data):
    """DVC counts the hash of what is behind the link, and so do we, whatever dvc.lock says."""
    root, changed = f"data/raw/{NAME}", data / "labelsTr" / "extra.txt"
    before = content_hash(linked.root, root)
    changed.write_text("x")
    try:
        assert content_hash(linked.root, root) != before == made_from(linked)
        assert "preprocess" in linked.run("dvc", "status").stdout
    finally:
        changed.unlink()
    assert content_hash(linked.root, root) == before
    assert "preprocess" not in linked.run("dvc", "status", "preprocess").stdout


@pytest.mark.slow
def test_records_made_beside_the_pipelines_are_recorded_with_the_files_they_were_made_from(linked, data):
    """dvc.lock has the hash of the pipeline's own, which may be of older files."""
    root, changed = f"data/raw/{NAME}", data / "labelsTr" / "extra.txt"
    settings = load_settings({}, linked.root)
    params = load_params(linked.root / "params.yaml", ["data.target=whole_tumor"])
    changed.write_text("x")
    try:
        records = read_records(find_records(params.data, settings))
        assert records.data_hash == content_hash(linked.root, root) != made_from(linked)
    finally:
        changed.unlink()
    origin = find_origin(settings, params.data, records.data_hash)
    assert origin.data_hash == origin.tags["mis.data.dvc_hash"] == records.data_hash


# ---- What is said of a run ----


@pytest.mark.slow
def test_where_nothing_has_changed_all_is_the_same(linked):
    done = linked.data("which", linked.run_id)
    assert done.stdout.splitlines() == [
        f"data set:   data/raw/{NAME}  (the same now)",
        f"DVC hash:   {made_from(linked)}  (the same now)",
        f"git commit: {linked.git('rev-parse', 'HEAD')}  (the same now)",
        "params:     the same now",
    ]


@pytest.mark.slow
def test_what_has_changed_is_said_then_and_now(linked, data, params):
    before = content_hash(linked.root, f"data/raw/{NAME}")
    (data / "extra.txt").write_text("x")
    linked.run(
        "sed",
        "-i",
        r"s/^  base_filters: [0-9]*/  base_filters: 12/; s/^  threshold: .*/  threshold: 0.25/",
        "params.yaml",
    )
    try:
        said = linked.call("which", linked.run_id, code=1).stdout.splitlines()
        head, now = linked.git("rev-parse", "HEAD"), content_hash(linked.root, f"data/raw/{NAME}")
    finally:
        (data / "extra.txt").unlink()
        linked.git("checkout", "--quiet", "params.yaml")
    assert said == [
        f"data set:   data/raw/{NAME}  (the same now)",
        f"DVC hash:   {before} -> {now}",
        f"git commit: {head} -> {head}-dirty",
        "params:     2 differ (then -> now)",
        f"  model.base_filters: {params.model.base_filters} -> 12",
        f"  predict.threshold: {params.predict.threshold} -> 0.25",
    ]


@pytest.mark.slow
def test_a_later_commit_is_said_and_whether_the_code_is_another(linked, tmp_path):
    later = linked.clone(tmp_path / "later")
    then = later.git("rev-parse", "HEAD")
    run = RecordedRun({}, {}, {"mis.data.root": "none", "mis.git_commit": then})
    settings, params = load_settings({}, later.root), load_params(later.root / "params.yaml")
    lines = []
    for name in ("results.csv", "mis/new.py"):
        (later.root / name).write_text("1\n")
        later.commit(name)
        commit = compare_origin(run, params, settings)[2]
        assert not commit.same
        lines.append(commit.line().replace(then, "then").replace(later.git("rev-parse", "HEAD"), "now"))
    assert lines == ["git commit: then -> now  (the same code)", "git commit: then -> now"]


@pytest.mark.slow
def test_another_data_set_is_said(linked):
    linked.run("sed", "-i", f"s|data/raw/{NAME}|data/raw/other|", "params.yaml")
    said = linked.call("which", linked.run_id, code=1).stdout
    linked.git("checkout", "--quiet", "params.yaml")
    assert f"data set:   data/raw/{NAME} -> data/raw/other" in said
    assert f"  data.root: data/raw/{NAME} -> data/raw/other" in said
    assert f"DVC hash:   {made_from(linked)} -> no data/raw/other" in said


@pytest.mark.slow
def test_a_run_that_is_not_there_is_said(linked, project):
    assert "a run must be in" in linked.refused("which", "0" * 32)
    assert "a run must be in" in project.refused("which", "0" * 32)
    assert not (project.root / "mlruns" / "mlflow.db").exists()


# ---- The comparison ----


@pytest.fixture
def settings(tmp_path):
    return load_settings({}, tmp_path)


def test_a_run_that_does_not_say_where_it_comes_from_is_refused(params, settings):
    with pytest.raises(MisError, match=r"mis\.data\.root"):
        compare_origin(RecordedRun({}, {}, {}), params, settings)


def test_what_is_not_known_is_not_the_same(params, settings, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(settings.workspace.parent))
    run = RecordedRun({}, {}, {"mis.data.root": params.data.root})
    root, digest, commit = compare_origin(run, params, settings)
    assert root.same
    assert (digest.then, digest.now, digest.same) == ("unknown", f"no {params.data.root}", False)
    assert (commit.then, commit.now, commit.same) == ("unknown", "unknown", False)
    assert "cannot be compared" in commit.line()


def test_only_what_a_run_has_recorded_is_compared(params):
    then = {name: str(value) for name, value in params.flatten().items()}
    then |= {"train.gone": "1", "in_force.batch_size": "8"}
    del then["train.epochs"]
    assert [comparison.line() for comparison in compare_params(RecordedRun(then, {}, {}), params)] == [
        "train.gone: 1 -> nothing"
    ]


def test_values_are_compared_as_they_are_recorded(params):
    tracker, other = MemoryTracker(), params.override({"train.epochs": 7})
    run = tracker.read_run(tracker.start_run(TRAIN, "one", params=other.flatten()).id)
    assert compare_params(run, other) == []
    assert [comparison.name for comparison in compare_params(run, params)] == ["train.epochs"]


def test_a_report_counts_what_differs():
    same, other = Comparison("data set", "a", "a", same=True), Comparison("model.depth", "3", "2", same=False)
    assert report([same], []) == "data set: a  (the same now)\nparams:   the same now"
    assert report([same], [other]).splitlines()[1:] == ["params:   1 differ (then -> now)", "  model.depth: 3 -> 2"]
