"""Jobs of the real SLURM: submitted as a user does, over two nodes, through a time limit, and without a node."""

import json
import os
import sys

import pytest

from mis.settings import Settings
from mis.slurm.script import SIGNAL_S
from mis.track.base import SCALING, TRAIN
from mis.track.mlflow import MlflowTracker
from mis.tune.study.store import StudyStore
from tests.cluster.conftest import check_whole, epochs_of, hosts, hosts_with_epochs, sets
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def submit(slurm, project, *options, command="tune", words=()):
    """Write and submit a job by `python -m mis.slurm`, and return its number and what was said.

    SLURM gives it a core of each node, unless it asks for more.
    """
    line = [sys.executable, "-m", "mis.slurm", *options, "--submit", command, *words]
    done = project.run(*line, env=slurm.env)
    number = done.stdout.partition("submitted: job ")[2].split()[0]
    return number, done.stdout


def output(project, name):
    """Return what a job has printed."""
    return "\n".join(path.read_text() for path in project.folder.glob(f"slurm-mis-{name}.out"))


def test_a_search_runs_over_two_nodes_and_leaves_nothing_behind(slurm, machines, project):
    number, said = submit(slurm, project, "--nodes=2", "--time=10:00", words=sets())
    assert "checked: Job" in said
    assert f"checkpoints/tune/slurm-{number}" in said
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert job["JobState"] == "COMPLETED", printed
    assert "slurm: Ray runs on n1, n2 with 2 cores" in printed
    store = StudyStore.open(project.folder / "checkpoints" / "tune" / f"slurm-{number}")
    assert [(trial.state, len(trial.history)) for trial in store.trials()] == [("completed", 4)] * 4
    assert hosts(store) == {"n1", "n2"}
    for name in machines.names:
        left = [pid for pid in machines.processes(name) if pid != slurm.daemons[name].pid]
        assert not left, f"{name}: {left}"


LONG = {"tune__epochs": 60, "tune__num_samples": 3}
"""A search that is still running when something is done to it."""


ENDLESS = {"tune__num_samples": 1000, "tune__hours": 0.05}
"""One with more trials than there is time for: its own budget ends it, in its second turn."""


def wait_for_epochs(slurm, project, name, epochs=1):
    """Wait until a trial of a study has written so many epochs."""
    folder = project.folder / "checkpoints" / "tune" / name / "trials"

    slurm.wait(lambda: max(map(epochs_of, folder.glob("*")), default=0) >= epochs, f"epoch {epochs} of {name}")


def test_before_its_time_limit_a_job_is_queued_again_and_goes_on_where_it_was(slurm, project):
    """Two jobs at once; of the second one's limit no signal tells."""
    options = ("--nodes=2", "--time=30:00")
    project.env["MIS_DEVICES"] = "1"  # one trial at a time: two searches go on for minutes
    told, _ = submit(slurm, project, *options, words=sets(**ENDLESS))
    untold, _ = submit(slurm, project, *options, "--sbatch=--signal=B:USR1@0", words=sets(**ENDLESS))
    reasons = {told: "slurm: the time limit is near: the command is ended", untold: "slurm: SIGTERM: the command"}
    for number in reasons:
        wait_for_epochs(slurm, project, f"slurm-{number}")
    slurm.limit_soon(told, SIGNAL_S + 10)
    slurm.limit_soon(untold, 0)
    begun = {}

    def queued_again():
        states = {number: slurm.job(number)["JobState"] for number in reasons.keys() - begun}
        assert "COMPLETED" not in states.values(), "the search has ended before the limit"
        return [number for number, state in states.items() if state == "PENDING"]

    while len(begun) < len(reasons):
        slurm.wait(queued_again, "the jobs to be queued again")
        for number in queued_again():
            printed = output(project, f"tune-{number}")
            assert reasons[number] in printed
            assert "slurm: the job is queued again" in printed
            before = StudyStore.open(project.folder / "checkpoints" / "tune" / f"slurm-{number}")
            assert before.interrupted()
            begun[number] = len(before.journal.numbers())
            slurm.begin_soon(number)
    for number in reasons:
        job = slurm.finish(number)
        printed = output(project, f"tune-{number}")
        assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), printed
        assert "it goes on: " in printed
        assert len(check_whole(project, f"slurm-{number}", 4).trials()) >= begun[number]


@pytest.mark.parametrize(("near_its_limit", "nodes"), [(False, 1), (True, 2)])
def test_a_job_that_is_cancelled_is_not_queued_again(slurm, project, near_its_limit, nodes):
    number, _ = submit(slurm, project, f"--nodes={nodes}", "--time=30:00", words=sets(**LONG))
    name = f"slurm-{number}"
    wait_for_epochs(slurm, project, name)
    if near_its_limit:
        slurm.ask("scontrol", "update", f"JobId={number}", "TimeLimit=3")
        slurm.ask("scancel", "--batch", "--signal=USR1", number)
    slurm.ask("scancel", number)
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), printed
    assert "the job is queued again" not in printed
    slurm.wait(lambda: not slurm.ask("squeue", "--noheader"), "the job's end")
    assert slurm.job(number)["JobState"] == "CANCELLED"
    assert StudyStore.open(project.folder / "checkpoints" / "tune" / name).interrupted()


# SLURM ends a job of the second partition a minute after SIGTERM.
@pytest.mark.parametrize(("partition", "nodes"), [("main", 1), ("polite", 2)])
def test_a_job_that_makes_room_for_another_goes_on_afterwards(slurm, project, partition, nodes):
    where = (f"--nodes={nodes}", f"--partition={partition}")
    number, _ = submit(slurm, project, *where, "--time=30:00", words=sets(**LONG))
    name = f"slurm-{number}"
    wait_for_epochs(slurm, project, name)
    slurm.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=project.folder)
    slurm.wait(lambda: slurm.job(number)["JobState"] == "PENDING", "the job to be queued again")
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), printed
    # In the minute that it is given SIGTERM goes to the steps, that is to Ray, and not to the batch script.
    assert {"main": "slurm: SIGTERM: the command", "polite": "slurm: Ray's head was lost: once more"}[
        partition
    ] in printed
    assert "it goes on: " in printed
    assert len(check_whole(project, name, 60).trials()) == 3


def test_jobs_of_an_array_share_a_node_and_one_that_is_ended_leaves_the_other_alone(slurm, project):
    options = ["--array=0-1", "--sbatch=--nodelist=n1", "--time=30:00"]
    number, _ = submit(slurm, project, *options, words=sets(**LONG))
    names = [f"slurm-{number}-{task}" for task in range(2)]
    for name in names:
        wait_for_epochs(slurm, project, name)
    # As the time limit does. The last element has the number of the whole array.
    first, second = f"{number}_1", f"{number}_0"
    slurm.ask("scancel", "--batch", "--signal=USR1", first)
    slurm.wait(lambda: slurm.job(first)["JobState"] == "PENDING", "the job to be queued again")
    assert slurm.job(second)["JobState"] == "RUNNING"
    assert [slurm.finish(job)["JobState"] for job in (first, second)] == ["COMPLETED", "COMPLETED"]
    assert [slurm.job(job)["Restarts"] for job in (first, second)] == ["1", "0"]
    for task, name in enumerate(names):
        assert len(check_whole(project, name, 60).trials()) == 3
        assert "slurm: Ray runs on n1 with 1 core\n" in output(project, f"tune-{number}_{task}")


PAGE = ROOT / "docs" / "lost_node.md"

TEXT = """\
# A search that lost a node

This is the whole output of a job of the real SLURM: a search with three trials over two nodes, of which one lost its
power after some epochs. SLURM and Ray notice it after 20 s and about a minute (their own settings); the trial that
ran there goes on from its last epoch on the node that is left, and the job ends well. Nothing was done by hand.
`tests/cluster/test_slurm.py` makes such a job each time that it runs, and has written this page. The data are a
phantom.

```
{printed}
```
"""


def write_page(printed, project):
    """Write docs/lost_node.md where MIS_WRITE_PAGES is set; otherwise check that it shows what was seen now too."""
    if os.environ.get("MIS_WRITE_PAGES"):
        shown = printed.replace(str(project.folder), "/shared/project").replace(sys.executable, "python")
        PAGE.write_text(TEXT.format(printed=shown.strip()), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    for line in (
        "srun: error: Node failure on n2",
        "slurm: node n2 has left",
        "goes on from its last epoch",
        "3 of 3 trials",
    ):
        assert line in printed
        assert line in page


def test_a_search_that_loses_a_node_goes_on_without_it(slurm, project):
    number, _ = submit(slurm, project, "--nodes=2", "--time=30:00", words=sets(**LONG))
    name = f"slurm-{number}"
    folder = project.folder / "checkpoints" / "tune" / name
    slurm.wait(lambda: "n2" in hosts_with_epochs(folder, 2), "epochs on the second node")
    slurm.lose("n2")
    ended = {trial.name for trial in StudyStore.open(folder).trials()}
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "0"), printed
    write_page(printed, project)
    store = check_whole(project, name, 60)
    after = [trial for trial in store.folder.trials if trial.path.name not in ended]
    assert {json.loads(trial.started.read_text())["host"] for trial in after} == {"n1"}


def test_a_search_that_loses_its_first_node_goes_on_in_its_next_turn(slurm, machines, project):
    number, _ = submit(slurm, project, "--nodes=2", "--time=30:00", words=sets(**LONG))
    name = f"slurm-{number}"
    folder = project.folder / "checkpoints" / "tune" / name
    slurm.wait(lambda: "n1" in hosts_with_epochs(folder, 2), "epochs on the first node")
    slurm.lose("n1")  # with the batch script, the search and Ray's head
    slurm.wait(lambda: slurm.job(number)["JobState"] == "PENDING", "the job to be queued again")
    machines.join("n1")
    slurm.start_node("n1")
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), printed
    assert "it goes on: " in printed
    assert len(check_whole(project, name, 60).trials()) == 3


def test_a_training_takes_all_devices_of_its_job(slurm, project):
    words = sets(train__epochs=6, train__patience=6, train__batch_size=4)
    # As in a container: what needs the libraries is started through a command.
    container = "--container=env MIS_CONTAINER=yes"
    number, _ = submit(slurm, project, "--nodes=2", "--time=30:00", container, command="train", words=words)
    job = slurm.finish(number)
    printed = output(project, f"train-{number}")
    assert job["JobState"] == "COMPLETED", printed
    assert "slurm: env MIS_CONTAINER=yes python -m mis.train --set distribute.workers=2" in printed
    assert "listen on all interfaces of their nodes and ask for no password" in printed
    settings = Settings(project.folder, project.folder, f"sqlite:///{project.folder}/mlruns/mlflow.db")
    client = MlflowTracker(settings).client
    (run,) = client.search_runs([client.get_experiment_by_name(TRAIN).experiment_id])
    points = client.get_metric_history(run.info.run_id, "time/devices")
    assert [(point.step, point.value) for point in points] == [(epoch, 2.0) for epoch in range(1, 7)]


def test_modes_are_compared_over_the_nodes_of_a_job(slurm, project):
    trials = [{"train.learning_rate": rate} for rate in (0.005, 0.01)]
    words = sets(
        scaling__devices=[1, 2], scaling__modes=["data", "experiment"], scaling__rounds=1, scaling__epochs=1,
        scaling__trials=trials,
    )  # fmt: skip
    number, _ = submit(slurm, project, "--nodes=2", "--time=30:00", command="scaling", words=words)
    job = slurm.finish(number)
    printed = output(project, f"scaling-{number}")
    assert job["JobState"] == "COMPLETED", printed
    assert "speed-up: medians of 1 round" in printed
    settings = Settings(project.folder, project.folder, f"sqlite:///{project.folder}/mlruns/mlflow.db")
    client = MlflowTracker(settings).client
    runs = client.search_runs([client.get_experiment_by_name(SCALING).experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags.get("mis.mode") for run in runs} >= {"data", "experiment"}


def test_a_node_that_does_not_join_is_named(slurm, machines, project):
    # A network that only the first node has.
    made = (
        ["link", "add", "ib0", "type", "veth", "peer", "name", "ib0-peer"],
        ["addr", "add", "10.99.0.1/24", "dev", "ib0"],
        ["link", "set", "ib0", "up"],
    )
    for words in made:
        project.run(*machines.on("n1", "ip", *words))
    project.env["MIS_INTERFACE"] = "ib0"
    number, _ = submit(slurm, project, "--nodes=2", "--time=30:00", "--join-s=60", words=sets())
    job = slurm.finish(number)
    printed = output(project, f"tune-{number}")
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "1:0")
    assert "slurm: error: Ray has not started on node n2" in printed
    assert "MIS_INTERFACE must name a network interface of this node with an IPv4 address, got ib0" in printed


def test_what_a_job_would_refuse_is_refused_before_it_waits_in_the_queue(slurm, project):
    def refused(*options, words=()):
        done = project.run(
            sys.executable, "-m", "mis.slurm", *options, "--submit", "tune", *words, env=slurm.env, check=False
        )
        assert done.returncode == 2
        return done.stderr

    assert "a parameter must exist, got tune.num_sample" in refused(words=["--set", "tune.num_sample=3"])
    assert "--time must be a time as SLURM reads it, got 'tomorrow'" in refused("--time=tomorrow")
    said = refused("--partition=nowhere")
    assert "SLURM must accept mis-tune.sbatch, got allocation failure: Invalid partition name specified; change" in said
    assert slurm.ask("squeue", "--noheader") == ""
    # What is taken as it is reaches SLURM as one word.
    submit(slurm, project, "--account=a b", "--sbatch=--hold", words=sets())
    assert slurm.ask("squeue", "--noheader", "--format=%a") == "a b"
