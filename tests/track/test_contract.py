"""What every tracker does: in memory, in a SQLite file, over http at a real MLflow server, and through an outbox."""

import math
import sys
import time
import uuid
from pathlib import Path

import keras
import numpy as np
import pytest

from mis.settings import load_settings
from mis.track.base import Point, now_ms, tracked
from mis.track.memory import MemoryRun, MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.names import PARENT_RUN_TAG, REGISTERED_FILE
from tests.track.through_outbox import ThroughOutbox, store_of

KINDS = ["memory", "sqlite", "http", "outbox-memory", "outbox-sqlite", "outbox-http"]


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[pytest.mark.slow] if "http" in kind else []) for kind in KINDS]
)
def tracker(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    env = {"MIS_ROOT": str(root)}
    if "http" in request.param:
        env["MLFLOW_TRACKING_URI"] = request.getfixturevalue("server_uri")
    store = MemoryTracker() if "memory" in request.param else MlflowTracker(load_settings(env))
    return ThroughOutbox(root / "outbox", store) if "outbox" in request.param else store


@pytest.fixture
def experiment():
    return f"mis/{uuid.uuid4().hex}"


def read(tracker, run) -> MemoryRun:
    """Read a run back from where it is kept."""
    tracker = store_of(tracker)
    if isinstance(tracker, MemoryTracker):
        return next(kept for kept in tracker.runs if kept.id == run.id)
    client, recorded = tracker.client, tracker.client.get_run(run.id)
    return MemoryRun(
        experiment=client.get_experiment(recorded.info.experiment_id).name,
        name=recorded.info.run_name,
        parent=recorded.data.tags.get(PARENT_RUN_TAG),
        id=run.id,
        params=recorded.data.params,
        tags=recorded.data.tags,
        metrics={
            name: [(point.step, point.value) for point in client.get_metric_history(run.id, name)]
            for name in recorded.data.metrics
        },
        files=read_files(client, run.id),
        datasets=[(given.dataset.name, given.dataset.digest, "") for given in recorded.inputs.dataset_inputs],
        status=recorded.info.status,
    )


def read_files(client, run_id, folder=None) -> dict[str, bytes]:
    files = {}
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            files |= read_files(client, run_id, entry.path)
        else:
            files[entry.path] = Path(client.download_artifacts(run_id, entry.path)).read_bytes()
    return files


def test_a_run_has_what_it_was_started_with(tracker, experiment):
    run = tracker.start_run(experiment, "first", params={"train.epochs": 3, "shape": (1, 2)}, tags={"key": "value"})
    kept = read(tracker, run)
    assert (kept.experiment, kept.name, kept.parent, kept.status) == (experiment, "first", None, "RUNNING")
    assert kept.params == {"train.epochs": "3", "shape": "(1, 2)"}
    assert kept.tags["key"] == "value"


def test_params_are_kept_however_many_and_long(tracker, experiment):
    params = {f"p{index}": index for index in range(250)} | {"long": "x" * 10_000, "none": None, "empty": ""}
    kept = read(tracker, tracker.start_run(experiment, "many", params=params)).params
    assert len(kept) == 253
    assert (kept["p249"], kept["none"], kept["empty"]) == ("249", "None", "")
    assert kept["long"] == "x" * 5997 + "..."


def test_a_param_keeps_its_first_value_and_a_later_one_is_a_tag(tracker, experiment):
    run = tracker.start_run(experiment, "changed", params={"num_samples": 6, "seed": 0, "long": "x" * 7000})
    run.log_params({"num_samples": 12, "seed": 0, "long": "x" * 7000})
    kept = read(tracker, run)
    assert kept.params["num_samples"] == "6"
    assert {name: text for name, text in kept.tags.items() if "changed" in name} == {"mis.changed.num_samples": "12"}


def test_a_later_tag_replaces_an_earlier_one(tracker, experiment):
    run = tracker.start_run(experiment, "tags", tags={"state": "begun"})
    run.set_tags({"state": "done", **{f"t{index}": "x" for index in range(150)}})
    tags = read(tracker, run).tags
    assert (tags["state"], tags["t149"]) == ("done", "x")


def test_metrics_form_a_curve(tracker, experiment):
    run = tracker.start_run(experiment, "curve")
    for step in range(3):
        run.log_metrics({"val/dice": np.float32(0.25 * step), "lr": 1}, step)
    assert read(tracker, run).metrics == {"val/dice": [(0, 0.0), (1, 0.25), (2, 0.5)], "lr": [(0, 1), (1, 1), (2, 1)]}


def test_metrics_that_are_no_numbers_are_kept(tracker, experiment):
    run = tracker.start_run(experiment, "broken")
    run.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf})
    run.log_metrics({"nan": math.nan})
    kept = read(tracker, run).metrics
    assert [math.isnan(value) for _, value in kept["nan"]] == [True]
    assert (kept["up"], kept["down"]) == ([(0, sys.float_info.max)], [(0, -sys.float_info.max)])


def test_more_metrics_than_a_batch_holds(tracker, experiment):
    run = tracker.start_run(experiment, "wide")
    run.log_metrics({f"m{index}": index for index in range(1001)})
    store = store_of(tracker)
    kept = read(store, run).metrics if isinstance(store, MemoryTracker) else store.client.get_run(run.id).data.metrics
    assert len(kept) == 1001


def test_a_training_that_goes_on_does_not_repeat_its_curve(tracker, experiment):
    run = tracker.start_run(experiment, "resumed", tags={"key": "abc"})
    for step, dice in enumerate([0.1, 0.2]):
        run.log_metrics({"dice": dice}, step)
    again = tracker.find_run(experiment, {"key": "abc"})
    for step, dice in enumerate([0.2, 0.3], start=1):
        again.log_metrics({"dice": dice}, step)
        again.log_metrics({"dice": dice}, step)
    again.log_metrics({"dice": 0.4}, 2)
    assert sorted(read(tracker, run).metrics["dice"]) == [(0, 0.1), (1, 0.2), (2, 0.3), (2, 0.4)]


def test_files_lie_in_their_folders(tracker, experiment, tmp_path):
    (tmp_path / "curve.csv").write_text("step,dice\n")
    run = tracker.start_run(experiment, "files")
    run.log_file(tmp_path / "curve.csv")
    run.log_file(tmp_path / "curve.csv", "tables/all")
    assert read(tracker, run).files == {"curve.csv": b"step,dice\n", "tables/all/curve.csv": b"step,dice\n"}


def test_a_dataset_is_recorded_once(tracker, experiment):
    run = tracker.start_run(experiment, "data")
    digest = "0123456789abcdef0123456789abcdef.dir"
    for _ in range(2):
        run.log_dataset("records", digest, "data/records")
    assert [given[:2] for given in read(tracker, run).datasets] == [("records", digest)]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_is_told(tracker, experiment, status):
    run = tracker.start_run(experiment, "ends")
    run.finish(status)
    assert read(tracker, run).status == status


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_tracked_records_how_the_block_ended_and_raises_again(tracker, experiment, error, status):
    run = tracker.start_run(experiment, "breaks")
    with pytest.raises(error), tracked(run):
        raise error
    assert read(tracker, run).status == status


def test_tracked_finishes_a_run(tracker, experiment):
    with tracked(tracker.start_run(experiment, "works")) as run:
        assert read(tracker, run).status == "RUNNING"
    assert read(tracker, run).status == "FINISHED"


def test_a_child_stands_below_its_parent(tracker, experiment):
    study = tracker.start_run(experiment, "study")
    trial = tracker.start_run(experiment, "trial", parent=study.id)
    assert read(tracker, trial).parent == study.id


def test_the_newest_run_with_all_the_tags_is_found_and_runs_again(tracker, experiment):
    tags = {"mis.key": "it's", "kind": "study"}
    old = tracker.start_run(experiment, "old", tags=tags)
    time.sleep(0.005)  # a run's start is kept in milliseconds
    new = tracker.start_run(experiment, "new", tags={**tags, "more": "x"})
    time.sleep(0.005)
    tracker.start_run(experiment, "other", tags={"mis.key": "it's"})
    old.finish()
    new.finish("KILLED")
    found = tracker.find_run(experiment, tags)
    assert found.id == new.id
    assert (read(tracker, new).status, read(tracker, old).status) == ("RUNNING", "FINISHED")


def test_nothing_is_found_where_nothing_fits(tracker, experiment):
    assert tracker.find_run(experiment, {"key": "a"}) is None
    tracker.start_run(experiment, "only", tags={"key": "a"})
    assert tracker.find_run(experiment, {"key": "b"}) is None
    assert tracker.find_run(experiment, {"key": "a", "other": "a"}) is None


def test_the_location_is_one_line(tracker):
    assert len(tracker.location().splitlines()) == 1


def test_a_run_that_is_only_looked_at_stays_as_it_ended(tracker, experiment, tmp_path):
    run = tracker.start_run(experiment, "ended", tags={"key": "a"})
    run.finish("FAILED")
    found = tracker.find_run(experiment, {"key": "a"}, go_on=False)
    (tmp_path / "late.txt").write_text("a file that came later")
    found.log_file(tmp_path / "late.txt")
    assert read(tracker, run).status == "FAILED"
    assert set(read(tracker, run).files) == {"late.txt"}


def test_what_has_ended_is_found_with_its_last_values(tracker, experiment):
    for name, status in (("first", "FINISHED"), ("second", "FAILED"), ("third", "FINISHED")):
        run = tracker.start_run(experiment, name, params={"rate": 1, "norm": "batch"}, tags={"key": "a", "name": name})
        run.log_params({"rate": 2})
        for step, dice in enumerate((0.5, 0.25)):
            run.log_metrics({"dice": dice}, step)
        run.finish(status)
        time.sleep(0.01)  # MLflow sorts by the millisecond
    tracker.start_run(experiment, "running", tags={"key": "a"})
    found = tracker.find_finished(experiment, {"key": "a"})
    assert [run.tags["name"] for run in found] == ["third", "first"]
    assert {name: found[0].params[name] for name in ("rate", "norm")} == {"rate": "2", "norm": "batch"}
    assert found[0].metrics == {"dice": 0.25}
    assert list(tracker.find_finished(f"{experiment}/other", {})) == []


def test_any_run_is_read_by_its_id(tracker, experiment):
    run = tracker.start_run(experiment, "read", params={"rate": 1, "norm": "batch"}, tags={"key": "a"})
    run.log_params({"rate": 2})
    run.log_metrics({"dice": 0.5})
    known = tracker.read_run(run.id)
    assert {name: known.params[name] for name in ("rate", "norm")} == {"rate": "2", "norm": "batch"}
    assert (known.metrics, known.tags["key"]) == ({"dice": 0.5}, "a")
    assert read(tracker, run).status == "RUNNING"


@pytest.mark.parametrize("run_id", ["0" * 32, "no-run", "it's", "../x"])
def test_a_run_that_is_not_there_is_none(tracker, run_id, tmp_path):
    assert tracker.read_run(run_id) is None
    assert tracker.fetch_file(run_id, "a/file.txt", tmp_path) is None


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The file of a Keras model of volumes."""
    image = keras.Input((None, None, None, 4), name="image")
    path = tmp_path_factory.mktemp("network") / "model.keras"
    keras.Model(image, keras.layers.Conv3D(3, 1)(image)).save(path)
    return path


def test_a_model_is_registered_and_found_by_its_number_and_its_alias(tracker, experiment, network, tmp_path):
    name = f"model-{uuid.uuid4().hex}"
    assert tracker.find_model(name, "champion") is None
    assert tracker.find_model(name, "1") is None
    run = tracker.start_run(experiment, "registers")
    first = tracker.register_model(name, run.id, network, {"dice": "0.5"})
    assert (first.version, first.run_id, first.tags) == ("1", run.id, {"dice": "0.5"})
    other = tracker.start_run(experiment, "registers")
    second = tracker.register_model(name, other.id, network, {"dice": "0.6"})
    assert tracker.find_model(name, "champion") is None
    tracker.set_alias(name, "champion", "2")
    assert tracker.find_model(name, "champion") == tracker.find_model(name, "2") == second
    tracker.set_alias(name, "champion", "1")
    assert tracker.find_model(name, "champion") == first
    assert tracker.find_model(name, "3") is None
    fetched = tracker.fetch_file(first.run_id, REGISTERED_FILE, tmp_path)
    assert fetched.read_bytes() == network.read_bytes()


def test_mlflow_knows_a_registered_model_s_signature_and_predicts_with_it(tracker, experiment, network, tmp_path):
    if isinstance(store_of(tracker), MemoryTracker):
        pytest.skip("there is no MLflow")
    import mlflow

    run = tracker.start_run(experiment, "registers")
    name = f"model-{uuid.uuid4().hex}"
    tracker.register_model(name, run.id, network, {})
    folder = tracker.client.download_artifacts(run.id, "registered", str(tmp_path))
    model = mlflow.pyfunc.load_model(folder)
    signature = model.metadata.signature
    assert [spec.inputs[0].shape for spec in (signature.inputs, signature.outputs)] == [
        (-1, -1, -1, -1, 4), (-1, -1, -1, -1, 3),
    ]  # fmt: skip
    batch = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4)).astype(np.float32)
    expected = np.asarray(keras.saving.load_model(network)(batch))
    np.testing.assert_allclose(model.predict(batch), expected, atol=1e-6)


def test_a_file_of_a_run_is_fetched(tracker, experiment, tmp_path):
    (tmp_path / "file.txt").write_text("content")
    run = tracker.start_run(experiment, "files")
    run.log_file(tmp_path / "file.txt", "a")
    run.log_file(tmp_path / "file.txt")
    (tmp_path / "fetched").mkdir()
    for name in ("a/file.txt", "file.txt"):
        path = tracker.fetch_file(run.id, name, tmp_path / "fetched")
        assert path == tmp_path / "fetched" / "file.txt"
        assert path.read_text() == "content"
        path.unlink()
    for name in ("a/none.txt", "none/file.txt", "a"):
        assert tracker.fetch_file(run.id, name, tmp_path / "fetched") is None


def test_an_opened_run_is_found_by_its_key_and_goes_on(tracker, experiment):
    key = {"study": "s", "trial": "3"}
    first = tracker.open_run(experiment, "trial-3", key=key, params={"rate": 1}, tags={"more": "x"})
    first.log_metrics({"dice": 0.5}, 1)
    first.finish("KILLED")
    second = tracker.open_run(experiment, "other name", key=key, params={"rate": 2})
    second.log_metrics({"dice": 0.5}, 1)
    kept = read(tracker, second)
    assert second.id == first.id
    assert (kept.name, kept.status, kept.params["rate"]) == ("trial-3", "RUNNING", "1")
    assert {name: kept.tags[name] for name in ("study", "trial", "more", "mis.changed.rate")} == {
        "study": "s", "trial": "3", "more": "x", "mis.changed.rate": "2",
    }  # fmt: skip
    assert kept.metrics == {"dice": [(1, 0.5)]}


def test_a_run_without_a_key_is_always_a_new_one_and_stands_below_its_parent(tracker, experiment):
    study = tracker.open_run(experiment, "study")
    trials = [tracker.open_run(experiment, "trial", parent=study) for _ in range(2)]
    assert len({study.id, *(trial.id for trial in trials)}) == 3
    assert {read(tracker, trial).parent for trial in trials} == {study.id}


def test_what_is_added_to_a_run_leaves_its_end_as_it_was_or_goes_nowhere(tracker, experiment, tmp_path):
    (tmp_path / "late.txt").write_text("late")
    run = tracker.open_run(experiment, "ended", key={"key": "a"})
    run.finish("FAILED")
    tracker.add_to_run(experiment, {"key": "a"}).log_file(tmp_path / "late.txt", "model")
    tracker.add_to_run(experiment, {"key": "none"}).log_file(tmp_path / "late.txt", "model")
    kept = read(tracker, run)
    assert (kept.status, kept.files) == ("FAILED", {"model/late.txt": b"late"})


def test_a_run_that_has_ended_can_be_told_more(tracker, experiment):
    run = tracker.open_run(experiment, "ended", key={"key": "a"})
    run.finish()
    run.log_metrics({"speedup": 2.0})
    kept = read(tracker, run)
    assert (kept.status, kept.metrics) == ("FINISHED", {"speedup": [(0, 2.0)]})


def deliver(store, experiment, at_ms, **values):
    given = {"key": {"key": "a"}, "params": {}, "tags": {}, "parent": None, "process": {"mis.pid": "4194305"}}
    return store.deliver_run(experiment, "late", at_ms=at_ms, **given | values)


def test_what_is_delivered_later_has_its_own_times(tracker, experiment):
    store = store_of(tracker)
    run = deliver(store, experiment, 1_000_000)
    run.log_points([Point("dice", 0.5, 1, 1_000_100)])
    run.finish("FINISHED", 1_000_200)
    if isinstance(store, MemoryTracker):
        kept = next(kept for kept in store.runs if kept.id == run.id)
        assert (kept.started_ms, kept.ended_ms) == (1_000_000, 1_000_200)
        return
    info = store.client.get_run(run.id).info
    (point,) = store.client.get_metric_history(run.id, "dice")
    assert (info.start_time, point.timestamp, info.end_time) == (1_000_000, 1_000_100, 1_000_200)


def test_a_session_that_goes_on_where_the_clock_is_behind_counts(tracker, experiment):
    """The first session was on a machine whose clock is an hour ahead; both sessions deliver what they log."""
    store, now = store_of(tracker), now_ms()
    first = deliver(store, experiment, now + 3_600_000, tags={"state": "running"}, process={"mis.pid": "4"}, lives=True)
    first.set_tags({"state": "killed"})
    first.finish("KILLED", now + 3_600_001)
    second = deliver(store, experiment, now, tags={"state": "running"}, process={"mis.pid": "5"}, lives=True)
    kept = read(store, second)
    assert (second.id, kept.status, kept.tags["state"], kept.tags["mis.pid"]) == (first.id, "RUNNING", "running", "5")
    second.set_tags({"state": "completed"})
    if not isinstance(store, MemoryTracker):  # which has one object for a run
        late = store.find_run(experiment, {"key": "a"}, go_on=False)
        late.resume_session({"mis.pid": "4"}, now + 3_600_000)
        late.set_tags({"state": "killed", "only": "early"})
        late.finish("KILLED", now + 3_600_001)
        assert read(store, second).status == "RUNNING", "what is late of the first session does not end the second one"
    ending = store.find_run(experiment, {"key": "a"}, go_on=False)  # as by another process, after a kill
    ending.resume_session({"mis.pid": "5"}, now)
    ending.finish("FINISHED", now + 1)
    kept = read(store, second)
    assert (kept.status, kept.tags["state"]) == ("FINISHED", "completed")


def test_what_an_earlier_session_is_late_to_deliver_does_not_undo_a_later_one(tracker, experiment):
    """As where a folder that was copied from elsewhere is delivered after the study has gone on."""
    store = store_of(tracker)
    early = deliver(store, experiment, 1000, tags={"state": "running"})
    early.finish("KILLED", 2000)
    later = deliver(store, experiment, 3000, tags={"state": "completed"}, process={"mis.pid": "5"}, params={"rate": 2})
    assert read(store, later).status == "RUNNING"
    again = deliver(store, experiment, 1000, tags={"state": "running", "only": "early"})
    if not isinstance(store, MemoryTracker):  # which has one object for a run
        again.set_tags({"state": "killed"})
        again.log_params({"rate": 1})
    again.finish("KILLED", 2000)
    kept = read(store, later)
    assert (kept.status, kept.tags["state"], kept.tags["only"], kept.tags["mis.pid"]) == (
        "RUNNING", "completed", "early", "5",
    )  # fmt: skip
    assert "mis.changed.rate" not in kept.tags
    later.finish("FINISHED", 4000)
    deliver(store, experiment, 1000).finish("KILLED", 2000)
    assert read(store, later).status == "FINISHED"
