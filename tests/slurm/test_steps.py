"""The steps of a job, with a `srun` of the test; tests/cluster starts Ray in real ones."""

import os

import pytest

from mis.errors import WorkerError
from mis.slurm.allocation import Job
from mis.slurm.steps import HEAD_FILE, NOT_JOINED, RayNodes, ToldToEndError
from tests.slurm.test_job import signals

JOB = Job("17", "17", None, 0, ("n1", "n2"), "n1")


@pytest.fixture
def nodes(tmp_path):
    """Return the nodes of a job whose `srun` does what a test says, and the file with what it was given."""

    def made(script, **more):
        srun = tmp_path / "srun"
        srun.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/given\n{script}\n')
        srun.chmod(0o755)
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return RayNodes(JOB, tmp_path / "17-0", env, python=["box", "python"], join_s=20, signals=signals(), **more)

    made.given = tmp_path / "given"
    return made


def test_a_folder_of_an_earlier_job_of_the_same_number_is_no_trouble(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "17-0").mkdir()
    (tmp_path / "17-0" / HEAD_FILE).write_text("10.9.9.9:6379")  # a head that is no more
    with pytest.raises(WorkerError, match="Ray has not started on node n1"), nodes("exit 3"):
        pass
    assert not (tmp_path / "17-0" / HEAD_FILE).exists()


@pytest.mark.parametrize("last_turn", [False, True])
def test_other_nodes_look_for_the_first_one_outside_of_the_container(nodes, tmp_path, monkeypatch, last_turn):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = f"""
    case "$*" in *--head-file*) printf 10.0.0.1:6000 > {tmp_path}/17-0/{HEAD_FILE}; cat > /dev/null;; *) exit 3;; esac
    """
    (tmp_path / "box").write_text("#!/bin/sh\nexec sleep 20\n")  # mis.slurm.joined, which waits
    (tmp_path / "box").chmod(0o755)
    with pytest.raises(WorkerError, match="Ray has not started on node n2"), nodes(script, last_turn=last_turn):
        pass
    head, other = nodes.given.read_text().splitlines()
    assert "box python -m mis.slurm.node --label n1 --head-file" in head
    assert "first_node" not in head
    turn = "--last-turn " if last_turn else ""
    outlives = (
        f"-m mis.slurm.first_node --node n1 --address 10.0.0.1:6000 {turn}-- box python -m mis.slurm.node --label n2"
    )
    assert outlives in other


@pytest.mark.parametrize(("code", "kind"), [(0, ToldToEndError), (1, WorkerError)])
def test_a_step_that_ends_in_order_before_all_have_joined_was_told_to(nodes, tmp_path, monkeypatch, code, kind):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(WorkerError, match="Ray has not started on node n1") as error, nodes(f"exit {code}"):
        pass
    assert type(error.value) is kind


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (NOT_JOINED, "not all nodes have joined Ray within 20 s; the logs of the nodes: "),
        (1, r"mis.slurm.joined could not ask Ray for its nodes \(exit code 1\), see above; the logs"),
    ],
)
def test_a_question_that_fails_is_no_node_that_has_not_joined(nodes, tmp_path, monkeypatch, code, says):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = f'case "$*" in *--head-file*) printf 10.0.0.1:6000 > {tmp_path}/17-0/{HEAD_FILE};; esac; cat > /dev/null'
    (tmp_path / "box").write_text(f"#!/bin/sh\nexit {code}\n")  # mis.slurm.joined
    (tmp_path / "box").chmod(0o755)
    with pytest.raises(WorkerError, match=says), nodes(script):
        pass
